//! What a message says of itself beside its data: CloudEvents 1.0 in binary or structured mode, or
//! nothing at all.
//!
//! | message | id | data |
//! | --- | --- | --- |
//! | `application/cloudevents+json` | `id` | `data` or `data_base64` |
//! | has CloudEvents attributes as headers | `id` | the body |
//! | is a JSON object with `specversion` | `id` | `data` or `data_base64` |
//! | none of these | the id of the broker's protocol | the body |
//!
//! An event is known by its source and id together, as CloudEvents has it. Pure.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use percent_encoding::percent_decode;
use serde_json::{Map, Value};

use super::{
    bounds::{KIND, MAX_BODY_BYTES, MAX_ID_BYTES},
    delivery::{Binding, Delivery},
    refused::Refused,
};

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

/// What a message says of itself, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Not looked at: it may be no id.
    pub id: Option<String>,
    /// Who says so; empty where nobody does.
    pub source: String,
    /// `None` for a message without attributes.
    pub kind: Option<String>,
    pub data: Bytes,
}

impl Envelope {
    /// Reads it. The second value is what is wrong, where something is; what could be read of the
    /// envelope is there all the same, for who looks for the message.
    pub fn read(delivery: &Delivery) -> (Envelope, Result<(), Refused>) {
        let bytes = delivery.body.len();
        if bytes > MAX_BODY_BYTES {
            return (attributes(delivery).0, Err(Refused::TooLarge(bytes)));
        }
        let media_type = media_type(delivery);
        if media_type == BATCH {
            return (Envelope::default(), Err(Refused::Batch));
        }
        // The content type goes before attributes among the headers: whoever passes a document on may
        // have added some of its own.
        let is_document = media_type == STRUCTURED;
        let (envelope, version) = attributes(delivery);
        let is_binary = envelope.kind.is_some() || envelope.id.is_some() || version.is_some();
        if is_binary && !is_document {
            let outcome = envelope.check(version.as_deref(), "");
            return (envelope, outcome);
        }
        match document(&delivery.body, is_document) {
            Ok(Some(document)) => structured(&document),
            Ok(None) => plain(delivery),
            Err(refused) => (Envelope::default(), Err(refused)),
        }
    }

    fn check(&self, version: Option<&str>, otherwise: &'static str) -> Result<(), Refused> {
        if let Some(version) = version.filter(|version| *version != "1.0") {
            return Err(Refused::Version(cut(version)));
        }
        match &self.kind {
            None => return Err(Refused::NoType),
            Some(kind) if kind != KIND => return Err(Refused::OtherType(cut(kind))),
            Some(_) => {}
        }
        self.check_id(otherwise)
    }

    fn check_id(&self, otherwise: &'static str) -> Result<(), Refused> {
        let Some(id) = &self.id else { return Err(Refused::NoId(otherwise)) };
        match is_name(id) {
            true => Ok(()),
            false => Err(Refused::BadId),
        }
    }
}

/// Text that can be an id or a type: not empty, bounded, no control characters.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_ID_BYTES && !text.contains(char::is_control)
}

/// The attributes among the headers, and the version.
fn attributes(delivery: &Delivery) -> (Envelope, Option<String>) {
    let of = |name: &str| {
        let header = delivery.headers.iter().find(|(header, _)| is_attribute(header, name));
        header.map(|(_, value)| match delivery.binding {
            Binding::Nats => percent_decode(value).decode_utf8_lossy().into_owned(),
            Binding::Kafka | Binding::Amqp => String::from_utf8_lossy(value).into_owned(),
        })
    };
    let envelope = Envelope {
        id: of("id"),
        source: of("source").unwrap_or_default(),
        kind: of("type"),
        data: delivery.body.clone(),
    };
    (envelope, of("specversion"))
}

/// Whether a header stands for this attribute.
fn is_attribute(header: &str, attribute: &str) -> bool {
    const PREFIXES: [&str; 4] = ["ce_", "ce-", "cloudEvents_", "cloudEvents:"];
    PREFIXES.iter().any(|prefix| {
        header.split_at_checked(prefix.len()).is_some_and(|(start, name)| {
            start.eq_ignore_ascii_case(prefix) && name.eq_ignore_ascii_case(attribute)
        })
    })
}

