//! The shapes of answers, as the document has them, and as Sonzai's server deviates from it.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::options::Answers;

/// An answer before it is put on the wire.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub content_type: Option<&'static str>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Reply {
    /// A value as JSON.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Reply {
        // Only a map whose keys are no strings, or a failing writer, could fail: there is neither.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Reply {
            status,
            content_type: Some("application/json"),
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// 204.
    pub fn nothing() -> Reply {
        Reply {
            status: StatusCode::NO_CONTENT,
            content_type: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }
}

/// Where an object says that its schema is.
pub fn schema_url(base: &str, name: &str) -> String {
    format!("{base}/api/v1/schemas/{name}.json")
}

/// An object as it is answered: with its `$schema`, and in real answers with a member that the
/// document does not know.
#[derive(Serialize)]
pub struct Object<T> {
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    #[serde(flatten)]
    members: T,
    /// Here for clients to show that they read past what is new; it also tells what was answered by
    /// no real server.
    #[serde(skip_serializing_if = "Option::is_none")]
    stand_in: Option<bool>,
}

/// How this stand-in answers.
#[derive(Clone, Copy)]
pub struct Shapes<'s> {
    pub base: &'s str,
    pub answers: Answers,
}

impl Shapes<'_> {
    /// A whole answer.
    pub fn top<T: Serialize>(self, name: &str, members: T) -> Reply {
        let schema = Some(schema_url(self.base, name));
        Reply::json(StatusCode::OK, &Object { schema, members, stand_in: self.stand_in() })
    }

    /// A list in it: `null` for an empty one, where answers are real.
    pub fn list<T>(self, items: impl IntoIterator<Item = T>) -> Option<Vec<Object<T>>> {
        let item = |members| Object { schema: None, members, stand_in: self.stand_in() };
        let items: Vec<_> = items.into_iter().map(item).collect();
        (!items.is_empty() || self.answers == Answers::Strict).then_some(items)
    }

    fn stand_in(self) -> Option<bool> {
        (self.answers == Answers::Real).then_some(true)
    }
}

#[derive(Serialize)]
pub struct AgentsPage<L> {
    pub items: L,
    pub has_more: bool,
    pub total_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
pub struct Agent<'s> {
    pub agent_id: String,
    pub name: String,
    pub project_id: &'s str,
    pub tenant_id: &'s str,
    pub owner_user_id: &'s str,
    pub instance_count: usize,
    pub is_active: bool,
    pub created_at: &'s str,
}

#[derive(Serialize)]
pub struct Notifications<L> {
    pub notifications: L,
}

#[derive(Serialize)]
pub struct AgentNotification<'s> {
    pub message_id: &'s str,
    pub agent_id: String,
    pub user_id: &'s str,
    pub check_type: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intent: Option<&'s str>,
    pub generated_message: &'s str,
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wakeup_id: Option<&'s str>,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumed_at: Option<String>,
}

#[derive(Serialize)]
pub struct ProjectNotifications<L> {
    pub notifications: L,
    pub count: usize,
}

#[derive(Serialize)]
pub struct ProjectNotification<'s> {
    pub notification_id: &'s str,
    pub project_id: &'s str,
    pub agent_id: String,
    pub user_id: &'s str,
    pub event_type: &'s str,
    pub payload: &'s RawValue,
    pub status: &'static str,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

#[derive(Serialize)]
pub struct Acknowledged {
    pub acknowledged: usize,
}

#[derive(Serialize)]
pub struct Success {
    pub success: bool,
}

#[derive(Serialize)]
pub struct Registered {
    pub success: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<String>,
}

#[derive(Serialize)]
pub struct Scheduled {
    pub wakeup_id: String,
    pub scheduled_at: String,
}

#[derive(Serialize)]
pub struct Wakeups<L> {
    pub wakeups: L,
}

#[derive(Serialize)]
pub struct Wakeup<'s> {
    pub wakeup_id: &'s str,
    pub agent_id: String,
    pub user_id: &'s str,
    pub check_type: &'s str,
    pub intent: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occasion: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interest_topic: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_description: Option<&'s str>,
    pub scheduled_at: String,
    pub status: &'static str,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed_at: Option<String>,
}

#[derive(Serialize)]
pub struct Webhooks<L> {
    pub webhooks: L,
}

#[derive(Serialize)]
pub struct Webhook<'s> {
    pub project_id: &'s str,
    pub event_type: &'s str,
    pub webhook_url: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_header: Option<&'s str>,
    pub is_active: bool,
    pub created_at: String,
    pub updated_at: String,
}

#[derive(Serialize)]
pub struct Attempts<L> {
    pub attempts: L,
    pub has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[derive(Serialize)]
pub struct Attempt<'s> {
    pub attempt_id: &'s str,
    pub project_id: &'s str,
    pub event_type: &'s str,
    pub webhook_url: &'s str,
    pub response_code: u16,
    pub duration_ms: u64,
    pub attempt_number: u32,
    pub status: &'static str,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_message: Option<&'s str>,
    /// Base64.
    pub request_body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_body: Option<String>,
}
