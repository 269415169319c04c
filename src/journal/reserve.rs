//! Room on the disk that is kept for the next opening.
//!
//! On a full disk appends are refused and nothing is lost. But a process that is started there could
//! not even begin the segments that an opening needs, and would drain nothing that could make room.
//! So a file lies beside the journals, which is given up where an opening finds no room, and made
//! again at once, of whatever room is left: new entries must not take it.

use std::{io::IoSlice, path::PathBuf, sync::Arc};

use super::{
    Error,
    storage::{self, Storage},
};

/// Written at a time; a disk that is nearly full gives at least all but this.
const CHUNK_BYTES: usize = 64 << 10;

/// See the module. One process at a time: that is for the journals' locks to see to.
#[derive(Clone)]
pub struct Reserve {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    bytes: u64,
}

impl Reserve {
    /// The reserve of so many `bytes` at `path`; 0 is none.
    pub fn new(storage: Arc<dyn Storage>, path: PathBuf, bytes: u64) -> Reserve {
        Reserve { storage, path, bytes }
    }

    /// Opens something; where that finds the disk full, once more without the reserve. Blocks.
    pub fn open<T, E>(
        &self,
        mut open: impl FnMut() -> Result<T, E>,
        is_no_space: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        match open() {
            Err(error) if is_no_space(&error) && self.storage.remove(&self.path).is_ok() => {
                let file = self.path.display();
                tracing::warn!(%file, "the disk is full: what was kept for a start is used for it");
                open()
            }
            other => other,
        }
    }

    /// Makes the reserve as large as it should be, or as there is room. What it holds already it
    /// never gives back for that: others would take it. Blocks.
    pub fn fill(&self) -> Result<(), Error> {
        let path = &self.path;
        let file = self.storage.open_or_create(path).map_err(Error::io("open", path))?;
        let held = file.size().map_err(Error::io("read", path))?;
        if held >= self.bytes {
            return Ok(());
        }
        // Not zeros, which some file systems would keep no room for.
        let mut chunk = vec![0; CHUNK_BYTES];
        fastrand::fill(&mut chunk);
        let mut written = held;
        while written < self.bytes {
            let some = (self.bytes - written).min(CHUNK_BYTES as u64);
            let slices = &mut [IoSlice::new(&chunk[..some as usize])];
            match storage::write_all(&*file, written, slices).map_err(Error::io("write", path)) {
                Ok(()) => written += some,
                Err(error) if error.is_no_space() => break,
                Err(error) => return Err(error),
            }
        }
        file.sync_data().map_err(Error::sync(path))
    }
}
