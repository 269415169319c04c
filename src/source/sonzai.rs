//! Sonzai: one secret an event type. From Sonzai's webhook guide and SDKs.
//!
//! The type is the body's `event_type` where the verified body has one, else the path's; some
//! payloads carry none. What else a payload says is read in `payload`; what makes two events the
//! same is in `identity`; what came by no webhook is made an event in [`polled`].

use std::{collections::HashMap, sync::Arc};

use bytestring::ByteString;
use http::{HeaderName, header::AUTHORIZATION};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::{CannotSign, Facts, Received, Rejection, Request, Signed, Verifier, is_attribute};
use crate::{
    dedupe::Keys,
    signature::{self, Key},
};

mod identity;
pub mod keyring;
mod payload;
pub mod polled;
pub mod settings;

use identity::Identity;
use payload::Payload;

pub use identity::Via;
pub use keyring::{Held, Keyring};
pub use payload::EXTENSIONS;
pub use settings::Settings;

/// A Sonzai source's keys.
#[derive(Debug, Default)]
pub struct Sonzai {
    by_type: HashMap<String, Vec<Key>>,
    rest: Vec<Key>,
    /// Every key: what a request on a path without a type is tried against.
    all: Vec<Key>,
    /// The index of each of those in its own type's list.
    indexes: Vec<usize>,
    /// The `Authorization` header given at registration, if any.
    authorization: Option<SecretString>,
    /// What goes the other way: the API, registration, polling.
    pub settings: Settings,
    /// Its keys that are not in the file.
    pub keyring: Arc<Keyring>,
}

impl Sonzai {
    /// A source that demands this `Authorization` header, if one is given, and has no keys yet.
    pub fn new(authorization: Option<SecretString>) -> Sonzai {
        Sonzai { authorization, ..Sonzai::default() }
    }

    /// Adds the keys of one event type, or with `*` those of every type that has none of its own.
    pub fn add_keys(&mut self, event_type: &str, keys: Vec<Key>) {
        self.all.extend(keys.iter().cloned());
        self.indexes.extend(0..keys.len());
        match event_type {
            "*" => self.rest.extend(keys),
            _ => self.by_type.entry(event_type.to_owned()).or_default().extend(keys),
        }
    }

    pub(super) fn receive(
        &self,
        source: &ByteString,
        request: Request,
    ) -> Result<Received, Rejection> {
        let (path_type, now_ms) = (request.path_type, request.now_ms);
        let (keys, held) = (self.keys(path_type), self.keyring.load());
        let stored = || held.valid(path_type, now_ms);
        let all = keys.iter().chain(stored().map(|stored| &stored.key));
        let verified =
            signature::sonzai::verify(all, request.headers, &request.body, now_ms / 1000)
                .map_err(|error| self.refusal(error, &held, path_type, now_ms))?;
        self.check_authorization(&request, &held).map_err(|rejection| {
            // One that is being registered anew may come with a header that is new, too.
            let changing = held.is_changing(path_type, now_ms);
            if changing { Rejection::Changing } else { rejection }
        })?;
        let key = match (verified.key.checked_sub(keys.len()), path_type) {
            (None, None) => Verifier::Listed(self.indexes[verified.key]),
            (None, Some(_)) => Verifier::Listed(verified.key),
            (Some(at), _) => match stored().nth(at).and_then(|stored| stored.until_ms) {
                None => Verifier::Stored,
                Some(_) => Verifier::Replaced,
            },
        };
        let (facts, known_by, type_disputed) =
            facts(source, &request, verified.timestamp.unwrap_or_default());
        let event = super::event(source, request, facts);
        Ok(Received { event, known_by, key, type_disputed })
    }

    /// How many secrets the longest list of one type holds.
    pub(super) fn secrets(&self) -> usize {
        self.by_type.values().chain([&self.rest]).map(Vec::len).max().unwrap_or_default()
    }

    pub(super) fn sign(
        &self,
        event_type: Option<&str>,
        body: &[u8],
        now_s: u64,
    ) -> Result<Signed, CannotSign> {
        let held = self.keyring.load();
        let listed = self.keys(event_type).first();
        // A path without a type is tried against all keys, so any will do.
        let key = match event_type {
            Some(event_type) => held.signs(event_type).or(listed),
            None => listed.or_else(|| held.signs_any()),
        };
        let key = key.ok_or(CannotSign::NoSecret)?;
        let signature = signature::sonzai::sign(key, body, now_s);
        let mut headers = vec![(HeaderName::from_static(signature::sonzai::HEADER), signature)];
        if let Some(value) = &self.authorization {
            headers.push((AUTHORIZATION, value.expose_secret().to_owned()));
        }
        Ok(headers)
    }

