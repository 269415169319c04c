//! Standard Webhooks, under its own or Svix's header names. From the specification
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.
//!
//! The id is the sender's own: it is signed, and stays the same over retries. The type is the
//! verified body's `type`, else the path's. What an event is about is the sender's own affair, so
//! it has no subject; routes take what they need from `data`.

use std::sync::LazyLock;

use bytestring::ByteString;
use http::HeaderName;
use uuid::Uuid;

use super::{CannotSign, Facts, Received, Rejection, Request, Signed, attribute};
use crate::{
    body::Paths,
    signature::standard::{self, Key},
};

/// A Standard Webhooks source's keys.
#[derive(Debug)]
pub struct Standard {
    pub keys: Vec<Key>,
}

struct Wanted {
    paths: Paths,
    kind: usize,
}

static WANTED: LazyLock<Wanted> = LazyLock::new(|| {
    let mut paths = Paths::default();
    let kind = paths.add(&["type"]);
    Wanted { paths, kind }
});

impl Standard {
    pub(super) fn receive(
        &self,
        source: &ByteString,
        request: Request,
    ) -> Result<Received, Rejection> {
        let now_s = request.now_ms / 1000;
        let (verified, id) = standard::verify(&self.keys, request.headers, &request.body, now_s)?;
        let (facts, type_disputed) = facts(id, &request);
        let event = super::event(source, request, facts);
        Ok(Received::by_id(event, verified.key, type_disputed))
    }

    pub(super) fn sign(&self, body: &[u8], now_s: u64, id: Uuid) -> Result<Signed, CannotSign> {
        let id = format!("msg_{}", id.simple());
        let signed = self.keys.iter().find_map(|key| standard::sign(key, &id, body, now_s));
        let signed = signed.ok_or(CannotSign::PublicKeys)?;
        Ok(signed.map(|(name, value)| (HeaderName::from_static(name), value)).into())
    }
}

pub(super) fn facts(id: &str, request: &Request) -> (Facts, bool) {
    let fields = WANTED.paths.read(&request.body).ok();
    let in_body = fields.and_then(|fields| attribute(&fields.string(WANTED.kind)?));
    let (kind, type_disputed) = super::kind(in_body, request.path_type);
    (Facts { id: id.into(), kind, subject: None, extensions: Vec::new() }, type_disputed)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{event::Event, source::UNPARSED};

    const NOW_S: u64 = 1_767_225_600;

    fn source(secrets: &[&str]) -> Standard {
        let key = |secret: &&str| standard::key(secret).unwrap();
        Standard { keys: secrets.iter().map(key).collect() }
    }

    fn receive(headers: &HeaderMap, path_type: Option<&str>, body: &str) -> Event {
        let body = body.to_owned().into();
        let request = Request { path_type, headers, body, now_ms: NOW_S * 1000 };
        source(&["whsec_Zmlyc3Q=", "whsec_c2Vjb25k"])
            .receive(&"shop".into(), request)
            .unwrap()
            .event
    }

    fn headers(signed: Signed) -> HeaderMap {
        signed.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
    }

    #[test]
    fn the_verified_body_names_the_type_before_the_path_does() {
        for (path, body, kind) in [
            (None, r#"{"type":"contact.created","data":{"id":"1"}}"#, "contact.created"),
            (Some("in.path"), r#"{"type":"in.body"}"#, "in.body"),
            (Some("in.path"), r#"{"type":7}"#, "in.path"),
            (Some("in.path"), r#"{"type":"a\r\nb"}"#, "in.path"),
            (Some("in.path"), "not json", "in.path"),
            (None, r#"{"data":{"type":"deeper"}}"#, UNPARSED),
            (None, "not json", UNPARSED),
            (None, "", UNPARSED),
        ] {
            let signed =
                source(&["whsec_c2Vjb25k"]).sign(body.as_bytes(), NOW_S, Uuid::nil()).unwrap();
            let event = receive(&headers(signed), path, body);
            assert_eq!(event.kind, kind, "{path:?} {body}");
            assert_eq!((event.subject, event.body), (None, body.to_owned().into()));
        }
    }

    #[test]
    fn the_signed_id_is_the_events_and_the_signature_is_not_kept() {
        let key = standard::key("whsec_Zmlyc3Q=").unwrap();
        let signed = standard::sign(&key, "msg_1", b"{}", NOW_S).unwrap();
        let signed = signed.map(|(name, value)| (HeaderName::from_static(name), value));
        let event = receive(&headers(signed.into()), None, "{}");
        assert_eq!(event.id, "msg_1");
        let kept: Vec<&str> = event.headers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(kept, ["webhook-id", "webhook-timestamp"]);
    }

    #[test]
    fn the_first_shared_secret_signs_and_public_keys_do_not() {
        let public = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
        assert!(source(&[public, "whsec_Zmlyc3Q="]).sign(b"x", NOW_S, Uuid::now_v7()).is_ok());
        assert_eq!(
            source(&[public]).sign(b"x", NOW_S, Uuid::now_v7()).unwrap_err(),
            CannotSign::PublicKeys
        );
    }

    #[test]
    fn two_samples_are_two_events() {
        let source = source(&["whsec_Zmlyc3Q="]);
        let sign = || source.sign(b"x", NOW_S, Uuid::now_v7()).unwrap();
        assert_ne!(sign(), sign());
    }
}
