//! Registered webhooks and the attempts to deliver to them.

use std::collections::{BTreeMap, VecDeque};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

use super::{
    bodies::Registration,
    options::{MAX_ATTEMPTS, MAX_ATTEMPTS_BYTES, MAX_WEBHOOKS},
};

/// Random bytes in a secret.
const SECRET_BYTES: usize = 32;

#[derive(Clone, Debug)]
pub struct Webhook {
    pub url: String,
    pub authorization: Option<SecretString>,
    pub secret: SecretString,
    /// How many secrets it has had.
    pub secrets: u64,
    pub created_ms: u64,
    pub updated_ms: u64,
}

/// One attempt to deliver an event.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: String,
    pub event_type: String,
    pub url: String,
    /// 0 without an answer.
    pub response_code: u16,
    pub duration_ms: u64,
    /// From 1.
    pub number: u32,
    pub delivered: bool,
    pub created_ms: u64,
    pub error: Option<String>,
    pub request_body: Bytes,
    pub response_body: Option<Bytes>,
}

impl Attempt {
    pub fn status(&self) -> &'static str {
        if self.delivered { "success" } else { "failed" }
    }

    fn bytes(&self) -> usize {
        self.request_body.len() + self.response_body.as_ref().map_or(0, Bytes::len)
    }
}

/// [`MAX_WEBHOOKS`] are there.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_WEBHOOKS} webhooks are registered, and no more")]
pub struct Full;

#[derive(Debug, Default)]
pub struct Webhooks {
    by_type: BTreeMap<String, Webhook>,
    /// Oldest first, each with its number.
    attempts: VecDeque<(u64, Attempt)>,
    next_attempt: u64,
    attempts_bytes: usize,
}

impl Webhooks {
    /// Registers or updates one. The secret, if it is new.
    pub fn register(
        &mut self,
        event_type: &str,
        registration: Registration,
        now_ms: u64,
    ) -> Result<Option<SecretString>, Full> {
        let Registration { webhook_url: url, auth_header: authorization } = registration;
        if let Some(known) = self.by_type.get_mut(event_type) {
            *known = Webhook { url, authorization, updated_ms: now_ms, ..known.clone() };
            return Ok(None);
        }
        if self.by_type.len() == MAX_WEBHOOKS {
            return Err(Full);
        }
        let secret = new_secret();
        let (created_ms, updated_ms) = (now_ms, now_ms);
        let webhook = Webhook {
            url,
            authorization,
            secret: secret.clone(),
            secrets: 1,
            created_ms,
            updated_ms,
        };
        self.by_type.insert(event_type.to_owned(), webhook);
        Ok(Some(secret))
    }

    /// Another secret, in force at once; `None` where there is no webhook.
    pub fn rotate(&mut self, event_type: &str, now_ms: u64) -> Option<SecretString> {
        let webhook = self.by_type.get_mut(event_type)?;
        webhook.secret = new_secret();
        webhook.secrets += 1;
        webhook.updated_ms = now_ms;
        Some(webhook.secret.clone())
    }

    /// Whether it was there.
    pub fn delete(&mut self, event_type: &str) -> bool {
        self.by_type.remove(event_type).is_some()
    }

    pub fn get(&self, event_type: &str) -> Option<&Webhook> {
        self.by_type.get(event_type)
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, &Webhook)> {
        self.by_type.iter().map(|(event_type, webhook)| (event_type.as_str(), webhook))
    }

    pub fn record(&mut self, attempt: Attempt) {
        self.attempts_bytes += attempt.bytes();
        self.attempts.push_back((self.next_attempt, attempt));
        self.next_attempt += 1;
        while self.attempts.len() > MAX_ATTEMPTS || self.attempts_bytes > MAX_ATTEMPTS_BYTES {
            let Some((_, oldest)) = self.attempts.pop_front() else { return };
            self.attempts_bytes -= oldest.bytes();
        }
    }

    /// The attempts, newest first, each with its number.
    pub fn attempts(&self) -> impl Iterator<Item = (u64, &Attempt)> {
        self.attempts.iter().rev().map(|(number, attempt)| (*number, attempt))
    }

    /// Attempts so far, forgotten ones included.
    pub fn attempts_made(&self) -> u64 {
        self.next_attempt
    }
}

/// `whsec_` and base64, as Sonzai's look.
fn new_secret() -> SecretString {
    let mut random = [0; SECRET_BYTES];
    // A system without randomness gives secrets that everybody knows; here they guard nothing.
    let _ = SystemRandom::new().fill(&mut random);
    format!("whsec_{}", BASE64_STANDARD.encode(random)).into()
}

/// The authorization as it is listed.
pub fn shown_authorization(webhook: &Webhook) -> Option<&str> {
    webhook.authorization.as_ref().map(ExposeSecret::expose_secret)
}
