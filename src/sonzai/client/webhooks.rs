//! Webhooks: what is registered, their secrets, what became of deliveries.

use bytes::Bytes;
use secrecy::SecretString;

use super::{Client, Error};
use crate::source::sonzai::settings::Scope;

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
    /// What was to be delivered: the event's own bytes.
    pub request_body: Option<Bytes>,
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

impl Client {
    /// What is registered. An entry that cannot be read is an error: who compares with half of the
    /// list changes what is well.
    pub async fn webhooks(&self, scope: &Scope) -> Result<Vec<Webhook>, Error> {
        let _ = scope;
        todo!()
    }

    /// Registers or changes a webhook. The secret comes only at the first registration, never again.
    pub async fn register(
        &self,
        scope: &Scope,
        event_type: &str,
        url: &str,
        authorization: Option<&SecretString>,
    ) -> Result<Option<SecretString>, Error> {
        let _ = (scope, event_type, url, authorization);
        todo!()
    }

    /// Deletes a webhook. One that is not there is an error ([`Error::is_gone`]) unless an earlier
    /// attempt of this call may have deleted it.
    pub async fn delete_webhook(&self, scope: &Scope, event_type: &str) -> Result<(), Error> {
        let _ = (scope, event_type);
        todo!()
    }

    /// Makes a new secret; the old one is worth nothing from then on.
    pub async fn rotate(&self, scope: &Scope, event_type: &str) -> Result<SecretString, Error> {
        let _ = (scope, event_type);
        todo!()
    }

    /// A page of a webhook's delivery attempts. `page_size` is 1 to 500.
    pub async fn attempts(
        &self,
        scope: &Scope,
        event_type: &str,
        page_size: u32,
        cursor: Option<&str>,
    ) -> Result<Attempts, Error> {
        let _ = (scope, event_type, page_size, cursor);
        todo!()
    }
}
