//! The durable, ordered log of records: bytes and positions only. It knows nothing of events,
//! routes or brokers.
//!
//! # What the rest relies on
//!
//! - An append that is answered `Ok` is durable, whatever happens then. One that ends with any other
//!   error than [`Unknown`](AppendError::Unknown) left no trace.
//! - A [`Place`] is read from what it has not settled, and nothing is removed that it has not settled.
//!   What it settled is durable soon, at the latest when it was [saved](Place::save); a crash brings
//!   back what was not yet.
//! - Every position is delivered with the payload that was appended, or told as damaged, or was never
//!   given. What the disk cannot read is none of these: it comes later.
//! - Positions are given once, and greater is later. Nothing else is to be computed from them: how
//!   far behind a place is, how much room there is, where the end is, come as answers.
//! - Damage is told once, over all starts, with what was known by what is lost: [`Journal::next_lost`].
//!
//! # The cast, in the order in which a record meets it
//!
//! - `writer`: one thread; what waits becomes a batch, one write, one `fdatasync`. *Not* needed to read,
//!   nor for places that no commit carries.
//! - `frame`, `segment`, `identity`: the bytes of a record, of a file, and what frames are told by.
//! - `tail`: the newest records in memory. *Not* needed but for speed.
//! - `segments`: which file holds a position. *Not* needed to know what is in it.
//! - `reader`, with `visit`, `scan` and `window`: forward over frames, and over what cannot be read.
//! - `place`, with `settled` and `slot`: how far each who settles has got, durably.
//! - `sidecar`, `keys`: what records are known by, for longer than they last.
//! - `damage`, `known`, `quarantine`: what cannot be read, told once, and kept. *Not* needed to step over it.
//! - `release`: removes what everybody has settled.
//! - `recovery`: opens what the last process left. *Not* needed after that.
//! - `verify`, `salvage`: read without opening, for operators.
//! - `storage`: the door to the disk, which tests put a simulated one behind.
//!
//! # On disk
//!
//! ```text
//! DIR/lock                      locked while a process has the journal open
//! DIR/identity                  what frames are told by                          (identity.rs)
//! DIR/<base>.seg                a segment: the records from position <base> on   (segment.rs)
//! DIR/<base>.keys               the keys of a closed segment; outlives it        (sidecar.rs)
//! DIR/<base>.damage             what of a segment is damaged                     (known.rs)
//! DIR/aside/<base>-<end>.seg    one of which something cannot be read at present (release.rs)
//! DIR/cursors/<name>            a place                                          (slot.rs)
//! DIR/floor                     below it nothing is owed to anybody              (place.rs)
//! DIR/quarantine/…              damaged files                                    (quarantine.rs)
//! DIR/**/*.tmp                  files not finished; removed when the journal is opened
//! ```
//!
//! Every file starts with a magic and a version; an unknown version is refused, never guessed at.
//! A segment is a header block, frames (`frame.rs`), and, once closed, a trailer. A frame is a
//! checksummed header, 16-byte keys, and the payload; or a note, which is no record.
//!
//! Version 1 is read, and is written where [`Options::write_version`] says so: it had no identity, no
//! trailers and no notes, and its places were cursors alone.
//!
//! # Invariants
//!
//! 1. An append is answered `Ok` only after an `fdatasync` that covers all its bytes has succeeded
//!    and the file's name is durable.
//! 2. After a sync that failed nothing is answered `Ok` any more in this process.
//! 3. A process appends only to segment files that it created itself, so no page it relies on was
//!    marked clean by a sync that failed in another process. What the last one left unproven is
//!    written again in place, and synced, before `open` returns.
//! 4. A frame says up to which position all was durable before it was written (`proven`). It is
//!    believed because a batch is written only after the sync of the one before.
//! 5. A segment, sidecar or new place has its name only once its contents are durable: it is
//!    written under a temporary name, synced, renamed, and its directory synced.
//! 6. A segment's range is from its base to the next one's. A frame at or past that is superseded.
//! 7. Positions are given once: never one below any saved place, proven frame or reported damage.
//! 8. Damage costs no more than what it touches; what follows is still read. What is needed to read a
//!    segment stands in its header, its trailer, its frames, and follows from the identity.
//! 9. No bytes of a payload can pass for a frame: frames start with a number that senders cannot
//!    know.
//! 10. A sidecar holds keys of durable records only, and is durable before its segment is removed.
//!     Segments are removed lowest first, each durably before the next.
//! 11. A place never goes back but by damage to its file, and then no further than what is left of it
//!     says: what was settled may come again, and nothing is passed over.
//! 12. Memory is bounded by [`Options`], whatever the backlog.

