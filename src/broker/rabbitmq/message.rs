//! A publication as AMQP sends it: properties, headers table, body. Pure.

use bytes::Bytes;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};

use super::ledger::PublishId;
use crate::broker::{Error, Publication};

/// The header that tells our publishes apart; a returned message is recognised by it.
pub const PUBLISH_HEADER: &str = "waypost-publish";

const APP_ID: &str = "waypost";

/// AMQP's "persistent".
const PERSISTENT: u8 = 2;

/// What AMQP puts around a content header's properties: the frame's own 8 bytes, class, weight,
/// body size and property flags.
const CONTENT_HEADER_BYTES: usize = 8 + 2 + 2 + 8 + 2;

/// Room kept for what does not depend on the event: our own header, delivery mode, timestamp.
const FIXED_BYTES: usize = 256;

/// A message ready to be handed over, but for its number.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub exchange: ShortString,
    pub routing_key: ShortString,
    pub body: Bytes,
    /// About what it takes on the wire.
    pub bytes: usize,
    pub attributes: Attributes,
}

/// All that goes beside the body, but for the publish's number.
#[derive(Clone, Debug)]
pub struct Attributes {
    properties: BasicProperties,
    headers: FieldTable,
}

impl Outgoing {
    /// Renders a publication for frames of at most `frame_max` bytes (0: no limit). What can never be
    /// sent is refused: an address over 255 bytes, attributes that do not fit one frame.
    pub fn new(
        publication: &Publication,
        exchange: &str,
        routing_key: &str,
        frame_max: u32,
    ) -> Result<Outgoing, Error> {
        let bytes = attribute_bytes(publication);
        if frame_max != 0 && bytes > frame_max as usize {
            return Err(Error::Refused(format!(
                "the event's attributes take {bytes} bytes, more than the {frame_max} of one AMQP \
                 frame"
            )));
        }
        let body = publication.payload();
        let (properties, headers) = (properties(publication), headers(publication)?);
        Ok(Outgoing {
            exchange: short("the exchange's name", exchange)?,
            routing_key: short("the routing key", routing_key)?,
            bytes: bytes + body.len(),
            body,
            attributes: Attributes { properties, headers },
        })
    }
}

impl Attributes {
    /// The properties, with the header that makes this publish recognisable.
    pub fn of_publish(self, session: &str, id: PublishId) -> BasicProperties {
        let Attributes { properties, mut headers } = self;
        headers.insert(PUBLISH_HEADER.into(), text(&format!("{session}-{id}")));
        properties.with_headers(headers)
    }
}

/// The number of the publish that a returned message was, if this session published it.
pub fn publish_id(returned: &BasicProperties, session: &str) -> Option<PublishId> {
    match returned.headers().as_ref()?.inner().get(PUBLISH_HEADER)? {
        AMQPValue::LongString(value) => {
            let value = std::str::from_utf8(value.as_bytes()).ok()?;
            value.strip_prefix(session)?.strip_prefix('-')?.parse().ok()
        }
        _ => None,
    }
}

