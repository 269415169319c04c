//! The secrets that the API gave, kept where only the daemon's user can read them:
//! `DATA_DIR/secrets/SOURCE.json` (0600, in a directory with 0700). The API shows a secret once; who
//! loses it must make another.
//!
//! A file is written whole, durably, under a temporary name first. Before a call that changes a secret
//! is sent, what it is about to do is written: whoever finds that at a start knows that the secret he
//! has may be worth nothing, and makes another. So there is room for the file before anything is
//! changed upstream, too.
//!
//! What is kept is put in force in the source's [`Keyring`]. A secret that was replaced stays valid for
//! [`OVERLAP`]: deliveries are under way that it signed, and a platform that repeats its first signature
//! signs a retry with it.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::now_ms,
    meter::Counter,
    private,
    routing::Table,
    small_file,
    source::sonzai::keyring::{Changing, Held, Keyring},
};
use bytestring::ByteString;

mod content;

pub use content::{Change, Content, Family, Kept, Name, Replaced, Times, What};

/// How long a secret that was replaced stays valid. What it signed is stale after 5 minutes; twice that
/// has room for a clock that is wrong.
pub const OVERLAP: Duration = Duration::from_secs(600);

const DIR: &str = "secrets";
const DIR_MODE: u32 = 0o700;

/// Why secrets cannot be kept, or those that are kept not be had. Never holds any.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io { doing: &'static str, path: PathBuf, cause: Arc<io::Error> },
    #[error(
        "{}: {cause}; put its last good copy back, or move it away: its webhooks' secrets are unknown \
         then, and `waypost sonzai webhooks sync --rotate-unknown --yes` makes new ones",
        path.display()
    )]
    Damaged { path: PathBuf, cause: Arc<content::Error> },
    #[error("{} would be larger than {} bytes", path.display(), small_file::MAX_BYTES)]
    TooLarge { path: PathBuf },
}

/// The stores of all Sonzai sources, by name.
#[derive(Debug)]
pub struct Stores {
    data_dir: PathBuf,
    /// How long a mismatch is put down to a change.
    hold: Duration,
    open: Mutex<BTreeMap<ByteString, Arc<Store>>>,
}

/// What is kept of one source. See the module.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    hold: Duration,
    /// Held while what is kept is changed and written: nobody who only looks waits for the disk.
    writing: Mutex<()>,
    state: Mutex<State>,
    keyring: Arc<Keyring>,
    pub stats: Stats,
    /// Who changes something at the API waits here: one at a time.
    pub turn: tokio::sync::Mutex<()>,
    /// Told when a change was begun or has come to its end.
    pub changed: tokio::sync::Notify,
}

/// What is counted of changes of secrets.
#[derive(Debug, Default)]
pub struct Stats {
    /// Came to their end.
    pub changed: Counter,
    /// Certainly had no effect.
    pub refused: Counter,
    /// May have had one, and were made again.
    pub uncertain: Counter,
}

#[derive(Debug)]
struct State {
    content: Content,
    /// Why the file cannot be read; what it holds is not known then, and it is left alone.
    trouble: Option<Error>,
    /// Whether the file is behind what is in force.
    is_behind: bool,
    /// When each change that was begun before is put down to mismatches no longer, by type.
    hold_until_ms: HashMap<String, u64>,
    /// How many calls are under way, by type.
    calls: HashMap<String, usize>,
}

impl Stores {
    /// Those of a data directory.
    pub fn new(data_dir: PathBuf, hold: Duration) -> Stores {
        Stores { data_dir, hold, open: Mutex::default() }
    }

    /// The store of a source. It is opened if it is not yet; one that could not be read is read again.
    /// Blocks.
    pub fn of(&self, source: &ByteString) -> Arc<Store> {
        // No panic leaves the map half-made.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let store = open
            .entry(source.clone())
            .or_insert_with(|| Arc::new(Store::open(&self.data_dir, source, self.hold)));
        store.read_again();
        store.clone()
    }

