//! miibo: events named after `webhookType`. From miibo's developer pages.
//!
//! The body's automatic fields may be overridden by what the user configured, so a `webhookType`
//! that is not one of the documented three is `miibo.unknown`. miibo never sends an event again and
//! may say the same thing twice, so every request is an event of its own.

use std::sync::LazyLock;

use bytestring::ByteString;
use http::HeaderName;
use uuid::Uuid;

use super::{CannotSign, Facts, Received, Rejection, Request, Signed, attribute};
use crate::{
    body::Paths,
    signature::{self, Key},
};

/// The documented values of `webhookType`, each with its event type.
const TYPES: [(&str, &str); 3] = [
    ("user_utterance", "miibo.user_utterance"),
    ("agent_response", "miibo.agent_response"),
    ("function_calling", "miibo.function_calling"),
];

const UNKNOWN: &str = "miibo.unknown";

/// Every type that an event can have.
pub const TYPE_NAMES: [&str; 4] = [TYPES[0].1, TYPES[1].1, TYPES[2].1, UNKNOWN];

/// A miibo source's keys.
#[derive(Debug)]
pub struct Miibo {
    pub keys: Vec<Key>,
}

struct Wanted {
    paths: Paths,
    webhook_type: usize,
    user_id: usize,
}

static WANTED: LazyLock<Wanted> = LazyLock::new(|| {
    let mut paths = Paths::default();
    let webhook_type = paths.add(&["webhookType"]);
    let user_id = paths.add(&["userId"]);
    Wanted { paths, webhook_type, user_id }
});

impl Miibo {
    pub(super) fn receive(
        &self,
        source: &ByteString,
        request: Request,
    ) -> Result<Received, Rejection> {
        let verified = signature::miibo::verify(&self.keys, request.headers, &request.body)?;
        let facts = facts(&request);
        Ok(Received::by_id(super::event(source, request, facts), verified.key, false))
    }

    pub(super) fn sign(&self, body: &[u8]) -> Result<Signed, CannotSign> {
        let key = self.keys.first().ok_or(CannotSign::NoSecret)?;
        let mac = signature::miibo::sign(key, body);
        Ok(vec![(HeaderName::from_static(signature::miibo::HEADER), mac)])
    }
}

pub(super) fn facts(request: &Request) -> Facts {
    let fields = WANTED.paths.read(&request.body).ok();
    let string = |slot| fields.as_ref().and_then(|fields| fields.string(slot));
    let webhook_type = string(WANTED.webhook_type);
    let known = TYPES.iter().find(|(name, _)| webhook_type.as_deref() == Some(name));
    Facts {
        id: Uuid::now_v7().to_string().into(),
        kind: ByteString::from_static(known.map_or(UNKNOWN, |(_, kind)| kind)),
        subject: string(WANTED.user_id).and_then(|user| attribute(&user)),
        extensions: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::event::Event;

    fn receive(body: &str) -> Event {
        let key = signature::miibo::key("secret").unwrap();
        let mut headers = HeaderMap::new();
        let mac = signature::miibo::sign(&key, body.as_bytes());
        headers.insert(signature::miibo::HEADER, mac.parse().unwrap());
        let request = Request {
            path_type: None,
            headers: &headers,
            body: body.to_owned().into(),
            now_ms: 1_767_225_600_000,
        };
        Miibo { keys: vec![key] }.receive(&"chat".into(), request).unwrap().event
    }

    #[test]
    fn the_type_is_the_documented_webhook_type_or_unknown() {
        for (body, kind, subject) in [
            (
                r#"{"webhookType":"user_utterance","userId":"u1"}"#,
                "miibo.user_utterance",
                Some("u1"),
            ),
            (r#"{"webhookType":"agent_response","userId":7}"#, "miibo.agent_response", None),
            (r#"{"webhookType":"function_calling"}"#, "miibo.function_calling", None),
            (r#"{"webhookType":"on.my.own","userId":"u1"}"#, "miibo.unknown", Some("u1")),
            (r#"{"webhookType":{"a":1}}"#, "miibo.unknown", None),
            (r#"{}"#, "miibo.unknown", None),
            ("not json", "miibo.unknown", None),
            ("", "miibo.unknown", None),
        ] {
            let event = receive(body);
            assert_eq!(event.kind, kind, "{body}");
            assert_eq!(event.subject.as_deref(), subject, "{body}");
            assert_eq!(event.body, body, "{body}");
        }
    }

    #[test]
    fn equal_requests_are_events_of_their_own() {
        assert_ne!(receive("{}").id, receive("{}").id);
    }
}
