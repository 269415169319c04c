//! Why a call failed, in words that say what to do.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::problem::Problem;

/// Why a call failed. Holds neither the key nor anything that was sent.
#[derive(Debug, thiserror::Error)]
#[error("{why}{}", .uncertain.then_some("; it may have taken effect all the same").unwrap_or_default())]
pub struct Error {
    /// Of the last attempt.
    pub why: Why,
    /// How many attempts there were.
    pub attempts: u32,
    pub(super) uncertain: bool,
}

/// What became of an attempt that failed.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// What was asked for has no address: a part of the path is empty, or a dot.
    #[error("{what} must not be empty, `.` or `..`")]
    Unnamed { what: &'static str },
    /// No connection; nothing was sent.
    #[error("cannot reach {host}: {cause}")]
    Unreachable { host: String, cause: String },
    /// The connection ended before the answer did.
    #[error("{host} did not answer to the end: {cause}")]
    Cut { host: String, cause: String },
    /// No whole answer in time.
    #[error("{host} did not answer within {}", humantime::format_duration(*.within))]
    Late { host: String, within: Duration },
    /// An answer that is no success.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The API lives somewhere else. Nobody is sent the key but the host that was named.
    #[error(
        "{host} answered {status} and points elsewhere, which is not followed: set api.url to where the API is"
    )]
    Redirected { host: String, status: StatusCode },
    /// The answer is larger than is read.
    #[error("the answer is larger than {limit} bytes (sonzai.max_answer_bytes)")]
    TooLarge { limit: usize },
    /// The answer is not what the API promises.
    #[error("{host} answered what cannot be read: {cause}")]
    Malformed { host: String, cause: String },
}

/// An answer of 4xx or 5xx.
#[derive(Debug)]
pub struct Refusal {
    pub host: String,
    pub status: StatusCode,
    pub problem: Problem,
    /// What the API's support wants to see.
    pub request_id: Option<String>,
    /// How long to wait before asking again.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// The answer's status, if it is one of 3xx to 5xx.
    pub fn status(&self) -> Option<StatusCode> {
        match &self.why {
            Why::Refused(refusal) => Some(refusal.status),
            Why::Redirected { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the key does not do (401) or may not do this (403): asking again helps nobody.
    pub fn is_denied(&self) -> bool {
        matches!(self.status(), Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))
    }

    /// Whether there is nothing (left) to do it to: 404, 409, 410.
    pub fn is_gone(&self) -> bool {
        let gone = [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::GONE];
        self.status().is_some_and(|status| gone.contains(&status))
    }

    /// Whether the call may have taken effect, in this attempt or an earlier one. Never where it
    /// changes nothing.
    pub fn is_uncertain(&self) -> bool {
        self.uncertain
    }

    /// Whether less should be asked for at a time.
    pub fn is_too_large(&self) -> bool {
        matches!(self.why, Why::TooLarge { .. })
    }

    /// How long the API wants to be left alone, if it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        match &self.why {
            Why::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}", self.host, self.status)
    }
}
