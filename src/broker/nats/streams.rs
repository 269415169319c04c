//! Which stream takes a subject? Asked when nothing answered a publish.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, context::GetStreamByNameErrorKind};
use bytestring::ByteString;
use tokio::{sync::Mutex, time::timeout};

use super::super::Error;

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

#[derive(Clone, Debug)]
enum Answer {
    Stream(String),
    NoStream,
    Silence(String),
}

impl Streams {
    pub fn new(context: jetstream::Context) -> Self {
        Self { context, answers: Mutex::default() }
    }

    /// Why nothing took a message to `subject`.
    pub async fn unclaimed(&self, subject: &ByteString) -> Error {
        let mut answers = self.answers.lock().await;
        let fresh = |(at, answer): &(Instant, Answer)| {
            (at.elapsed() < ANSWER_LASTS).then(|| answer.clone())
        };
        if let Some(answer) = answers.get(subject).and_then(fresh) {
            return verdict(answer, subject);
        }
        let answer = self.ask(subject).await;
        if answers.len() >= MAX_SUBJECTS {
            answers.clear();
        }
        answers.insert(subject.clone(), (Instant::now(), answer.clone()));
        verdict(answer, subject)
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

fn verdict(answer: Answer, subject: &str) -> Error {
    match answer {
        Answer::NoStream => Error::Failed(format!(
            "no stream takes subject {subject}: create one, or correct the route"
        )),
        // Only this stream is unwell; messages to others pass.
        Answer::Stream(stream) => Error::Failed(format!(
            "stream {stream} takes subject {subject} but did not answer: it has no leader now"
        )),
        Answer::Silence(reason) => Error::Down(format!(
            "JetStream does not answer ({reason}): is it enabled on the server, and for this account?"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_silent_jetstream_is_down() {
        let cases = [
            (Answer::NoStream, "failed"),
            (Answer::Stream("S".into()), "failed"),
            (Answer::Silence("no responders".into()), "down"),
        ];
        for (answer, expected) in cases {
            let found = match verdict(answer.clone(), "a.b") {
                Error::Down(_) => "down",
                Error::Failed(_) => "failed",
                Error::Refused(_) => "refused",
            };
            assert_eq!(found, expected, "{answer:?}");
        }
    }
}
