//! The bounds of one journal.

use std::time::Duration;

use super::segment::VERSION;

/// Bounds of a journal; every field has a default that suits the main one.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment that has reached this is closed and the next begun. Large enough that the
    /// syncs of beginning one do not count, small enough that space is freed soon. At most a
    /// quarter of `max_bytes` is used.
    pub segment_bytes: u64,
    /// All segments together; an append beyond it is refused.
    pub max_bytes: u64,
    /// The newest records kept in memory for readers that keep up.
    pub tail_bytes: usize,
    /// Appends waiting for the writer; one more waits in its own task.
    pub queue: usize,
    /// One group commit; bounds the memory and the time that one `fdatasync` stands for.
    pub batch_bytes: usize,
    /// How long a group commit may take: past it what comes meanwhile is refused, and whoever waits
    /// is told that the outcome is unknown.
    pub commit_timeout: Duration,
    /// Copies of places ride on a group commit at most this often.
    pub carry_every: Duration,
    /// One record with its keys; far above what the ingress lets in.
    pub max_record_bytes: usize,
    /// How long a reader waits before what the disk cannot read, before it goes on behind it.
    pub read_patience: Duration,
    /// How long settled segments are kept, as long as there is room; 0 keeps none.
    pub keep: Duration,
    /// Damaged segments that are kept whole.
    pub quarantine_bytes: u64,
    /// The format of what is written.
    pub write_version: u32,
    /// The newest keys that `open` returns.
    pub max_keys: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            segment_bytes: 64 << 20,
            max_bytes: 8 << 30,
            tail_bytes: 32 << 20,
            queue: 4096,
            batch_bytes: 8 << 20,
            commit_timeout: Duration::from_secs(5),
            carry_every: Duration::from_millis(10),
            max_record_bytes: 32 << 20,
            read_patience: Duration::from_secs(60),
            keep: Duration::ZERO,
            quarantine_bytes: 256 << 20,
            write_version: VERSION,
            max_keys: 1_000_000,
        }
    }
}
