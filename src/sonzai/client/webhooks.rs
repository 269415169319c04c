//! Webhooks: what is registered, their secrets, what became of deliveries.

use base64::{
    Engine, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use bytes::Bytes;
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Client, Error,
    answer::{Object, Unreadable, entries},
    call::Call,
    target::Target,
};
use crate::source::sonzai::settings::Scope;

/// The largest page of attempts.
pub const MAX_ATTEMPTS_PAGE: u32 = 500;

/// What a key needs to change webhooks.
const WRITE: &str = "write:webhooks";

/// Of `request_body`, whether it is padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A registered webhook.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Empty if the API did not say.
    pub project_id: String,
    pub event_type: String,
    pub url: String,
    pub is_active: bool,
    /// The `Authorization` header of its deliveries, as the API shows it: perhaps masked.
    pub authorization: Option<SecretString>,
    /// RFC 3339, as the API wrote it.
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
}

/// One try of the platform to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub attempt_id: String,
    pub event_type: String,
    pub webhook_url: String,
    /// The status it was answered with; 0 for none.
    pub response_code: i64,
    /// From 1.
    pub attempt_number: i64,
    /// `success`, or something else.
    pub status: String,
    /// Unix time; `None` if it cannot be read.
    pub created_ms: Option<u64>,
    pub created_at: String,
    pub error_message: Option<String>,
    /// What was to be delivered: the event's own bytes. `None`: the API did not keep it.
    pub request_body: Option<Bytes>,
    /// Whether the API kept it in a form that cannot be read; `request_body` is `None` then.
    pub unreadable_body: bool,
    pub duration_ms: Option<i64>,
}

/// A page of attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// In the API's order.
    pub attempts: Vec<Attempt>,
    /// How many entries of the page could not be read.
    pub unreadable: usize,
    /// What to ask for next.
    pub next_cursor: Option<String>,
}

/// What a webhook is registered with; nothing else is allowed.
#[derive(Serialize)]
struct Registration<'r> {
    webhook_url: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_header: Option<&'r str>,
}

impl Client {
    /// What is registered. An entry that cannot be read is an error: who compares with a part of the
    /// list changes what is well.
    pub async fn webhooks(&self, scope: &Scope) -> Result<Vec<Webhook>, Error> {
        self.call(Call::get(collection(scope)), |answer| {
            let list = Object::read(answer)?.list(&["webhooks", "items"])?;
            match entries(list, webhook) {
                (webhooks, 0) => Ok(webhooks),
                _ => Err(Unreadable::Lacks("event_type")),
            }
        })
        .await
    }

    /// Registers or changes a webhook. The secret comes only at the first registration, never again.
    pub async fn register(
        &self,
        scope: &Scope,
        event_type: &str,
        url: &str,
        authorization: Option<&SecretString>,
    ) -> Result<Option<SecretString>, Error> {
        let auth_header = authorization.map(|value| value.expose_secret());
        let call = Call::put(webhook_of(scope, event_type))
            .json(&Registration { webhook_url: url, auth_header })
            .hiding(authorization)
            .needing(WRITE);
        self.call(call, |answer| {
            let answer = Object::read(answer)?;
            answer.succeeded()?;
            Ok(answer.secret("signing_secret"))
        })
        .await
    }

    /// Deletes a webhook. One that is not there is an error ([`Error::is_gone`]) unless an earlier
    /// attempt of this call may have deleted it.
    pub async fn delete_webhook(&self, scope: &Scope, event_type: &str) -> Result<(), Error> {
        let call = Call::delete(webhook_of(scope, event_type)).needing(WRITE);
        let absent = |error: &Error| {
            matches!(error.status(), Some(StatusCode::NOT_FOUND | StatusCode::GONE))
        };
        match self.call(call, |_| Ok(())).await {
            Err(error) if absent(&error) && error.is_uncertain() => Ok(()),
            deleted => deleted,
        }
    }

    /// Makes a new secret; the old one is worth nothing from then on. If the answer is lost
    /// ([`Error::is_uncertain`]), so is the secret, perhaps: rotate again.
    pub async fn rotate(&self, scope: &Scope, event_type: &str) -> Result<SecretString, Error> {
        let target = webhook_of(scope, event_type).word("rotate-secret");
        self.call(Call::post(target).needing(WRITE), |answer| {
            let answer = Object::read(answer)?;
            answer.succeeded()?;
            answer.secret("signing_secret").ok_or(Unreadable::Lacks("signing_secret"))
        })
        .await
    }

