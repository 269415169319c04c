//! What travels through Waypost: an [`Event`], the [`Message`]s it owes, and the [`Record`] that
//! binds the two in the journal.
//!
//! Strings are [`ByteString`]s: decoded from a record they share its buffer, so reading a record
//! back copies neither its body nor its attributes.
//!
//! # Record layout (version 1)
//!
//! Integers are little-endian; a *string* is a `u32` length and that many UTF-8 bytes; an *option*
//! is a `u8` (0 or 1) and, after a 1, the value; a *list* is a `u32` count and the items.
//!
//! ```text
//! u8      version
//! list    messages: string route, string broker, u8 kind, then
//!           0  string reason                        could not be rendered
//!           1  string topic, option key             Kafka, log
//!           2  string exchange, string routing_key  RabbitMQ
//!           3  string subject                       NATS
//! u64     time_ms
//! string  id, source, kind
//! option  subject, content_type, traceparent
//! list    extensions: string name, string value
//! list    headers:    string name, string value
//! ...     body: the rest
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use crate::clock::rfc3339;

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
    /// A topic of Kafka or of the `log` broker, with Kafka's record key.
    Topic { topic: ByteString, key: Option<ByteString> },
    /// A RabbitMQ exchange and routing key.
    Exchange { exchange: ByteString, routing_key: ByteString },
    /// A NATS subject.
    Subject(ByteString),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Topic { topic, .. } => write!(f, "{topic}"),
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
}

/// An event and the messages it owes: what one journal entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub event: Event,
    pub messages: Vec<Message>,
}

/// Why bytes are not a record.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("record version {0} is not known to this version of waypost")]
    Version(u8),
    #[error("the record ends before its fields do")]
    Short,
    #[error("a record field is not UTF-8")]
    NotUtf8,
    #[error("unknown message kind {0}")]
    MessageKind(u8),
    #[error("an option's tag is {0}, neither 0 nor 1")]
    Option(u8),
}

const VERSION: u8 = 1;

impl Record {
    /// Encodes in one buffer; the only copy of the body between socket and disk.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len_hint());
        out.put_u8(VERSION);
        put_list(&mut out, &self.messages, put_message);
        let event = &self.event;
        out.put_u64_le(event.time_ms);
        for text in [&event.id, &event.source, &event.kind] {
            put_text(&mut out, text);
        }
        for text in [&event.subject, &event.content_type, &event.traceparent] {
            put_option(&mut out, text.as_ref());
        }
        for pairs in [&event.extensions, &event.headers] {
            put_list(&mut out, pairs, |out, (name, value)| {
                put_text(out, name);
                put_text(out, value);
            });
        }
        out.put_slice(&event.body);
        out.freeze()
    }

    /// Decodes what [`encode`](Self::encode) wrote; the result shares `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Record, Error> {
        let mut input = Input(bytes);
        input.version()?;
        let messages = input.list(Input::message)?;
        let time_ms = input.u64()?;
        let (id, source, kind) = (input.text()?, input.text()?, input.text()?);
        let (subject, content_type, traceparent) =
            (input.option()?, input.option()?, input.option()?);
        let pair = |input: &mut Input<Bytes>| Ok((input.text()?, input.text()?));
        let (extensions, headers) = (input.list(pair)?, input.list(pair)?);
        let event = Event {
            id,
            source,
            kind,
            subject,
            time_ms,
            content_type,
            traceparent,
            extensions,
            headers,
            body: input.0,
        };
        Ok(Record { event, messages })
    }

    /// Whether an encoded record owes this broker a message. Reads no further than that takes and
    /// allocates nothing: every dispatcher asks it of every record.
    pub fn owes(bytes: &[u8], broker: &str) -> Result<bool, Error> {
        let mut input = Input(bytes);
        input.version()?;
        for _ in 0..input.u32()? {
            input.skip_text()?;
            if input.skip_text()? == broker.as_bytes() {
                return Ok(true);
            }
            input.skip_address()?;
        }
        Ok(false)
    }

    /// Enough for the usual record, so that encoding allocates once.
    fn encoded_len_hint(&self) -> usize {
        let event = &self.event;
        let headers: usize = event.headers.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
        512 + 128 * self.messages.len() + headers + event.body.len()
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    // Lengths fit: every string is bounded by the ingress limits, far below 4 GiB.
    out.put_u32_le(text.len() as u32);
    out.put_slice(text.as_bytes());
}

