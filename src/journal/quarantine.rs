//! Damage is said once, loudly, and its bytes are kept for whoever can make sense of them.

use std::{
    collections::BTreeSet,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{
    lock,
    scan::{CHUNK_BYTES, Region},
    segment,
    storage::{self, File, Storage},
};

/// All damaged bytes that are kept. Damage is rare and small; a broken disk must not fill itself.
const QUARANTINE_BYTES: u64 = 256 << 20;

/// Regions remembered as reported; past it, one may be reported by each reader that meets it.
const REPORTED_REGIONS: usize = 1024;

/// The directory `quarantine/` of a journal.
pub(super) struct Quarantine {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    reported: Mutex<BTreeSet<(u64, u64)>>,
}

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
        {
            let mut reported = lock(&self.reported);
            if reported.contains(&(base, offset)) {
                return;
            }
            if reported.len() < REPORTED_REGIONS {
                reported.insert((base, offset));
            }
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

fn copy_bytes(from: &dyn File, to: &dyn File, offset: u64, len: u64) -> io::Result<()> {
    let mut buf = vec![0; CHUNK_BYTES.min(len) as usize];
    let mut done = 0;
    while done < len {
        let some = (buf.len() as u64).min(len - done) as usize;
        let read = storage::read_full(from, offset + done, &mut buf[..some])?;
        if read == 0 {
            break;
        }
        storage::write_all(to, done, &mut [IoSlice::new(&buf[..read])])?;
        done += read as u64;
    }
    Ok(())
}
