//! One segment file: its name, its header, its beginning.
//!
//! ```text
//!    0  8 bytes  "WPSEGMNT"
//!    8  u32      version (1)
//!   12  u64      base      position of the first record
//!   20  u64      marker    random; every frame of this segment starts with it
//!   28  u64      proven    every position below it was durable when the file got its name
//!   36  u32      crc32c of the 36 bytes before
//! 4096           frames
//! ```
//!
//! A damaged header does not take the records with it: the marker is also what the first frame
//! starts with, and the base is the file's name.

use std::{io, io::IoSlice, path::Path, sync::Arc};

use super::{
    Error,
    frame::{HEADER_BYTES, Header, u32_at, u64_at},
    storage::{self, File, Storage},
};

/// Where the frames start: a disk sector away from the header, so that one bad sector never takes
/// both places that hold the marker.
pub(super) const DATA_START: u64 = 4096;

const MAGIC: &[u8; 8] = b"WPSEGMNT";
const VERSION: u32 = 1;
const META_BYTES: usize = 40;
const SUFFIX: &str = ".seg";

/// No journal ever gets there. A name that says more is not ours: from it on, positions would run
/// over.
const MAX_BASE: u64 = 1 << 62;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub base: u64,
    pub marker: u64,
    pub proven: u64,
}

/// What could be read of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Intact(Meta),
    /// The header is damaged; the marker comes from the first frame.
    Rescued(Meta),
    /// Neither the header nor the first frame can be read.
    Unreadable,
}

impl Found {
    pub fn marker(&self) -> Option<u64> {
        match self {
            Found::Intact(meta) | Found::Rescued(meta) => Some(meta.marker),
            Found::Unreadable => None,
        }
    }
}

/// The file name of the segment that starts at `base`.
pub(super) fn file_name(base: u64) -> String {
    format!("{base:020}{SUFFIX}")
}

/// The base in the name of a file that ends so, if one of ours has that name.
pub(super) fn base_of(name: &str, suffix: &str) -> Option<u64> {
    let base = name.strip_suffix(suffix)?.parse().ok()?;
    (base <= MAX_BASE && format!("{base:020}{suffix}") == name).then_some(base)
}

