//! Which stream takes a subject? Asked when a publish was not confirmed.
//!
//! Without a stream a publish is answered by "no responders"; or by nothing at all, where a service
//! merely listens. With one, an election looks the same. Only the JetStream API can tell.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, context::GetStreamByNameErrorKind};
use bytestring::ByteString;
use tokio::{sync::Mutex, time::timeout};

use super::super::Error;

/// Where the question goes, as a refusal to ask it names it.
pub const LOOKUP: &str = "$JS.API.STREAM.NAMES";

/// How long the JetStream API has to answer.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

/// How long an answer stands: enough for a window of messages to one subject, short enough that a
/// stream created in the meantime is found at the next attempt.
const ANSWER_LASTS: Duration = Duration::from_secs(2);

/// Subjects remembered; templates can make many. Beyond it all are forgotten and asked again.
const MAX_SUBJECTS: usize = 256;

pub struct Streams {
    context: jetstream::Context,
    // Held while asking, so that a window of messages asks once a subject, one at a time.
    answers: Mutex<HashMap<ByteString, (Instant, Answer)>>,
}

/// How a publish went unconfirmed.
#[derive(Clone, Copy, Debug)]
pub enum Silence {
    /// The server said that nothing listens on the subject.
    Unclaimed,
    /// Nothing came back until the deadline.
    Unanswered,
}

/// What the JetStream API says about a subject.
#[derive(Clone, Debug)]
pub enum Answer {
    Stream(String),
    NoStream,
    Silence(String),
}

impl Streams {
    pub fn new(context: jetstream::Context) -> Self {
        Self { context, answers: Mutex::default() }
    }

    /// Asks which stream takes `subject`.
    pub async fn takes(&self, subject: &ByteString) -> Answer {
        let mut answers = self.answers.lock().await;
        let fresh = |(at, answer): &(Instant, Answer)| {
            (at.elapsed() < ANSWER_LASTS).then(|| answer.clone())
        };
        if let Some(answer) = answers.get(subject).and_then(fresh) {
            return answer;
        }
        let answer = self.ask(subject).await;
        if answers.len() >= MAX_SUBJECTS {
            answers.clear();
        }
        answers.insert(subject.clone(), (Instant::now(), answer.clone()));
        answer
    }

    async fn ask(&self, subject: &str) -> Answer {
        match timeout(LOOKUP_DEADLINE, self.context.stream_by_subject(subject)).await {
            Ok(Ok(stream)) => Answer::Stream(stream),
            Ok(Err(error)) if error.kind() == GetStreamByNameErrorKind::NotFound => {
                Answer::NoStream
            }
            Ok(Err(error)) => Answer::Silence(error.to_string()),
            Err(_) => Answer::Silence(format!("no answer within {} s", LOOKUP_DEADLINE.as_secs())),
        }
    }
}

/// Why a message was not confirmed. `others_pass`: a stream confirmed one a short while ago.
pub fn verdict(answer: Answer, subject: &str, silence: Silence, others_pass: bool) -> Error {
    match (answer, silence) {
        (Answer::NoStream, _) => Error::Failed(format!(
            "no stream takes subject {subject}: create one, or correct the route"
        )),
        (Answer::Stream(stream), Silence::Unclaimed) => {
            let text = format!(
                "stream {stream} takes subject {subject} but did not answer: it has no leader now"
            );
            // Where nothing else passes, an election is waited for, in order.
            if others_pass { Error::Failed(text) } else { Error::Down(text) }
        }
        (Answer::Stream(stream), Silence::Unanswered) => {
            unanswered(&format!("stream {stream}"), subject, others_pass)
        }
        (Answer::Silence(reason), _) => Error::Down(format!(
            "JetStream does not answer ({reason}): is it enabled on the server, and for this account?"
        )),
    }
}

/// A stream that should have confirmed a message did not.
pub fn unanswered(stream: &str, subject: &str, others_pass: bool) -> Error {
    let text = format!(
        "{stream} did not confirm a message to {subject} within {} s, outcome unknown",
        super::ACK_DEADLINE.as_secs()
    );
    if others_pass { Error::Failed(text) } else { Error::Down(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_jetstream_that_confirms_nothing_is_down() {
        use Silence::*;
        let stream = || Answer::Stream("S".into());
        let cases = [
            (Answer::NoStream, Unclaimed, true, "failed"),
            (Answer::NoStream, Unanswered, false, "failed"),
            (stream(), Unclaimed, true, "failed"),
            (stream(), Unclaimed, false, "down"),
            (stream(), Unanswered, true, "failed"),
            (stream(), Unanswered, false, "down"),
            (Answer::Silence("no responders".into()), Unclaimed, true, "down"),
            (Answer::Silence("timed out".into()), Unanswered, true, "down"),
        ];
        for (answer, silence, others_pass, expected) in cases {
            let found = match verdict(answer.clone(), "a.b", silence, others_pass) {
                Error::Down(_) => "down",
                Error::Failed(_) => "failed",
                Error::Refused(_) => "refused",
            };
            assert_eq!(found, expected, "{answer:?} {silence:?} {others_pass}");
        }
    }
}
