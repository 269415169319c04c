//! A publication's Kafka headers: CloudEvents 1.0, Kafka binding.

use rdkafka::message::{Header, OwnedHeaders};

use crate::broker::Publication;

/// Room for the usual event: the standard attributes, four extensions, two headers of its own.
const USUAL_HEADERS: usize = 13;

/// `ce_<name>` for each attribute (binary mode), `content-type` where it is known, and the rest.
pub fn headers(publication: &Publication) -> OwnedHeaders {
    let mut name = String::with_capacity(32);
    let headers = publication.attributes().fold(
        OwnedHeaders::new_with_capacity(USUAL_HEADERS),
        |headers, (attribute, value)| {
            name.clear();
            name.push_str("ce_");
            name.push_str(attribute);
            headers.insert(Header { key: &name, value: Some(&*value) })
        },
    );
    let content_type = publication.content_type().map(|value| ("content-type", value));
    let others = content_type.into_iter().chain(publication.further_headers());
    others.fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use rdkafka::message::Headers;

    use super::*;
    use crate::{
        broker::publication::tests::publication,
        event::{Address, Event, Format},
    };

    fn read(headers: &OwnedHeaders) -> Vec<(String, String)> {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    }

    #[test]
    fn an_event_becomes_binary_mode_headers() {
        let event = Event {
            id: "1".into(),
            source: "miibo".into(),
            kind: "chat".into(),
            subject: Some("ユーザー".into()),
            time_ms: 0,
            content_type: Some("application/json; charset=utf-8".into()),
            traceparent: None,
            extensions: vec![("userid".into(), "".into())],
            headers: vec![("x-other".into(), "stays here".into())],
            body: Bytes::new(),
        };
        let address = Address::Topic { topic: "t".into(), key: None };
        let found = read(&headers(&Publication::binary(Arc::new(event), address)));
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "1"),
            ("ce_source", "miibo"),
            ("ce_type", "chat"),
            ("ce_time", "1970-01-01T00:00:00.000Z"),
            ("ce_subject", "ユーザー"),
            ("ce_userid", ""),
            ("content-type", "application/json; charset=utf-8"),
        ];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn other_formats_have_no_attributes() {
        let further = [("traceparent", "00-aa-bb-01"), ("x-team", "moods")];
        for (format, content_type) in [
            (Format::Raw, "text/plain"),
            (Format::Structured, "application/cloudevents+json; charset=utf-8"),
        ] {
            let expected = [&[("content-type", content_type)], &further[..]].concat();
            let found = read(&headers(&publication(format)));
            let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(found, expected);
        }
    }
}
