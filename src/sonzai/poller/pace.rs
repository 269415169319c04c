//! How soon the next round begins.
//!
//! Where push works, what is pending is mostly what was pushed, and silence is normal: `fallback` looks
//! seldom then. It looks often after a start, while deliveries fail, and after an item came that
//! no webhook brought. A pure value: whoever owns it says what was seen, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::source::sonzai::settings::Mode;

/// How long nothing may have been wrong before push counts as working.
pub const CALM: Duration = Duration::from_secs(300);

/// How far a pause is moved at random, in hundredths, either way: the daemons of a fleet are not to
/// ask all at once.
const JITTER_PERCENT: u64 = 10;

/// The pauses between rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    pub mode: Mode,
    /// `every`.
    pub fast: Duration,
    /// `sonzai.slow_every`, and never below `fast`.
    pub slow: Duration,
}

/// Why rounds follow each other as they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// `mode: always`.
    Always,
    /// It began, and what the time before it brought is not known.
    Started,
    /// The platform's newest attempts to deliver fail.
    DeliveriesFail,
    /// An item was pending for so long that its webhook should have come.
    NotPushed,
    /// Nothing was wrong for a while.
    PushWorks,
}

impl Why {
    /// For people: the pace is … because ….
    pub fn words(self) -> &'static str {
        match self {
            Why::Always => "mode: always",
            Why::Started => "the daemon or `poll:` started a short while ago",
            Why::DeliveriesFail => "deliveries fail: see `waypost sonzai webhooks attempts`",
            Why::NotPushed => "an item came that no webhook had brought",
            Why::PushWorks => "push works",
        }
    }

    /// Whether it makes rounds follow each other fast.
    pub fn is_fast(self) -> bool {
        self != Why::PushWorks
    }
}

/// See the module. Times are milliseconds of a clock that never goes back.
#[derive(Clone, Debug)]
pub struct Pace {
    pauses: Pauses,
    /// What was last seen to be wrong, and when.
    wrong: (Why, u64),
    deliveries_fail: bool,
}

impl Pace {
    pub fn new(pauses: Pauses, now_ms: u64) -> Pace {
        let pauses = Pauses { slow: pauses.slow.max(pauses.fast), ..pauses };
        Pace { pauses, wrong: (Why::Started, now_ms), deliveries_fail: false }
    }

    /// Whether the newest attempts to deliver fail.
    pub fn attempts(&mut self, fail: bool, now_ms: u64) {
        if fail || self.deliveries_fail {
            self.wrong = (Why::DeliveriesFail, now_ms);
        }
        self.deliveries_fail = fail;
    }

    /// An item was appended that should have been pushed before.
    pub fn not_pushed(&mut self, now_ms: u64) {
        self.wrong = (Why::NotPushed, now_ms);
    }

    /// Why it is as it is now.
    pub fn why(&self, now_ms: u64) -> Why {
        let (why, since_ms) = self.wrong;
        match self.pauses.mode {
            Mode::Always => Why::Always,
            Mode::Fallback if self.deliveries_fail => Why::DeliveriesFail,
            Mode::Fallback if now_ms.saturating_sub(since_ms) < CALM.as_millis() as u64 => why,
            Mode::Fallback => Why::PushWorks,
        }
    }

    /// How long after the beginning of a round that began now the next one begins. `chance` is
    /// uniform, below 1.
    pub fn pause(&self, now_ms: u64, chance: f64) -> Duration {
        let pause = match self.why(now_ms).is_fast() {
            true => self.pauses.fast,
            false => self.pauses.slow,
        };
        jittered(pause, chance)
    }
}

/// A pause moved at random; `chance` is uniform, below 1.
pub fn jittered(pause: Duration, chance: f64) -> Duration {
    let reach = pause.as_secs_f64() * JITTER_PERCENT as f64 / 100.0;
    Duration::from_secs_f64((pause.as_secs_f64() + reach * (2.0 * chance - 1.0)).max(0.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAST: Duration = Duration::from_secs(30);
    const SLOW: Duration = Duration::from_secs(300);
    const CALM_MS: u64 = CALM.as_millis() as u64;
    /// The chance that moves nothing.
    const EVEN: f64 = 0.5;

    fn pace(mode: Mode) -> Pace {
        Pace::new(Pauses { mode, fast: FAST, slow: SLOW }, 1000)
    }

    #[test]
    fn a_start_is_followed_fast_until_all_was_calm() {
        let pace = pace(Mode::Fallback);
        assert_eq!(pace.why(1000), Why::Started);
        assert_eq!(pace.why(1000 + CALM_MS - 1), Why::Started);
        assert_eq!(pace.why(1000 + CALM_MS), Why::PushWorks);
        assert_eq!(pace.pause(1000, EVEN), FAST);
        assert_eq!(pace.pause(1000 + CALM_MS, EVEN), SLOW);
    }

    #[test]
    fn always_is_never_slow() {
        let mut pace = pace(Mode::Always);
        pace.attempts(false, 2000);
        assert_eq!(pace.why(u64::MAX), Why::Always);
        assert_eq!(pace.pause(u64::MAX, EVEN), FAST);
    }

    #[test]
    fn failing_deliveries_keep_it_fast_until_a_while_after_the_last_one() {
        let mut pace = pace(Mode::Fallback);
        let seen = 10 * CALM_MS;
        pace.attempts(true, seen);
        assert_eq!(pace.why(seen + 100 * CALM_MS), Why::DeliveriesFail, "nobody saw them succeed");
        let mended = seen + 200 * CALM_MS;
        pace.attempts(false, mended);
        assert_eq!(pace.why(mended + CALM_MS - 1), Why::DeliveriesFail);
        pace.attempts(false, mended + 10);
        assert_eq!(pace.why(mended + CALM_MS), Why::PushWorks);
    }

    #[test]
    fn an_item_that_was_not_pushed_makes_it_fast() {
        let mut pace = pace(Mode::Fallback);
        pace.not_pushed(5 * CALM_MS);
        assert_eq!(pace.why(6 * CALM_MS - 1), Why::NotPushed);
        assert_eq!(pace.why(6 * CALM_MS), Why::PushWorks);
    }

    #[test]
    fn slow_is_never_faster_than_fast() {
        let pauses = Pauses { mode: Mode::Fallback, fast: SLOW * 2, slow: SLOW };
        assert_eq!(Pace::new(pauses, 0).pause(CALM_MS, EVEN), SLOW * 2);
    }

    proptest! {
        #[test]
        fn a_pause_stays_within_a_tenth(chance in 0.0..1.0f64, ms in 1u64..10_000_000) {
            let pause = Duration::from_millis(ms);
            let moved = jittered(pause, chance);
            let slack = Duration::from_micros(1);
            prop_assert!(moved + slack >= pause * 9 / 10 && moved <= pause * 11 / 10 + slack);
        }

        /// Held to what was meant: fast iff something was wrong within the calm, or fails still.
        #[test]
        fn fast_is_told_by_what_was_seen(seen in prop::collection::vec((0u64..400_000, 0u8..4), 0..20)) {
            let mut pace = pace(Mode::Fallback);
            let (mut now, mut wrong, mut fails) = (1000, 1000, false);
            for (later, what) in seen {
                now += later;
                match what {
                    0 => { pace.attempts(true, now); wrong = now; fails = true; }
                    1 => { pace.attempts(false, now); if fails { wrong = now; } fails = false; }
                    2 => { pace.not_pushed(now); wrong = now; }
                    _ => {}
                }
                prop_assert_eq!(pace.why(now).is_fast(), fails || now - wrong < CALM_MS);
            }
        }
    }
}
