//! An event as Kafka headers: CloudEvents 1.0, Kafka binding, binary mode.

use rdkafka::message::{Header, OwnedHeaders};

use crate::event::Event;

/// Room for the usual event: the standard attributes, three extensions, two headers of its own.
const USUAL_HEADERS: usize = 12;

/// `ce_<name>` for each attribute, `content-type` and `traceparent` where the sender gave them.
pub fn headers(event: &Event) -> OwnedHeaders {
    let mut name = String::with_capacity(32);
    let headers = event.attributes().fold(
        OwnedHeaders::new_with_capacity(USUAL_HEADERS),
        |headers, (attribute, value)| {
            name.clear();
            name.push_str("ce_");
            name.push_str(attribute);
            headers.insert(Header { key: &name, value: Some(&*value) })
        },
    );
    let own = [("content-type", &event.content_type), ("traceparent", &event.traceparent)];
    own.into_iter().fold(headers, |headers, (key, value)| match value {
        Some(value) => headers.insert(Header { key, value: Some(&**value) }),
        None => headers,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdkafka::message::Headers;

    use super::*;

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
        let headers = headers(&event);
        let found: Vec<_> = headers
            .iter()
            .map(|h| (h.key.to_owned(), String::from_utf8_lossy(h.value.unwrap()).into_owned()))
            .collect();
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
}
