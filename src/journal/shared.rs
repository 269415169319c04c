//! What handles, readers and the writer have in common.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::watch;

use super::{
    AppendError, Behind, Error, LockGuard, Options, Stats, Storage,
    damage::Ledger,
    identity::Identity,
    lock,
    place::{Member, Places},
    quarantine::Quarantine,
    segments::Segments,
    settled::Settled,
    tail::Tail,
    writer::ActiveKeys,
};

/// A full journal has at least about this many segments: the active one is never released, and must
/// not be what fills it.
const SEGMENTS_AT_LEAST: u64 = 4;

/// See the module.
pub(super) struct Shared {
    pub storage: Arc<dyn Storage>,
    pub dir: PathBuf,
    pub options: Options,
    /// Of the options those that may change.
    pub bounds: Bounds,
    pub identity: Identity,
    pub segments: Segments,
    pub active_keys: Mutex<ActiveKeys>,
    pub tail: Tail,
    pub places: Places,
    pub ledger: Ledger,
    pub stats: Stats,
    pub quarantine: Quarantine,
    pub watermark: watch::Sender<Watermark>,
    /// Apart from the watermark: who waits for a failure is not to wake at every commit.
    pub failure: watch::Sender<Option<Arc<Error>>>,
    /// Taken while segments or sidecars are removed.
    pub removing: Mutex<()>,
    /// The segment whose lost keys were forgotten last, and what of it was damaged then.
    pub forgotten: Mutex<Option<(u64, Settled)>>,
    /// Released files that could not be removed.
    pub doomed: Mutex<Vec<PathBuf>>,
    pub lock: Mutex<Option<LockGuard>>,
}

/// See [`Options`].
pub(super) struct Bounds {
    pub segment_bytes: AtomicU64,
    pub max_bytes: AtomicU64,
}

impl Bounds {
    pub fn of(options: &Options) -> Bounds {
        let bounds = Bounds { segment_bytes: AtomicU64::new(0), max_bytes: AtomicU64::new(0) };
        bounds.set(options.segment_bytes, options.max_bytes);
        bounds
    }

    pub fn set(&self, segment_bytes: u64, max_bytes: u64) {
        self.segment_bytes.store(segment_bytes.min(max_bytes / SEGMENTS_AT_LEAST), Relaxed);
        self.max_bytes.store(max_bytes, Relaxed);
    }
}

/// How far the journal is durable, and whether that can still change.
#[derive(Clone, Debug)]
pub(super) struct Watermark {
    pub end: u64,
    pub stopped: Option<Stop>,
}

/// Why the writer has ended.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    Closed,
    Failed(Arc<Error>),
}

impl Shared {
    pub fn stop(&self, stop: Stop) {
        if let Stop::Failed(error) = &stop {
            self.failure.send_replace(Some(error.clone()));
        }
        self.watermark.send_modify(|watermark| watermark.stopped = Some(stop));
    }

    /// The right to remove files: one at a time, and only while the directory is this process's.
    pub fn owned(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let one_at_a_time = lock(&self.removing);
        match lock(&self.lock).is_some() {
            true => Ok(one_at_a_time),
            false => Err(Error::Closed),
        }
    }

    pub fn max_bytes(&self) -> u64 {
        self.bounds.max_bytes.load(Relaxed)
    }

    /// What may still be appended.
    pub fn room_bytes(&self) -> u64 {
        self.max_bytes().saturating_sub(self.segments.bytes())
    }

    pub fn behind(&self, member: &Member) -> Behind {
        if member.is_retired() {
            return Behind::default();
        }
        let (settled, end) = (member.settled(), self.watermark.borrow().end);
        let records = settled.open_in(settled.cursor(), end);
        let bytes = if records == 0 { 0 } else { self.segments.bytes_from(settled.cursor()) };
        Behind { records, bytes }
    }

    /// The error of an append that comes too late.
    pub fn stopped(&self) -> AppendError {
        match &self.watermark.borrow().stopped {
            Some(Stop::Failed(error)) => AppendError::Failed(error.clone()),
            _ => AppendError::Closed,
        }
    }
}
