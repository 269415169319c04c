//! A disk in memory that keeps only what was synced, and fails on purpose: here in what is not yet
//! durable, in `trouble` in what is.
//!
//! Contents and names live twice: as a process sees them, and as the platter holds them. What lies
//! between is a list of changes. A sync applies a file's (or a directory's) changes to the platter;
//! a power cut applies any of them, whole, torn, or not at all. A sync that fails applies any of
//! them too, and then *forgets* them, as Linux does: pages count as clean though they never
//! reached the platter, and a later sync of the same file succeeds without them.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use waypost::journal::{File, LockGuard, Storage};

mod trouble;

pub use trouble::Times;
use trouble::Trouble;

/// Writes tear at this granularity, or anywhere when a write's beginning alone is kept.
const SECTOR_BYTES: usize = 512;

/// A simulated disk; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What a disk holds at one moment.
#[derive(Clone, Default)]
pub struct Image {
    files: Vec<Arc<Contents>>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Default)]
struct Contents {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

struct State {
    image: Image,
    rng: fastrand::Rng,
    operations: usize,
    images: Option<Vec<Image>>,
    cut_at: Option<usize>,
    room_bytes: Option<u64>,
    failing_syncs: usize,
    trouble: Trouble,
    lie_about_sync: bool,
    lie_about_sync_dir: bool,
    locks: BTreeSet<PathBuf>,
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::holding(Image::default(), seed)
    }

    /// A disk with these contents, and no process on it.
    pub fn holding(image: Image, seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State {
            image,
            rng: fastrand::Rng::with_seed(seed),
            operations: 0,
            images: None,
            cut_at: None,
            room_bytes: None,
            failing_syncs: 0,
            trouble: Trouble::default(),
            lie_about_sync: false,
            lie_about_sync_dir: false,
            locks: BTreeSet::new(),
        })))
    }

    /// Remembers the image before each operation from now on (and numbers operations anew).
    pub fn record(&self) {
        let mut state = self.state();
        (state.images, state.operations) = (Some(Vec::new()), 0);
    }

    /// The images before each operation, and the present one.
    pub fn images(&self) -> Vec<Image> {
        let state = self.state();
        let mut images = state.images.clone().unwrap_or_default();
        images.push(state.image.clone());
        images
    }

    /// What the disk holds now.
    pub fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// Changing operations done so far.
    pub fn operations(&self) -> usize {
        self.state().operations
    }

    /// Every changing operation after the next `operations` fails, as if the process had died.
    pub fn cut_after(&self, operations: usize) {
        let mut state = self.state();
        state.cut_at = Some(state.operations + operations);
    }

    /// Bytes by which files may still grow before `ENOSPC`; `None` is endless.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.state().room_bytes = bytes;
    }

    /// The next `syncs` calls of `sync_data` fail with `EIO`.
    pub fn fail_syncs(&self, syncs: usize) {
        self.state().failing_syncs = syncs;
    }

    /// Every read that touches this range of a file fails with `EIO` from now on.
    pub fn fail_reads(&self, path: &Path, range: Range<u64>) {
        self.refuse_reads(path, range, Times::UntilHealed);
    }

    /// From now on `sync_data` says yes and does nothing: the same as deleting it from the code.
    pub fn lie_about_sync(&self) {
        self.state().lie_about_sync = true;
    }

    /// The same for `sync_dir`.
    pub fn lie_about_sync_dir(&self) {
        self.state().lie_about_sync_dir = true;
    }

    /// Changes a file behind everybody's back, durably.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = state.image.names[path];
        let contents = Arc::make_mut(&mut state.image.files[inode]);
        change(&mut contents.seen);
        contents.durable = contents.seen.clone();
        contents.pending.clear();
    }

    /// The bytes of a file as a process sees them.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.image.files[state.image.names[path]].seen.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// One changing operation.
    fn operate<T>(&self, change: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.let_happen();
        let mut state = self.state();
        if state.cut_at.is_some_and(|cut| state.operations >= cut) {
            return Err(io::Error::other("the process has died"));
        }
        let image = state.image.clone();
        if let Some(images) = &mut state.images {
            images.push(image);
        }
        state.operations += 1;
        change(&mut state)
    }
}

impl Image {
    /// What is there after a power cut: all that was synced, and any part of the rest.
    pub fn power_lost(&self, rng: &mut fastrand::Rng) -> Image {
        // Often all or nothing: where few changes are pending, a fair coin rarely shows those.
        let keep = [0.0, 0.5, 0.5, 1.0][rng.usize(..4)];
        let mut image = Image { dirs: self.dirs.clone(), ..Image::default() };
        for contents in &self.files {
            let mut durable = contents.durable.clone();
            for change in &contents.pending {
                change.tear(rng, keep).into_iter().for_each(|change| change.apply(&mut durable));
            }
            let contents = Contents { seen: durable.clone(), durable, pending: Vec::new() };
            image.files.push(Arc::new(contents));
        }
        image.durable_names = self.durable_names.clone();
        for change in &self.pending_names {
            if rng.f64() < keep {
                change.apply(&mut image.durable_names);
            }
        }
        image.names = image.durable_names.clone();
        image
    }

