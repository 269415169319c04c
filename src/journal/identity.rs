//! What the frames of a journal are told by: a secret number of the journal, in a file of its own.
//!
//! ```text
//!  0  8 bytes   "WPIDENTY"
//!  8  u32       version (1)
//! 12  16 bytes  the number
//! 28  u32       crc32c of the 28 bytes before
//! ```
//!
//! Each segment's marker follows from it. So the marker of one whose head is gone is still known; it
//! also stands in the segment's header, in its trailer, and in each frame. *Not* needed to read a
//! segment of which any of those is intact, nor one of the version before, which made its markers up.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use super::{
    Error,
    frame::{u32_at, u64_at},
    storage::{self, Storage},
};

const MAGIC: &[u8; 8] = b"WPIDENTY";
const VERSION: u32 = 1;
const BYTES: usize = 32;

/// The file in a journal's directory.
pub(super) const FILE: &str = "identity";

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity([u8; 16]);

impl Identity {
    /// The marker of the segment that starts at `base`: a number that no sender can guess.
    pub fn marker(&self, base: u64) -> u64 {
        let hash = Sha256::new().chain_update(self.0).chain_update(base.to_le_bytes()).finalize();
        u64_at(&hash, 0)
    }

    /// The journal's; `None` where there is none that can be read.
    pub fn read(storage: &dyn Storage, dir: &Path) -> io::Result<Option<Identity>> {
        let file = match storage.open_read(&dir.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = [0; BYTES];
        let read = storage::read_full(&*file, 0, &mut bytes)?;
        let intact = read == BYTES
            && &bytes[..8] == MAGIC
            && u32_at(&bytes, 8) == VERSION
            && u32_at(&bytes, 28) == crc32c::crc32c(&bytes[..28]);
        let mut number = [0; 16];
        number.copy_from_slice(&bytes[12..28]);
        Ok(intact.then_some(Identity(number)))
    }

    /// The journal's, made if there is none. A damaged one is set aside: what was written under
    /// it is read by what the segments themselves say.
    pub fn open(
        storage: &dyn Storage,
        dir: &Path,
        set_aside: impl FnOnce(&Path) -> io::Result<PathBuf>,
    ) -> Result<Identity, Error> {
        let path = dir.join(FILE);
        match Identity::read(storage, dir) {
            Ok(Some(identity)) => return Ok(identity),
            Ok(None) if storage.open_read(&path).is_err() => {}
            Ok(None) => {
                let kept = set_aside(&path).map_err(Error::io("move", &path))?;
                tracing::error!(kept = %kept.display(), "the journal's identity is damaged: it gets another");
            }
            // It is there and may be right: another in its place would be worse than to wait.
            Err(source) => return Err(Error::UnreadIdentity { path, source }),
        }
        let mut number = [0; 16];
        let random = SystemRandom::new().fill(&mut number);
        random.map_err(|_| Error::io("make", &path)(io::Error::other("no random numbers")))?;
        let identity = Identity(number);
        storage::publish(storage, dir, FILE, |file| {
            storage::write_all(file, 0, &mut [IoSlice::new(&identity.encode())])
        })?;
        Ok(identity)
    }

    fn encode(&self) -> [u8; BYTES] {
        let mut out = [0; BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..28].copy_from_slice(&self.0);
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::storage::RealDisk;

    fn open(dir: &Path) -> Identity {
        let kept = dir.join("kept");
        let set_aside = |path: &Path| std::fs::rename(path, &kept).map(|()| kept.clone());
        Identity::open(&RealDisk, dir, set_aside).unwrap()
    }

    #[test]
    fn a_journal_keeps_its_number_and_each_segment_has_its_own_marker() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path());
        assert!(open(dir.path()) == first);
        assert_ne!(first.marker(0), first.marker(1));
        assert!(open(tempfile::tempdir().unwrap().path()) != first);
    }

    #[test]
    fn a_damaged_one_is_not_believed_and_is_kept_aside() {
        for at in 0..BYTES {
            let dir = tempfile::tempdir().unwrap();
            let first = open(dir.path());
            let path = dir.path().join(FILE);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(open(dir.path()) != first, "byte {at}");
            let kept = std::fs::read(dir.path().join("kept")).unwrap();
            assert_eq!(kept, bytes);
        }
    }
}