fn properties(publication: &Publication) -> BasicProperties {
    let event = &publication.event;
    let mut properties = BasicProperties::default()
        .with_app_id(APP_ID.into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(event.time_ms / 1000);
    // AMQP's own, and so there in every format. What does not fit its 255 bytes is left out, never
    // cut: CloudEvents carry id and type in full.
    if let Ok(id) = ShortString::try_new(&*event.id) {
        properties = properties.with_message_id(id);
    }
    if let Ok(kind) = ShortString::try_new(&*event.kind) {
        properties = properties.with_type(kind);
    }
    match publication.content_type().map(ShortString::try_new) {
        Some(Ok(content_type)) => properties.with_content_type(content_type),
        Some(Err(_)) | None => properties,
    }
}

fn headers(publication: &Publication) -> Result<FieldTable, Error> {
    let mut headers = FieldTable::default();
    for (name, value) in publication.attributes() {
        let name = short("an attribute's name", &format!("cloudEvents_{name}"))?;
        headers.insert(name, text(&value));
    }
    for (name, value) in publication.further_headers() {
        headers.insert(short("a header's name", name)?, text(value));
    }
    Ok(headers)
}

/// At least what the publication's part of the content header takes in its frame.
fn attribute_bytes(publication: &Publication) -> usize {
    /// A name's length, a value's length and its type.
    const ENTRY_BYTES: usize = 1 + 4 + 1;
    let attributes = publication.attributes();
    let attributes: usize = attributes
        .map(|(name, value)| "cloudEvents_".len() + name.len() + value.len() + ENTRY_BYTES)
        .sum();
    let others = publication.further_headers();
    let others: usize = others.map(|(name, value)| name.len() + value.len() + ENTRY_BYTES).sum();
    let properties = 3 * 256;
    CONTENT_HEADER_BYTES + FIXED_BYTES + properties + attributes + others
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn short(what: &str, value: &str) -> Result<ShortString, Error> {
    ShortString::try_new(value)
        .map_err(|_| Error::Refused(format!("{what} takes {} bytes, AMQP allows 255", value.len())))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        broker::publication::tests::publication,
        event::{Address, Event, Format},
    };

    fn event() -> Event {
        Event {
            id: "id-1".into(),
            source: "sonzai".into(),
            kind: "agent.message".into(),
            subject: Some("agent-7".into()),
            time_ms: 1_700_000_000_999,
            content_type: Some("application/json".into()),
            traceparent: Some("00-aa-bb-01".into()),
            extensions: vec![("agentid".into(), "agent-7".into())],
            headers: Vec::new(),
            body: Bytes::from_static(b"{}"),
        }
    }

    fn binary(event: &Event) -> Publication {
        Publication::binary(Arc::new(event.clone()), Address::Subject("unused".into()))
    }

    fn outgoing(event: &Event) -> Result<Outgoing, Error> {
        Outgoing::new(&binary(event), "agents", "message.1", 131_072)
    }

    #[test]
    fn attributes_and_properties_are_all_there() {
        let properties = outgoing(&event()).unwrap().attributes.of_publish("s", 12);
        let headers = properties.headers().as_ref().unwrap().inner();
        let expected = [
            ("cloudEvents_agentid", "agent-7"),
            ("cloudEvents_id", "id-1"),
            ("cloudEvents_source", "sonzai"),
            ("cloudEvents_specversion", "1.0"),
            ("cloudEvents_subject", "agent-7"),
            ("cloudEvents_time", "2023-11-14T22:13:20.999Z"),
            ("cloudEvents_type", "agent.message"),
            ("traceparent", "00-aa-bb-01"),
            ("waypost-publish", "s-12"),
        ];
        let found: Vec<_> = headers.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        assert_eq!(found, expected.map(|(k, v)| (k, text(v))));
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "id-1");
        assert_eq!(properties.kind().as_ref().unwrap().as_str(), "agent.message");
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
        assert_eq!(properties.app_id().as_ref().unwrap().as_str(), "waypost");
        assert_eq!(*properties.timestamp(), Some(1_700_000_000));
        assert_eq!(*properties.delivery_mode(), Some(2));
    }

    #[test]
    fn a_publish_is_recognised_by_its_own_session_only() {
        let outgoing = Outgoing::new(&binary(&event()), "agents", "message.1", 0).unwrap();
        let properties = outgoing.attributes.of_publish("s", 12);
        assert_eq!(publish_id(&properties, "s"), Some(12));
        assert_eq!(publish_id(&properties, "t"), None);
        assert_eq!(publish_id(&BasicProperties::default(), "s"), None);
    }

    #[test]
    fn properties_over_255_bytes_are_left_out_and_kept_in_the_headers() {
        let long = "x".repeat(256);
        let mut event = event();
        event.id = long.as_str().into();
        event.kind = long.as_str().into();
        event.content_type = Some(long.as_str().into());
        let properties = outgoing(&event).unwrap().attributes.of_publish("s", 0);
        assert_eq!(*properties.message_id(), None);
        assert_eq!(*properties.kind(), None);
        assert_eq!(*properties.content_type(), None);
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers["cloudEvents_id"], text(&long));
        assert_eq!(headers["cloudEvents_type"], text(&long));
    }

    #[test]
    fn what_amqp_cannot_carry_is_refused() {
        let long = "x".repeat(256);
        let mut outcomes = vec![
            Outgoing::new(&binary(&event()), &long, "k", 131_072),
            Outgoing::new(&binary(&event()), "e", &long, 131_072),
        ];
        let edits: [fn(&mut Event); 2] = [
            |event| event.subject = Some("x".repeat(131_072).into()),
            |event| event.extensions.push(("x".repeat(256).into(), "v".into())),
        ];
        for edit in edits {
            let mut event = event();
            edit(&mut event);
            outcomes.push(outgoing(&event));
        }
        for outcome in outcomes {
            assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
        }
    }

    #[test]
    fn other_formats_have_no_attributes_but_what_amqp_and_returns_need() {
        for (format, content_type, body) in [
            (Format::Raw, "text/plain", Some("hello")),
            (Format::Structured, "application/cloudevents+json; charset=utf-8", None),
        ] {
            let outgoing = Outgoing::new(&publication(format), "e", "k", 131_072).unwrap();
            assert!(body.is_none_or(|body| outgoing.body == body));
            let properties = outgoing.attributes.of_publish("s", 12);
            assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "id-1");
            assert_eq!(properties.content_type().as_ref().unwrap().as_str(), content_type);
            let headers = properties.headers().as_ref().unwrap().inner();
            let names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
            assert_eq!(names, ["traceparent", "waypost-publish", "x-team"]);
        }
    }
}
