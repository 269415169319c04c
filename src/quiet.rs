//! Keeps what may happen thousands of times a second from filling the log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// At most one line in this time, milliseconds.
const EVERY_MS: u64 = 1000;

/// Says when to log, and how many were left out since.
#[derive(Debug, Default)]
pub struct Quiet {
    not_before_ms: AtomicU64,
    unsaid: AtomicU64,
}

impl Quiet {
    /// `Some` if this one is to be logged, with how many before it were not.
    pub fn speaks(&self, now_ms: u64) -> Option<u64> {
        let not_before_ms = self.not_before_ms.load(Relaxed);
        let next_ms = now_ms.saturating_add(EVERY_MS);
        // A clock that was set back must not silence it for long.
        let due = now_ms >= not_before_ms || not_before_ms > next_ms;
        let mine = due
            && self
                .not_before_ms
                .compare_exchange(not_before_ms, next_ms, Relaxed, Relaxed)
                .is_ok();
        if mine {
            return Some(self.unsaid.swap(0, Relaxed));
        }
        self.unsaid.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_said_and_the_rest_are_counted() {
        let quiet = Quiet::default();
        let said = [10_000, 10_001, 10_999, 11_000, 11_001, 12_500].map(|now| quiet.speaks(now));
        assert_eq!(said, [Some(0), None, None, Some(2), None, Some(1)]);
    }

    #[test]
    fn a_clock_that_is_set_back_silences_nothing_for_long() {
        let quiet = Quiet::default();
        assert_eq!(quiet.speaks(10_000_000), Some(0));
        assert_eq!(quiet.speaks(5_000), Some(0));
    }
}
