//! What keeps a list, or a whole source, from being polled: since when, when to try again, and
//! what of it is worth a line in the log.
//!
//! A key that does not do is asked about seldom, since asking helps nobody; what may pass by itself is
//! tried again with growing pauses; and what the API says about waiting is heeded. Pure: times come
//! from outside.

use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::sonzai::client;

/// Between two looks whether the key does by now.
pub const PROBE_EVERY: Duration = Duration::from_secs(300);

/// After the first failure; doubled with each other.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest that the API is believed about waiting.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What kind of trouble it is; another kind is another line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// 401: the key is nobody's.
    KeyRefused,
    /// 403: the key may not do this.
    Forbidden,
    /// 429.
    Limited,
    /// No connection, or no whole answer in time.
    Unreachable,
    /// 5xx, or an answer that cannot be read.
    Failing,
    /// Another refusal.
    Refused,
    /// One item alone is larger than an answer may be.
    TooLarge,
    /// There is no room for an event: nothing is wrong with the API.
    NoRoom,
}

impl Kind {
    pub fn of(error: &client::Error) -> Kind {
        match error.status() {
            Some(StatusCode::UNAUTHORIZED) => Kind::KeyRefused,
            Some(StatusCode::FORBIDDEN) => Kind::Forbidden,
            Some(StatusCode::TOO_MANY_REQUESTS) => Kind::Limited,
            Some(status) if status.is_server_error() => Kind::Failing,
            Some(_) => Kind::Refused,
            None if error.is_too_large() => Kind::TooLarge,
            None => match error.why {
                client::Why::Malformed { .. } => Kind::Failing,
                client::Why::Unaskable(_) => Kind::Refused,
                _ => Kind::Unreachable,
            },
        }
    }

    /// Whether every other list of the source would fail in the same way.
    pub fn is_of_all(self) -> bool {
        matches!(self, Kind::KeyRefused | Kind::Limited | Kind::Unreachable | Kind::NoRoom)
    }

    /// What to do about it, after the error's own words.
    pub fn hint(self) -> &'static str {
        match self {
            Kind::KeyRefused => "the key in api.key is refused: put a valid one there",
            Kind::Forbidden => {
                "the key in api.key may not read these notifications: give it the scope, or name \
                 another project or agent"
            }
            Kind::Limited => "lower sonzai.max_requests_per_second if this stays",
            Kind::Unreachable => "is api.url right, and is the way there open?",
            Kind::Failing => "it is tried again with growing pauses",
            Kind::Refused => "are the project and the agents under poll: right?",
            Kind::TooLarge => "raise sonzai.max_answer_bytes",
            Kind::NoRoom => "nothing is taken meanwhile: see `waypost status`",
        }
    }

    /// Whether asking again is of no use until somebody does something.
    pub fn is_for_people(self) -> bool {
        matches!(self, Kind::KeyRefused | Kind::Forbidden)
    }
}

/// Something failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    /// For people; holds no secret.
    pub words: String,
    /// How long to wait, where the API said it.
    pub wait: Option<Duration>,
}

impl From<&client::Error> for Failure {
    fn from(error: &client::Error) -> Failure {
        let kind = Kind::of(error);
        Failure { kind, words: error.to_string(), wait: error.retry_after() }
    }
}

/// The trouble that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    pub kind: Kind,
    pub words: String,
    /// When it began; milliseconds of the caller's clock.
    pub since_ms: u64,
    /// Vain tries so far.
    pub failures: u32,
    pub not_before_ms: u64,
}

/// What a failure is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// There was no trouble before.
    Begun,
    /// There was another kind of it.
    Changed,
    /// It goes on.
    Same,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Circuit(Option<Trouble>);

impl Circuit {
    pub fn trouble(&self) -> Option<&Trouble> {
        self.0.as_ref()
    }

    /// Whether it may be tried now.
    pub fn lets_through(&self, now_ms: u64) -> bool {
        self.0.as_ref().is_none_or(|trouble| now_ms >= trouble.not_before_ms)
    }

