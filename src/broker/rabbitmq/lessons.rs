//! What a closed channel taught about messages, kept across connections.
//!
//! The broker answers a publish it objects to by closing the channel, which fails everything in
//! flight. Whatever can be known before publishing again spares the others that.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytestring::ByteString;
use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPSoftError},
};

use crate::broker::Error;

/// How long what the broker objected to is not tried again. Permissions and `max_message_size`
/// change while a broker runs or when it restarts, and each try costs everybody a reconnection.
const LEARNT_FOR: Duration = Duration::from_secs(60);

/// Forbidden addresses remembered at most; one more forgets them all. An address may hold payload
/// text, so there is no end to them.
const MAX_DENIED: usize = 1024;

/// Why the broker closed a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// A body was larger than this many bytes.
    TooLarge { max_bytes: usize },
    /// We may not write there; the text names the exchange and, with topic authorisation, the key.
    Denied { text: String },
    /// There is no such exchange (any more).
    Missing { text: String },
    /// Anything else about one of the messages.
    Other { text: String },
}

impl Objection {
    /// Reads a client error; `None` if it says nothing about a message.
    pub fn read(error: &lapin::Error) -> Option<Objection> {
        let ErrorKind::ProtocolError(error) = error.kind() else { return None };
        let AMQPErrorKind::Soft(kind) = error.kind() else { return None };
        let text = for_operators(error.get_message().as_str());
        Some(match kind {
            AMQPSoftError::ACCESSREFUSED => Objection::Denied { text },
            AMQPSoftError::NOTFOUND => Objection::Missing { text },
            AMQPSoftError::PRECONDITIONFAILED => match max_bytes(&text) {
                Some(max_bytes) => Objection::TooLarge { max_bytes },
                None => Objection::Other { text },
            },
            _ => Objection::Other { text },
        })
    }
}

/// What a refusal of access forbids, if it is about a message to this address.
fn forbidden(text: &str, exchange: &ByteString, routing_key: &ByteString) -> Option<Forbidden> {
    if !text.contains(&format!("exchange '{exchange}' in vhost")) {
        return None;
    }
    if !text.contains("topic '") {
        return Some((exchange.clone(), None));
    }
    let this_key = text.contains(&format!("topic '{routing_key}' in"));
    this_key.then(|| (exchange.clone(), Some(routing_key.clone())))
}

/// An exchange, or only one of its routing keys.
type Forbidden = (ByteString, Option<ByteString>);

impl From<Objection> for Error {
    /// The objection as the outcome of the one message it must be about.
    fn from(objection: Objection) -> Error {
        match objection {
            Objection::TooLarge { max_bytes } => too_large(max_bytes),
            Objection::Denied { text }
            | Objection::Missing { text }
            | Objection::Other { text } => Error::Failed(text),
        }
    }
}

/// What is known before publishing.
#[derive(Debug, Default)]
pub struct Lessons {
    /// Until when, and the largest body.
    max_bytes: Option<(Instant, usize)>,
    /// Until when, and in what words.
    denied: HashMap<Forbidden, (Instant, String)>,
}

impl Lessons {
    /// Remembers what a channel was closed for, given the addresses of what was in flight. False
    /// if that will not keep the guilty message from doing it again.
    pub fn learn<'a>(
        &mut self,
        objection: &Objection,
        in_flight: impl Iterator<Item = (&'a ByteString, &'a ByteString)>,
        now: Instant,
    ) -> bool {
        match objection {
            Objection::TooLarge { max_bytes } => {
                self.max_bytes = Some((now + LEARNT_FOR, *max_bytes));
                true
            }
            Objection::Denied { text } => {
                let found: Vec<_> = in_flight
                    .filter_map(|(exchange, routing_key)| forbidden(text, exchange, routing_key))
                    .collect();
                for forbidden in &found {
                    if self.denied.len() >= MAX_DENIED {
                        self.denied.clear();
                    }
                    self.denied.insert(forbidden.clone(), (now + LEARNT_FOR, text.clone()));
                }
                !found.is_empty()
            }
            // The next connection asks for the exchange before it publishes.
            Objection::Missing { .. } => true,
            Objection::Other { .. } => false,
        }
    }

    /// Refuses or fails what the broker is known to object to.
    pub fn check(
        &mut self,
        exchange: &ByteString,
        routing_key: &ByteString,
        body_bytes: usize,
        now: Instant,
    ) -> Result<(), Error> {
        self.max_bytes = self.max_bytes.filter(|(until, _)| now < *until);
        if let Some((_, max_bytes)) = self.max_bytes.filter(|(_, max)| body_bytes > *max) {
            return Err(too_large(max_bytes));
        }
        if self.denied.is_empty() {
            return Ok(());
        }
        self.denied.retain(|_, (until, _)| now < *until);
        let whole = (exchange.clone(), None);
        let key = (exchange.clone(), Some(routing_key.clone()));
        match self.denied.get(&whole).or_else(|| self.denied.get(&key)) {
            Some((_, text)) => Err(Error::Failed(text.clone())),
            None => Ok(()),
        }
    }
}

