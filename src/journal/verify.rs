//! Reads a journal without opening it, beside the process that has it open: takes no lock, and changes
//! nothing.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Error, Item, Position,
    identity::Identity,
    place,
    scan::{Bounds, Cause, Ending, Region, Scanner, Step},
    segment::{self, DATA_START, Head},
    segments::aside_dir_of,
    sidecar,
    slot::{self, Saved},
    storage::{File, Storage},
};

/// Every record of the journal in `dir`, oldest first, as the files are at this moment. Segments that
/// are removed meanwhile are left out; the newest records may not be durable yet. What the disk cannot
/// read is told as damaged, too.
pub fn read_all(storage: Arc<dyn Storage>, dir: &Path) -> Result<Records, Error> {
    let files = files(&*storage, dir)?;
    let identity = Identity::read(&*storage, dir).ok().flatten();
    Ok(Records { storage, identity, files, walk: None })
}

/// Iterator over a journal's records; ends after the first error.
pub struct Records {
    storage: Arc<dyn Storage>,
    identity: Option<Identity>,
    files: VecDeque<SegmentFile>,
    walk: Option<Walk>,
}

/// A segment's file, and where its range ends, if that is known.
struct SegmentFile {
    base: u64,
    path: PathBuf,
    limit: Option<u64>,
}

impl Iterator for Records {
    type Item = Result<Item, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.item().transpose();
        if matches!(item, Some(Err(_))) {
            self.walk = None;
            self.files.clear();
        }
        item
    }
}

impl Records {
    fn item(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(walk) = &mut self.walk {
                match walk.step() {
                    Some(Met::Record(position, payload)) => {
                        return Ok(Some(Item::Entry(Position(position), payload)));
                    }
                    Some(Met::Region(region)) if region.from < region.to => {
                        let (from, to) = (Position(region.from), Position(region.to));
                        return Ok(Some(Item::Damaged { from, to, why: region.why.to_owned() }));
                    }
                    Some(Met::Region(_)) => continue,
                    None => self.walk = None,
                }
            }
            let Some(file) = self.files.pop_front() else { return Ok(None) };
            self.walk = Walk::open(&*self.storage, self.identity.as_ref(), file)?;
        }
    }
}

/// The segments of a journal, lowest first.
fn files(storage: &dyn Storage, dir: &Path) -> Result<VecDeque<SegmentFile>, Error> {
    let mut files = Vec::new();
    let aside = aside_dir_of(dir);
    // There is none in a journal of the version before.
    for name in storage.list(&aside).unwrap_or_default() {
        if let Some((base, end)) = segment::range_of(&name) {
            files.push(SegmentFile { base, path: aside.join(name), limit: Some(end) });
        }
    }
    files.sort_unstable_by_key(|file| file.base);
    let bases = segment::list(storage, dir)?;
    for (at, base) in bases.iter().enumerate() {
        let path = dir.join(segment::file_name(*base));
        files.push(SegmentFile { base: *base, path, limit: bases.get(at + 1).copied() });
    }
    Ok(files.into())
}

/// A walk over a segment that is not in force.
struct Walk {
    /// `None` where its records cannot be told.
    scanner: Option<Scanner>,
    /// What is wrong with its header.
    header: Option<Region>,
}

enum Met {
    Record(u64, Bytes),
    Region(Region),
}