    fn contents(&mut self, inode: usize) -> &mut Contents {
        Arc::make_mut(&mut self.files[inode])
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Truncate(len) => bytes.resize(*len as usize, 0),
            Change::Write(offset, data) => {
                let (start, end) = (*offset as usize, *offset as usize + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(data);
            }
        }
    }

    /// The parts of a change that reach the platter when it is not synced.
    fn tear(&self, rng: &mut fastrand::Rng, keep: f64) -> Vec<Change> {
        match self {
            _ if keep == 1.0 => vec![self.clone()],
            Change::Write(offset, data) if keep > 0.0 => match rng.usize(..4) {
                0 => Vec::new(),
                1 => vec![self.clone()],
                2 => vec![Change::Write(*offset, data[..rng.usize(..=data.len())].to_vec())],
                _ => sectors(*offset, data).into_iter().filter(|_| rng.bool()).collect(),
            },
            Change::Truncate(_) if rng.f64() < keep => vec![self.clone()],
            _ => Vec::new(),
        }
    }
}

/// A write, cut at the borders of sectors.
fn sectors(mut offset: u64, mut data: &[u8]) -> Vec<Change> {
    let mut parts = Vec::new();
    while !data.is_empty() {
        let some = (SECTOR_BYTES - offset as usize % SECTOR_BYTES).min(data.len());
        parts.push(Change::Write(offset, data[..some].to_vec()));
        (offset, data) = (offset + some as u64, &data[some..]);
    }
    parts
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Unlink(path) => {
                names.remove(path);
            }
            NameChange::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let (NameChange::Link(path, _) | NameChange::Unlink(path) | NameChange::Rename(path, ..)) =
            self;
        path.parent() == Some(dir)
    }
}

impl Storage for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.image.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        if !state.image.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state.image.names.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| path.file_name()?.to_str().map(str::to_owned);
        Ok(names.filter_map(name).collect())
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = self.operate(|state| {
            if state.room_bytes == Some(0) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if state.image.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let inode = state.image.files.len();
            state.image.files.push(Arc::default());
            state.image.rename(NameChange::Link(path.to_owned(), inode));
            Ok(inode)
        })?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        match self.open_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_new(path),
            other => other,
        }
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let inode = self.state().image.inode(path)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|state| {
            let inode = state.image.inode(from)?;
            state.image.rename(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|state| {
            let inode = state.image.inode(path)?;
            let freed = state.image.files[inode].seen.len() as u64;
            state.image.rename(NameChange::Unlink(path.to_owned()));
            state.room_bytes = state.room_bytes.map(|room| room + freed);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.operate(|state| {
            if state.lie_about_sync_dir {
                return Ok(());
            }
            let image = &mut state.image;
            for change in image.pending_names.extract_if(.., |change| change.is_in(dir)) {
                change.apply(&mut image.durable_names);
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<LockGuard> {
        if !self.state().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(self.clone(), path.to_owned())) as Box<dyn Any + Send + Sync>)
    }
}

struct Lock(SimDisk, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl File for SimFile {
    fn write_at(&self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.disk.operate(|state| {
            let mut data: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            // Short writes happen, and a process may die between two of them.
            if state.rng.u8(..4) == 0 && data.len() > 1 {
                data.truncate(state.rng.usize(1..data.len()));
            }
            let len = state.image.files[self.inode].seen.len() as u64;
            let grows = (offset + data.len() as u64).saturating_sub(len);
            if let Some(room) = &mut state.room_bytes {
                if *room == 0 && grows > 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                data.truncate(data.len() - grows.saturating_sub(*room) as usize);
                *room -= grows.min(*room);
            }
            let written = data.len();
            let held = &state.image.files[self.inode].seen;
            state.trouble.write(self.inode, held, offset, &mut data);
            let change = Change::Write(offset, data);
            let contents = state.image.contents(self.inode);
            change.apply(&mut contents.seen);
            contents.pending.push(change);
            Ok(written)
        })
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let state = &mut *state;
        let bytes = &state.image.files[self.inode].seen;
        let bytes = bytes.get(offset as usize..).unwrap_or_default();
        let len = bytes.len().min(buf.len());
        state.trouble.read(self.inode, offset..offset + len as u64)?;
        buf[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().image.files[self.inode].seen.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.operate(|state| {
            let contents = state.image.contents(self.inode);
            let freed = (contents.seen.len() as u64).saturating_sub(len);
            contents.seen.resize(len as usize, 0);
            contents.pending.push(Change::Truncate(len));
            state.room_bytes = state.room_bytes.map(|room| room + freed);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.operate(|state| {
            if state.lie_about_sync {
                return Ok(());
            }
            let fails = state.failing_syncs > 0;
            state.failing_syncs -= usize::from(fails);
            let contents = Arc::make_mut(&mut state.image.files[self.inode]);
            for change in std::mem::take(&mut contents.pending) {
                let parts = if fails { change.tear(&mut state.rng, 0.5) } else { vec![change] };
                parts.into_iter().for_each(|part| part.apply(&mut contents.durable));
            }
            if fails { Err(io::Error::other("input/output error")) } else { Ok(()) }
        })
    }
}