fn put_option(out: &mut BytesMut, text: Option<&ByteString>) {
    out.put_u8(text.is_some() as u8);
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn put_list<T>(out: &mut BytesMut, items: &[T], put: impl Fn(&mut BytesMut, &T)) {
    out.put_u32_le(items.len() as u32);
    for item in items {
        put(out, item);
    }
}

fn put_message(out: &mut BytesMut, message: &Message) {
    put_text(out, &message.route);
    put_text(out, &message.broker);
    match &message.address {
        Err(reason) => {
            out.put_u8(0);
            put_text(out, reason);
        }
        Ok(Address::Topic { topic, key }) => {
            out.put_u8(1);
            put_text(out, topic);
            put_option(out, key.as_ref());
        }
        Ok(Address::Exchange { exchange, routing_key }) => {
            out.put_u8(2);
            put_text(out, exchange);
            put_text(out, routing_key);
        }
        Ok(Address::Subject(subject)) => {
            out.put_u8(3);
            put_text(out, subject);
        }
    }
}

/// What is left to decode.
struct Input<B>(B);

impl<B: Buf> Input<B> {
    fn need(&self, len: usize) -> Result<(), Error> {
        if self.0.remaining() < len { Err(Error::Short) } else { Ok(()) }
    }

    fn version(&mut self) -> Result<(), Error> {
        match self.u8()? {
            VERSION => Ok(()),
            other => Err(Error::Version(other)),
        }
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.need(1)?;
        Ok(self.0.get_u8())
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.need(4)?;
        Ok(self.0.get_u32_le())
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.need(8)?;
        Ok(self.0.get_u64_le())
    }
}

impl<'b> Input<&'b [u8]> {
    /// Steps over a string and returns its bytes.
    fn skip_text(&mut self) -> Result<&'b [u8], Error> {
        let len = self.u32()? as usize;
        self.need(len)?;
        let (text, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(text)
    }

    fn skip_option(&mut self) -> Result<(), Error> {
        match self.u8()? {
            0 => Ok(()),
            1 => self.skip_text().map(drop),
            tag => Err(Error::Option(tag)),
        }
    }

    fn skip_address(&mut self) -> Result<(), Error> {
        match self.u8()? {
            0 | 3 => self.skip_text().map(drop),
            1 => {
                self.skip_text()?;
                self.skip_option()
            }
            2 => {
                self.skip_text()?;
                self.skip_text().map(drop)
            }
            kind => Err(Error::MessageKind(kind)),
        }
    }
}

impl Input<Bytes> {
    fn text(&mut self) -> Result<ByteString, Error> {
        let len = self.u32()? as usize;
        self.need(len)?;
        ByteString::try_from(self.0.split_to(len)).map_err(|_| Error::NotUtf8)
    }

    fn option(&mut self) -> Result<Option<ByteString>, Error> {
        match self.u8()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            tag => Err(Error::Option(tag)),
        }
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        let count = self.u32()?;
        // The count is not trusted with an allocation: a short input ends the loop early.
        let mut items = Vec::with_capacity(count.min(64) as usize);
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn message(&mut self) -> Result<Message, Error> {
        let (route, broker) = (self.text()?, self.text()?);
        let address = match self.u8()? {
            0 => Err(self.text()?),
            1 => Ok(Address::Topic { topic: self.text()?, key: self.option()? }),
            2 => Ok(Address::Exchange { exchange: self.text()?, routing_key: self.text()? }),
            3 => Ok(Address::Subject(self.text()?)),
            kind => return Err(Error::MessageKind(kind)),
        };
        Ok(Message { route, broker, address })
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
            (text(), text())
                .prop_map(|(exchange, routing_key)| Address::Exchange { exchange, routing_key }),
            text().prop_map(Address::Subject),
        ]
    }

    pub(crate) fn message() -> impl Strategy<Value = Message> {
        let address = prop_oneof![address().prop_map(Ok), text().prop_map(Err)];
        (text(), text(), address).prop_map(|(route, broker, address)| Message {
            route,
            broker,
            address,
        })
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

    proptest! {
        #[test]
        fn a_record_is_read_back_as_it_was_written(
            event in event(), messages in prop::collection::vec(message(), 0..4),
        ) {
            let record = Record { event, messages };
            let bytes = record.encode();
            for broker in record.messages.iter().map(|message| &*message.broker).chain(["none"]) {
                let owes = record.messages.iter().any(|message| message.broker == broker);
                prop_assert_eq!(Record::owes(&bytes, broker), Ok(owes));
            }
            prop_assert_eq!(Record::decode(bytes), Ok(record));
        }

        #[test]
        fn bytes_that_are_no_record_are_an_error_and_never_a_crash(
            event in event(), messages in prop::collection::vec(message(), 0..3),
            cut: prop::sample::Index, flip: prop::sample::Index, with: u8, noise: Vec<u8>,
        ) {
            let bytes = Record { event, messages }.encode();
            let head = bytes.slice(..cut.index(bytes.len()));
            let mut flipped = bytes.to_vec();
            flipped[flip.index(bytes.len())] ^= with;
            for bytes in [head, flipped.into(), noise.into()] {
                // As far as it reads, it sees what decoding sees.
                let owes = Record::owes(&bytes, "none");
                if let Ok(record) = Record::decode(bytes.clone()) {
                    prop_assert!(owes.is_ok());
                    prop_assert!(record.event.body.len() <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_record_of_an_unknown_version_is_refused() {
        assert_eq!(Record::decode(vec![9].into()), Err(Error::Version(9)));
        assert_eq!(Record::decode(Bytes::new()), Err(Error::Short));
    }
}