    /// A page of a webhook's delivery attempts. `page_size` is 1 to [`MAX_ATTEMPTS_PAGE`].
    pub async fn attempts(
        &self,
        scope: &Scope,
        event_type: &str,
        page_size: u32,
        cursor: Option<&str>,
    ) -> Result<Attempts, Error> {
        let target = webhook_of(scope, event_type)
            .word("attempts")
            .number("page_size", page_size.clamp(1, MAX_ATTEMPTS_PAGE))
            .query("cursor", cursor);
        self.call(Call::get(target), |answer| {
            let answer = Object::read(answer)?;
            let (attempts, unreadable) = entries(answer.list(&["attempts", "items"])?, attempt);
            Ok(Attempts { attempts, unreadable, next_cursor: answer.next_cursor(cursor)? })
        })
        .await
    }
}

fn collection(scope: &Scope) -> Target {
    let root = match scope {
        Scope::Tenant => Target::root(),
        Scope::Project(id) => Target::root().word("projects").part("the project", id),
    };
    root.word("webhooks")
}

fn webhook_of(scope: &Scope, event_type: &str) -> Target {
    collection(scope).part("the event type", event_type)
}

fn webhook(raw: &RawValue) -> Option<Webhook> {
    let entry = Object::entry(raw)?;
    Some(Webhook {
        project_id: entry.text(&["project_id"]).unwrap_or_default(),
        event_type: entry.text(&["event_type"])?,
        url: entry.text(&["webhook_url", "url"])?,
        is_active: entry.flag("is_active").unwrap_or(true),
        authorization: entry.secret("auth_header"),
        created_at: entry.text(&["created_at"]),
        updated_at: entry.text(&["updated_at"]),
    })
}

fn attempt(raw: &RawValue) -> Option<Attempt> {
    let entry = Object::entry(raw)?;
    let text = |name| entry.text(&[name]).unwrap_or_default();
    let (request_body, unreadable_body) = match entry.text(&["request_body"]) {
        None => (None, false),
        Some(body) => match BASE64.decode(body) {
            Ok(body) => (Some(Bytes::from(body)), false),
            Err(_) => (None, true),
        },
    };
    Some(Attempt {
        attempt_id: entry.text(&["attempt_id", "id"])?,
        event_type: text("event_type"),
        webhook_url: text("webhook_url"),
        response_code: entry.number("response_code").unwrap_or_default(),
        attempt_number: entry.number("attempt_number").unwrap_or(1),
        status: text("status"),
        created_ms: entry.time_ms("created_at"),
        created_at: text("created_at"),
        error_message: entry.text(&["error_message"]),
        request_body,
        unreadable_body,
        duration_ms: entry.number("duration_ms"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn attempts_are_read_with_what_they_carried() {
        let minimal = attempt(&raw(r#"{"attempt_id":7}"#)).unwrap();
        assert_eq!(
            (&*minimal.attempt_id, minimal.response_code, minimal.created_ms),
            ("7", 0, None)
        );
        for (body, expected, unreadable) in [
            (r#""eyJhIjoxfQ==""#, Some(r#"{"a":1}"#), false),
            (r#""eyJhIjoxfQ""#, Some(r#"{"a":1}"#), false),
            (r#""{\"a\":1}""#, None, true),
            ("null", None, false),
            (r#""""#, None, false),
        ] {
            let entry = raw(&format!(
                r#"{{"attempt_id":"a","new":[],"response_code":"503","created_at":"1970-01-01T00:00:01Z","request_body":{body}}}"#
            ));
            let attempt = attempt(&entry).unwrap();
            assert_eq!(attempt.request_body.as_deref(), expected.map(str::as_bytes), "{body}");
            assert_eq!(attempt.unreadable_body, unreadable, "{body}");
            assert_eq!((attempt.response_code, attempt.created_ms), (503, Some(1000)));
        }
        assert_eq!(attempt(&raw("3")), None);
    }

    #[test]
    fn webhooks_are_read_and_their_authorization_is_not_shown() {
        let full = r#"{"project_id":"p","event_type":"t","webhook_url":"https://h/t",
            "is_active":false,"auth_header":"Bearer hidden","created_at":"c","new":1}"#;
        let webhook_read = webhook(&raw(full)).unwrap();
        assert!(!webhook_read.is_active && webhook_read.authorization.is_some());
        assert!(!format!("{webhook_read:?}").contains("hidden"));
        let minimal = webhook(&raw(r#"{"event_type":"t","webhook_url":"u","auth_header":""}"#));
        let minimal = minimal.unwrap();
        assert!(minimal.is_active && minimal.authorization.is_none());
        assert!(webhook(&raw(r#"{"webhook_url":"u"}"#)).is_none());
    }
}
