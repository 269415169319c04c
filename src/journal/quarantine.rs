//! Files that are damaged are kept here, for whoever can make sense of them.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Error,
    known::{self, Known},
    segment,
    storage::{self, File, Storage},
    window::BLOCK_BYTES,
};

/// The directory `quarantine/` of a journal.
pub(super) struct Quarantine {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// Of segments, all together. Damage is rare and small; a broken disk must not fill itself.
    max_bytes: u64,
}

/// What is kept, and the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineUse {
    pub files: u64,
    pub bytes: u64,
    pub max_bytes: u64,
}

impl Quarantine {
    pub fn new(storage: Arc<dyn Storage>, journal: &Path, max_bytes: u64) -> Quarantine {
        Quarantine { storage, dir: Self::dir_of(journal), max_bytes }
    }

    pub fn dir_of(journal: &Path) -> PathBuf {
        journal.join("quarantine")
    }

    /// Moves a small file here, over one of the same name.
    pub fn keep_file(&self, path: &Path, name: &str) -> io::Result<PathBuf> {
        let kept = self.dir.join(name);
        self.storage.rename(path, &kept)?;
        self.storage.sync_dir(&self.dir)?;
        Ok(kept)
    }

    /// Moves a damaged segment here, whole, with what is known of it; returns where that is. Past the
    /// bound its damaged parts are kept, with a block around them, and the rest is deleted; but on a full
    /// disk, which has no room for copies, it is moved whole all the same.
    pub fn keep_segment(
        &self,
        path: &Path,
        base: u64,
        end: u64,
        known: &[Known],
    ) -> Result<PathBuf, Error> {
        let file = match self.storage.open_read(path) {
            // Somebody moved it away by hand.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.keep_note(base, end);
            }
            other => other.map_err(Error::io("open", path))?,
        };
        let size = file.size().map_err(Error::io("read", path))?;
        let name = segment::file_name_of(base, end);
        let dir = path.parent().unwrap_or(Path::new("."));
        let kept = self.dir.join(&name);
        let fits = self.used().bytes.saturating_add(size) <= self.max_bytes;
        if fits || !self.keep_parts(&*file, base, known, size)? {
            self.storage.rename(path, &kept).map_err(Error::io("move", path))?;
        } else {
            tracing::error!(
                file = %path.display(), quarantine_bytes = self.max_bytes,
                "the quarantine is full: of a damaged segment only what is damaged is kept; move away what is there"
            );
            self.storage.remove(path).map_err(Error::io("remove", path))?;
        }
        for dir in [&*self.dir, dir] {
            self.storage.sync_dir(dir).map_err(Error::sync(dir))?;
        }
        tracing::warn!(kept = %kept.display(), "a damaged segment is kept in quarantine");
        self.keep_note(base, end)
    }

    /// Moves here what is known of the damage of a segment. Returns where it is now, or would be.
    pub fn keep_note(&self, base: u64, end: u64) -> Result<PathBuf, Error> {
        let journal = self.dir.parent().unwrap_or(Path::new("."));
        let note = journal.join(known::file_name(base));
        let name = segment::file_name_of(base, end);
        let kept = self.dir.join(name).with_extension(&known::SUFFIX[1..]);
        match self.storage.rename(&note, &kept) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("move", &note)(error));
            }
            _ => {}
        }
        for dir in [&*self.dir, journal] {
            self.storage.sync_dir(dir).map_err(Error::sync(dir))?;
        }
        Ok(kept)
    }

    /// Copies a whole segment here, which is about to be replaced.
    pub fn copy_segment(&self, file: &dyn File, base: u64, end: u64) -> Result<(), Error> {
        let size = file.size().map_err(Error::io("read", &self.dir))?;
        let room = self.max_bytes.saturating_sub(self.used().bytes);
        self.copy(file, &segment::file_name_of(base, end), 0, size.min(room))
    }

    /// Copies what is damaged of a segment; whether the disk has room for that.
    fn keep_parts(
        &self,
        file: &dyn File,
        base: u64,
        known: &[Known],
        size: u64,
    ) -> Result<bool, Error> {
        for known in known.iter().filter(|known| known.len > 0) {
            let from = known.offset.saturating_sub(BLOCK_BYTES).min(size);
            let to = (known.offset + known.len + BLOCK_BYTES).min(size);
            let room = self.max_bytes.saturating_sub(self.used().bytes);
            let name = format!("{base:020}-at-{from}.part");
            match self.copy(file, &name, from, (to - from).min(room)) {
                Err(error) if error.is_no_space() => return Ok(false),
                kept => kept?,
            }
        }
        Ok(true)
    }

    fn copy(&self, file: &dyn File, name: &str, offset: u64, len: u64) -> Result<(), Error> {
        if len == 0 {
            return Ok(());
        }
        storage::publish(&*self.storage, &self.dir, name, |copy| {
            copy_bytes(file, copy, offset, len)
        })?;
        Ok(())
    }

    /// What is kept.
    pub fn used(&self) -> QuarantineUse {
        let mut used = QuarantineUse { max_bytes: self.max_bytes, ..QuarantineUse::default() };
        for name in self.storage.list(&self.dir).unwrap_or_default() {
            let file = self.storage.open_read(&self.dir.join(name));
            used.files += 1;
            used.bytes += file.and_then(|file| file.size()).unwrap_or_default();
        }
        used
    }

    /// The files of what is known of the damage that is kept.
    pub fn notes(&self) -> Vec<PathBuf> {
        known::notes(&*self.storage, &self.dir)
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
