//! What a journal counts of itself since it was opened, and whether it has room.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{AppendError, lock};
use crate::meter::{Counter, Histogram};

/// What bound an append met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// `max_bytes`.
    Journal,
    /// The disk, or a quota.
    Disk,
}

/// See the module.
#[derive(Debug)]
pub struct Stats {
    /// Records that are durable.
    pub appended: Counter,
    /// Records of each group commit.
    pub batches: Histogram,
    /// Time of each group commit's `fdatasync`.
    pub syncs: Histogram,
    /// Released segments that could not be removed, each time.
    pub unlink_failures: Counter,
    full: Counter,
    no_space: Counter,
    too_large: Counter,
    hung: Counter,
    /// The journal is closed or has failed.
    ended: Counter,
    /// The bound that an append met after the last one that was taken, and when.
    no_room: Mutex<Option<(NoRoom, Instant)>>,
    /// Whether there is one: the writer looks here first.
    refuses: AtomicBool,
    /// When the group commit under way began: microseconds since `born`; 0 if there is none. Every
    /// append looks.
    commit_began: AtomicU64,
    born: Instant,
    /// Whether somebody has waited for it in vain; it may have ended since.
    pub(super) stuck: AtomicBool,
}

impl Stats {
    pub(super) fn new() -> Stats {
        Stats {
            appended: Counter::default(),
            batches: Histogram::of_sizes(),
            syncs: Histogram::of_times(),
            unlink_failures: Counter::default(),
            full: Counter::default(),
            no_space: Counter::default(),
            too_large: Counter::default(),
            hung: Counter::default(),
            ended: Counter::default(),
            no_room: Mutex::default(),
            refuses: AtomicBool::default(),
            commit_began: AtomicU64::default(),
            born: Instant::now(),
            stuck: AtomicBool::default(),
        }
    }

    /// A group commit begins, or has ended.
    pub(super) fn commits(&self, begins: bool) {
        let now = self.born.elapsed().as_micros() as u64;
        self.commit_began.store(if begins { now.max(1) } else { 0 }, Relaxed);
        if !begins && self.stuck.load(Relaxed) {
            self.stuck.store(false, Relaxed);
        }
    }

    /// How long the group commit under way has taken.
    pub(super) fn commits_for(&self) -> Option<Duration> {
        let began = Some(self.commit_began.load(Relaxed)).filter(|began| *began > 0)?;
        Some(self.born.elapsed().saturating_sub(Duration::from_micros(began)))
    }

    pub(super) fn synced(&self, took: Duration) {
        self.syncs.observe_time(took);
    }

    /// A group commit of so many records is durable.
    pub(super) fn committed(&self, records: u64) {
        self.batches.observe(records);
        self.appended.add(records);
        if self.refuses.swap(false, Relaxed) {
            *lock(&self.no_room) = None;
        }
    }

    pub(super) fn refused(&self, error: &AppendError) {
        match error {
            AppendError::Full => self.no_room(&self.full, NoRoom::Journal),
            AppendError::NoSpace => self.no_room(&self.no_space, NoRoom::Disk),
            AppendError::TooLarge => self.too_large.inc(),
            AppendError::Hung => self.hung.inc(),
            // Told to the caller alone: what becomes of it is counted once that is known.
            AppendError::Unknown => {}
            AppendError::Closed | AppendError::Failed(_) => self.ended.inc(),
        }
    }

    fn no_room(&self, counter: &Counter, bound: NoRoom) {
        counter.inc();
        *lock(&self.no_room) = Some((bound, Instant::now()));
        self.refuses.store(true, Relaxed);
    }

    /// Every reason why appends are refused, with how many were.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("journal_full", self.full.get()),
            ("disk_full", self.no_space.get()),
            ("too_large", self.too_large.get()),
            ("disk_hung", self.hung.get()),
            ("ended", self.ended.get()),
        ]
        .into_iter()
    }

    /// The bound that the last append met, and how long ago; `None` if it was taken.
    pub fn refuses(&self) -> Option<(NoRoom, Duration)> {
        (*lock(&self.no_room)).map(|(bound, at)| (bound, at.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_append_that_finds_no_room_counts_until_one_is_taken() {
        let stats = Stats::new();
        assert_eq!(stats.refuses(), None);
        for (error, bound) in
            [(AppendError::Full, NoRoom::Journal), (AppendError::NoSpace, NoRoom::Disk)]
        {
            stats.refused(&error);
            assert_eq!(stats.refuses().map(|(bound, _)| bound), Some(bound));
        }
        // Says nothing about room.
        stats.refused(&AppendError::TooLarge);
        stats.refused(&AppendError::Closed);
        assert_eq!(stats.refuses().map(|(bound, _)| bound), Some(NoRoom::Disk));
        stats.committed(3);
        assert_eq!(stats.refuses(), None);
        assert_eq!((stats.appended.get(), stats.batches.read().sum), (3, 3));
        stats.refused(&AppendError::Hung);
        assert!(stats.refusals().all(|(_, count)| count == 1));
    }
}