fn media_type(delivery: &Delivery) -> String {
    let given = delivery.content_type.as_deref().unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The document that a body is; `None` where it is none and need not be.
fn document(body: &[u8], said: bool) -> Result<Option<Map<String, Value>>, Refused> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) if said || members.contains_key("specversion") => {
            Ok(Some(members))
        }
        Ok(_) if said => Err(Refused::NotADocument("it is not a JSON object".to_owned())),
        Err(error) if said => Err(Refused::NotADocument(error.to_string())),
        _ => Ok(None),
    }
}

fn structured(document: &Map<String, Value>) -> (Envelope, Result<(), Refused>) {
    let text = |name: &'static str| match document.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Refused::NotAnAttribute(name)),
    };
    // What is no text is none here, and the first such is what is wrong.
    let read = |name| text(name).unwrap_or_default();
    let mut envelope = Envelope {
        id: read("id"),
        source: read("source").unwrap_or_default(),
        kind: read("type"),
        data: Bytes::new(),
    };
    let outcome = || {
        let version = text("specversion")?;
        ["id", "source", "type"].into_iter().try_for_each(|name| text(name).map(drop))?;
        envelope.check(version.as_deref(), "")?;
        data(document, text("data_base64")?)
    };
    match outcome() {
        Ok(data) => {
            envelope.data = data;
            (envelope, Ok(()))
        }
        Err(refused) => (envelope, Err(refused)),
    }
}

fn data(document: &Map<String, Value>, encoded: Option<String>) -> Result<Bytes, Refused> {
    if let Some(encoded) = encoded {
        return BASE64_STANDARD.decode(encoded).map(Bytes::from).map_err(|_| Refused::NotBase64);
    }
    let data = document.get("data").ok_or(Refused::NoData)?;
    // Text under a content type that is not JSON's; JSON all the same, if it is a command.
    let text = match data {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    };
    Ok(Bytes::copy_from_slice(text.as_bytes()))
}

/// A message without attributes: what it is for is clear from where it was sent.
fn plain(delivery: &Delivery) -> (Envelope, Result<(), Refused>) {
    let envelope = Envelope {
        id: delivery.message_id.clone(),
        data: delivery.body.clone(),
        ..Envelope::default()
    };
    let outcome = envelope.check_id(match delivery.binding {
        Binding::Kafka => "",
        Binding::Amqp => ", or set the property `message_id`",
        Binding::Nats => ", or the header `Nats-Msg-Id`",
    });
    (envelope, outcome)
}