/// The largest body, from "message size 5 is larger than configured max size 4" and its variants.
fn max_bytes(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once("message size ")?.1.split_once("max size ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The broker's words without the name of the user, which belongs to the credentials, and without
/// control characters, which a routing key may have brought from a payload.
pub fn for_operators(text: &str) -> String {
    ["for user '", "by user '", "user '"]
        .iter()
        .find_map(|mark| text.split_once(mark))
        .map_or(text, |(before, _)| before.trim_end())
        .replace(char::is_control, "\u{fffd}")
}

fn too_large(max_bytes: usize) -> Error {
    Error::Refused(format!(
        "the body is larger than the {max_bytes} bytes that the broker takes (its max_message_size)"
    ))
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPHardError};

    use super::*;

    fn soft(kind: AMQPSoftError, text: &str) -> lapin::Error {
        ErrorKind::ProtocolError(AMQPError::new(kind.into(), text.into())).into()
    }

    fn denied(text: &str) -> Objection {
        Objection::read(&soft(AMQPSoftError::ACCESSREFUSED, text)).unwrap()
    }

    const EXCHANGE_DENIED: &str = "ACCESS_REFUSED - write access to exchange 'secret.x' in vhost \
                                   '/' refused for user 'guest'";
    const TOPIC_DENIED: &str = "ACCESS_REFUSED - access to topic 'a.b' in exchange 'amq.topic' in \
                                vhost '/' refused for user 'guest'";

    #[test]
    fn the_brokers_largest_size_is_learnt_for_a_while() {
        let error = soft(
            AMQPSoftError::PRECONDITIONFAILED,
            "PRECONDITION_FAILED - message size 2000 is larger than configured max size 1024",
        );
        let objection = Objection::read(&error).unwrap();
        assert_eq!(objection, Objection::TooLarge { max_bytes: 1024 });
        let mut lessons = Lessons::default();
        let now = Instant::now();
        assert_eq!(lessons.check(&"e".into(), &"k".into(), 2000, now), Ok(()));
        assert!(lessons.learn(&objection, std::iter::empty(), now));
        let outcome = lessons.check(&"e".into(), &"k".into(), 1025, now);
        assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
        assert_eq!(lessons.check(&"e".into(), &"k".into(), 1024, now), Ok(()));
        assert_eq!(lessons.check(&"e".into(), &"k".into(), 1025, now + LEARNT_FOR), Ok(()));
    }

    #[test]
    fn a_forbidden_exchange_fails_only_its_own_messages_and_only_for_a_while() {
        let (secret, open, key) = ("secret.x".into(), "open".into(), "k".into());
        let mut lessons = Lessons::default();
        let now = Instant::now();
        let in_flight = [(&secret, &key), (&open, &key)];
        assert!(lessons.learn(&denied(EXCHANGE_DENIED), in_flight.into_iter(), now));
        for key in [&key, &"another".into()] {
            let outcome = lessons.check(&secret, key, 0, now);
            assert!(matches!(outcome, Err(Error::Failed(_))), "{outcome:?}");
        }
        assert_eq!(lessons.check(&open, &key, 0, now), Ok(()));
        assert_eq!(lessons.check(&secret, &key, 0, now + LEARNT_FOR), Ok(()));
    }

    #[test]
    fn a_forbidden_topic_fails_only_its_own_key() {
        let (exchange, bad, good) = ("amq.topic".into(), "a.b".into(), "a".into());
        let mut lessons = Lessons::default();
        let now = Instant::now();
        let in_flight = [(&exchange, &bad), (&exchange, &good)];
        assert!(lessons.learn(&denied(TOPIC_DENIED), in_flight.into_iter(), now));
        assert!(lessons.check(&exchange, &bad, 0, now).is_err());
        assert_eq!(lessons.check(&exchange, &good, 0, now), Ok(()));
    }

    #[test]
    fn an_objection_that_names_nobody_teaches_nothing() {
        let error = soft(AMQPSoftError::PRECONDITIONFAILED, "PRECONDITION_FAILED - no idea");
        let (exchange, key) = ("e".into(), "k".into());
        for objection in [Objection::read(&error).unwrap(), denied(EXCHANGE_DENIED)] {
            let mut lessons = Lessons::default();
            let now = Instant::now();
            assert!(!lessons.learn(&objection, [(&exchange, &key)].into_iter(), now));
            assert_eq!(lessons.check(&exchange, &key, usize::MAX, now), Ok(()));
        }
    }

    #[test]
    fn the_users_name_stays_out_of_errors() {
        for text in [EXCHANGE_DENIED, TOPIC_DENIED] {
            let Error::Failed(words) = denied(text).into() else { panic!("not failed") };
            assert!(!words.contains("guest"), "{words}");
        }
    }

    #[test]
    fn what_is_not_about_a_message_is_no_objection() {
        let hard = AMQPError::new(AMQPHardError::CONNECTIONFORCED.into(), "bye".into());
        let cases = [
            ErrorKind::ProtocolError(hard).into(),
            lapin::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)),
            ErrorKind::MissingHeartbeatError.into(),
        ];
        for case in cases {
            assert_eq!(Objection::read(&case), None);
        }
    }
}