    fn keys(&self, path_type: Option<&str>) -> &[Key] {
        match path_type {
            None => &self.all,
            Some(event_type) => self.by_type.get(event_type).unwrap_or(&self.rest),
        }
    }

    /// Why a request is refused whose signature does not do: one that fits no key may be made with a
    /// secret that is not in force yet.
    fn refusal(
        &self,
        error: signature::Error,
        held: &Held,
        path_type: Option<&str>,
        now_ms: u64,
    ) -> Rejection {
        let may_be_ours =
            || held.is_changing(path_type, now_ms) || self.awaits_secret(held, path_type, now_ms);
        match error {
            signature::Error::Mismatch if may_be_ours() => Rejection::Changing,
            error => Rejection::Signature(error),
        }
    }

    /// Whether a type that `register:` names has no key at all; on a path without a type, any of them.
    fn awaits_secret(&self, held: &Held, path_type: Option<&str>, now_ms: u64) -> bool {
        let Some(register) = &self.settings.register else { return false };
        let has_key = |event_type| {
            self.lists_key(event_type) || held.valid(Some(event_type), now_ms).next().is_some()
        };
        let mut registered = register.types.iter().map(String::as_str);
        registered.any(|of| path_type.is_none_or(|on_path| on_path == of) && !has_key(of))
    }

    /// Whether any key is valid for this type.
    pub fn has_key(&self, event_type: &str, now_ms: u64) -> bool {
        let held = self.keyring.load();
        self.lists_key(event_type) || held.valid(Some(event_type), now_ms).next().is_some()
    }

    /// Whether its file has a key for this type.
    pub fn lists_key(&self, event_type: &str) -> bool {
        !self.keys(Some(event_type)).is_empty()
    }

    /// The `Authorization` header given at registration, if any.
    pub fn authorization(&self) -> Option<&SecretString> {
        self.authorization.as_ref()
    }

    /// What the file says is right, and what the webhook was registered with: it comes until a `sync`
    /// has replaced it, and for a while after that.
    fn check_authorization(&self, request: &Request, held: &Held) -> Result<(), Rejection> {
        let Some(expected) = &self.authorization else { return Ok(()) };
        let mut given = request.headers.get_all(AUTHORIZATION).iter();
        let given = match (given.next(), given.next()) {
            (given, None) => given.map_or(&[][..], |value| value.as_bytes()),
            _ => return Err(Rejection::Authorization),
        };
        let is_right = bool::from(given.ct_eq(expected.expose_secret().as_bytes()))
            || held.is_registered(request.path_type, given, request.now_ms);
        if is_right { Ok(()) } else { Err(Rejection::Authorization) }
    }
}

/// What a verified request says, what it is known by, and whether its body disputes the type in its
/// path.
pub(super) fn facts(source: &ByteString, request: &Request, timestamp: u64) -> (Facts, Keys, bool) {
    let payload = Payload::read(&request.body);
    let (kind, type_disputed) = super::kind(payload.event_type(), request.path_type);
    let Identity { id, known_by } =
        Identity::of_webhook(source, &kind, timestamp, &request.body, &payload.ids());
    let extensions = extensions(&payload, [&None; EXTENSIONS.len()], Via::Webhook);
    (Facts::new(id, kind, extensions), known_by, type_disputed)
}

/// The extensions of an event: what its payload says, else what an item says beside it; and how it
/// came.
fn extensions(
    payload: &Payload,
    beside: [&Option<ByteString>; EXTENSIONS.len()],
    via: Via,
) -> Vec<(ByteString, ByteString)> {
    let said = payload.extensions().into_iter().zip(beside);
    let said = said.map(|(inside, beside)| {
        inside.or_else(|| beside.clone().filter(|text| is_attribute(text)))
    });
    let mut all = Vec::with_capacity(EXTENSIONS.len() + 1);
    let named = EXTENSIONS.iter().zip(said);
    all.extend(named.filter_map(|((name, _), id)| Some((ByteString::from_static(name), id?))));
    all.push((ByteString::from_static(Via::NAME), ByteString::from_static(via.as_str())));
    all
}

