//! Damage is said once, loudly, and its bytes are kept for whoever can make sense of them.

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    lock,
    scan::Region,
    segment,
    storage::{self, File, Storage},
    window::BLOCK_BYTES,
};

/// All damaged bytes that are kept. Damage is rare and small; a broken disk must not fill itself.
const QUARANTINE_BYTES: u64 = 256 << 20;

/// Regions remembered as reported; past it, one may be reported by each reader that meets it.
const REPORTED_REGIONS: usize = 1024;

/// The directory `quarantine/` of a journal.
pub(super) struct Quarantine {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    reported: Mutex<BTreeSet<Reported>>,
}

/// Base of the segment, positions from and to, byte offset. A gap and a damaged record may be at
/// the same offset, and the same gap at several: only all of it tells one region from another.
type Reported = (u64, u64, u64, u64);

impl Quarantine {
    pub fn new(storage: Arc<dyn Storage>, journal: &Path) -> Quarantine {
        let dir = Self::dir_of(journal);
        Quarantine { storage, dir, reported: Mutex::default() }
    }

    pub fn dir_of(journal: &Path) -> PathBuf {
        journal.join("quarantine")
    }

    /// Reports a damaged region of the segment at `base` and keeps its bytes, unless that was done
    /// before. What cannot be kept is reported all the same.
    pub fn take(&self, file: Option<&dyn File>, base: u64, region: &Region) {
        let Region { from, to, offset, len, why } = *region;
        if !self.is_new((base, from, to, offset)) {
            return;
        }
        let kept = match file {
            Some(file) if len > 0 => self.copy(file, base, region).unwrap_or_else(|error| {
                tracing::warn!(%error, "damaged bytes cannot be kept");
                None
            }),
            _ => None,
        };
        let kept = kept.map(|path| path.display().to_string());
        let file = self.dir.with_file_name(segment::file_name(base));
        let file = file.display();
        tracing::error!(%file, from, to, offset, len, why, kept, "the journal is damaged");
    }

    /// Whether a region has not been reported yet; it counts as reported from now on.
    fn is_new(&self, region: Reported) -> bool {
        let mut reported = lock(&self.reported);
        if reported.len() < REPORTED_REGIONS {
            reported.insert(region)
        } else {
            !reported.contains(&region)
        }
    }

    /// Moves a whole file here, over one of the same name.
    pub fn keep_file(&self, path: &Path, name: &str) -> io::Result<PathBuf> {
        let kept = self.dir.join(name);
        self.storage.rename(path, &kept)?;
        self.storage.sync_dir(&self.dir)?;
        Ok(kept)
    }

    fn copy(
        &self,
        file: &dyn File,
        base: u64,
        region: &Region,
    ) -> Result<Option<PathBuf>, super::Error> {
        let name = format!("{base:020}-{}.bin", region.offset);
        let len = region.len.min(self.room(&name)?);
        if len == 0 {
            return Ok(None);
        }
        storage::publish(&*self.storage, &self.dir, &name, |copy| {
            copy_bytes(file, copy, region.offset, len)
        })?;
        Ok(Some(self.dir.join(name)))
    }

    /// Bytes that may still be kept; none for what is kept already.
    fn room(&self, name: &str) -> Result<u64, super::Error> {
        let io = |source| super::Error::Io { doing: "read", path: self.dir.clone(), source };
        let names = self.storage.list(&self.dir).map_err(io)?;
        if names.iter().any(|kept| kept == name) {
            return Ok(0);
        }
        let mut used = 0;
        for kept in names {
            used +=
                self.storage.open_read(&self.dir.join(kept)).and_then(|f| f.size()).map_err(io)?;
        }
        Ok(QUARANTINE_BYTES.saturating_sub(used))
    }
}

/// Copies as far as the disk can read: a block that it cannot is left as zeros, and the others keep
/// their places.
fn copy_bytes(from: &dyn File, to: &dyn File, offset: u64, len: u64) -> io::Result<()> {
    let mut buf = vec![0; BLOCK_BYTES.min(len) as usize];
    let mut done = 0;
    while done < len {
        let to_border = BLOCK_BYTES - (offset + done) % BLOCK_BYTES;
        let some = to_border.min(len - done).min(buf.len() as u64) as usize;
        let read =
            storage::read_full(from, offset + done, &mut buf[..some]).unwrap_or_else(|error| {
                tracing::warn!(offset = offset + done, %error, "a damaged block cannot be read");
                buf.fill(0);
                some
            });
        if read == 0 {
            break;
        }
        storage::write_all(to, done, &mut [IoSlice::new(&buf[..read])])?;
        done += read as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::storage::RealDisk;

    #[test]
    fn a_gap_and_a_damaged_record_at_the_same_place_are_both_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::new(Arc::new(RealDisk), dir.path());
        std::fs::create_dir(Quarantine::dir_of(dir.path())).unwrap();
        let path = dir.path().join("segment");
        std::fs::write(&path, [7; 100]).unwrap();
        let file = RealDisk.open_read(&path).unwrap();
        let gap = Region { from: 3, to: 5, offset: 10, len: 0, why: "missing" };
        let record = Region { from: 5, to: 6, offset: 10, len: 20, why: "damaged" };
        for _ in 0..2 {
            quarantine.take(Some(&*file), 3, &gap);
            quarantine.take(Some(&*file), 3, &record);
        }
        assert_eq!(lock(&quarantine.reported).len(), 2);
        let kept = Quarantine::dir_of(dir.path()).join("00000000000000000003-10.bin");
        assert_eq!(std::fs::read(kept).unwrap(), [7; 20]);
    }
}
