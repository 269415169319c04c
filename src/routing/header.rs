//! What each broker allows as a fixed header of a target. What means something to the broker, to
//! CloudEvents or to Waypost itself is refused: nothing may pass for an attribute, or be routed by.

use super::template;
use crate::{certificates::PEM_SIGN, source::sounds_secret};

/// The most headers of a target.
pub const MAX_HEADERS: usize = 16;

/// Longest name of a header, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Longest value of a header, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// A rule that a header must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Kafka,
    RabbitMq,
    Nats,
}

impl Rule {
    /// Whether a target may have this header. The error says what to do.
    pub fn check(self, name: &str, value: &str) -> Result<(), String> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(token) {
            return Err(format!(
                "the header's name `{name}` may hold 1 to {MAX_NAME_BYTES} letters, digits and signs \
                 like `-`, `_` and `.`"
            ));
        }
        let lower = name.to_ascii_lowercase();
        if let Some(whose) = self.owner(&lower) {
            return Err(format!("the header `{name}` belongs to {whose}; choose another name"));
        }
        if sounds_like_a_secret(name) {
            return Err(format!(
                "the header `{name}` sounds secret, and brokers, consumers and logs see it: leave it \
                 out, or choose another name"
            ));
        }
        if looks_like_a_secret(value) {
            return Err(
                "the value looks like a secret, and brokers, consumers and logs see it: leave \
                        the header out"
                    .to_owned(),
            );
        }
        if value.len() > MAX_VALUE_BYTES {
            return Err(format!("a header's value has at most {MAX_VALUE_BYTES} bytes"));
        }
        if value.contains(char::is_control) {
            return Err(
                "a header's value may not hold line breaks or control characters".to_owned()
            );
        }
        if template::has_placeholder(value) {
            return Err(
                "headers are fixed text: a placeholder would be sent as it stands".to_owned()
            );
        }
        Ok(())
    }

    /// Who gives a header of this lower-case name its meaning.
    fn owner(self, name: &str) -> Option<&'static str> {
        let attributes = match self {
            Rule::Kafka => name.starts_with("ce_"),
            Rule::RabbitMq => name.starts_with("cloudevents"),
            Rule::Nats => name.starts_with("ce-"),
        };
        match (self, name) {
            _ if attributes => Some("CloudEvents"),
            (_, "content-type") => Some("the event's content type"),
            (_, "traceparent") => Some("the request's trace"),
            _ if name.starts_with("waypost-") => Some("Waypost"),
            // These two make RabbitMQ route a message to other queues beside its own.
            (Rule::RabbitMq, "cc" | "bcc") => Some("RabbitMQ"),
            (Rule::Nats, _) if name.starts_with("nats-") => Some("NATS"),
            _ => None,
        }
    }
}

/// Whether a header may hold a secret, and must not be shown.
pub fn may_be_secret(name: &str, value: &str) -> bool {
    sounds_like_a_secret(name) || looks_like_a_secret(value)
}

fn sounds_like_a_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    sounds_secret(&name) || name.contains("passw")
}

/// Whether a value begins as secrets do, or holds a key.
fn looks_like_a_secret(value: &str) -> bool {
    const BEGINNINGS: [&str; 4] = ["bearer ", "basic ", "whsec_", "whsk_"];
    let value = value.trim_start();
    let begins = |beginning: &str| {
        value.get(..beginning.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(beginning))
    };
    BEGINNINGS.iter().any(|beginning| begins(beginning)) || value.contains(PEM_SIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_means_something_elsewhere_is_refused() {
        use Rule::*;
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for (rule, name, value, refused) in [
            (Kafka, "x-team", "moods", None),
            (Kafka, "ce-id", "1", None),
            (Kafka, "ce_id", "1", Some("CloudEvents")),
            (Kafka, "CE_Extra", "1", Some("CloudEvents")),
            (RabbitMq, "cloudEvents_id", "1", Some("CloudEvents")),
            (RabbitMq, "cloudEvents:id", "1", Some("letters")),
            (RabbitMq, "CC", "other", Some("RabbitMQ")),
            (RabbitMq, "BCC", "other", Some("RabbitMQ")),
            (RabbitMq, "waypost-publish", "1", Some("Waypost")),
            (Nats, "CC", "other", None),
            (Nats, "Nats-Msg-Id", "1", Some("NATS")),
            (Nats, "ce-id", "1", Some("CloudEvents")),
            (Nats, "Content-Type", "1", Some("content type")),
            (Nats, "traceparent", "1", Some("trace")),
            (Nats, "", "1", Some("letters")),
            (Nats, "a b", "1", Some("letters")),
            (Nats, "a:b", "1", Some("letters")),
            (Nats, &*long, "1", Some("letters")),
            (Nats, "x", "a\r\nNats-Rollup: all", Some("line breaks")),
            (Nats, "x", "{data.x}", Some("fixed text")),
            (Nats, "x", r#"{"a": 1}"#, None),
            (Nats, "x", "日本", None),
            (Kafka, "Authorization", "x", Some("sounds secret")),
            (Kafka, "proxy-authorization", "x", Some("sounds secret")),
            (Kafka, "Cookie", "x", Some("sounds secret")),
            (RabbitMq, "x-api-key", "x", Some("sounds secret")),
            (RabbitMq, "db_password", "x", Some("sounds secret")),
            (Nats, "x", "Bearer eyJhbGciOi", Some("looks like a secret")),
            (Nats, "x", " basic dXNlcjpwdw==", Some("looks like a secret")),
            (Nats, "x", "whsec_MDEy", Some("looks like a secret")),
            (Nats, "x", "-----BEGIN PRIVATE KEY-----", Some("looks like a secret")),
            (Nats, "x", "bearers of news", None),
            (Nats, "x", "日", None),
        ] {
            match (rule.check(name, value), refused) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{name}: {why}"),
                (outcome, _) => panic!("{rule:?} {name:?} {value:?}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_value_is_bounded() {
        let value = "x".repeat(MAX_VALUE_BYTES + 1);
        assert!(Rule::Kafka.check("x", &value[1..]).is_ok());
        assert!(Rule::Kafka.check("x", &value).is_err());
    }
}