impl Facts {
    /// The subject is the agent's id.
    fn new(id: ByteString, kind: ByteString, extensions: Vec<(ByteString, ByteString)>) -> Facts {
        let agent = extensions.iter().find(|(name, _)| name == "agentid");
        let subject = agent.map(|(_, id)| id.clone());
        Facts { id, kind, subject, extensions }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{event::Event, source::UNPARSED};

    const NOW_MS: u64 = 1_767_225_600_000;

    fn source(authorization: Option<&str>) -> Sonzai {
        let key = |secret| vec![signature::sonzai::key(secret).unwrap()];
        let mut sonzai = Sonzai::new(authorization.map(Into::into));
        sonzai.add_keys("agent.message", key("whsec_message"));
        sonzai.add_keys("*", key("whsec_rest"));
        sonzai
    }

    fn send(
        sonzai: &Sonzai,
        secret: &str,
        path_type: Option<&str>,
        authorization: Option<&str>,
        body: &str,
    ) -> Result<Event, Rejection> {
        receive(sonzai, secret, path_type, authorization, body).map(|received| received.event)
    }

    fn receive(
        sonzai: &Sonzai,
        secret: &str,
        path_type: Option<&str>,
        authorization: Option<&str>,
        body: &str,
    ) -> Result<Received, Rejection> {
        let key = signature::sonzai::key(secret).unwrap();
        let mut headers = HeaderMap::new();
        let value = signature::sonzai::sign(&key, body.as_bytes(), NOW_MS / 1000);
        headers.insert(signature::sonzai::HEADER, value.parse().unwrap());
        if let Some(value) = authorization {
            headers.insert("authorization", value.parse().unwrap());
        }
        let body = body.to_owned().into();
        sonzai.receive(
            &"sonzai".into(),
            Request { path_type, headers: &headers, body, now_ms: NOW_MS },
        )
    }

    #[test]
    fn a_types_own_secret_counts_and_the_star_is_for_the_rest() {
        let sonzai = source(None);
        let message = Some("agent.message");
        assert!(send(&sonzai, "whsec_message", message, None, "{}").is_ok());
        assert!(send(&sonzai, "whsec_rest", message, None, "{}").is_err());
        assert!(send(&sonzai, "whsec_rest", Some("agent.wakeup"), None, "{}").is_ok());
        assert!(send(&sonzai, "whsec_message", Some("agent.wakeup"), None, "{}").is_err());
        assert!(send(&sonzai, "whsec_message", None, None, "{}").is_ok());
        assert!(send(&sonzai, "whsec_rest", None, None, "{}").is_ok());
        assert!(send(&sonzai, "whsec_other", None, None, "{}").is_err());
    }

    #[test]
    fn a_registered_authorization_is_demanded() {
        let sonzai = source(Some("Bearer abc"));
        let with = |authorization| send(&sonzai, "whsec_rest", None, authorization, "{}");
        assert!(with(Some("Bearer abc")).is_ok());
        assert_eq!(with(Some("Bearer abd")).unwrap_err(), Rejection::Authorization);
        assert_eq!(with(None).unwrap_err(), Rejection::Authorization);
    }

    #[test]
    fn the_verified_body_names_the_type_before_the_path_does() {
        for (path, body, kind) in [
            (Some("agent.wakeup"), r#"{"event_type":"agent.mood_change"}"#, "agent.mood_change"),
            (Some("agent.wakeup"), r#"{"wakeup":{}}"#, "agent.wakeup"),
            (Some("agent.wakeup"), "not json", "agent.wakeup"),
            (Some("agent.wakeup"), r#"{"event_type":"a\r\nb"}"#, "agent.wakeup"),
            (Some("agent.wakeup"), r#"{"event_type":7}"#, "agent.wakeup"),
            (None, r#"{"event_type":"agent.breakthrough"}"#, "agent.breakthrough"),
            (None, r#"["event_type"]"#, UNPARSED),
            (None, "not json", UNPARSED),
        ] {
            let event = send(&source(None), "whsec_rest", path, None, body).unwrap();
            assert_eq!(event.kind, kind, "{path:?} {body}");
            assert_eq!(event.body, body);
        }
    }

    #[test]
    fn a_body_that_disputes_its_path_is_noted() {
        for (path, body, disputed) in [
            (Some("a"), r#"{"event_type":"b"}"#, true),
            (Some("a"), r#"{"event_type":"a"}"#, false),
            (Some("a"), "{}", false),
            (None, r#"{"event_type":"b"}"#, false),
        ] {
            let received = receive(&source(None), "whsec_rest", path, None, body).unwrap();
            assert_eq!(received.type_disputed, disputed, "{path:?} {body}");
        }
    }

    #[test]
    fn the_secret_that_matched_is_named_by_its_index_in_its_own_list() {
        let key = |secret| signature::sonzai::key(secret).unwrap();
        let mut sonzai = Sonzai::default();
        sonzai.add_keys("agent.message", vec![key("new"), key("old")]);
        sonzai.add_keys("*", vec![key("rest new"), key("rest old"), key("rest older")]);
        assert_eq!(sonzai.secrets(), 3);
        for (path, secret, index) in [
            (Some("agent.message"), "new", 0),
            (Some("agent.message"), "old", 1),
            (Some("agent.wakeup"), "rest older", 2),
            (None, "old", 1),
            (None, "rest new", 0),
            (None, "rest older", 2),
        ] {
            let received = receive(&sonzai, secret, path, None, "{}").unwrap();
            assert_eq!(received.key, Verifier::Listed(index), "{path:?} {secret}");
        }
    }

    /// A keyring with a key of `agent.message` and one that it replaced, and what is being changed.
    fn keyring(changing: Option<keyring::Changing>) -> Arc<Keyring> {
        let stored = |secret, until_ms| {
            let key = signature::sonzai::key(secret).unwrap();
            keyring::Stored { key, until_ms }
        };
        let keys = vec![stored("whsec_given", None), stored("whsec_before", Some(NOW_MS + 1))];
        let of = keyring::OfType { keys, changing, ..keyring::OfType::default() };
        let keyring = Keyring::default();
        keyring.set(Held::new([("agent.message".to_owned(), of)].into()));
        Arc::new(keyring)
    }

    #[test]
    fn secrets_that_the_api_gave_count_beside_those_of_the_file() {
        let sonzai = Sonzai { keyring: keyring(None), ..source(None) };
        for (path, secret, expected) in [
            (Some("agent.message"), "whsec_message", Some(Verifier::Listed(0))),
            (Some("agent.message"), "whsec_given", Some(Verifier::Stored)),
            (Some("agent.message"), "whsec_before", Some(Verifier::Replaced)),
            (Some("agent.wakeup"), "whsec_given", None),
            (None, "whsec_rest", Some(Verifier::Listed(0))),
            (None, "whsec_given", Some(Verifier::Stored)),
            (None, "whsec_before", Some(Verifier::Replaced)),
        ] {
            let received = receive(&sonzai, secret, path, None, "{}");
            assert_eq!(received.map(|it| it.key).ok(), expected, "{path:?} {secret}");
        }
    }

    #[test]
    fn what_a_webhook_was_registered_with_is_right_until_it_was_replaced_for_a_while() {
        let registered = |header: &str, until_ms| keyring::Registered {
            sha256: keyring::digest(header.as_bytes()),
            until_ms,
        };
        for (authorizations, header, expected) in [
            (vec![registered("Bearer old", None)], Some("Bearer old"), true),
            (vec![registered("Bearer old", None)], Some("Bearer abc"), true),
            (vec![registered("Bearer old", None)], Some("Bearer other"), false),
            (vec![registered("Bearer old", None)], None, false),
            (vec![registered("", None)], None, true),
            (vec![registered("Bearer old", Some(NOW_MS + 1))], Some("Bearer old"), true),
            (vec![registered("Bearer old", Some(NOW_MS))], Some("Bearer old"), false),
            (vec![], None, false),
        ] {
            let sonzai = source(Some("Bearer abc"));
            let of = keyring::OfType { authorizations, ..keyring::OfType::default() };
            sonzai.keyring.set(Held::new([("agent.message".to_owned(), of)].into()));
            for (path, secret, is_it) in [
                (Some("agent.message"), "whsec_message", expected),
                (None, "whsec_message", expected),
                (Some("agent.wakeup"), "whsec_rest", header == Some("Bearer abc")),
            ] {
                let received = send(&sonzai, secret, path, header, "{}");
                assert_eq!(received.is_ok(), is_it, "{path:?} {header:?}");
            }
        }
    }

    #[test]
    fn a_mismatch_says_nothing_while_a_secret_is_being_changed() {
        let changing = keyring::Changing { until_ms: NOW_MS + 1, is_called: false };
        let over = keyring::Changing { until_ms: NOW_MS, is_called: false };
        let called = keyring::Changing { is_called: true, ..over };
        let mismatch = Rejection::Signature(signature::Error::Mismatch);
        for (changing, path, expected) in [
            (changing, Some("agent.message"), Rejection::Changing),
            (called, Some("agent.message"), Rejection::Changing),
            (over, Some("agent.message"), mismatch),
            (changing, Some("agent.wakeup"), mismatch),
            (changing, None, Rejection::Changing),
            (over, None, mismatch),
        ] {
            let sonzai = Sonzai { keyring: keyring(Some(changing)), ..source(Some("Bearer abc")) };
            let refused = send(&sonzai, "whsec_other", path, Some("Bearer abc"), "{}");
            assert_eq!(refused.unwrap_err(), expected, "{changing:?} {path:?}");
            let known = send(&sonzai, "whsec_message", Some("agent.message"), None, "{}");
            let is_on = expected == Rejection::Changing && path != Some("agent.wakeup");
            let authorization = if is_on { Rejection::Changing } else { Rejection::Authorization };
            if path == Some("agent.message") {
                assert_eq!(known.unwrap_err(), authorization, "another header may be on its way");
            }
        }
    }

    #[test]
    fn a_type_to_register_that_has_no_secret_yet_is_to_come_again() {
        let register = settings::Register {
            public_url: "https://h".to_owned(),
            scope: settings::Scope::Tenant,
            types: vec!["agent.message".to_owned(), "agent.wakeup".to_owned()],
        };
        let settings = Settings { register: Some(register), ..Settings::default() };
        let mismatch = Rejection::Signature(signature::Error::Mismatch);
        let given = || Sonzai { keyring: keyring(None), ..Sonzai::default() };
        let mut all = given();
        all.add_keys("*", vec![signature::sonzai::key("whsec_rest").unwrap()]);
        for (sonzai, path, expected) in [
            (Sonzai::default(), Some("agent.message"), Rejection::Changing),
            (Sonzai::default(), Some("other"), mismatch),
            (Sonzai::default(), None, Rejection::Changing),
            (given(), Some("agent.message"), mismatch),
            (given(), Some("agent.wakeup"), Rejection::Changing),
            (given(), None, Rejection::Changing),
            (all, Some("agent.wakeup"), mismatch),
        ] {
            let sonzai = Sonzai { settings: settings.clone(), ..sonzai };
            let refused = send(&sonzai, "whsec_other", path, None, "{}").unwrap_err();
            assert_eq!(refused, expected, "{path:?}");
        }
    }

    #[test]
    fn what_the_api_gave_signs_before_what_the_file_says() {
        let sonzai = Sonzai { keyring: keyring(None), ..source(None) };
        let signed =
            |event_type| sonzai.sign(event_type, b"{}", NOW_MS / 1000).unwrap()[0].1.clone();
        let by = |secret| {
            signature::sonzai::sign(&signature::sonzai::key(secret).unwrap(), b"{}", NOW_MS / 1000)
        };
        assert_eq!(signed(Some("agent.message")), by("whsec_given"));
        assert_eq!(signed(Some("agent.wakeup")), by("whsec_rest"));
        let only = Sonzai { keyring: keyring(None), ..Sonzai::default() };
        assert_eq!(only.sign(None, b"{}", NOW_MS / 1000).unwrap()[0].1, by("whsec_given"));
        assert_eq!(only.sign(Some("x"), b"{}", 0).unwrap_err(), CannotSign::NoSecret);
    }

    #[test]
    fn identifiers_are_found_at_the_top_in_data_and_in_wakeup() {
        for (body, agent, user) in [
            (r#"{"agent_id":"a","user_id":"u"}"#, Some("a"), Some("u")),
            (r#"{"agent_id":"a","data":{"agent_id":"b","user_id":"u"}}"#, Some("a"), Some("u")),
            (r#"{"wakeup":{"agent_id":"w","user_id":5}}"#, Some("w"), Some("5")),
            (r#"{"agent_id":"","data":{"agent_id":"d"}}"#, Some("d"), None),
            (r#"{"agent_id":["a"]}"#, None, None),
            ("null", None, None),
        ] {
            let event = send(&source(None), "whsec_rest", None, None, body).unwrap();
            assert_eq!(event.extension("agentid").map(|a| &**a), agent, "{body}");
            assert_eq!(event.extension("userid").map(|a| &**a), user, "{body}");
            assert_eq!(event.subject.as_deref(), agent, "{body}");
        }
    }
}