mod damage;
mod error;
mod frame;
mod identity;
mod keys;
mod known;
mod options;
mod place;
mod quarantine;
mod reader;
mod recovery;
mod release;
mod reserve;
mod salvage;
mod scan;
mod segment;
mod segments;
mod settled;
mod shared;
mod sidecar;
mod slot;
mod stats;
mod storage;
mod tail;
mod verify;
mod visit;
mod window;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use damage::{Damage, Trouble, UnreadRegion};
pub use error::{AppendError, Error, is_no_space};
pub use options::Options;
pub use place::{Behind, Durable, Place, Stamp};
pub use quarantine::QuarantineUse;
pub use reader::Reader;
pub use recovery::is_open;
pub use reserve::Reserve;
pub use salvage::{Salvaged, salvage};
pub use stats::{NoRoom, Stats};
pub use storage::{File, LockGuard, RealDisk, Storage};
pub use verify::{Finding, Records, Verified, read_all, verify};

use release::Need;
use settled::Settled;
use shared::{Bounds, Shared, Stop, Watermark};
use tail::Tail;
use writer::{Command, Pending, Writer};

/// What makes an entry known: a hash, as the caller defines it.
pub type Key = [u8; 16];

/// Where a record stands among the others: greater is later. No more is to be made of it.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Position(u64);

impl Position {
    /// That of the first record ever.
    pub const FIRST: Position = Position(0);

    /// Its number, for people.
    pub fn ordinal(self) -> u64 {
        self.0
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
    /// Positions from `from` up to, not including, `to` are damaged.
    Damaged { from: Position, to: Position, why: String },
    /// Positions from `from` up to, not including, `to` were never given.
    Void { from: Position, to: Position },
}

impl Item {
    /// Its first position.
    pub fn position(&self) -> Position {
        match self {
            Item::Entry(position, _) => *position,
            Item::Damaged { from, .. } | Item::Void { from, .. } => *from,
        }
    }

    /// The position after it.
    pub fn next_position(&self) -> Position {
        match self {
            Item::Entry(position, _) => Position(position.0 + 1),
            Item::Damaged { to, .. } | Item::Void { to, .. } => *to,
        }
    }

    /// Whether all of it is settled.
    fn is_in(&self, settled: &Settled) -> bool {
        settled.covers(self.position().0, self.next_position().0)
    }

    /// Length of the payload in bytes.
    fn len(&self) -> usize {
        match self {
            Item::Entry(_, payload) => payload.len(),
            Item::Damaged { .. } | Item::Void { .. } => 0,
        }
    }
}

/// What [`Journal::open`] returns.
pub struct Opened {
    pub journal: Journal,
    /// The newest keys with the time of their record, oldest first.
    pub keys: Vec<(Key, u64)>,
}

/// How full a journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Records in its segments, settled ones that are not removed yet included.
    pub records: u64,
    /// Bytes of its segments, and their bound.
    pub bytes: u64,
    pub max_bytes: u64,
}

impl Room {
    /// What may still be appended.
    pub fn left_bytes(&self) -> u64 {
        self.max_bytes.saturating_sub(self.bytes)
    }
}

