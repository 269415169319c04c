//! The durable, ordered log of records: bytes and positions only. It knows nothing of events,
//! routes or brokers.
//!
//! # On disk
//!
//! ```text
//! DIR/lock                      locked while a process has the journal open
//! DIR/<base>.seg                a segment: the records from position <base> on     (segment.rs)
//! DIR/<base>.keys               the keys of a closed segment; outlives it          (sidecar.rs)
//! DIR/cursors/<name>            a saved position                                   (cursor.rs)
//! DIR/quarantine/…              bytes that could not be read                       (quarantine.rs)
//! DIR/**/*.tmp                  files not finished; removed when the journal is opened
//! ```
//!
//! Every file starts with a magic and a version; an unknown version is refused, never guessed at.
//! A segment is a header block and frames (`frame.rs`); a frame is a checksummed header, 16-byte
//! keys, and the payload.
//!
//! # Layers
//!
//! `storage` is the door to the disk. `frame` is one record's bytes, `segment` one file, `scan` the
//! walk over a file and its damage, through a `window` on it, `segments` the files in force.
//! `recovery` opens, `writer` commits, `tail` and `reader` read, `cursor` remembers, `sidecar` and
//! `keys` keep what is known, `release` removes what is no longer wanted, `stats` counts.
//!
//! # Invariants
//!
//! 1. An append is answered `Ok` only after an `fdatasync` that covers all its bytes has succeeded
//!    and the file's name is durable.
//! 2. After a sync that failed nothing is answered `Ok` any more in this process.
//! 3. A process writes only to segment files that it created itself, so no page it relies on was
//!    marked clean by a sync that failed in another process. What the last one left unproven is
//!    copied to a new file and synced before `open` returns.
//! 4. A frame says up to which position all was durable before it was written (`proven`). It is
//!    believed because a batch is written only after the sync of the one before.
//! 5. A segment, sidecar or new cursor has its name only once its contents are durable: it is
//!    written under a temporary name, synced, renamed, and its directory synced.
//! 6. A segment's range is from its base to the next one's. A frame at or past that is superseded.
//! 7. Positions are given once: never one below any saved cursor, proven frame or reported damage.
//! 8. Every position is either delivered with the payload that was appended, or reported as
//!    damaged. Damage costs no more than what it touches; what follows is still read.
//! 9. No bytes of a payload can pass for a frame: frames start with a number that senders cannot
//!    know.
//! 10. A sidecar holds keys of durable records only, and is durable before its segment is removed.
//!     Segments are removed lowest first, each durably before the next.
//! 11. A cursor is durable when `save` returns, and never goes back. The caller saves it before it
//!     releases what lies below.
//! 12. Memory is bounded by [`Options`], whatever the backlog.

mod cursor;
mod error;
mod frame;
mod keys;
mod options;
mod quarantine;
mod read_all;
mod reader;
mod recovery;
mod release;
mod reserve;
mod scan;
mod segment;
mod segments;
mod sidecar;
mod stats;
mod storage;
mod tail;
mod window;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use cursor::Cursor;
pub use error::{AppendError, Error, is_no_space};
pub use options::Options;
pub use read_all::{Records, read_all};
pub use reader::Reader;
pub use recovery::is_open;
pub use reserve::Reserve;
pub use stats::{NoRoom, Stats};
pub use storage::{File, LockGuard, RealDisk, Storage};

use quarantine::Quarantine;
use segments::Segments;
use tail::Tail;
use writer::{Command, Pending, Writer};

/// A full journal has at least about this many segments: the active one is never released, and must
/// not be what fills it.
const SEGMENTS_AT_LEAST: u64 = 4;

/// What makes an entry known: a hash, as the caller defines it.
pub type Key = [u8; 16];

/// A record's place: its ordinal, from 0.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(pub u64);

impl Position {
    /// The position after this one.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What is appended.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    pub payload: Bytes,
    /// What the record is known by; returned when the journal is opened again.
    pub keys: Vec<Key>,
    /// Time of the record, milliseconds since the Unix epoch; dates its keys.
    pub time_ms: u64,
}

impl Entry {
    /// An entry that is known by nothing.
    pub fn new(payload: Bytes, time_ms: u64) -> Entry {
        Entry { payload, keys: Vec::new(), time_ms }
    }
}