    /// It failed; what may pass by itself is tried again after `longest` at the latest.
    pub fn failed(&mut self, failure: Failure, now_ms: u64, longest: Duration) -> News {
        let Failure { kind, words, wait } = failure;
        let (news, since_ms, failures) = match &self.0 {
            None => (News::Begun, now_ms, 1),
            Some(before) if before.kind != kind => (News::Changed, before.since_ms, 1),
            Some(before) => (News::Same, before.since_ms, before.failures.saturating_add(1)),
        };
        let pause = match wait {
            Some(wait) => wait.clamp(FIRST_PAUSE, LONGEST_WAIT),
            None if kind.is_for_people() => PROBE_EVERY,
            None => FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(longest),
        };
        let not_before_ms = now_ms.saturating_add(pause.as_millis() as u64);
        self.0 = Some(Trouble { kind, words, since_ms, failures, not_before_ms });
        news
    }

    /// It worked; what trouble that ends.
    pub fn succeeded(&mut self) -> Option<Trouble> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    fn failure(kind: Kind) -> Failure {
        Failure { kind, words: String::new(), wait: None }
    }

    #[test]
    fn pauses_grow_to_the_longest() {
        let mut circuit = Circuit::default();
        let mut now_ms = 0;
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                circuit.failed(failure(Kind::Failing), now_ms, LONGEST);
                let until_ms = circuit.trouble().unwrap().not_before_ms;
                assert!(!circuit.lets_through(until_ms - 1) && circuit.lets_through(until_ms));
                let pause_ms = until_ms - now_ms;
                now_ms = until_ms;
                pause_ms / 1000
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn what_only_people_can_mend_is_asked_about_seldom() {
        for kind in [Kind::KeyRefused, Kind::Forbidden] {
            let mut circuit = Circuit::default();
            circuit.failed(failure(kind), 0, LONGEST);
            assert_eq!(circuit.trouble().unwrap().not_before_ms, 300_000, "{kind:?}");
        }
    }

    #[test]
    fn what_the_api_says_about_waiting_is_heeded_within_bounds() {
        let mut circuit = Circuit::default();
        for (wait, expected_ms) in [(0, 1000), (7, 7000), (90, 90_000), (86_400, 3_600_000)] {
            let wait = Some(Duration::from_secs(wait));
            circuit.failed(Failure { wait, ..failure(Kind::Limited) }, 0, LONGEST);
            assert_eq!(circuit.trouble().unwrap().not_before_ms, expected_ms);
        }
    }

    #[test]
    fn trouble_is_news_when_it_begins_and_changes_and_ends() {
        let mut circuit = Circuit::default();
        let mut failed = |kind, now_ms| circuit.failed(failure(kind), now_ms, LONGEST);
        assert_eq!(failed(Kind::Failing, 10), News::Begun);
        assert_eq!(failed(Kind::Failing, 20), News::Same);
        assert_eq!(failed(Kind::Unreachable, 30), News::Changed);
        assert_eq!(failed(Kind::Unreachable, 40), News::Same);
        let ended = circuit.succeeded().unwrap();
        assert_eq!((ended.kind, ended.since_ms), (Kind::Unreachable, 10));
        assert_eq!(circuit.succeeded(), None);
        assert!(circuit.lets_through(0));
    }

    proptest! {
        /// No hot loop, whatever fails how often.
        #[test]
        fn a_failure_is_never_tried_again_at_once(
            failures in prop::collection::vec((0usize..8, prop::option::of(0u64..3)), 1..50),
        ) {
            let all = [
                Kind::KeyRefused, Kind::Forbidden, Kind::Limited, Kind::Unreachable, Kind::Failing,
                Kind::Refused, Kind::TooLarge, Kind::NoRoom,
            ];
            let mut circuit = Circuit::default();
            for (kind, wait) in failures {
                let wait = wait.map(Duration::from_secs);
                circuit.failed(Failure { wait, ..failure(all[kind]) }, 5, LONGEST);
                prop_assert!(!circuit.lets_through(5 + 999));
            }
        }
    }
}
