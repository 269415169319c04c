//! What `waypost explain` finds out: the document of `--json`, of which the text is another view.
//!
//! Teams hold their routing tables against it, so names and meanings stay. What is not known is left
//! out.

use serde::Serialize;

use super::raw::RawRequest;
use crate::{
    event::{Address, Event, Headers, Message},
    signature::diagnosis::Mistake,
};

/// See the module.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// When it is judged as if received, RFC 3339.
    pub at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    pub verdict: Verdict,
    /// The event that the request is, or would be if it were accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<EventShown>,
    /// Of an event from the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
    /// The names of the routes that match.
    pub matched: Vec<String>,
    /// In the order of the file.
    pub routes: Vec<Route>,
    /// What becomes of an event that no route takes, as its source's `unrouted:` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unrouted: Option<&'static str>,
}

/// The request as it was read.
#[derive(Debug, Serialize)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: usize,
    pub body_bytes: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl From<&RawRequest> for Request {
    fn from(raw: &RawRequest) -> Request {
        Request {
            method: raw.head.method.to_string(),
            path: raw.head.uri.path().to_owned(),
            headers: raw.head.headers.len(),
            body_bytes: raw.body.len(),
            notes: raw.notes.clone(),
        }
    }
}

/// The source that owns the path.
#[derive(Debug, Serialize)]
pub struct Source {
    pub name: String,
    pub r#type: &'static str,
    pub path: String,
    /// The event type that the path names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_type: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Accepted,
    Refused,
    /// Nothing was looked at that takes a secret.
    NotChecked,
    /// It was accepted when it came.
    Recorded,
}

/// Whether the request is accepted, and why not.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub outcome: Outcome,
    /// The status that its sender gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Where the secret stands that made the signature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// The signed time against the time of receipt.
#[derive(Debug, Serialize)]
pub struct Clock {
    pub signed_at: String,
    /// From the signature to the receipt; less than 0 if it was signed later than received.
    pub age_seconds: i64,
    pub tolerance_seconds: u64,
}

/// Why, in words, with a code that stays the same.
#[derive(Debug, Serialize)]
pub struct Reason {
    pub code: &'static str,
    pub message: String,
}

impl Reason {
    pub fn new(code: &'static str, message: impl ToString) -> Reason {
        Reason { code, message: message.to_string() }
    }
}

impl From<&Mistake> for Reason {
    fn from(mistake: &Mistake) -> Reason {
        Reason::new(mistake.code(), mistake)
    }
}

/// An event without its body.
#[derive(Debug, Serialize)]
pub struct EventShown {
    pub id: String,
    pub source: String,
    pub r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    pub time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    pub extensions: serde_json::Map<String, serde_json::Value>,
    /// Those that are kept with it.
    pub headers: Vec<[String; 2]>,
    pub body_bytes: usize,
    pub json: bool,
}

impl From<&Event> for EventShown {
    fn from(event: &Event) -> EventShown {
        let text = |value: &Option<bytestring::ByteString>| value.as_ref().map(ToString::to_string);
        let extensions = event.extensions.iter();
        EventShown {
            id: event.id.to_string(),
            source: event.source.to_string(),
            r#type: event.kind.to_string(),
            subject: text(&event.subject),
            time: event.time_rfc3339(),
            content_type: text(&event.content_type),
            extensions: extensions.map(|(k, v)| (k.to_string(), (**v).into())).collect(),
            headers: pairs(&event.headers),
            body_bytes: event.body.len(),
            json: serde_json::from_slice::<serde::de::IgnoredAny>(&event.body).is_ok(),
        }
    }
}

fn pairs(headers: &Headers) -> Vec<[String; 2]> {
    headers.iter().map(|(name, value)| [name.to_string(), value.to_string()]).collect()
}

/// What a route makes of the event.
#[derive(Debug, Serialize)]
pub struct Route {
    pub name: String,
    /// Its `when:`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    pub matched: bool,
    /// Why it does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<MessageShown>,
}

impl Route {
    /// The names of those that match.
    pub fn matched(routes: &[Route]) -> Vec<String> {
        routes.iter().filter(|route| route.matched).map(|route| route.name.clone()).collect()
    }
}

/// A message, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MessageShown {
    pub route: String,
    pub broker: String,
    #[serde(flatten)]
    pub address: AddressShown,
    pub format: &'static str,
    /// The fixed ones of its target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<[String; 2]>,
    /// The route whose message is the same to the broker, and is sent in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum AddressShown {
    Topic {
        topic: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    Exchange {
        exchange: String,
        routing_key: String,
    },
    Subject {
        subject: String,
    },
    Cannot {
        /// Why the address could not be rendered: it becomes a dead letter.
        cannot: String,
    },
}

impl From<&Message> for MessageShown {
    fn from(message: &Message) -> MessageShown {
        let address = match &message.address {
            Ok(Address::Topic { topic, key }) => AddressShown::Topic {
                topic: topic.to_string(),
                key: key.as_ref().map(ToString::to_string),
            },
            Ok(Address::LogTopic(topic)) => {
                AddressShown::Topic { topic: topic.to_string(), key: None }
            }
            Ok(Address::Exchange { exchange, routing_key }) => AddressShown::Exchange {
                exchange: exchange.to_string(),
                routing_key: routing_key.to_string(),
            },
            Ok(Address::Subject(subject)) => AddressShown::Subject { subject: subject.to_string() },
            Err(why) => AddressShown::Cannot { cannot: why.to_string() },
        };
        MessageShown {
            route: message.route.to_string(),
            broker: message.broker.to_string(),
            address,
            format: message.format.name(),
            headers: pairs(&message.headers),
            merged_into: None,
        }
    }
}

/// What was decided when the event came.
#[derive(Debug, Serialize)]
pub struct Recorded {
    /// Its place in the journal, unless it has been removed there since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    pub messages: Vec<MessageShown>,
    /// Whether the present table would decide the same.
    pub same_now: bool,
    /// Messages that the present table would not owe.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_then: Vec<MessageShown>,
    /// Messages that it would owe beside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_now: Vec<MessageShown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dead_letters: Vec<DeadLetter>,
}

/// A message of the event that was given up on.
#[derive(Debug, Serialize)]
pub struct DeadLetter {
    pub time: String,
    pub attempts: u32,
    pub reason: String,
    #[serde(flatten)]
    pub message: MessageShown,
}