/// Told, from the writer's thread, what became of an append. It must not block.
pub type OnDurable = Box<dyn FnOnce(Result<Position, AppendError>) + Send>;

/// What a reader meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record's payload, as it was appended.
    Entry(Position, Bytes),
    /// Positions from `from` up to, not including, `to` cannot be read. Equal ones mean that
    /// damage was met where no record is missing.
    Damaged { from: Position, to: Position, why: String },
}

impl Item {
    /// The position after this item.
    pub fn next_position(&self) -> Position {
        match self {
            Item::Entry(position, _) => position.next(),
            Item::Damaged { to, .. } => *to,
        }
    }

    /// Length of the payload in bytes.
    fn len(&self) -> usize {
        match self {
            Item::Entry(_, payload) => payload.len(),
            Item::Damaged { .. } => 0,
        }
    }
}

/// Damage found while opening; already reported in the log.
#[derive(Clone, Debug)]
pub struct Damage {
    pub file: PathBuf,
    /// The first position that cannot be read.
    pub from: Position,
    /// One past the last; equal to `from` if no record is lost.
    pub to: Position,
    pub why: String,
}

/// What [`Journal::open`] returns.
pub struct Opened {
    pub journal: Journal,
    /// The newest keys with the time of their record, oldest first.
    pub keys: Vec<(Key, u64)>,
    pub damage: Vec<Damage>,
}

/// A handle to an open journal; clones are cheap and equal.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    writer: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
}

/// What handles, readers and the writer have in common.
struct Shared {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    options: Options,
    /// Of the options those that may change.
    bounds: Bounds,
    segments: Segments,
    tail: Tail,
    stats: Stats,
    quarantine: Quarantine,
    watermark: watch::Sender<Watermark>,
    /// Apart from the watermark: who waits for a failure is not to wake at every commit.
    failure: watch::Sender<Option<Arc<Error>>>,
    /// Taken while segments or sidecars are removed.
    removing: Mutex<()>,
    lock: Mutex<Option<LockGuard>>,
}

/// See [`Options`].
struct Bounds {
    segment_bytes: AtomicU64,
    max_bytes: AtomicU64,
}

impl Bounds {
    fn of(options: &Options) -> Bounds {
        let bounds = Bounds { segment_bytes: AtomicU64::new(0), max_bytes: AtomicU64::new(0) };
        bounds.set(options.segment_bytes, options.max_bytes);
        bounds
    }

    fn set(&self, segment_bytes: u64, max_bytes: u64) {
        self.segment_bytes.store(segment_bytes.min(max_bytes / SEGMENTS_AT_LEAST), Relaxed);
        self.max_bytes.store(max_bytes, Relaxed);
    }
}

/// How far the journal is durable, and whether that can still change.
#[derive(Clone, Debug)]
struct Watermark {
    end: u64,
    stopped: Option<Stop>,
}

/// Why the writer has ended.
#[derive(Clone, Debug)]
enum Stop {
    Closed,
    Failed(Arc<Error>),
}

impl Shared {
    fn stop(&self, stop: Stop) {
        if let Stop::Failed(error) = &stop {
            self.failure.send_replace(Some(error.clone()));
        }
        self.watermark.send_modify(|watermark| watermark.stopped = Some(stop));
    }

    /// The error of an append that comes too late.
    fn stopped(&self) -> AppendError {
        match &self.watermark.borrow().stopped {
            Some(Stop::Failed(error)) => AppendError::Failed(error.clone()),
            _ => AppendError::Closed,
        }
    }
}

impl Journal {
    /// Opens the journal in `dir`, creating it if there is none, and recovers what the last process
    /// left. Blocks; everything that can be read is durable when it returns.
    pub fn open(storage: Arc<dyn Storage>, dir: &Path, options: Options) -> Result<Opened, Error> {
        let recovered = recovery::recover(&storage, dir, &options)?;
        let (commands, queue) = mpsc::channel(options.queue.max(1));
        let watermark = Watermark { end: recovered.end, stopped: None };
        let shared = Arc::new(Shared {
            storage,
            dir: dir.to_owned(),
            segments: Segments::new(recovered.segments),
            tail: Tail::new(recovered.end, options.tail_bytes),
            stats: Stats::new(),
            quarantine: recovered.quarantine,
            watermark: watch::Sender::new(watermark),
            failure: watch::Sender::new(None),
            removing: Mutex::new(()),
            lock: Mutex::new(Some(recovered.lock)),
            bounds: Bounds::of(&options),
            options,
        });
        let writer = Writer::new(shared.clone(), queue, recovered.active, recovered.end);
        let thread = thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(|| writer.run()).map_err(Error::io("start a thread for", dir))?;
        let writer = Arc::new(Mutex::new(Some(thread)));
        let journal = Journal { shared, queue: commands, writer };
        Ok(Opened { journal, keys: recovered.keys, damage: recovered.damage })
    }

