//! A record and its bytes.
//!
//! # Layout (version 2)
//!
//! Integers are little-endian; a *string* is a `u32` length and that many UTF-8 bytes; an *option*
//! is a `u8` (0 or 1) and, after a 1, the value; a *list* is a `u32` count and the items.
//!
//! ```text
//! u8      version
//! list    messages: string route, string broker, u8 kind, then
//!           0  string reason                        could not be rendered
//!           1  string topic, option key             Kafka
//!           2  string exchange, string routing_key  RabbitMQ
//!           3  string subject                       NATS
//!           4  string topic                         log
//!         then u8 format (0 binary, 1 structured, 2 raw)
//!         and list headers: string name, string value
//! u64     time_ms
//! string  id, source, kind
//! option  subject, content_type, traceparent
//! list    extensions: string name, string value
//! list    headers:    string name, string value
//! ...     body: the rest
//! ```
//!
//! Version 1 had neither format nor headers of a message: binary, and none; and kind 1 for topics of
//! `log` as well, so that a message did not say which of the two it is for. It is still read, since
//! journals, parked messages and dead letters of that time hold it; it is never written.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use bytestring::ByteString;

use super::{Address, Event, Format, Headers, Message};

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
    #[error("unknown message format {0}")]
    Format(u8),
}

/// What is written.
const VERSION: u8 = 2;

/// The version before, in which messages had neither format nor headers.
const PLAIN: u8 = 1;

/// The formats by the number that is written for them.
const FORMATS: [Format; 3] = [Format::Binary, Format::Structured, Format::Raw];

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
            put_list(&mut out, pairs, put_pair);
        }
        out.put_slice(&event.body);
        out.freeze()
    }

    /// Decodes what [`encode`](Self::encode) wrote; the result shares `bytes`.
    pub fn decode(bytes: Bytes) -> Result<Record, Error> {
        let mut input = Input(bytes);
        let version = input.version()?;
        let messages = input.list(|input| input.message(version))?;
        let time_ms = input.u64()?;
        let (id, source, kind) = (input.text()?, input.text()?, input.text()?);
        let (subject, content_type, traceparent) =
            (input.option()?, input.option()?, input.option()?);
        let (extensions, headers) = (input.list(Input::pair)?, input.list(Input::pair)?);
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
        let version = input.version()?;
        for _ in 0..input.u32()? {
            input.skip_text()?;
            if input.skip_text()? == broker.as_bytes() {
                return Ok(true);
            }
            input.skip_address()?;
            if version > PLAIN {
                input.format()?;
                input.skip_pairs()?;
            }
        }
        Ok(false)
    }

    /// Enough for the usual record, so that encoding allocates once.
    fn encoded_len_hint(&self) -> usize {
        let event = &self.event;
        let headers: usize = event.headers.iter().map(|(k, v)| k.len() + v.len() + 8).sum();
        512 + 160 * self.messages.len() + headers + event.body.len()
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

fn put_pair(out: &mut BytesMut, (name, value): &(ByteString, ByteString)) {
    put_text(out, name);
    put_text(out, value);
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
        Ok(Address::LogTopic(topic)) => {
            out.put_u8(4);
            put_text(out, topic);
        }
    }
    out.put_u8(match message.format {
        Format::Binary => 0,
        Format::Structured => 1,
        Format::Raw => 2,
    });
    put_list(out, &message.headers, put_pair);
}

/// What is left to decode.
struct Input<B>(B);

impl<B: Buf> Input<B> {
    fn need(&self, len: usize) -> Result<(), Error> {
        if self.0.remaining() < len { Err(Error::Short) } else { Ok(()) }
    }

    fn version(&mut self) -> Result<u8, Error> {
        match self.u8()? {
            known @ (PLAIN | VERSION) => Ok(known),
            other => Err(Error::Version(other)),
        }
    }

    fn format(&mut self) -> Result<Format, Error> {
        let number = self.u8()?;
        FORMATS.get(usize::from(number)).copied().ok_or(Error::Format(number))
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
            0 | 3 | 4 => self.skip_text().map(drop),
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

    fn skip_pairs(&mut self) -> Result<(), Error> {
        for _ in 0..self.u32()? {
            self.skip_text()?;
            self.skip_text()?;
        }
        Ok(())
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

    fn pair(&mut self) -> Result<(ByteString, ByteString), Error> {
        Ok((self.text()?, self.text()?))
    }

    fn message(&mut self, version: u8) -> Result<Message, Error> {
        let (route, broker) = (self.text()?, self.text()?);
        let address = match self.u8()? {
            0 => Err(self.text()?),
            1 => Ok(Address::Topic { topic: self.text()?, key: self.option()? }),
            2 => Ok(Address::Exchange { exchange: self.text()?, routing_key: self.text()? }),
            3 => Ok(Address::Subject(self.text()?)),
            4 => Ok(Address::LogTopic(self.text()?)),
            kind => return Err(Error::MessageKind(kind)),
        };
        let (format, headers) = match version {
            PLAIN => (Format::Binary, Headers::new()),
            _ => (self.format()?, self.list(Input::pair)?),
        };
        Ok(Message { route, broker, address, format, headers })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::{binary, event, message, plain};

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

    /// Written by the build before version 2.
    const OF_VERSION_1: &str = "\
         01040000000100000072010000006201010000007401010000006b010000007201000000620201000000\
         780100000079010000007201000000620301000000730100000072010000006200020000006e6f010000\
         00000000000200000065310100000073010000006b0102000000613101100000006170706c6963617469\
         6f6e2f6a736f6e0001000000070000006167656e746964020000006131010000000a000000757365722d\
         6167656e740600000073686f702f317b226e223a317d";

    #[test]
    fn a_record_of_version_1_is_read_as_what_it_meant() {
        let bytes = Bytes::from(const_hex::decode(OF_VERSION_1).unwrap());
        let topic = Address::Topic { topic: "t".into(), key: Some("k".into()) };
        let exchange = Address::Exchange { exchange: "x".into(), routing_key: "y".into() };
        let messages =
            [Ok(topic), Ok(exchange), Ok(Address::Subject("s".into())), Err("no".into())];
        let event = Event {
            subject: Some("a1".into()),
            content_type: Some("application/json".into()),
            extensions: vec![("agentid".into(), "a1".into())],
            headers: vec![("user-agent".into(), "shop/1".into())],
            ..plain("e1", r#"{"n":1}"#)
        };
        let messages = messages.into_iter().map(|address| binary("r", "b", address)).collect();
        assert_eq!(Record::owes(&bytes, "b"), Ok(true));
        assert_eq!(Record::owes(&bytes, "none"), Ok(false));
        assert_eq!(Record::decode(bytes), Ok(Record { event, messages }));
    }
}
