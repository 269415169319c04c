//! A message on its way to a broker, and what of it every broker writes alike.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::cloudevents;
use crate::event::{Address, Event, Format, Headers};

/// An event on its way to one address.
#[derive(Clone, Debug)]
pub struct Publication {
    pub event: Arc<Event>,
    pub address: Address,
    pub format: Format,
    /// Fixed headers, beside what the format brings along.
    pub headers: Headers,
}

impl Publication {
    /// In binary format, without headers of its own.
    pub fn binary(event: Arc<Event>, address: Address) -> Publication {
        let (format, headers) = Default::default();
        Publication { event, address, format, headers }
    }

    /// What the broker carries: the body, untouched, or the document that holds it.
    pub fn payload(&self) -> Bytes {
        match self.format {
            Format::Structured => cloudevents::document(&self.event).into(),
            Format::Binary | Format::Raw => self.event.body.clone(),
        }
    }

    /// The payload's content type: the body's, as received, or the document's.
    pub fn content_type(&self) -> Option<&str> {
        match self.format {
            Format::Structured => Some(cloudevents::CONTENT_TYPE),
            Format::Binary | Format::Raw => self.event.content_type.as_deref(),
        }
    }

    /// The CloudEvents attributes that go beside the payload: in binary format alone.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, ByteString)> {
        (self.format == Format::Binary).then(|| self.event.attributes()).into_iter().flatten()
    }

    /// Headers that go beside the payload in every format: the request's `traceparent`, which is the
    /// transport's, and the fixed ones.
    pub fn further_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let traceparent = self.event.traceparent.as_deref().map(|value| ("traceparent", value));
        let fixed = self.headers.iter().map(|(name, value)| (&**name, &**value));
        traceparent.into_iter().chain(fixed)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::event::tests::plain;

    /// An event with all attributes, in a format, with a header of its own.
    pub(in crate::broker) fn publication(format: Format) -> Publication {
        let event = Event {
            subject: Some("agent-7".into()),
            content_type: Some("text/plain".into()),
            traceparent: Some("00-aa-bb-01".into()),
            extensions: vec![("agentid".into(), "agent-7".into())],
            ..plain("id-1", "hello")
        };
        let headers = vec![("x-team".into(), "moods".into())];
        let address = Address::Subject("a".into());
        Publication { event: Arc::new(event), address, format, headers }
    }

    #[test]
    fn only_the_structured_format_changes_the_payload_and_only_the_binary_has_attributes() {
        for (format, payload, content_type, attributes) in [
            (Format::Binary, "hello", "text/plain", 7),
            (Format::Raw, "hello", "text/plain", 0),
            (Format::Structured, "", "application/cloudevents+json; charset=utf-8", 0),
        ] {
            let publication = publication(format);
            assert_eq!(publication.content_type(), Some(content_type));
            assert_eq!(publication.attributes().count(), attributes);
            let headers: Vec<_> = publication.further_headers().collect();
            assert_eq!(headers, [("traceparent", "00-aa-bb-01"), ("x-team", "moods")]);
            match format {
                Format::Structured => {
                    assert_eq!(publication.payload(), cloudevents::document(&publication.event));
                }
                _ => assert_eq!(publication.payload(), payload),
            }
        }
    }
}
