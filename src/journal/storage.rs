//! The one door to the disk: what the journal needs from a file system, and the real one.
//!
//! The trait exists so that tests can put a simulated disk in its place that keeps only what was
//! synced and fails on purpose.

use std::{
    any::Any,
    fs, io,
    io::IoSlice,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::Error;

/// A file system. Nothing is durable until synced: contents by [`File::sync_data`], names by
/// [`Storage::sync_dir`].
pub trait Storage: Send + Sync + 'static {
    /// Creates a directory and its missing parents, durably.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Creates a file that must not exist, for reading and writing.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file as it is, or creates it, for reading and writing.
    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file for reading.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames, replacing what has that name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates the file if missing and locks it against other processes until the guard is
    /// dropped; `WouldBlock` when it is locked already.
    fn lock(&self, path: &Path) -> io::Result<LockGuard>;
}

/// Holds a lock until dropped.
pub type LockGuard = Box<dyn Any + Send + Sync>;

/// An open file; offsets are explicit, so a handle has no state of its own.
pub trait File: Send + Sync {
    /// Writes the buffers one after the other at `offset`; may write less and says how much.
    fn write_at(&self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Reads at `offset`; may read less, and reads 0 only at the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
    /// Cuts or extends to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// `fdatasync`: contents and length are durable when it returns.
    fn sync_data(&self) -> io::Result<()>;
}

/// How long a lock is waited for that others only look at, each for a moment; and between two attempts.
const LOOKED_AT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Buffers that one vectored write takes on Linux (`IOV_MAX`).
const MAX_BUFFERS: usize = 1024;

/// Writes all buffers, going on after short and interrupted writes.
pub(super) fn write_all(
    file: &dyn File,
    mut offset: u64,
    mut bufs: &mut [IoSlice<'_>],
) -> io::Result<()> {
    // Skips empty buffers, so that a write of 0 always means trouble.
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        let some = bufs.len().min(MAX_BUFFERS);
        match file.write_at(offset, &bufs[..some]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut bufs, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `buf` is full or the file ends; returns how much.
pub(super) fn read_full(file: &dyn File, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(offset + done as u64, &mut buf[done..]) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// What the name of a file that is still being written ends in; opening a journal removes them.
pub(super) const TEMPORARY: &str = ".tmp";

/// Creates or replaces `dir/name` as a whole: after a crash at any step there is the old file or
/// the complete new one. Durable, name and contents, when it returns.
pub(super) fn publish(
    storage: &dyn Storage,
    dir: &Path,
    name: &str,
    write: impl FnOnce(&dyn File) -> io::Result<()>,
) -> Result<Arc<dyn File>, Error> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}{TEMPORARY}"));
    let file = create_over(storage, &temporary).map_err(Error::io("create", &temporary))?;
    let written = write(&*file).map_err(Error::io("write", &temporary));
    let synced = written.and_then(|()| file.sync_data().map_err(Error::sync(&temporary)));
    let renamed = synced
        .and_then(|()| storage.rename(&temporary, &path).map_err(Error::io("rename to", &path)));
    if let Err(error) = renamed {
        if let Err(left) = storage.remove(&temporary) {
            tracing::debug!(file = %temporary.display(), error = %left, "left behind");
        }
        return Err(error);
    }
    storage.sync_dir(dir).map_err(Error::sync(dir))?;
    Ok(file)
}

/// Creates a file that need not survive a crash whole, over one that is there.
pub(super) fn create_over(storage: &dyn Storage, path: &Path) -> io::Result<Arc<dyn File>> {
    match storage.create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            storage.remove(path)?;
            storage.create_new(path)
        }
        other => other,
    }
}

/// The machine's file system. Files and directories are its owner's alone: they hold what senders
/// said.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Storage for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir_all(parent)?;
        }
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not UTF-8 is not one of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Arc::new(options.open(path)?))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(open_or_create(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(fs::File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<LockGuard> {
        let file = open_or_create(path)?;
        let until = Instant::now() + LOOKED_AT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Box::new(file)),
                Err(fs::TryLockError::Error(error)) => return Err(error),
                Err(fs::TryLockError::WouldBlock) => {}
            }
            // An owner's lock is exclusive, a look's is shared: one that can be shared has no owner.
            file.try_lock_shared()?;
            file.unlock()?;
            if Instant::now() >= until {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

fn open_or_create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

impl File for fs::File {
    fn write_at(&self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, bufs, offset)?)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;
    use crate::journal::{Journal, Options, is_open};

    /// A command looks whether a daemon runs, at the moment at which one starts.
    #[tokio::test]
    async fn a_look_at_the_lock_fails_no_opening() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let open = || Journal::open(Arc::new(RealDisk), dir, Options::default());
        open().unwrap().journal.close().await;
        let over = AtomicBool::new(false);
        // Ends the looks also where an assertion fails.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let look = || {
            let mut looks = 0_u64;
            while !over.load(Relaxed) {
                is_open(dir).unwrap();
                looks += 1;
            }
            looks
        };
        let runtime = tokio::runtime::Handle::current();
        thread::scope(|scope| {
            let looking: Vec<_> = (0..3).map(|_| scope.spawn(look)).collect();
            let opening = scope.spawn(|| {
                let _end = End(&over);
                for _ in 0..50 {
                    let journal = open().unwrap().journal;
                    assert!(is_open(dir).unwrap());
                    assert!(matches!(open(), Err(Error::Locked { .. })));
                    runtime.block_on(journal.close());
                }
            });
            opening.join().unwrap();
            assert!(looking.into_iter().map(|looks| looks.join().unwrap()).sum::<u64>() > 50);
        });
    }
}
