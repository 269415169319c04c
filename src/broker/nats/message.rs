//! A publication as a NATS message: CloudEvents 1.0, NATS binding, and its message id.

use std::{borrow::Cow, str::FromStr};

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject};
use bytestring::ByteString;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::super::{Error, Publication};
use crate::event::{Address, Format};

/// What the binding wants encoded in an attribute: everything but printable ASCII (the encoder
/// itself takes what is not ASCII), and space, double quote and percent.
const ATTRIBUTE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// What is no attribute goes as it is; only what no header can hold is encoded.
const AS_RECEIVED: &AsciiSet = CONTROLS;

/// `ce-<name>` for each attribute (binary mode), `content-type` where it is known, and the rest.
pub fn headers(publication: &Publication) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in publication.attributes() {
        headers.insert(attribute(name)?, encoded(name, &value, ATTRIBUTE)?);
    }
    let content_type = publication.content_type().map(|value| ("content-type", value));
    for (name, value) in content_type.into_iter().chain(publication.further_headers()) {
        let header = HeaderName::from_str(name).map_err(|_| refused(name))?;
        headers.insert(header, encoded(name, value, AS_RECEIVED)?);
    }
    Ok(headers)
}

/// The header's name for an attribute. Those that nearly every event has cost no allocation.
fn attribute(name: &str) -> Result<HeaderName, Error> {
    let known = match name {
        "specversion" => "ce-specversion",
        "id" => "ce-id",
        "source" => "ce-source",
        "type" => "ce-type",
        "time" => "ce-time",
        "subject" => "ce-subject",
        "agentid" => "ce-agentid",
        "userid" => "ce-userid",
        "projectid" => "ce-projectid",
        "via" => "ce-via",
        _ => return HeaderName::from_str(&format!("ce-{name}")).map_err(|_| refused(name)),
    };
    Ok(HeaderName::from_static(known))
}

/// `from_str`, never `from`, which panics on what a header cannot hold.
fn encoded(name: &str, value: &str, set: &'static AsciiSet) -> Result<HeaderValue, Error> {
    let encoded: Cow<'_, str> = utf8_percent_encode(value, set).into();
    HeaderValue::from_str(&encoded).map_err(|_| refused(name))
}

fn refused(name: &str) -> Error {
    Error::Refused(format!("{name:?} cannot be a NATS header"))
}

/// The `Nats-Msg-Id`: what the stream drops duplicates by. It names this event to this address, in
/// this format and with these headers, and nothing else: with the bare event id, the second of two
/// messages into one stream would be dropped and counted as confirmed.
pub fn id(publication: &Publication) -> String {
    let event = &publication.event;
    let mut hash = Sha256::new();
    // Lengths keep two neighbouring fields from passing for one another.
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    field(event.source.as_bytes());
    field(event.id.as_bytes());
    field(&event.body);
    match &publication.address {
        Address::Subject(subject) => field(subject.as_bytes()),
        other => field(other.to_string().as_bytes()),
    }
    // What goes as every event once did keeps the id that it had then.
    if publication.format != Format::Binary || !publication.headers.is_empty() {
        field(publication.format.name().as_bytes());
        for (name, value) in &publication.headers {
            field(name.as_bytes());
            field(value.as_bytes());
        }
    }
    const_hex::encode(hash.finalize())
}