    /// Gives every Sonzai source of a table that nobody shares yet its keyring. Blocks.
    pub fn give_keyrings(&self, table: &mut Table) {
        table.give_keyrings(|source| self.of(source).keyring().clone());
    }

    /// Forgets those that nobody names or holds.
    pub fn forget(&self, is_named: impl Fn(&str) -> bool) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|source, store| is_named(source) || Arc::strong_count(store) > 1);
    }
}

/// The file of a source.
pub fn file(data_dir: &Path, source: &str) -> PathBuf {
    data_dir.join(DIR).join(format!("{source}.json"))
}

/// Reads what is kept of a source; nothing if there is no file. Blocks.
pub fn read(path: &Path) -> Result<Content, Error> {
    let text = match small_file::read(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Content::default()),
        read => read.map_err(io_error("read", path))?,
    };
    let damaged = |cause| Error::Damaged { path: path.to_owned(), cause: Arc::new(cause) };
    Content::read(&text).map_err(damaged)
}

impl Store {
    /// Opens the store of a source. What cannot be read is told, and stays as it is. Blocks.
    pub fn open(data_dir: &Path, source: &str, hold: Duration) -> Store {
        let path = file(data_dir, source);
        let state = State {
            content: Content::default(),
            trouble: None,
            is_behind: false,
            hold_until_ms: HashMap::new(),
            calls: HashMap::new(),
        };
        let (writing, keyring, stats, turn, changed) = Default::default();
        let state = Mutex::new(state);
        let store = Store { path, hold, writing, state, keyring, stats, turn, changed };
        keep_private(&store.path);
        store.load(&mut store.lock());
        store
    }

    /// The keys that are in force.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// What is kept.
    pub fn content(&self) -> Content {
        self.lock().content.clone()
    }

    /// How many secrets sign now.
    pub fn secrets(&self) -> usize {
        self.lock().content.webhooks.iter().filter(|kept| kept.secret.is_some()).count()
    }

    /// Why nothing can be changed, if so.
    pub fn trouble(&self) -> Option<Error> {
        self.lock().trouble.clone()
    }

    /// Whether the file is behind what is in force: what was to be written could not be.
    pub fn is_behind(&self) -> bool {
        self.lock().is_behind
    }

    /// The changes under way, and until when mismatches are put down to each.
    pub fn changes(&self) -> Vec<(Change, u64)> {
        let state = self.lock();
        let until = |change: &Change| {
            state.hold_until_ms.get(&change.name.event_type).copied().unwrap_or_default()
        };
        state.content.changes.iter().map(|change| (change.clone(), until(change))).collect()
    }

    /// Changes what is kept, on disk first: on an error nothing has changed. Blocks.
    pub fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> Result<T, Error> {
        let _writing = self.writing();
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        let mut content = self.content();
        let changed = change(&mut content);
        self.write(&content)?;
        let mut state = self.lock();
        (state.content, state.is_behind) = (content, false);
        self.put_in_force(&mut state);
        Ok(changed)
    }

    /// Changes what is kept, in force first: on an error it holds all the same, until the daemon ends or
    /// [`save`](Self::save) has succeeded. Blocks.
    pub fn keep(&self, change: impl FnOnce(&mut Content)) -> Result<(), Error> {
        let _writing = self.writing();
        {
            let mut state = self.lock();
            change(&mut state.content);
            state.is_behind = true;
            self.put_in_force(&mut state);
        }
        self.save_content()
    }

    /// Writes what could not be written. Blocks.
    pub fn save(&self) -> Result<(), Error> {
        let _writing = self.writing();
        if self.is_behind() { self.save_content() } else { Ok(()) }
    }

    /// Notes that a call is under way that changes the secret of this type, until what is returned is
    /// dropped.
    pub fn call(self: &Arc<Store>, event_type: &str) -> Calling {
        self.count(event_type, true);
        Calling { store: self.clone(), event_type: event_type.to_owned() }
    }