    /// Appends an entry; waits only for room in the queue. `done` is called exactly once, from the
    /// writer's thread after the group commit, or here if the entry cannot be taken at all. If this
    /// future is dropped before the entry is in the queue, `done` is dropped uncalled.
    pub async fn append(&self, entry: Entry, done: OnDurable) {
        let len = frame::HEADER_BYTES + entry.keys.len() * frame::KEY_BYTES + entry.payload.len();
        if len > self.shared.options.max_record_bytes || u32::try_from(len).is_err() {
            self.shared.stats.refused(&AppendError::TooLarge);
            return done(Err(AppendError::TooLarge));
        }
        if self.hangs().is_some() {
            self.shared.stats.refused(&AppendError::Hung);
            return done(Err(AppendError::Hung));
        }
        let pending = Pending::new(entry);
        match self.queue.reserve().await {
            Ok(permit) => permit.send(Command::Append(pending.with(done))),
            Err(_) => done(Err(self.shared.stopped())),
        }
    }

    /// Appends an entry and waits until it is durable, `commit_timeout` at the most: then it is
    /// [`AppendError::Unknown`] to the caller.
    pub async fn append_durable(&self, entry: Entry) -> Result<Position, AppendError> {
        self.append_then(entry, |_| ()).await
    }

    /// The same, and `then` runs where the outcome is known: from the writer's thread, also after the
    /// caller was told that it is unknown, or is gone. It must not block.
    pub async fn append_then(
        &self,
        entry: Entry,
        then: impl FnOnce(&Result<Position, AppendError>) + Send + 'static,
    ) -> Result<Position, AppendError> {
        let (tell, mut told) = oneshot::channel();
        let done = move |outcome| {
            then(&outcome);
            // Nobody may be listening any more; what is durable is so all the same.
            tell.send(outcome).ok();
        };
        let appended = async {
            self.append(entry, Box::new(done)).await;
            (&mut told).await
        };
        let known = tokio::time::timeout(self.shared.options.commit_timeout, appended).await;
        known.map_or(Err(AppendError::Unknown), |told| told.unwrap_or(Err(AppendError::Closed)))
    }

    /// How long the group commit under way has taken, if that is longer than `commit_timeout`.
    pub fn hangs(&self) -> Option<Duration> {
        self.shared.stats.commits_for().filter(|took| *took > self.shared.options.commit_timeout)
    }

    /// The oldest position that there is a segment for.
    pub fn first(&self) -> Position {
        Position(self.shared.segments.first())
    }

    /// One past the last durable position.
    pub fn end(&self) -> Position {
        Position(self.shared.watermark.borrow().end)
    }

    /// Reads forward from a position.
    pub fn reader(&self, from: Position) -> Reader {
        Reader::new(self.shared.clone(), from)
    }

    /// Opens a cursor, creating it at [`first`](Self::first) if there is none of that name. Blocks.
    /// A name must not be open twice at a time.
    pub fn cursor(&self, name: &str) -> Result<Cursor, Error> {
        let (storage, dir) = (&*self.shared.storage, cursor::dir_of(&self.shared.dir));
        let (first, end) = (self.first(), self.end());
        let position = match cursor::read(storage, &dir, name)? {
            None => first,
            Some(cursor::Saved::Position(saved)) if saved > end.0 => {
                tracing::error!(cursor = name, saved, %end, "a cursor is past the journal's end");
                end
            }
            Some(cursor::Saved::Position(saved)) if saved < first.0 => {
                tracing::info!(cursor = name, saved, %first, "a cursor goes on at what is left");
                first
            }
            Some(cursor::Saved::Position(saved)) => Position(saved),
            Some(cursor::Saved::Damaged) => {
                let file = cursor::file_name(name)?;
                let path = dir.join(&file);
                let kept = self.shared.quarantine.keep_file(&path, &format!("cursor-{file}"));
                let kept = kept.map_err(Error::io("move", &path))?.display().to_string();
                tracing::error!(cursor = name, kept, %first, "a cursor is damaged: starting again");
                first
            }
        };
        cursor::create(storage, &dir, name, position)
    }