/// A handle to an open journal; clones are cheap and equal.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    writer: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
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
            identity: recovered.identity,
            segments: recovered.segments,
            active_keys: Mutex::new(recovered.active_keys),
            tail: Tail::new(recovered.end, options.tail_bytes),
            places: recovered.places,
            ledger: recovered.ledger,
            stats: Stats::new(),
            quarantine: recovered.quarantine,
            watermark: watch::Sender::new(watermark),
            failure: watch::Sender::new(None),
            removing: Mutex::new(()),
            forgotten: Mutex::default(),
            doomed: Mutex::default(),
            lock: Mutex::new(Some(recovered.lock)),
            bounds: Bounds::of(&options),
            options,
        });
        let writer = Writer::new(shared.clone(), queue, recovered.active, recovered.end);
        let thread = thread::Builder::new().name("journal".to_owned());
        let thread = thread.spawn(|| writer.run()).map_err(Error::io("start a thread for", dir))?;
        let writer = Arc::new(Mutex::new(Some(thread)));
        if shared.places.names().is_empty() {
            // Nobody will come to read it: it is lost as it is met.
            for damage in shared.ledger.all() {
                shared.lost_unread(&damage);
            }
        }
        let journal = Journal { shared, queue: commands, writer };
        Ok(Opened { journal, keys: recovered.keys })
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
        if self.is_stuck() {
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
        known.map_or_else(
            |_| {
                self.shared.stats.stuck.store(true, Relaxed);
                Err(AppendError::Unknown)
            },
            |told| told.unwrap_or(Err(AppendError::Closed)),
        )
    }

    /// Whether the group commit under way takes so long that somebody has given up on it. Every append
    /// asks, and looks at the clock only once somebody has.
    pub fn is_stuck(&self) -> bool {
        self.shared.stats.stuck.load(Relaxed) && self.hangs().is_some()
    }

    /// How long the group commit under way has taken, if that is longer than `commit_timeout`.
    pub fn hangs(&self) -> Option<Duration> {
        self.shared.stats.commits_for().filter(|took| *took > self.shared.options.commit_timeout)
    }

    /// One past the last durable position: what is appended from now on is not before it.
    pub fn fence(&self) -> Position {
        Position(self.shared.watermark.borrow().end)
    }

    /// How full it is.
    pub fn room(&self) -> Room {
        let shared = &self.shared;
        let records = shared.watermark.borrow().end.saturating_sub(shared.segments.first());
        Room { records, bytes: shared.segments.bytes(), max_bytes: shared.max_bytes() }
    }

    /// Reads forward from a position, settled or not.
    pub fn reader(&self, from: Position) -> Reader {
        Reader::new(self.shared.clone(), from)
    }

    /// Opens the place of this name. A new one has settled what lies below the floor: what nobody who
    /// has a place is owed. From now on nothing is removed that it has not settled. Blocks.
    pub fn place(&self, name: &str) -> Result<Place, Error> {
        let shared = &self.shared;
        let (first, end) = (shared.segments.first(), self.fence().0);
        let member = shared.places.open(&*shared.storage, name, first, end)?;
        Ok(Place::new(shared.clone(), member))
    }

    /// The names of all places there are.
    pub fn place_names(&self) -> Vec<String> {
        self.shared.places.names()
    }

    /// How far the place of this name is from the end, and how many records were lost to it since the
    /// start; nothing if there is none.
    pub fn behind(&self, name: &str) -> (Behind, u64) {
        let member = self.shared.places.get(name);
        member.map_or_else(Default::default, |member| {
            (self.shared.behind(&member), member.lost.get())
        })
    }

    /// Removes the place of this name, which is not open: the next of that name begins at the floor.
    pub async fn forget_place(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        let forget = move |shared: &Shared| {
            let _owned = shared.owned()?;
            shared.places.forget(&*shared.storage, &name)
        };
        self.removing(forget).await
    }

    /// Removes the segments that every place has settled, but for those that are
    /// [kept](Options::keep), and never the active one. Without a place nothing is settled.
    pub async fn release(&self) -> Result<(), Error> {
        self.removing(|shared| shared.release(Need::Time)).await
    }

    /// The next damage by which somebody lost something, to be told, once over all starts, by whoever
    /// then says that [it was](Self::told); what was not comes again after the next start. Cancel-safe.
    pub async fn next_lost(&self) -> Damage {
        self.shared.ledger.next_lost().await
    }

    /// What [`next_lost`](Self::next_lost) returned was told, durably. Blocks.
    pub fn told(&self, damage: &Damage) {
        self.shared.ledger.told(damage);
    }

    /// What is damaged, and what cannot be read at present. Blocks.
    pub fn trouble(&self) -> Trouble {
        self.shared.ledger.look(&self.shared.quarantine)
    }

    /// How many regions cannot be read at present.
    pub fn unread_regions(&self) -> u64 {
        self.shared.ledger.unread_regions()
    }

    /// Damaged regions met since the start, and reads that failed of regions that could be read before.
    pub fn troubles_met(&self) -> (u64, u64) {
        let ledger = &self.shared.ledger;
        (ledger.regions.get(), ledger.read_errors.get())
    }

    /// What is damaged of the segments there are.
    pub fn damage(&self) -> Vec<Damage> {
        self.shared.ledger.all()
    }

    /// What is kept in quarantine. Blocks.
    pub fn quarantine(&self) -> QuarantineUse {
        self.shared.quarantine.used()
    }

    /// What cannot be read at present counts as damaged from now on: how many regions that are. Blocks.
    pub fn skip_unread(&self) -> usize {
        self.shared.ledger.skip()
    }

    /// Removes the keys of released segments that are wholly older than `before_ms`.
    pub async fn forget_keys(&self, before_ms: u64) -> Result<(), Error> {
        self.removing(move |shared| shared.forget_keys(before_ms)).await
    }

    /// What it counts of itself.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Sets the bound of all segments, and when a new one begins, for what is appended from now on.
    pub fn set_bounds(&self, segment_bytes: u64, max_bytes: u64) {
        self.shared.bounds.set(segment_bytes, max_bytes);
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
        let task = tokio::task::spawn_blocking(move || remove(&shared));
        task.await.unwrap_or(Err(Error::Panicked))
    }
}

/// Locks a mutex. None of ours is left half-changed by a panic, so a poisoned one is as good.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
