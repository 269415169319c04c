//! A record comes back as it was written, and bytes that are read as a record are the only ones it
//! is written as.

#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use waypost::event::{Address, Event, Format, Headers, Message, Record};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Record(Messages<'a>, Attributes<'a>),
}

type Messages<'a> = Vec<Owed<'a>>;

#[derive(Arbitrary, Debug)]
struct Owed<'a> {
    route: &'a str,
    broker: &'a str,
    target: Target<'a>,
    format: Written,
    headers: Vec<(&'a str, &'a str)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Written {
    Binary,
    Structured,
    Raw,
}

#[derive(Arbitrary, Debug)]
enum Target<'a> {
    Unfilled(&'a str),
    Topic(&'a str, Option<&'a str>),
    Exchange(&'a str, &'a str),
    Subject(&'a str),
    LogTopic(&'a str),
}

#[derive(Arbitrary, Debug)]
struct Attributes<'a> {
    texts: [&'a str; 3],
    options: [Option<&'a str>; 3],
    time_ms: u64,
    extensions: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

fuzz_target!(|input: Input| match input {
    Input::Bytes(bytes) => {
        if let Ok(record) = Record::decode(Bytes::copy_from_slice(bytes)) {
            // What an older version wrote is written in the present one.
            let again = record.encode();
            assert!(bytes[0] != again[0] || again == bytes);
            assert_eq!(Record::decode(again), Ok(record));
        }
    }
    Input::Record(messages, attributes) => {
        let messages = messages.iter().map(message).collect();
        let record = Record { event: event(&attributes), messages };
        assert_eq!(Record::decode(record.encode()), Ok(record));
    }
});

fn message(owed: &Owed) -> Message {
    let address = match owed.target {
        Target::Unfilled(reason) => Err(reason.into()),
        Target::Topic(topic, key) => {
            Ok(Address::Topic { topic: topic.into(), key: key.map(Into::into) })
        }
        Target::Exchange(exchange, routing_key) => {
            Ok(Address::Exchange { exchange: exchange.into(), routing_key: routing_key.into() })
        }
        Target::Subject(subject) => Ok(Address::Subject(subject.into())),
        Target::LogTopic(topic) => Ok(Address::LogTopic(topic.into())),
    };
    Message {
        route: owed.route.into(),
        broker: owed.broker.into(),
        address,
        format: match owed.format {
            Written::Binary => Format::Binary,
            Written::Structured => Format::Structured,
            Written::Raw => Format::Raw,
        },
        headers: pairs(&owed.headers),
    }
}

fn event(attributes: &Attributes) -> Event {
    let [id, source, kind] = attributes.texts.map(Into::into);
    let [subject, content_type, traceparent] = attributes.options.map(|text| text.map(Into::into));
    Event {
        id,
        source,
        kind,
        subject,
        time_ms: attributes.time_ms,
        content_type,
        traceparent,
        extensions: pairs(&attributes.extensions),
        headers: pairs(&attributes.headers),
        body: Bytes::copy_from_slice(attributes.body),
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Headers {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}