    /// The names of all cursors there are.
    pub fn cursor_names(&self) -> Result<Vec<String>, Error> {
        cursor::names(&*self.shared.storage, &cursor::dir_of(&self.shared.dir))
    }

    /// Removes the cursor of this name, which is not open: the next of that name begins at
    /// [`first`](Self::first) again.
    pub async fn forget_cursor(&self, name: &str) -> Result<(), Error> {
        let file = cursor::dir_of(&self.shared.dir).join(cursor::file_name(name)?);
        let remove = move |shared: &Shared| match shared.storage.remove(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &file)(error))
            }
            _ => Ok(()),
        };
        self.removing(remove).await
    }

    /// Removes the segments that lie wholly below a position, never the active one. Every cursor
    /// that matters has durably passed it: that is the caller's to see to.
    pub async fn release(&self, below: Position) -> Result<(), Error> {
        self.removing(move |shared| shared.release(below)).await
    }

    /// Removes the keys of released segments that are wholly older than `before_ms`.
    pub async fn forget_keys(&self, before_ms: u64) -> Result<(), Error> {
        self.removing(move |shared| shared.forget_keys(before_ms)).await
    }

    /// What it counts of itself.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.shared.segments.bytes()
    }

    /// About how many bytes a reader at `position` has before it, counted by segment; 0 at the end.
    pub fn bytes_from(&self, position: Position) -> u64 {
        if position >= self.end() { 0 } else { self.shared.segments.bytes_from(position.0) }
    }

    /// The bound on [`bytes`](Self::bytes).
    pub fn max_bytes(&self) -> u64 {
        self.shared.bounds.max_bytes.load(Relaxed)
    }

    /// Sets that bound and when a new segment begins, for what is appended from now on.
    pub fn set_bounds(&self, segment_bytes: u64, max_bytes: u64) {
        self.shared.bounds.set(segment_bytes, max_bytes);
    }

    /// One past the last position of the segment that holds `position`: once all below it is settled,
    /// that segment can be released. `None` for the active segment, which never is.
    pub fn segment_end(&self, position: Position) -> Option<Position> {
        self.shared.segments.locate(position.0)?.limit.map(Position)
    }

    /// Whether the writer has met a fatal error.
    pub fn has_failed(&self) -> bool {
        self.shared.failure.borrow().is_some()
    }

    /// Resolves when the writer has met a fatal error; never otherwise.
    pub async fn failed(&self) -> Arc<Error> {
        let mut failure = self.shared.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.ok().and_then(|error| error.clone());
        match failed {
            Some(error) => error,
            // The sender lives in this handle: this is never reached.
            None => std::future::pending().await,
        }
    }

    /// Commits what waits, ends the writer and gives up the lock. Other handles can still read.
    pub async fn close(self) {
        // An error means that the writer has ended already.
        let _ended = self.queue.send(Command::Close).await;
        let ended = tokio::task::spawn_blocking(move || {
            // Held meanwhile: who closes a second time waits here for the writer, too.
            let mut writer = lock(&self.writer);
            if let Some(thread) = writer.take() {
                // A panic of the writer has been told through `failed`.
                let _joined = thread.join();
            }
            // Once the lock is given up the directory may be another's: nothing is removed then.
            let _none_under_way = lock(&self.shared.removing);
            lock(&self.shared.lock).take();
        });
        // Nothing in it panics; only a runtime that is shutting down drops it.
        let _ended = ended.await;
    }

    async fn removing(
        &self,
        remove: impl FnOnce(&Shared) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Error> {
        let shared = self.shared.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _one_at_a_time = lock(&shared.removing);
            // Once the lock is given up another process may own the directory.
            if lock(&shared.lock).is_none() {
                return Err(Error::Closed);
            }
            remove(&shared)
        });
        task.await.unwrap_or(Err(Error::Panicked))
    }
}

/// Locks a mutex. None of ours is left half-changed by a panic, so a poisoned one is as good.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
