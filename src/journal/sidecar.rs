//! The keys of one closed segment, in a file of their own that outlives it: what was appended is
//! still known after the segment is gone.
//!
//! ```text
//!  0  8 bytes  "WPKEYSET"
//!  8  u32      version (1)
//! 12  u64      base        of the segment
//! 20  u64      count
//! 28  u64      newest_ms   the newest time among them
//! 36  u32      crc32c of the keys
//! 40  u32      crc32c of the 40 bytes before
//! 44           keys: 16 bytes and a u64 time_ms each, in the order of their records
//! ```
//!
//! Only keys of durable records are ever in one: a key that is known without its record would let
//! a sender's retry be answered as a duplicate of nothing.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Error, Key,
    frame::{u32_at, u64_at},
    segment,
    storage::{self, File, Storage},
};

const MAGIC: &[u8; 8] = b"WPKEYSET";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 44;
const ITEM_BYTES: usize = 24;
const SUFFIX: &str = ".keys";

/// A key and the time of its record, milliseconds since the Unix epoch.
pub(super) type TimedKey = (Key, u64);

/// A sidecar whose head is intact.
pub(super) struct Sidecar {
    /// The newest time among the keys; 0 if there are none.
    pub newest_ms: u64,
    /// Number of keys.
    pub count: u64,
    items_crc: u32,
    file: Arc<dyn File>,
    path: PathBuf,
}

/// The file name of the keys of the segment that starts at `base`.
pub(super) fn file_name(base: u64) -> String {
    format!("{base:020}{SUFFIX}")
}

/// The bases of all sidecars in a directory.
pub(super) fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<u64>, Error> {
    let names = storage.list(dir).map_err(Error::io("list", dir))?;
    Ok(names.iter().filter_map(|name| segment::base_of(name, SUFFIX)).collect())
}

/// Writes the keys of a segment durably, over what was there.
pub(super) fn write(
    storage: &dyn Storage,
    dir: &Path,
    base: u64,
    keys: &[TimedKey],
) -> Result<(), Error> {
    let bytes = encode(base, keys);
    storage::publish(storage, dir, &file_name(base), |file| {
        storage::write_all(file, 0, &mut [IoSlice::new(&bytes)])
    })?;
    Ok(())
}

/// Opens the sidecar of the segment at `base`; `None` if there is none, or not an intact one that
/// the disk can read.
pub(super) fn open(storage: &dyn Storage, dir: &Path, base: u64) -> Result<Option<Sidecar>, Error> {
    let path = dir.join(file_name(base));
    let file = match storage.open_read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("open", &path))?,
    };
    let mut head = [0; HEAD_BYTES];
    let read = match storage::read_full(&*file, 0, &mut head) {
        Ok(read) => read,
        Err(error) => {
            unreadable(&path, &error);
            return Ok(None);
        }
    };
    let intact = read == HEAD_BYTES
        && &head[..8] == MAGIC
        && crc32c::crc32c(&head[..40]) == u32_at(&head, 40);
    if !intact {
        return Ok(None);
    }
    let version = u32_at(&head, 8);
    if version != VERSION {
        return Err(Error::UnknownVersion { path, version });
    }
    let (count, newest_ms, items_crc) = (u64_at(&head, 20), u64_at(&head, 28), u32_at(&head, 36));
    let len = file.size().map_err(Error::io("read", &path))?;
    let complete = u64_at(&head, 12) == base
        && count.checked_mul(ITEM_BYTES as u64) == len.checked_sub(HEAD_BYTES as u64);
    Ok(complete.then_some(Sidecar { newest_ms, count, items_crc, file, path }))
}

/// Whether the disk can read all of a sidecar, damaged or not.
pub(super) fn is_readable(storage: &dyn Storage, dir: &Path, base: u64) -> bool {
    let read = storage.open_read(&dir.join(file_name(base))).and_then(|file| {
        let mut bytes = vec![0; file.size()? as usize];
        storage::read_full(&*file, 0, &mut bytes)
    });
    read.is_ok()
}

fn unreadable(path: &Path, error: &io::Error) {
    tracing::error!(file = %path.display(), %error, "the keys of a segment cannot be read");
}

impl Sidecar {
    /// The keys, oldest first; `None` if they are damaged or the disk cannot read them.
    pub fn keys(&self) -> Option<Vec<TimedKey>> {
        // The count was checked against the file's length, so this is no larger than the file.
        let mut bytes = vec![0; self.count as usize * ITEM_BYTES];
        if let Err(error) = storage::read_full(&*self.file, HEAD_BYTES as u64, &mut bytes) {
            unreadable(&self.path, &error);
            return None;
        }
        if crc32c::crc32c(&bytes) != self.items_crc {
            return None;
        }
        let (items, _) = bytes.as_chunks::<ITEM_BYTES>();
        Some(items.iter().map(decode_item).collect())
    }
}

fn decode_item(item: &[u8; ITEM_BYTES]) -> TimedKey {
    let mut key = Key::default();
    key.copy_from_slice(&item[..16]);
    (key, u64_at(item, 16))
}

fn encode(base: u64, keys: &[TimedKey]) -> Vec<u8> {
    let mut out = vec![0; HEAD_BYTES];
    for (key, time_ms) in keys {
        out.extend_from_slice(key);
        out.extend_from_slice(&time_ms.to_le_bytes());
    }
    let newest_ms = keys.iter().map(|(_, time_ms)| *time_ms).max().unwrap_or(0);
    let items_crc = crc32c::crc32c(&out[HEAD_BYTES..]);
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&base.to_le_bytes());
    out[20..28].copy_from_slice(&(keys.len() as u64).to_le_bytes());
    out[28..36].copy_from_slice(&newest_ms.to_le_bytes());
    out[36..40].copy_from_slice(&items_crc.to_le_bytes());
    let crc = crc32c::crc32c(&out[..40]);
    out[40..44].copy_from_slice(&crc.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::storage::RealDisk;

    const KEYS: [TimedKey; 3] = [([1; 16], 100), ([2; 16], 300), ([3; 16], 200)];

    fn read(dir: &Path, base: u64) -> Option<Vec<TimedKey>> {
        open(&RealDisk, dir, base).unwrap().and_then(|sidecar| sidecar.keys())
    }

    #[test]
    fn keys_come_back_in_order_with_their_times() {
        let dir = tempfile::tempdir().unwrap();
        write(&RealDisk, dir.path(), 7, &KEYS).unwrap();
        assert_eq!(read(dir.path(), 7), Some(KEYS.to_vec()));
        assert_eq!(open(&RealDisk, dir.path(), 7).unwrap().unwrap().newest_ms, 300);
        assert_eq!(list(&RealDisk, dir.path()).unwrap(), [7]);
        assert_eq!(read(dir.path(), 8), None);
        write(&RealDisk, dir.path(), 7, &[]).unwrap();
        assert_eq!(read(dir.path(), 7), Some(vec![]));
    }

    #[test]
    fn a_damaged_or_cut_sidecar_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file_name(7));
        let bytes = encode(7, &KEYS);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(read(dir.path(), 7), None, "byte {at}");
            std::fs::write(&path, &bytes[..at]).unwrap();
            assert_eq!(read(dir.path(), 7), None, "{at} bytes");
        }
    }
}
