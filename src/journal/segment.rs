//! One segment file: its name, its header, its trailer.
//!
//! ```text
//!    0  8 bytes  "WPSEGMNT"
//!    8  u32      version (2; 1 has no trailer and no notes)
//!   12  u64      base      position of the first record
//!   20  u64      marker    every frame of this segment starts with it
//!   28  u64      proven    every position below it was durable when the file got its name
//!   36  u32      crc32c of the 36 bytes before
//! 4096           frames
//!  end  the trailer of a closed segment, 44 bytes: fewer than a frame's header, so that one which
//!       was not written whole can be told from frames that are lost
//!       0  4 bytes  "WPTR"
//!       4  u32      version (2)
//!       8  u64      base
//!      16  u64      marker
//!      24  u64      end       one past the last record; all below it was durable
//!      32  u32      newest_s  newest time among its records, in seconds; 0 if it has none
//!      36  u32      unsure    so many positions below `end` may never have been given
//!      40  u32      crc32c of the 40 bytes before
//! ```
//!
//! A damaged head does not take the records with it: the base is the file's name, and the marker is
//! in the trailer, too, in each frame, and follows from the journal's [identity](super::identity).

use std::{io, io::IoSlice, path::Path, sync::Arc};

use super::{
    Error,
    frame::{HEADER_BYTES, Header, u32_at, u64_at},
    identity::Identity,
    storage::{self, File, Storage},
    window::{CHUNK_BYTES, Window},
};

/// Where the frames start: a disk sector away from the header.
pub(super) const DATA_START: u64 = 4096;

/// Length of a trailer.
pub(super) const TRAILER_BYTES: u64 = 44;

const MAGIC: &[u8; 8] = b"WPSEGMNT";
const TRAILER_MAGIC: &[u8; 4] = b"WPTR";
const META_BYTES: usize = 40;
const SUFFIX: &str = ".seg";

/// The version before the present one.
pub(super) const PLAIN: u32 = 1;

/// The newest version: with trailers, and notes.
pub(super) const VERSION: u32 = 2;

/// No journal ever gets there. A name that says more is not ours: from it on, positions would run
/// over.
const MAX_BASE: u64 = 1 << 62;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub version: u32,
    pub base: u64,
    pub marker: u64,
    pub proven: u64,
}

/// What a segment's trailer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trailer {
    pub base: u64,
    pub marker: u64,
    pub end: u64,
    /// Rounded up to a second.
    pub newest_ms: u64,
    /// So many positions below `end` may never have been given: what lies there could not be read
    /// when the segment was closed.
    pub unsure: u64,
}

/// What could be read of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub head: Head,
    pub trailer: Option<Trailer>,
}

/// See [`Found`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Intact(Meta),
    /// The header is damaged; the marker comes from elsewhere.
    Damaged(Option<u64>),
    /// The disk cannot read at present the header, or what the marker of a damaged one could come
    /// from; the marker comes from elsewhere.
    Unread(Option<u64>),
}

impl Found {
    /// The segment's marker, if it is known from anywhere.
    pub fn marker(&self) -> Option<u64> {
        match self.head {
            Head::Intact(meta) => Some(meta.marker),
            Head::Damaged(marker) | Head::Unread(marker) => marker,
        }
    }

    /// What the header says was durable; from a damaged one, nothing.
    pub fn proven(&self) -> u64 {
        match self.head {
            Head::Intact(meta) => meta.proven,
            Head::Damaged(_) | Head::Unread(_) => 0,
        }
    }
}

/// The file name of the segment that starts at `base`.
pub(super) fn file_name(base: u64) -> String {
    format!("{base:020}{SUFFIX}")
}

/// The file name of a segment that lies outside of its row: it says where its range ends, too.
pub(super) fn file_name_of(base: u64, end: u64) -> String {
    format!("{base:020}-{end:020}{SUFFIX}")
}

/// The base in the name of a file that ends so, if one of ours has that name.
pub(super) fn base_of(name: &str, suffix: &str) -> Option<u64> {
    let base = name.strip_suffix(suffix)?.parse().ok()?;
    (base <= MAX_BASE && format!("{base:020}{suffix}") == name).then_some(base)
}

/// The base and the end in the name of a segment that lies outside of its row.
pub(super) fn range_of(name: &str) -> Option<(u64, u64)> {
    let (base, end) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let (base, end) = (base.parse().ok()?, end.parse().ok()?);
    (base <= end && end <= MAX_BASE && file_name_of(base, end) == name).then_some((base, end))
}

