//! What the admin API is asked about webhooks, and answers: JSON, never with a secret in it.

use serde::{Deserialize, Serialize};

use super::plan::{Difference, Planned, Secret, Step};
use crate::{clock::rfc3339, sonzai::client};

/// A question, or a request to do something.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub action: Action,
    /// The name of a source; may be left out where one has `api:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Another project's webhooks than those of `register:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Whether to do it, or only to say what there is to do.
    #[serde(default)]
    pub apply: bool,
    /// Whether to make secrets anew that nobody knows.
    #[serde(default)]
    pub rotate_unknown: bool,
    /// Attempts on a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Which page, as the one before said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// What is registered.
    List,
    /// What became of deliveries of a type.
    Attempts,
    /// Make what is registered what `register:` says.
    Sync,
    /// Make another secret.
    Rotate,
    /// Register no more.
    Delete,
}

/// An answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    pub source: String,
    /// Whose webhooks; `None` where nobody said which project is the key's own.
    pub project: Option<String>,
    /// Whether what there was to do was tried.
    pub applied: bool,
    #[serde(default)]
    pub webhooks: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What to ask for next; `None` at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A webhook, what there is to do about it, and what became of that.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    #[serde(rename = "type")]
    pub event_type: String,
    /// Where it leads, or is to lead.
    pub url: String,
    /// Where it leads now, if somewhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_url: Option<String>,
    pub registered: bool,
    /// Whether the platform delivers to it.
    pub active: bool,
    #[serde(rename = "do")]
    pub step: Do,
    /// What is updated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<Difference>,
    /// Whether another secret is made.
    pub rotate: bool,
    pub secret: Known,
    /// Since when it is kept, or being changed; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_since: Option<String>,
    /// As the API says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<Attempt>,
    /// Whether it was done; `None` where nothing was tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<bool>,
    /// Why it was not, or what could not be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What is done with a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Do {
    /// Nothing: it is as it is to be.
    Nothing,
    Register,
    Update,
    Delete,
    /// Nothing: it is somebody else's.
    Leave,
}

/// What is known of a webhook's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Known {
    /// It is kept.
    Stored,
    /// `secrets:` has one.
    Listed,
    Changing,
    Unknown,
    /// There is none, or it is nothing to us.
    None,
}

/// A try of the platform to deliver an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    pub id: String,
    pub at: String,
    /// `success`, or something else.
    pub status: String,
    /// From 1.
    pub number: i64,
    /// What it was answered with; 0 for no answer.
    pub response_code: i64,
    pub duration_ms: Option<i64>,
    pub url: String,
    pub error: Option<String>,
    /// How large the event is, where the platform kept it.
    pub body_bytes: Option<usize>,
}

impl Row {
    /// A webhook that nothing was done about yet.
    pub fn of(planned: &Planned) -> Row {
        let Planned { event_type, url, listed, step, secret, rotates, .. } = planned;
        let (secret, since_ms) = match secret {
            Secret::Stored(since_ms) => (Known::Stored, Some(*since_ms)),
            Secret::Changing(since_ms) => (Known::Changing, Some(*since_ms)),
            Secret::Listed => (Known::Listed, None),
            Secret::Unknown => (Known::Unknown, None),
            Secret::None => (Known::None, None),
        };
        let (step, differs) = match step {
            Step::Keep => (Do::Nothing, Vec::new()),
            Step::Register => (Do::Register, Vec::new()),
            Step::Update(differences) => (Do::Update, differences.clone()),
            Step::Delete => (Do::Delete, Vec::new()),
            Step::LeaveAlone => (Do::Leave, Vec::new()),
        };
        let listed = listed.as_ref();
        Row {
            event_type: event_type.clone(),
            url: url.clone(),
            registered_url: listed.map(|it| it.url.clone()).filter(|listed| listed != url),
            registered: listed.is_some(),
            active: listed.is_some_and(|listed| listed.is_active),
            step,
            differs,
            rotate: *rotates,
            secret,
            secret_since: since_ms.map(rfc3339),
            updated_at: listed.and_then(|listed| listed.updated_at.clone()),
            last_attempt: None,
            done: None,
            error: None,
        }
    }

    /// Whether there is, or was, anything to do.
    pub fn changes(&self) -> bool {
        self.rotate || !matches!(self.step, Do::Nothing | Do::Leave)
    }

    /// Whether nobody here knows its secret, and nothing is, or was, done about that.
    pub fn lacks_secret(&self) -> bool {
        self.secret == Known::Unknown
            && !self.rotate
            && !matches!(self.step, Do::Delete | Do::Leave)
    }

    /// Whether something is still to be done about it: by us, or by whoever knows its secret.
    pub fn is_left(&self) -> bool {
        self.lacks_secret() || (self.changes() && self.done != Some(true))
    }
}

impl From<&client::Attempt> for Attempt {
    fn from(attempt: &client::Attempt) -> Attempt {
        Attempt {
            id: attempt.attempt_id.clone(),
            at: attempt.created_at.clone(),
            status: attempt.status.clone(),
            number: attempt.attempt_number,
            response_code: attempt.response_code,
            duration_ms: attempt.duration_ms,
            url: attempt.webhook_url.clone(),
            error: attempt.error_message.clone(),
            body_bytes: attempt.request_body.as_ref().map(|body| body.len()),
        }
    }
}