/// The library checks for white space only; a wildcard would be published as it is.
pub fn subject(subject: &ByteString) -> Result<Subject, Error> {
    let sane = subject.split('.').all(|token| {
        !token.is_empty()
            && !token
                .contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>')
    });
    // Shares the address's buffer.
    match Subject::from_utf8(subject.as_bytes().clone()) {
        Ok(subject) if sane => Ok(subject),
        _ => Err(Error::Refused(format!(
            "{subject:?} is not a NATS subject to publish to: dot-separated tokens, none empty, no \
             white space, `*` or `>`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        broker::publication::tests::publication,
        event::{Event, Headers},
    };

    fn binary(event: Event) -> Publication {
        Publication::binary(Arc::new(event), Address::Subject("a".into()))
    }

    fn event() -> Event {
        Event {
            id: "1".into(),
            source: "miibo".into(),
            kind: "chat".into(),
            subject: None,
            time_ms: 0,
            content_type: None,
            traceparent: None,
            extensions: vec![],
            headers: vec![],
            body: Bytes::from_static(b"{}"),
        }
    }

    #[test]
    fn attributes_are_percent_encoded_and_read_back() {
        let cases = [
            ("plain-1.0/~!", "plain-1.0/~!"),
            ("a b\"c%", "a%20b%22c%25"),
            ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("cr\r\nlf", "cr%0D%0Alf"),
            ("\u{7f}", "%7F"),
            ("", ""),
        ];
        for (value, expected) in cases {
            let event = Event { subject: Some(value.into()), ..event() };
            let headers = headers(&binary(event)).unwrap();
            let encoded = headers.get("ce-subject").unwrap().as_str();
            assert_eq!(encoded, expected);
            let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
            assert_eq!(decoded, value);
        }
    }

    #[test]
    fn a_content_type_goes_as_received_unless_it_would_break_the_header() {
        let cases = [
            ("application/json; charset=\"utf-8\"", "application/json; charset=\"utf-8\""),
            ("text/plain\r\nNats-Rollup: all", "text/plain%0D%0ANats-Rollup: all"),
        ];
        for (value, expected) in cases {
            let event = Event { content_type: Some(value.into()), ..event() };
            let headers = headers(&binary(event)).unwrap();
            assert_eq!(headers.get("content-type").unwrap().as_str(), expected);
        }
    }

    #[test]
    fn an_extension_that_no_header_can_be_named_after_is_refused() {
        let event = Event { extensions: vec![("a:b".into(), "".into())], ..event() };
        assert!(matches!(headers(&binary(event)), Err(Error::Refused(_))));
    }

    #[test]
    fn only_the_same_message_to_the_same_subject_has_the_same_id() {
        let id = |event: Event, subject: &str| {
            let address = Address::Subject(subject.into());
            id(&Publication::binary(Arc::new(event), address))
        };
        let first = id(event(), "a");
        assert_eq!(first, id(event(), "a"));
        assert!(first.len() == 64 && first.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
        let others = [
            id(event(), "b"),
            id(Event { id: "2".into(), ..event() }, "a"),
            id(Event { source: "miibo1".into(), id: "".into(), ..event() }, "a"),
            id(Event { body: Bytes::from_static(b"{ }"), ..event() }, "a"),
        ];
        for other in others {
            assert_ne!(first, other);
        }
        let written = |format, headers: &[(&str, &str)]| {
            let headers: Headers =
                headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            super::id(&Publication { format, headers, ..binary(event()) })
        };
        assert_eq!(first, written(Format::Binary, &[]));
        let ids = [
            first,
            written(Format::Raw, &[]),
            written(Format::Structured, &[]),
            written(Format::Binary, &[("a", "b")]),
            written(Format::Binary, &[("a", "bc")]),
            written(Format::Raw, &[("a", "b")]),
        ];
        assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len());
    }

    #[test]
    fn a_subject_that_is_no_place_to_publish_to_is_refused() {
        for subject in ["a", "a.b", "agents.エージェント.mood", "$JS.x", "a-b_c"] {
            assert_eq!(super::subject(&subject.into()).unwrap().as_str(), subject);
        }
        for subject in ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b", "a\tb", "a\r\n", "a\0"] {
            assert!(
                matches!(super::subject(&subject.into()), Err(Error::Refused(_))),
                "{subject:?}"
            );
        }
    }

    #[test]
    fn other_formats_have_no_attributes() {
        for (format, content_type) in [
            (Format::Raw, "text/plain"),
            (Format::Structured, "application/cloudevents+json; charset=utf-8"),
        ] {
            let headers = headers(&publication(format)).unwrap();
            for (name, value) in [
                ("content-type", content_type),
                ("traceparent", "00-aa-bb-01"),
                ("x-team", "moods"),
            ] {
                assert_eq!(headers.get(name).unwrap().as_str(), value);
            }
            assert_eq!(headers.len(), 3);
        }
    }
}