impl Walk {
    /// `None` if the file is gone.
    fn open(
        storage: &dyn Storage,
        identity: Option<&Identity>,
        SegmentFile { base, path, limit }: SegmentFile,
    ) -> Result<Option<Walk>, Error> {
        let file: Arc<dyn File> = match storage.open_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("open", &path))?,
        };
        let found = segment::read(&*file, &path, base, identity)?;
        let size = file.size().map_err(Error::io("read", &path))?;
        let limit = limit.or(found.trailer.map(|trailer| trailer.end));
        let (end, marker) = (size, found.marker());
        let header = |cause, why| {
            let to = if marker.is_some() { base } else { limit.unwrap_or(base) };
            let (len, is_end) = (if marker.is_some() { DATA_START.min(size) } else { size }, false);
            Region { from: base, to, offset: 0, len, cause, is_end, why }
        };
        let header = match found.head {
            Head::Intact(_) => None,
            Head::Damaged(_) => Some(header(Cause::Damage, "the segment's header is damaged")),
            Head::Unread(_) => {
                Some(header(Cause::ReadError, "the disk cannot read the segment's header"))
            }
        };
        let bounds = Bounds { from: base, limit, offset: DATA_START, end, verify_from: 0 };
        let scanner = marker.map(|marker| Scanner::new(file, marker, bounds));
        Ok(Some(Walk { scanner, header }))
    }

    fn step(&mut self) -> Option<Met> {
        if let Some(header) = self.header.take() {
            return Some(Met::Region(header));
        }
        let scanner = self.scanner.as_mut()?;
        loop {
            let from = scanner.position();
            return Some(match scanner.step() {
                Step::Record(frame) => {
                    let payload = Bytes::copy_from_slice(frame.payload());
                    Met::Record(frame.header.position, payload)
                }
                Step::Note(_) => continue,
                Step::Region(region) => Met::Region(region),
                Step::End(Ending::Unreadable { offset, len, cause }) => {
                    let (to, is_end, why) =
                        (from + 1, false, "no record can be found from here on");
                    Met::Region(Region { from, to, offset, len, cause, is_end, why })
                }
                // The last record may be on its way just now.
                Step::End(Ending::Complete | Ending::Torn { .. }) => return None,
            });
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub file: PathBuf,
    /// Where in the file, and how much; the whole file where that is not told.
    pub offset: u64,
    pub len: u64,
    /// How many records that is, at the most.
    pub records: u64,
    /// Whether the disk could not read it; otherwise it is not what was written.
    pub is_read_error: bool,
    pub why: String,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub segments: u64,
    pub records: u64,
    pub findings: u64,
}

/// Reads all files of the journal in `dir`, and tells what it finds.
pub fn verify(
    storage: &dyn Storage,
    dir: &Path,
    mut tell: impl FnMut(Finding),
) -> Result<Verified, Error> {
    let mut verified = Verified::default();
    let mut found = |verified: &mut Verified, finding| {
        verified.findings += 1;
        tell(finding);
    };
    let whole = |file: PathBuf, is_read_error, why: &str| Finding {
        file,
        offset: 0,
        len: 0,
        records: 0,
        is_read_error,
        why: why.to_owned(),
    };
    let identity = Identity::read(storage, dir);
    let identity_file = dir.join(super::identity::FILE);
    match &identity {
        Ok(Some(_)) => {}
        Ok(None) if storage.open_read(&identity_file).is_err() => {}
        Ok(None) => found(&mut verified, whole(identity_file, false, "the identity is damaged")),
        Err(error) => found(&mut verified, whole(identity_file, true, &error.to_string())),
    }
    let identity = identity.ok().flatten();
    for file in files(storage, dir)? {
        let path = file.path.clone();
        let Some(mut walk) = Walk::open(storage, identity.as_ref(), file)? else { continue };
        verified.segments += 1;
        while let Some(met) = walk.step() {
            match met {
                Met::Record(..) => verified.records += 1,
                Met::Region(region) => {
                    let finding = Finding {
                        offset: region.offset,
                        len: region.len,
                        records: region.to - region.from,
                        ..whole(path.clone(), region.cause == Cause::ReadError, region.why)
                    };
                    found(&mut verified, finding);
                }
            }
        }
    }
    for base in sidecar::list(storage, dir)? {
        let path = dir.join(sidecar::file_name(base));
        let keys = sidecar::open(storage, dir, base)?.and_then(|sidecar| sidecar.keys());
        if keys.is_none() && storage.open_read(&path).is_ok() {
            let is_read_error = !sidecar::is_readable(storage, dir, base);
            found(&mut verified, whole(path, is_read_error, "the keys cannot be read"));
        }
    }
    let places = place::dir_of(dir);
    let names = storage.list(&places).unwrap_or_default();
    let places = names.into_iter().map(|name| places.join(name));
    for path in places.chain([dir.join(place::FLOOR)]) {
        match slot::read(storage, &path)? {
            Some(Saved::Damaged) => {
                found(&mut verified, whole(path, false, "the place is damaged"))
            }
            Some(Saved::Unread(error)) => {
                found(&mut verified, whole(path, true, &error.to_string()));
            }
            Some(Saved::Content(_)) | None => {}
        }
    }
    Ok(verified)
}