/// Enough of what a sender wrote to recognise it.
pub fn cut(text: &str) -> String {
    const MAX_CHARS: usize = 100;
    text.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::delivery::tests::delivery, *};

    const BODY: &str = r#"{"user_id":"u"}"#;

    fn read(delivery: &Delivery) -> (Option<String>, String, Result<String, Refused>) {
        let (envelope, outcome) = Envelope::read(delivery);
        let data = String::from_utf8_lossy(&envelope.data).into_owned();
        (envelope.id, envelope.source, outcome.map(|()| data))
    }

    fn good(
        id: &str,
        source: &str,
        data: &str,
    ) -> (Option<String>, String, Result<String, Refused>) {
        (Some(id.to_owned()), source.to_owned(), Ok(data.to_owned()))
    }

    #[test]
    fn attributes_are_read_as_each_binding_writes_them() {
        let encoded = [("ce-id", "a%20b%25"), ("ce-type", "wakeup.schedule"), ("CE-Source", "/me")];
        assert_eq!(read(&delivery(&encoded, BODY)), good("a b%", "/me", BODY));
        for (binding, prefix) in [
            (Binding::Kafka, "ce_"),
            (Binding::Amqp, "cloudEvents_"),
            (Binding::Amqp, "cloudEvents:"),
            (Binding::Amqp, "ce-"),
        ] {
            let names =
                ["id", "type", "source", "specversion"].map(|name| format!("{prefix}{name}"));
            let values = ["a%20b", "wakeup.schedule", "me", "1.0"];
            let headers: Vec<(&str, &str)> = names.iter().map(|n| &**n).zip(values).collect();
            let message = Delivery { binding, ..delivery(&headers, BODY) };
            assert_eq!(read(&message), good("a%20b", "me", BODY), "{prefix}");
        }
    }

    #[test]
    fn a_document_is_known_by_its_content_type_or_its_version() {
        let document = |data: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"1","source":"s","type":"wakeup.schedule","traceparent":"x",{data}}}"#
            )
        };
        let base64 = BASE64_STANDARD.encode(BODY);
        for data in [
            format!(r#""data":{BODY}"#),
            format!(r#""data":{}"#, serde_json::to_string(BODY).unwrap()),
            format!(r#""data_base64":"{base64}""#),
        ] {
            for content_type in [
                None,
                Some("application/json"),
                Some("Application/CloudEvents+JSON; charset=utf-8"),
            ] {
                let content_type = content_type.map(str::to_owned);
                let message = Delivery { content_type, ..delivery(&[], &document(&data)) };
                assert_eq!(read(&message), good("1", "s", BODY), "{data}");
            }
        }
        for (body, expected) in [
            ("[]", "not a JSON object"),
            ("{", "EOF"),
            (r#"{"id":1,"type":"wakeup.schedule"}"#, "`id` is not text"),
            (r#"{"id":"1","type":"wakeup.schedule"}"#, "no data"),
            (r#"{"id":"1","data":{}}"#, "no `type`"),
            (r#"{"type":"wakeup.schedule","data":{}}"#, "no id"),
            (r#"{"specversion":"0.3","id":"1","type":"wakeup.schedule"}"#, "only 1.0"),
            (r#"{"id":"1","type":"wakeup.schedule","data_base64":"?"}"#, "not base64"),
            (r#"{"id":"1","type":"agent.message","data":{}}"#, "\"agent.message\""),
        ] {
            let content_type = Some(STRUCTURED.to_owned());
            let refused = read(&Delivery { content_type, ..delivery(&[], body) }).2.unwrap_err();
            assert!(refused.to_string().contains(expected), "{body}: {refused}");
        }
    }

    #[test]
    fn a_document_that_says_so_is_one_whatever_attributes_were_added_on_its_way() {
        let document = format!(
            r#"{{"specversion":"1.0","id":"1","source":"s","type":"wakeup.schedule","data":{BODY}}}"#
        );
        let added = [("ce-id", "2"), ("ce-type", "wakeup.schedule"), ("ce-source", "gateway")];
        let content_type = Some(STRUCTURED.to_owned());
        let message = Delivery { content_type, ..delivery(&added, &document) };
        assert_eq!(read(&message), good("1", "s", BODY));
    }

    #[test]
    fn a_plain_message_is_known_by_the_id_of_the_brokers_protocol() {
        let with_id = Delivery { message_id: Some("m1".into()), ..delivery(&[], BODY) };
        assert_eq!(read(&with_id), good("m1", "", BODY));
        for (binding, hint) in [
            (Binding::Kafka, "`id`"),
            (Binding::Amqp, "message_id"),
            (Binding::Nats, "Nats-Msg-Id"),
        ] {
            let refused = read(&Delivery { binding, ..delivery(&[], BODY) }).2.unwrap_err();
            assert!(refused.to_string().ends_with(hint) || refused.to_string().contains(hint));
        }
    }

    #[test]
    fn what_is_no_command_is_refused_with_what_could_be_read_of_it() {
        let kind = ("ce-type", "wakeup.schedule");
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for (headers, expected) in [
            (vec![("ce-id", "1")], Refused::NoType),
            (vec![kind], Refused::NoId("")),
            (vec![kind, ("ce-id", "")], Refused::BadId),
            (vec![kind, ("ce-id", "a%0Ab")], Refused::BadId),
            (vec![kind, ("ce-id", &long)], Refused::BadId),
            (vec![("ce-id", "1"), ("ce-type", "x.y")], Refused::OtherType("x.y".into())),
            (vec![kind, ("ce-id", "1"), ("ce-specversion", "2")], Refused::Version("2".into())),
        ] {
            let (id, _, outcome) = read(&delivery(&headers, BODY));
            assert_eq!(outcome, Err(expected));
            assert_eq!(id.is_some(), headers.iter().any(|(name, _)| *name == "ce-id"));
        }
        let batch = Delivery { content_type: Some(BATCH.into()), ..delivery(&[], "[]") };
        assert_eq!(read(&batch).2, Err(Refused::Batch));
        let huge = delivery(&[("ce-id", "1"), kind], &"x".repeat(MAX_BODY_BYTES + 1));
        assert_eq!(read(&huge).2, Err(Refused::TooLarge(MAX_BODY_BYTES + 1)));
        assert_eq!(read(&huge).0.as_deref(), Some("1"));
    }
}
