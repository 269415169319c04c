//! What travels through Waypost: an [`Event`], the [`Message`]s it owes, and the [`Record`] that
//! binds the two in the journal.
//!
//! Strings are [`ByteString`]s: decoded from a record they share its buffer, so reading a record
//! back copies neither its body nor its attributes.

use bytes::Bytes;
use bytestring::ByteString;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::clock::rfc3339;

mod record;

pub use record::{Error, Record};

/// What a sender said, once verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Identity; goes out as `ce-id` and stays the same over redelivery and replay.
    pub id: ByteString,
    /// Name of the source in `routes.yaml`.
    pub source: ByteString,
    /// The event's type, as routed on.
    pub kind: ByteString,
    /// Whom the event is about: Sonzai's agent, miibo's user.
    pub subject: Option<ByteString>,
    /// Time of receipt, milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The request's `Content-Type`, as received.
    pub content_type: Option<ByteString>,
    /// The request's `traceparent`, carried through.
    pub traceparent: Option<ByteString>,
    /// CloudEvents extensions beside the standard attributes; names are lower-case alphanumeric.
    pub extensions: Vec<(ByteString, ByteString)>,
    /// The request's headers without secret ones; names are lower-case.
    pub headers: Vec<(ByteString, ByteString)>,
    /// The body, byte for byte as it was signed.
    pub body: Bytes,
}

impl Event {
    /// The CloudEvents 1.0 context attributes except `datacontenttype`, which every protocol
    /// binding carries as its own content type.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, ByteString)> {
        let standard = [
            ("specversion", ByteString::from_static("1.0")),
            ("id", self.id.clone()),
            ("source", self.source.clone()),
            ("type", self.kind.clone()),
            ("time", self.time_rfc3339().into()),
        ];
        let subject = self.subject.iter().map(|s| ("subject", s.clone()));
        let extensions = self.extensions.iter().map(|(k, v)| (&**k, v.clone()));
        standard.into_iter().chain(subject).chain(extensions)
    }

    /// The value of an extension, by its CloudEvents name.
    pub fn extension(&self, name: &str) -> Option<&ByteString> {
        self.extensions.iter().find(|(k, _)| *k == name).map(|(_, v)| v)
    }

    /// Time of receipt as RFC 3339 in UTC with milliseconds.
    pub fn time_rfc3339(&self) -> String {
        rfc3339(self.time_ms)
    }
}

/// Where a message goes on its broker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A topic of Kafka, with the record key. Version 1 of the [record](Record) has it for the `log`
    /// broker's topics as well.
    Topic { topic: ByteString, key: Option<ByteString> },
    /// A topic of the `log` broker.
    LogTopic(ByteString),
    /// A RabbitMQ exchange and routing key.
    Exchange { exchange: ByteString, routing_key: ByteString },
    /// A NATS subject.
    Subject(ByteString),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Topic { topic, .. } | Address::LogTopic(topic) => write!(f, "{topic}"),
            Address::Exchange { exchange, routing_key } => write!(f, "{exchange}/{routing_key}"),
            Address::Subject(subject) => write!(f, "{subject}"),
        }
    }
}

/// One target rendered for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Name of the route that asked for it.
    pub route: ByteString,
    /// Name of the broker that owes it.
    pub broker: ByteString,
    /// Where it goes, or why that could not be rendered.
    pub address: Result<Address, ByteString>,
    /// How the event is written down.
    pub format: Format,
    /// Fixed headers of the target, beside what the format brings along.
    pub headers: Headers,
}

/// Names and values of headers.
pub type Headers = Vec<(ByteString, ByteString)>;

/// How an event is written down for a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The body as it is, the CloudEvents attributes as headers.
    #[default]
    Binary,
    /// One CloudEvents JSON document that holds the attributes and the body.
    Structured,
    /// The body as it is, and no attributes.
    Raw,
}

impl Format {
    /// What `format:` says.
    pub fn name(self) -> &'static str {
        match self {
            Format::Binary => "binary",
            Format::Structured => "structured",
            Format::Raw => "raw",
        }
    }

    /// The format of this name.
    pub fn parse(name: &str) -> Option<Format> {
        [Format::Binary, Format::Structured, Format::Raw].into_iter().find(|f| f.name() == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event of source `s` and type `k` with nothing that it can do without.
    pub(crate) fn plain(id: &str, body: impl Into<Bytes>) -> Event {
        Event {
            id: id.into(),
            source: "s".into(),
            kind: "k".into(),
            subject: None,
            time_ms: 1,
            content_type: None,
            traceparent: None,
            extensions: vec![],
            headers: vec![],
            body: body.into(),
        }
    }

    /// A message in binary format without headers of its own.
    pub(crate) fn binary(
        route: &str,
        broker: &str,
        address: Result<Address, ByteString>,
    ) -> Message {
        let (format, headers) = Default::default();
        Message { route: route.into(), broker: broker.into(), address, format, headers }
    }

    fn text() -> impl Strategy<Value = ByteString> {
        "\\PC{0,12}".prop_map(ByteString::from)
    }

    fn pairs() -> impl Strategy<Value = Vec<(ByteString, ByteString)>> {
        prop::collection::vec((text(), text()), 0..4)
    }

    fn address() -> impl Strategy<Value = Address> {
        prop_oneof![
            (text(), prop::option::of(text()))
                .prop_map(|(topic, key)| Address::Topic { topic, key }),
            text().prop_map(Address::LogTopic),
            (text(), text())
                .prop_map(|(exchange, routing_key)| Address::Exchange { exchange, routing_key }),
            text().prop_map(Address::Subject),
        ]
    }

    pub(crate) fn message() -> impl Strategy<Value = Message> {
        let address = prop_oneof![address().prop_map(Ok), text().prop_map(Err)];
        let format = prop::sample::select(vec![Format::Binary, Format::Structured, Format::Raw]);
        (text(), text(), address, format, pairs()).prop_map(
            |(route, broker, address, format, headers)| Message {
                route,
                broker,
                address,
                format,
                headers,
            },
        )
    }

    prop_compose! {
        pub(crate) fn event()(
            (id, source, kind) in (text(), text(), text()),
            (subject, content_type, traceparent) in
                (prop::option::of(text()), prop::option::of(text()), prop::option::of(text())),
            time_ms: u64,
            (extensions, headers) in (pairs(), pairs()),
            body: Vec<u8>,
        ) -> Event {
            let body = body.into();
            Event {
                id, source, kind, subject, time_ms, content_type, traceparent, extensions, headers,
                body,
            }
        }
    }
}
