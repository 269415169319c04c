//! Takes a batch, and finds out which of it cannot be taken.
//!
//! A batch that is refused is halved until it is known which items it is refused for: one that the
//! API does not take must not hold up those beside it.

use std::ops::Range;

use http::StatusCode;

use super::circuit::Failure;
use crate::sonzai::client;

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is taken, or was before, or is no more.
    Done,
    /// The API does not take it, in its own words.
    Refused(String),
    /// It was not tried, or the answer was lost: it is listed again, if it is still there.
    Unknown,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Answers {
    /// One an item, in their order.
    pub taken: Vec<Taken>,
    /// Why the rest was not tried.
    pub failure: Option<Failure>,
}

/// Why a batch was not taken.
#[derive(Clone, Debug)]
pub enum No {
    /// It may be for one of its items; `gone`: because there is nothing (left) to take.
    Items { gone: bool, words: String },
    /// It would be so for any other.
    All(Failure),
}

impl From<client::Error> for No {
    fn from(error: client::Error) -> No {
        // Who asks, and how often, is refused for all.
        const OF_ALL: [StatusCode; 4] = [
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::TOO_MANY_REQUESTS,
        ];
        let of_all = match error.status() {
            Some(status) => !status.is_client_error() || OF_ALL.contains(&status),
            // An id that cannot stand in a request.
            None => !matches!(error.why, client::Why::Unaskable(_)),
        };
        match of_all {
            true => No::All(Failure::from(&error)),
            false => No::Items { gone: error.is_gone(), words: error.to_string() },
        }
    }
}

/// See the module. `call` takes some of `count` items at once: those in a range.
pub async fn take<F>(count: usize, call: impl Fn(Range<usize>) -> F) -> Answers
where
    F: Future<Output = Result<(), No>>,
{
    let mut taken = vec![Taken::Unknown; count];
    // Ranges that are still to be tried, the first one last.
    let mut open = vec![Range { start: 0, end: count }];
    while let Some(range) = open.pop() {
        if range.is_empty() {
            continue;
        }
        match call(range.clone()).await {
            Ok(()) => taken[range].fill(Taken::Done),
            Err(No::All(failure)) => return Answers { taken, failure: Some(failure) },
            Err(No::Items { gone, words }) if range.len() == 1 => {
                taken[range.start] = if gone { Taken::Done } else { Taken::Refused(words) };
            }
            Err(No::Items { .. }) => {
                let middle = range.start + range.len() / 2;
                open.extend([middle..range.end, range.start..middle]);
            }
        }
    }
    Answers { taken, failure: None }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::sonzai::poller::circuit::Kind;

    /// What the API does with an item.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Api {
        Takes,
        Gone,
        Refuses,
    }

    fn run(apis: &[Api], fails_at: Option<usize>) -> (Answers, usize) {
        let calls = Cell::new(0);
        let call = |range: Range<usize>| {
            calls.set(calls.get() + 1);
            let answer = if Some(calls.get()) == fails_at {
                let words = String::new();
                Err(No::All(Failure { kind: Kind::Failing, words, wait: None }))
            } else {
                match apis[range].iter().find(|api| **api != Api::Takes) {
                    None => Ok(()),
                    Some(api) => Err(No::Items { gone: *api == Api::Gone, words: "no".into() }),
                }
            };
            std::future::ready(answer)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let answers = runtime.block_on(take(apis.len(), call));
        (answers, calls.get())
    }

    #[test]
    fn a_batch_that_is_taken_takes_one_call() {
        let (answers, calls) = run(&[Api::Takes; 200], None);
        assert_eq!((answers.taken, calls), (vec![Taken::Done; 200], 1));
    }

    #[test]
    fn one_that_cannot_be_taken_is_found_in_a_few_calls() {
        let mut apis = [Api::Takes; 200];
        apis[123] = Api::Refuses;
        let (answers, calls) = run(&apis, None);
        let mut expected = vec![Taken::Done; 200];
        expected[123] = Taken::Refused("no".into());
        assert_eq!(answers.taken, expected);
        assert!(calls <= 17, "{calls}");
    }

    proptest! {
        #[test]
        fn each_item_is_told_for_itself(
            apis in prop::collection::vec(
                prop_oneof![8 => Just(Api::Takes), 1 => Just(Api::Gone), 1 => Just(Api::Refuses)],
                0..60,
            ),
            fails_at in prop::option::of(1usize..20),
        ) {
            let (answers, calls) = run(&apis, fails_at);
            prop_assert!(calls <= 2 * apis.len());
            prop_assert_eq!(answers.failure.is_some(), fails_at.is_some_and(|at| at <= calls));
            for (taken, api) in answers.taken.iter().zip(apis) {
                let expected = match api {
                    Api::Takes | Api::Gone => Taken::Done,
                    Api::Refuses => Taken::Refused("no".into()),
                };
                prop_assert!(
                    *taken == expected || answers.failure.is_some() && *taken == Taken::Unknown
                );
            }
        }
    }
}