    fn count(&self, event_type: &str, begins: bool) {
        let mut state = self.lock();
        let calls = state.calls.entry(event_type.to_owned()).or_default();
        *calls = if begins { *calls + 1 } else { calls.saturating_sub(1) };
        if *calls == 0 {
            state.calls.remove(event_type);
        }
        self.put_in_force(&mut state);
    }

    fn read_again(&self) {
        let _writing = self.writing();
        let mut state = self.lock();
        if state.trouble.is_some() {
            self.load(&mut state);
        }
    }

    fn load(&self, state: &mut State) {
        match read(&self.path) {
            Ok(content) => {
                (state.content, state.trouble) = (content, None);
                self.put_in_force(state);
            }
            Err(error) => {
                tracing::error!(%error, "the secrets that the API gave are not known");
                state.trouble = Some(error);
            }
        }
    }

    /// For who holds `writing`.
    fn save_content(&self) -> Result<(), Error> {
        if let Some(trouble) = self.trouble() {
            return Err(trouble);
        }
        self.write(&self.content())?;
        self.lock().is_behind = false;
        Ok(())
    }

    fn write(&self, content: &Content) -> Result<(), Error> {
        let path = &self.path;
        let text = content.write();
        if text.len() as u64 > small_file::MAX_BYTES {
            return Err(Error::TooLarge { path: path.clone() });
        }
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str()))
        else {
            let cause = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(io_error("write", path)(cause));
        };
        create_dir(dir).map_err(io_error("make the directory", dir))?;
        private::write(dir, name, &text).map_err(io_error("write", path))
    }

    /// Has the keyring hold what is known now.
    fn put_in_force(&self, state: &mut State) {
        let now_ms = now_ms();
        let State { content, hold_until_ms, calls, .. } = state;
        let is_changing = |event_type: &str| {
            content.changes.iter().any(|change| change.name.event_type == event_type)
        };
        hold_until_ms.retain(|event_type, _| is_changing(event_type));
        let hold_ms = u64::try_from(self.hold.as_millis()).unwrap_or(u64::MAX);
        let mut held = content.keys();
        for change in &content.changes {
            let event_type = &change.name.event_type;
            // As of now and not of when it began: until now nobody could come.
            let until_ms = hold_until_ms.entry(event_type.clone());
            let until_ms = *until_ms.or_insert(now_ms.saturating_add(hold_ms));
            held.entry(event_type.clone()).or_default().changing =
                Some(Changing { until_ms, is_called: false });
        }
        for event_type in calls.keys() {
            let of = held.entry(event_type.clone()).or_default();
            let until_ms = of.changing.map_or(0, |changing| changing.until_ms);
            of.changing = Some(Changing { until_ms, is_called: true });
        }
        self.keyring.set(Held::new(held));
        self.changed.notify_waiters();
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No method leaves it half-made.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way that changes a secret.
#[derive(Debug)]
pub struct Calling {
    store: Arc<Store>,
    event_type: String,
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.store.count(&self.event_type, false);
    }
}

/// Makes the directory, durably, if it is not there.
fn create_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => dir.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all()),
    }
}

/// Takes away what others were allowed since.
fn keep_private(path: &Path) {
    let dir = path.parent().map(|dir| (dir, DIR_MODE));
    for (path, allowed) in dir.into_iter().chain([(path, private::MODE)]) {
        let Ok(metadata) = fs::metadata(path) else { continue };
        let mode = metadata.mode() & 0o777;
        if mode & !allowed == 0 {
            continue;
        }
        let path_shown = path.display();
        tracing::warn!(path = %path_shown, mode = %format!("{mode:o}"),
            "others could read secrets that the API gave; now they cannot: if they did, rotate them");
        if let Err(error) = fs::set_permissions(path, Permissions::from_mode(allowed)) {
            tracing::error!(%error, path = %path_shown, "others may read secrets");
        }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::Io { doing, path: path.to_owned(), cause: Arc::new(cause) }
}

#[cfg(test)]
mod tests;