/// The bases of all segments in a directory, lowest first.
pub(super) fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<u64>, Error> {
    let names = storage.list(dir).map_err(Error::io("list", dir))?;
    let mut bases: Vec<u64> = names.iter().filter_map(|name| base_of(name, SUFFIX)).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// Creates a segment durably, with what `write` puts after its header.
pub(super) fn create(
    storage: &dyn Storage,
    dir: &Path,
    meta: Meta,
    write: impl FnOnce(&dyn File) -> io::Result<()>,
) -> Result<Arc<dyn File>, Error> {
    storage::publish(storage, dir, &file_name(meta.base), |file| {
        storage::write_all(file, 0, &mut [IoSlice::new(&encode(meta))])?;
        write(file)
    })
}

/// Reads header and trailer of the segment that starts at `base`. Where the header is damaged, its
/// marker is looked for: by the journal's identity, if a frame bears that out, then in the trailer,
/// then in the first frame. A trailer is believed only for its marker: the last bytes of a segment
/// that was not closed are a sender's, who may write a trailer there.
pub(super) fn read(
    file: &dyn File,
    path: &Path,
    base: u64,
    identity: Option<&Identity>,
) -> Result<Found, Error> {
    let trailer = read_trailer(file).filter(|trailer| trailer.base == base);
    let mut bytes = [0; META_BYTES];
    let header = storage::read_full(file, 0, &mut bytes);
    if header.is_err() {
        bytes.fill(0);
    }
    let version = u32_at(&bytes, 8);
    let is_ours = &bytes[..8] == MAGIC;
    let is_known = (PLAIN..=VERSION).contains(&version);
    if is_ours && crc32c::crc32c(&bytes[..36]) == u32_at(&bytes, 36) {
        if !is_known {
            return Err(Error::UnknownVersion { path: path.to_owned(), version });
        }
        let (marker, proven) = (u64_at(&bytes, 20), u64_at(&bytes, 28));
        if u64_at(&bytes, 12) == base {
            let trailer = trailer.filter(|trailer| trailer.marker == marker);
            let head = Head::Intact(Meta { version, base, marker, proven });
            return Ok(Found { head, trailer });
        }
    }
    let own = identity.map(|identity| identity.marker(base));
    let borne_out = own.filter(|marker| holds(file, *marker, base));
    let trailer = trailer.filter(|trailer| match borne_out {
        Some(marker) => trailer.marker == marker,
        None => own == Some(trailer.marker) || holds(file, trailer.marker, base),
    });
    let marker =
        borne_out.or(trailer.map(|trailer| trailer.marker)).or_else(|| first_marker(file, base));
    // More likely a layout that is not known than damage in just these four bytes.
    if marker.is_none() && is_ours && !is_known {
        return Err(Error::UnknownVersion { path: path.to_owned(), version });
    }
    let is_unread = header.is_err() || marker.is_none() && !is_readable(file);
    let head = if is_unread { Head::Unread(marker) } else { Head::Damaged(marker) };
    Ok(Found { head, trailer })
}

/// The trailer at the end of a file, if an intact one is there that the disk can read.
pub(super) fn read_trailer(file: &dyn File) -> Option<Trailer> {
    trailer_before(file, file.size().ok()?)
}

/// The trailer that ends at `end`, likewise.
pub(super) fn trailer_before(file: &dyn File, end: u64) -> Option<Trailer> {
    let at = end.checked_sub(TRAILER_BYTES)?;
    let mut bytes = [0; TRAILER_BYTES as usize];
    let read = storage::read_full(file, at, &mut bytes).ok()?;
    let intact = read == bytes.len()
        && &bytes[..4] == TRAILER_MAGIC
        && u32_at(&bytes, 4) == VERSION
        && u32_at(&bytes, 40) == crc32c::crc32c(&bytes[..40]);
    intact.then(|| Trailer {
        base: u64_at(&bytes, 8),
        marker: u64_at(&bytes, 16),
        end: u64_at(&bytes, 24),
        newest_ms: u64::from(u32_at(&bytes, 32)) * 1000,
        unsure: u64::from(u32_at(&bytes, 36)),
    })
}

impl Trailer {
    pub fn encode(&self) -> [u8; TRAILER_BYTES as usize] {
        let mut out = [0; TRAILER_BYTES as usize];
        out[..4].copy_from_slice(TRAILER_MAGIC);
        out[4..8].copy_from_slice(&VERSION.to_le_bytes());
        for (at, field) in (8..).step_by(8).zip([self.base, self.marker, self.end]) {
            out[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        for (at, field) in [(32, self.newest_ms.div_ceil(1000)), (36, self.unsure)] {
            let field = u32::try_from(field).unwrap_or(u32::MAX);
            out[at..at + 4].copy_from_slice(&field.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..40]);
        out[40..].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// Whether a frame with this marker, of a position from `base` on, can be found in the file.
fn holds(file: &dyn File, marker: u64, base: u64) -> bool {
    let Ok(end) = file.size() else { return false };
    let (mut window, mut at) = (Window::default(), DATA_START.min(end));
    while let Some(found) = window.find(file, at, end, &marker.to_le_bytes()) {
        let head = window.get(file, found, HEADER_BYTES as u64, end);
        if Header::decode(head, marker).is_some_and(|header| header.position >= base) {
            return true;
        }
        at = found + 1;
    }
    false
}

/// Whether the disk can read all of a file at present.
fn is_readable(file: &dyn File) -> bool {
    let Ok(end) = file.size() else { return false };
    let (mut window, mut at) = (Window::default(), 0);
    while at < end {
        window.load(file, at, CHUNK_BYTES, end);
        at += CHUNK_BYTES;
    }
    window.is_readable(0, end)
}

/// The marker of the first frame, where that is intact.
fn first_marker(file: &dyn File, base: u64) -> Option<u64> {
    let mut bytes = [0; HEADER_BYTES];
    storage::read_full(file, DATA_START, &mut bytes).ok()?;
    let marker = u64_at(&bytes, 0);
    let first = Header::decode(&bytes, marker).filter(|first| first.position >= base);
    first.map(|_| marker)
}

fn encode(meta: Meta) -> Vec<u8> {
    let mut out = vec![0; DATA_START as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&meta.version.to_le_bytes());
    out[12..20].copy_from_slice(&meta.base.to_le_bytes());
    out[20..28].copy_from_slice(&meta.marker.to_le_bytes());
    out[28..36].copy_from_slice(&meta.proven.to_le_bytes());
    let crc = crc32c::crc32c(&out[..36]);
    out[36..40].copy_from_slice(&crc.to_le_bytes());
    out
}

#[cfg(test)]
mod tests;
