//! What came of a source's requests, counted.

use std::borrow::Cow;

use http::StatusCode;

use super::{Received, Rejection, Verifier};
use crate::{meter::Counter, signature};

/// The statuses that requests are answered with; the first is the one of what is accepted.
static STATUSES: [StatusCode; 10] = [
    StatusCode::OK,
    StatusCode::BAD_REQUEST,
    StatusCode::UNAUTHORIZED,
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// Answers by status.
#[derive(Debug, Default)]
pub struct Answers {
    by_status: [Counter; STATUSES.len()],
    /// With a status that is not in the list.
    others: Counter,
}

impl Answers {
    pub fn count(&self, status: StatusCode) {
        let at = STATUSES.iter().position(|known| *known == status);
        at.map_or(&self.others, |at| &self.by_status[at]).inc();
    }

    /// Every status with how often it was answered, any other as `other`.
    pub fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let known = STATUSES.iter().zip(&self.by_status);
        let known = known.map(|(status, count)| (status.as_str(), count.get()));
        known.chain([("other", self.others.get())])
    }

    /// How many were accepted.
    pub fn accepted(&self) -> u64 {
        self.by_status[0].get()
    }
}

/// Why requests were not verified, in the order of [`Stats::failures`]. A stale timestamp is none of
/// these: it has a counter of its own, since it may be our clock.
const FAILURES: [&str; 5] = ["missing", "malformed", "mismatch", "authorization", "changing"];

/// The most secrets that a source may have at once for a type: each costs a refused request a
/// signature, and each is counted by itself.
pub const MAX_SECRETS: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub struct Stats {
    pub answers: Answers,
    /// Of bodies that were read.
    pub body_bytes: Counter,
    /// Events known before, whose sender was answered as for the first.
    pub duplicates: Counter,
    /// Events that no route took, where the source says that those are dropped.
    pub unrouted_dropped: Counter,
    /// Right signatures with a timestamp too far from our clock.
    pub stale: Counter,
    /// Verified requests whose body names another event type than their path.
    pub type_disagreements: Counter,
    /// By the index of the secret in its list.
    verified: [Counter; MAX_SECRETS],
    verified_by_stored: Counter,
    verified_by_replaced: Counter,
    failures: [Counter; FAILURES.len()],
}

impl Stats {
    /// Takes in a verdict on a request.
    pub(super) fn count(&self, verdict: &Result<Received, Rejection>) {
        match verdict {
            Ok(received) => {
                match received.key {
                    Verifier::Listed(index) => self.verified[index].inc(),
                    Verifier::Stored => self.verified_by_stored.inc(),
                    Verifier::Replaced => self.verified_by_replaced.inc(),
                }
                if received.type_disputed {
                    self.type_disagreements.inc();
                }
            }
            Err(Rejection::Signature(signature::Error::Missing)) => self.failures[0].inc(),
            Err(Rejection::Signature(signature::Error::Malformed)) => self.failures[1].inc(),
            Err(Rejection::Signature(signature::Error::Mismatch)) => self.failures[2].inc(),
            Err(Rejection::Signature(signature::Error::Expired { .. })) => self.stale.inc(),
            Err(Rejection::Authorization) => self.failures[3].inc(),
            Err(Rejection::Changing) => self.failures[4].inc(),
        }
    }

    /// How many requests each secret has verified, in the order of the list, as if it were full.
    pub fn verified(&self) -> impl Iterator<Item = u64> {
        self.verified.iter().map(Counter::get)
    }

    /// The same of the secrets that Sonzai's API gave: the present ones, and those they replaced.
    pub(super) fn verified_by_stored(&self) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
        let named =
            [("stored", &self.verified_by_stored), ("replaced", &self.verified_by_replaced)];
        named.map(|(name, count)| (name.into(), count.get())).into_iter()
    }

    /// Every reason why requests are not verified, with how many were not.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAILURES.into_iter().zip(self.failures.iter().map(Counter::get))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_counted_once_and_unknown_ones_together() {
        let answers = Answers::default();
        for status in STATUSES.into_iter().chain([StatusCode::IM_A_TEAPOT, StatusCode::GONE]) {
            answers.count(status);
        }
        let counts: Vec<u64> = answers.read().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2]);
        assert_eq!((answers.accepted(), answers.read().next()), (1, Some(("200", 1))));
    }

    #[test]
    fn every_rejection_is_counted_under_its_own_name() {
        let stats = Stats::default();
        for rejection in [
            Rejection::Signature(signature::Error::Missing),
            Rejection::Signature(signature::Error::Malformed),
            Rejection::Signature(signature::Error::Mismatch),
            Rejection::Signature(signature::Error::Expired { timestamp: 1 }),
            Rejection::Authorization,
            Rejection::Changing,
        ] {
            stats.count(&Err(rejection));
        }
        assert!(stats.failures().all(|(_, count)| count == 1));
        assert_eq!((stats.stale.get(), stats.verified().sum::<u64>()), (1, 0));
    }
}