/// The bases of all segments in a directory, lowest first.
pub(super) fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<u64>, Error> {
    let names = storage.list(dir).map_err(Error::io("list", dir))?;
    let mut bases: Vec<u64> = names.iter().filter_map(|name| base_of(name, SUFFIX)).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// A number that no sender can guess.
pub(super) fn new_marker() -> u64 {
    use std::hash::BuildHasher;
    // SipHash under a key from the operating system's random numbers.
    std::hash::RandomState::new().hash_one(std::process::id())
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

/// Reads the header of the segment that starts at `base`.
pub(super) fn read(file: &dyn File, path: &Path, base: u64) -> Result<Found, Error> {
    let mut bytes = [0; META_BYTES];
    let header = storage::read_full(file, 0, &mut bytes);
    if header.is_err() {
        bytes.fill(0);
    }
    let version = u32_at(&bytes, 8);
    if &bytes[..8] == MAGIC && crc32c::crc32c(&bytes[..36]) == u32_at(&bytes, 36) {
        if version != VERSION {
            return Err(Error::UnknownVersion { path: path.to_owned(), version });
        }
        let (marker, proven) = (u64_at(&bytes, 20), u64_at(&bytes, 28));
        if u64_at(&bytes, 12) == base {
            return Ok(Found::Intact(Meta { base, marker, proven }));
        }
    }
    match rescue(file, base) {
        Ok(Some(meta)) => Ok(Found::Rescued(meta)),
        // More likely a layout that is not known than damage in just these four bytes.
        Ok(None) if &bytes[..8] == MAGIC && version != VERSION => {
            Err(Error::UnknownVersion { path: path.to_owned(), version })
        }
        // One place that cannot be read is damage; both, and the disk may be gone for a while.
        Err(error) if header.is_err() => Err(Error::io("read", path)(error)),
        Ok(None) | Err(_) => Ok(Found::Unreadable),
    }
}

/// What the first frame says where the header does not.
fn rescue(file: &dyn File, base: u64) -> io::Result<Option<Meta>> {
    let mut bytes = [0; HEADER_BYTES];
    storage::read_full(file, DATA_START, &mut bytes)?;
    let marker = u64_at(&bytes, 0);
    let first = Header::decode(&bytes, marker).filter(|first| first.position >= base);
    Ok(first.map(|_| Meta { base, marker, proven: base }))
}

fn encode(meta: Meta) -> Vec<u8> {
    let mut out = vec![0; DATA_START as usize];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&meta.base.to_le_bytes());
    out[20..28].copy_from_slice(&meta.marker.to_le_bytes());
    out[28..36].copy_from_slice(&meta.proven.to_le_bytes());
    let crc = crc32c::crc32c(&out[..36]);
    out[36..40].copy_from_slice(&crc.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::storage::RealDisk;

    const META: Meta = Meta { base: 9, marker: 0x1234_5678_9abc_def0, proven: 11 };

    fn written(meta: Meta) -> (tempfile::TempDir, Arc<dyn File>) {
        let dir = tempfile::tempdir().unwrap();
        let frame = Header {
            position: 9,
            time_ms: 1,
            proven: 9,
            payload_len: 0,
            key_count: 0,
            body_crc: 0,
        };
        let file = create(&RealDisk, dir.path(), meta, |file| {
            let bytes = frame.encode(meta.marker);
            storage::write_all(file, DATA_START, &mut [IoSlice::new(&bytes)])
        });
        (dir, file.unwrap())
    }

    fn overwrite(file: &dyn File, offset: u64, bytes: &[u8]) {
        storage::write_all(file, offset, &mut [IoSlice::new(bytes)]).unwrap();
    }

    #[test]
    fn a_segments_name_is_its_base_and_nothing_else_is() {
        for base in [0, 17, MAX_BASE] {
            assert_eq!(base_of(&file_name(base), SUFFIX), Some(base));
        }
        let beyond = file_name(MAX_BASE + 1);
        for name in
            [&*beyond, "17.seg", "00000000000000000017.seg.tmp", "lock", "+0000000000000000017.seg"]
        {
            assert_eq!(base_of(name, SUFFIX), None, "{name}");
        }
    }

    #[test]
    fn a_damaged_header_is_rescued_by_the_first_frame() {
        for at in 0..META_BYTES as u64 {
            let (_dir, file) = written(META);
            assert_eq!(read(&*file, Path::new("x"), 9).unwrap(), Found::Intact(META));
            let mut byte = [0];
            file.read_at(at, &mut byte).unwrap();
            overwrite(&*file, at, &[byte[0] ^ 0x10]);
            let rescued = Meta { proven: 9, ..META };
            assert_eq!(read(&*file, Path::new("x"), 9).unwrap(), Found::Rescued(rescued), "{at}");
        }
    }

    #[test]
    fn without_header_and_first_frame_nothing_can_be_read() {
        let (_dir, file) = written(META);
        overwrite(&*file, 0, b"x");
        overwrite(&*file, DATA_START, b"xxxx");
        assert_eq!(read(&*file, Path::new("x"), 9).unwrap(), Found::Unreadable);
    }

    #[test]
    fn an_unknown_version_is_refused_by_its_number() {
        let (_dir, file) = written(META);
        let mut header = encode(META);
        header[8] = 2;
        let crc = crc32c::crc32c(&header[..36]);
        header[36..40].copy_from_slice(&crc.to_le_bytes());
        overwrite(&*file, 0, &header);
        let error = read(&*file, Path::new("x"), 9).unwrap_err();
        assert!(matches!(error, Error::UnknownVersion { version: 2, .. }), "{error}");
    }
}
