//! Reads what can still be read of a segment that is no longer in force: one in quarantine, one that
//! stands aside, or a copy that somebody made of one.

use std::path::Path;

use bytes::Bytes;

use super::{
    Error, Key,
    identity::Identity,
    known::{self, Known},
    scan::{Bounds, Scanner, Step},
    segment::{self, DATA_START},
    storage::{self, Storage},
};

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    pub payload: Bytes,
    pub keys: Vec<Key>,
    /// Time of the record, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// Whether it was lost to somebody, as far as what is written beside the segment says; `None` if
    /// nothing is.
    pub was_lost: Option<bool>,
}

/// The records that can be read in a segment's file, in order, and how many regions cannot.
pub fn salvage(
    storage: &dyn Storage,
    path: &Path,
    mut take: impl FnMut(Salvaged) -> Result<(), Error>,
) -> Result<u64, Error> {
    let file = storage.open_read(path).map_err(Error::io("open", path))?;
    let size = file.size().map_err(Error::io("read", path))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let trailer = segment::read_trailer(&*file);
    let range = segment::range_of(name)
        .map(|(base, end)| (base, Some(end)))
        .or_else(|| segment::base_of(name, ".seg").map(|base| (base, None)))
        .or_else(|| trailer.map(|trailer| (trailer.base, Some(trailer.end))));
    let Some((base, end)) = range else {
        return Err(Error::NotASegment { path: path.to_owned() });
    };
    let identity = identity_near(storage, path);
    let found = segment::read(&*file, path, base, identity.as_ref())?;
    let Some(marker) = found.marker() else {
        return Err(Error::NotASegment { path: path.to_owned() });
    };
    let known = known_beside(storage, path, base);
    let limit = end.or(found.trailer.map(|trailer| trailer.end));
    let bounds = Bounds { from: base, limit, offset: DATA_START, end: size, verify_from: 0 };
    let mut scanner = Scanner::new(file, marker, bounds);
    let mut unreadable = 0;
    loop {
        match scanner.step() {
            Step::Record(frame) => {
                let position = frame.header.position;
                let is_in = |known: &Known| (known.from..known.to).contains(&position);
                take(Salvaged {
                    payload: Bytes::copy_from_slice(frame.payload()),
                    keys: frame.keys().to_vec(),
                    time_ms: frame.header.time_ms,
                    was_lost: known.as_ref().map(|known| known.iter().any(|k| k.lost && is_in(k))),
                })?;
            }
            Step::Note(_) => {}
            Step::Region(_) => unreadable += 1,
            Step::End(_) => return Ok(unreadable),
        }
    }
}

/// The identity of the journal that a file lies in, or in a directory of.
fn identity_near(storage: &dyn Storage, path: &Path) -> Option<Identity> {
    let dirs = path.ancestors().skip(1).take(2);
    dirs.filter_map(|dir| Identity::read(storage, dir).ok().flatten()).next()
}

/// What is written down of its damage.
fn known_beside(storage: &dyn Storage, path: &Path, base: u64) -> Option<Vec<Known>> {
    let beside = path.with_extension(&known::SUFFIX[1..]);
    let by_base = path.with_file_name(known::file_name(base));
    let file = storage.open_read(&beside).or_else(|_| storage.open_read(&by_base)).ok()?;
    let mut bytes = vec![0; usize::try_from(file.size().ok()?).ok()?];
    let read = storage::read_full(&*file, 0, &mut bytes).ok()?;
    Some(known::decode(&bytes[..read]))
}
