//! Whether the daemon can take events: the answer of `/readyz`.
//!
//! Brokers do not count. What is accepted while one is down waits on disk for it, which is what the
//! journal is there for; a daemon that called itself unready then would be taken out of its load
//! balancer, and senders be refused, because of the very trouble that it outlasts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::NoRoom;

/// With less than this left of the journal or of its disk, the next event is about to be refused:
/// an event with its headers, and the header of a new segment.
const ROOM_BYTES: u64 = 16 << 10;

/// How long an append that found no room counts. Without events nothing else would tell that there
/// is room again, and without readiness there may be no events.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// Why the daemon is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Told to stop.
    Draining,
    /// `journal.max_bytes` is reached.
    JournalFull,
    /// The disk under the data directory is full, or a quota is.
    DiskFull,
    /// A write to the disk has not come back for longer than `journal.commit_timeout`.
    DiskHangs,
    /// The data directory cannot be looked at.
    DataDirUnreadable,
    /// What the disk holds is unknown; the daemon is about to end.
    JournalFailed,
}

impl Reason {
    /// In words for people.
    pub fn words(self) -> &'static str {
        match self {
            Reason::Draining => "it was told to stop",
            Reason::JournalFull => {
                "the journal is full: see journal.max_bytes, and why brokers lag"
            }
            Reason::DiskFull => "the disk is full: make room under the data directory",
            Reason::DiskHangs => {
                "the disk does not answer (journal.commit_timeout): see the disk and the kernel's log. \
                 Nothing acknowledged is lost, and events are taken again once it answers"
            }
            Reason::DataDirUnreadable => "the data directory cannot be looked at: see its disk",
            Reason::JournalFailed => "the journal has failed: see the log",
        }
    }
}

/// What readiness depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    pub draining: bool,
    pub failed: bool,
    /// Left of `journal.max_bytes`.
    pub journal_left_bytes: u64,
    /// Whether a group commit has taken longer than it may.
    pub hangs: bool,
    /// Left of the disk, if that can be told; it is not asked while it hangs.
    pub disk_left_bytes: Option<u64>,
    /// The bound that the last append met, and how long ago.
    pub refuses: Option<(NoRoom, Duration)>,
}

/// Every reason; none if the daemon is ready.
pub fn reasons(facts: &Facts) -> Vec<Reason> {
    let refused = |bound| facts.refuses.is_some_and(|(b, ago)| b == bound && ago < REFUSED_FOR);
    let disk_full = facts.disk_left_bytes.is_some_and(|left| left < ROOM_BYTES);
    [
        (facts.draining, Reason::Draining),
        (facts.failed, Reason::JournalFailed),
        (facts.journal_left_bytes < ROOM_BYTES || refused(NoRoom::Journal), Reason::JournalFull),
        (disk_full || refused(NoRoom::Disk), Reason::DiskFull),
        (facts.hangs, Reason::DiskHangs),
        (facts.disk_left_bytes.is_none() && !facts.hangs, Reason::DataDirUnreadable),
    ]
    .into_iter()
    .filter_map(|(holds, reason)| holds.then_some(reason))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fact_has_its_reason_and_without_any_it_is_ready() {
        let ready = Facts {
            draining: false,
            failed: false,
            journal_left_bytes: 1 << 30,
            hangs: false,
            disk_left_bytes: Some(1 << 30),
            refuses: None,
        };
        let ago = |bound, seconds| Some((bound, Duration::from_secs(seconds)));
        for (facts, expected) in [
            (ready, vec![]),
            (Facts { draining: true, ..ready }, vec![Reason::Draining]),
            (Facts { failed: true, ..ready }, vec![Reason::JournalFailed]),
            (Facts { journal_left_bytes: ROOM_BYTES - 1, ..ready }, vec![Reason::JournalFull]),
            (Facts { journal_left_bytes: ROOM_BYTES, ..ready }, vec![]),
            (Facts { disk_left_bytes: Some(0), ..ready }, vec![Reason::DiskFull]),
            (Facts { disk_left_bytes: None, ..ready }, vec![Reason::DataDirUnreadable]),
            (Facts { hangs: true, disk_left_bytes: None, ..ready }, vec![Reason::DiskHangs]),
            (Facts { refuses: ago(NoRoom::Journal, 9), ..ready }, vec![Reason::JournalFull]),
            (Facts { refuses: ago(NoRoom::Disk, 9), ..ready }, vec![Reason::DiskFull]),
            (Facts { refuses: ago(NoRoom::Disk, 10), ..ready }, vec![]),
            (
                Facts { draining: true, disk_left_bytes: Some(1), ..ready },
                vec![Reason::Draining, Reason::DiskFull],
            ),
        ] {
            assert_eq!(reasons(&facts), expected, "{facts:?}");
        }
    }
}
