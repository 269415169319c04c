//! How long to wait before trying again: exponential, with jitter, bounded.

use std::time::Duration;

/// A schedule of waits.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// No wait is longer.
    pub max: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (from 1). `random` in 0..1 spreads it over its
    /// upper half, so that those who failed together do not come back together.
    pub fn wait(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// [`wait`](Self::wait) with chance from the thread's generator.
    pub fn jittered(&self, failures: u32) -> Duration {
        self.wait(failures, fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff =
        Backoff { first: Duration::from_millis(100), max: Duration::from_secs(5) };

    #[test]
    fn waits_double_up_to_the_maximum() {
        let millis: Vec<u128> =
            (1..=8).map(|failures| BACKOFF.wait(failures, 1.0).as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    proptest! {
        #[test]
        fn every_wait_is_within_half_to_all_of_the_schedule(failures: u32, random in 0.0..1.0) {
            let wait = BACKOFF.wait(failures, random);
            prop_assert!(wait >= BACKOFF.wait(failures, 0.0));
            prop_assert!(wait <= BACKOFF.wait(failures, 1.0));
            prop_assert!(wait >= BACKOFF.first / 2 && wait <= BACKOFF.max);
        }
    }
}
