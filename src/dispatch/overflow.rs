//! `when_full: dead_letter_oldest`: once a broker has as much parked as it may, the oldest parked
//! messages become dead letters until there is room: by whole segments of its parked journal.

use bytestring::ByteString;

use super::{
    Dispatcher,
    job::{Job, LaneKind},
};
use crate::routing::WhenFull;

/// Why they do.
const REASON: ByteString =
    ByteString::from_static("its broker's backlog was full (when_full: dead_letter_oldest)");

impl Dispatcher {
    /// Gives up on the oldest, unless there is room or it is being made already.
    pub(super) fn make_room(&mut self) {
        let (bound, when_full) = {
            let policy = self.orders.policy();
            (policy.backlog_bytes, policy.when_full)
        };
        if when_full != WhenFull::DeadLetterOldest {
            return;
        }
        // Nothing more while what was given up on before is still under way.
        let Some(end) = self.parked.excess(bound).filter(|end| *end > self.overflow_end) else {
            return;
        };
        tracing::warn!(
            broker = %self.name,
            "a backlog is full: its oldest parked messages become dead letters"
        );
        self.overflow_end = end;
        let retries = std::mem::take(&mut self.retries);
        let (oldest, rest) = retries.into_iter().partition(|(_, job)| self.is_overflow(job));
        self.retries = rest;
        for (_, job) in oldest {
            self.parked_retries -= 1;
            self.give_up(job, REASON);
        }
        self.requeue(Vec::new());
    }

    /// Gives up on a job that has to make room; gives back any other.
    pub(super) fn unless_overflow(&mut self, job: Job) -> Option<Job> {
        if !self.is_overflow(&job) {
            return Some(job);
        }
        self.give_up(job, REASON);
        None
    }

    fn is_overflow(&self, job: &Job) -> bool {
        job.lane == LaneKind::Parked && job.position < self.overflow_end
    }
}
