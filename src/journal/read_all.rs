//! Reads a journal without opening it, beside the process that has it open.

use std::{collections::VecDeque, io, path::Path, path::PathBuf, sync::Arc};

use bytes::Bytes;

use super::{
    Error, Item, Position,
    scan::{Bounds, Ending, Scanner, Step},
    segment::{self, DATA_START},
    storage::Storage,
};

/// Every record of the journal in `dir`, oldest first, as the files are at this moment. Takes no
/// lock, changes nothing, and reports damage only as items. Segments that are released meanwhile
/// are left out; the newest records may not be durable yet.
pub fn read_all(storage: Arc<dyn Storage>, dir: &Path) -> Result<Records, Error> {
    let bases = segment::list(&*storage, dir)?.into();
    Ok(Records { storage, dir: dir.to_owned(), bases, scanner: None, next: None })
}

/// Iterator over a journal's records; ends after the first error.
pub struct Records {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    bases: VecDeque<u64>,
    scanner: Option<(Scanner, PathBuf)>,
    /// A segment that cannot be read is one item.
    next: Option<Item>,
}

impl Iterator for Records {
    type Item = Result<Item, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.item().transpose();
        if matches!(item, Some(Err(_))) {
            (self.scanner, self.next) = (None, None);
            self.bases.clear();
        }
        item
    }
}

impl Records {
    fn item(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.next.take() {
                return Ok(Some(item));
            }
            if let Some((scanner, path)) = &mut self.scanner {
                if let Some(item) = step(scanner).map_err(Error::io("read", path))? {
                    return Ok(Some(item));
                }
                self.scanner = None;
            }
            let Some(base) = self.bases.pop_front() else { return Ok(None) };
            self.open(base)?;
        }
    }

    fn open(&mut self, base: u64) -> Result<(), Error> {
        let path = self.dir.join(segment::file_name(base));
        let file = match self.storage.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("open", &path))?,
        };
        let limit = self.bases.front().copied();
        let Some(marker) = segment::read(&*file, &path, base)?.marker() else {
            self.next = limit.map(|to| Item::Damaged {
                from: Position(base),
                to: Position(to),
                why: "the segment's header and first record are damaged".to_owned(),
            });
            return Ok(());
        };
        let end = file.size().map_err(Error::io("read", &path))?;
        let bounds = Bounds { from: base, limit, offset: DATA_START, end, verify_from: 0 };
        self.scanner = Some((Scanner::new(file, marker, bounds), path));
        Ok(())
    }
}

fn step(scanner: &mut Scanner) -> io::Result<Option<Item>> {
    let from = scanner.position();
    Ok(match scanner.step()? {
        Step::Frame(frame) => {
            let payload = Bytes::copy_from_slice(frame.payload());
            Some(Item::Entry(Position(frame.header.position), payload))
        }
        Step::Damage(region) => Some(Item::Damaged {
            from: Position(region.from),
            to: Position(region.to),
            why: region.why.to_owned(),
        }),
        Step::End(Ending::Unreadable { .. }) => Some(Item::Damaged {
            from: Position(from),
            to: Position(from + 1),
            why: "no record can be found from here on".to_owned(),
        }),
        // The last record may be on its way just now.
        Step::End(Ending::Complete | Ending::Torn { .. }) => None,
    })
}
