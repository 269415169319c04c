//! What follows from what the API said. Pure.

use std::time::Duration;

use http::StatusCode;

use crate::sonzai::client::{Error, Why};

/// What to do next with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The API will never take it: a dead letter.
    Refused,
    /// The key is wrong, or may not do this: nothing will do until somebody has changed it.
    Denied,
    /// Ask again, after at least this time where the API said so.
    Wait(Option<Duration>),
}

impl Verdict {
    pub fn of(error: &Error) -> Verdict {
        match &error.why {
            Why::Unaskable(_) => Verdict::Refused,
            Why::Refused(refusal) => {
                Verdict::of_answer(refusal.status, refusal.is_problem, refusal.retry_after)
            }
            Why::Unreachable { .. }
            | Why::Cut { .. }
            | Why::Late { .. }
            | Why::Redirected { .. }
            | Why::TooLarge { .. }
            | Why::Malformed { .. } => Verdict::Wait(None),
        }
    }

    /// A refusal is one of the API's own: any other 404 is a proxy's, or an `api.url` that leads
    /// elsewhere, and would make a dead letter of every command.
    fn of_answer(status: StatusCode, is_problem: bool, retry_after: Option<Duration>) -> Verdict {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Verdict::Denied,
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                Verdict::Wait(retry_after)
            }
            status if status.is_client_error() && is_problem => Verdict::Refused,
            _ => Verdict::Wait(retry_after),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_consequence() {
        let after = Some(Duration::from_secs(7));
        for (status, is_problem, expected) in [
            (401, true, Verdict::Denied),
            (403, false, Verdict::Denied),
            (400, true, Verdict::Refused),
            (404, true, Verdict::Refused),
            (409, true, Verdict::Refused),
            (422, true, Verdict::Refused),
            (404, false, Verdict::Wait(after)),
            (405, false, Verdict::Wait(after)),
            (408, true, Verdict::Wait(after)),
            (425, true, Verdict::Wait(after)),
            (429, true, Verdict::Wait(after)),
            (500, true, Verdict::Wait(after)),
            (503, false, Verdict::Wait(after)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Verdict::of_answer(status, is_problem, after), expected, "{status}");
        }
    }
}
