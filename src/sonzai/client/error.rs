//! Why a call failed, in words that say what to do.

use std::{fmt, time::Duration};

use http::StatusCode;

use super::stats::Stats;

/// Why a call failed. Holds neither the key nor anything that was sent.
#[derive(Debug, thiserror::Error)]
#[error("{why}{}", if *.uncertain { "; it may have taken effect all the same" } else { "" })]
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
    /// There is no such request: nothing was sent.
    #[error("cannot ask for this: {0}")]
    Unaskable(String),
    /// No connection: nothing was sent.
    #[error("cannot reach {host}: {cause}")]
    Unreachable { host: String, cause: String },
    /// The connection ended before the answer did.
    #[error("{host} did not answer to the end: {cause}")]
    Cut { host: String, cause: String },
    /// No whole answer in time.
    #[error(
        "{host} did not answer within {} (sonzai.request_timeout)",
        humantime::format_duration(*.within)
    )]
    Late { host: String, within: Duration },
    /// An answer of 4xx or 5xx.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The API lives somewhere else. Nobody is sent the key but the host that was named.
    #[error(
        "{host} answered {status} and points elsewhere, where nobody follows it with the key: set \
         api.url to where the API is"
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
    /// What the API says of it, escaped and bounded; perhaps nothing.
    pub words: String,
    /// Whether it is an answer of the API itself, as `application/problem+json`: a proxy, or an
    /// `api.url` that leads elsewhere, has words of its own.
    pub is_problem: bool,
    /// What the API's support wants to see.
    pub request_id: Option<String>,
    /// How long the API wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The scope that the key needs for this call, where that is known.
    pub scope: Option<&'static str>,
}

impl Refusal {
    fn advice(&self) -> Option<String> {
        match self.status {
            StatusCode::UNAUTHORIZED => Some(
                "the key (api.key) is wrong, has expired or was revoked: give a valid one".into(),
            ),
            StatusCode::FORBIDDEN => Some(match self.scope {
                Some(scope) => {
                    format!("the key (api.key) may not do this: it needs the scope {scope}")
                }
                None => {
                    "the key (api.key) may not do this: a key is for one project, and needs the \
                         scope for what it asks"
                        .into()
                }
            }),
            StatusCode::TOO_MANY_REQUESTS => self.retry_after.map(|wait| {
                // Whole seconds, up: what is shown is never too short.
                let wait = Duration::from_secs(wait.as_secs_f64().ceil() as u64);
                format!("it wants no request for {}", humantime::format_duration(wait))
            }),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} answered {}", self.host, self.status)?;
        // A problem's title is the status' own words, as a rule: once is enough.
        let title = self.status.canonical_reason().unwrap_or_default();
        let detail = self.words.strip_prefix(title).and_then(|words| words.strip_prefix(": "));
        let words = detail.unwrap_or(&self.words);
        if !words.is_empty() && words != title {
            write!(f, ": {words}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " (x-request-id {id})")?;
        }
        self.advice().map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
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

    /// Whether there is nothing, or nothing left, to do it to: 404, 409, 410.
    pub fn is_gone(&self) -> bool {
        let gone = [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::GONE];
        self.status().is_some_and(|status| gone.contains(&status))
    }

    /// Whether the call may have taken effect, in this attempt or an earlier one. Never for a call
    /// that changes nothing.
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

impl Why {
    /// Counts the end of a call.
    pub(super) fn count(&self, stats: &Stats) {
        match self {
            Why::Unaskable(_) => {}
            Why::Unreachable { .. } => stats.unreachable.inc(),
            Why::Redirected { .. } => stats.refused.inc(),
            Why::Refused(refusal) if refusal.status.is_client_error() => stats.refused.inc(),
            Why::Refused(_)
            | Why::Cut { .. }
            | Why::Late { .. }
            | Why::TooLarge { .. }
            | Why::Malformed { .. } => stats.failed.inc(),
        }
    }
}

#[cfg(test)]
impl Refusal {
    pub fn bare(host: &str, status: StatusCode, retry_after: Option<Duration>) -> Refusal {
        let host = host.to_owned();
        Refusal {
            host,
            status,
            words: String::new(),
            is_problem: false,
            request_id: None,
            retry_after,
            scope: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, change: impl FnOnce(&mut Refusal)) -> Error {
        let mut refusal = Refusal::bare("api", StatusCode::from_u16(status).unwrap(), None);
        change(&mut refusal);
        Error { why: Why::Refused(Box::new(refusal)), attempts: 1, uncertain: false }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        for (error, expected) in [
            (refused(500, |_| {}), "api answered 500 Internal Server Error"),
            (
                refused(422, |refusal| {
                    refusal.words = "no".into();
                    refusal.request_id = Some("r1".into());
                }),
                "api answered 422 Unprocessable Entity: no (x-request-id r1)",
            ),
            (
                refused(404, |refusal| refusal.words = "Not Found: agent not found".into()),
                "api answered 404 Not Found: agent not found",
            ),
            (
                refused(404, |refusal| refusal.words = "Not Found".into()),
                "api answered 404 Not Found",
            ),
            (
                refused(404, |refusal| refusal.words = "Not Foundling".into()),
                "api answered 404 Not Found: Not Foundling",
            ),
            (
                refused(401, |_| {}),
                "api answered 401 Unauthorized; the key (api.key) is wrong, has expired or was \
                 revoked: give a valid one",
            ),
            (
                refused(403, |refusal| refusal.scope = Some("write:webhooks")),
                "api answered 403 Forbidden; the key (api.key) may not do this: it needs the scope \
                 write:webhooks",
            ),
            (
                refused(429, |refusal| refusal.retry_after = Some(Duration::from_millis(1500))),
                "api answered 429 Too Many Requests; it wants no request for 2s",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn statuses_are_told_apart() {
        for status in 300..600 {
            let error = refused(status, |_| {});
            assert_eq!(error.is_denied(), matches!(status, 401 | 403), "{status}");
            assert_eq!(error.is_gone(), matches!(status, 404 | 409 | 410), "{status}");
        }
    }
}
