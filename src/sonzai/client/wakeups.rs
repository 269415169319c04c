//! Wakeups: what an agent is to do later by itself.

use serde::Serialize;

use super::{Client, Error, Listed};

/// A wakeup to schedule. The API refuses any other member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewWakeup {
    pub user_id: String,
    pub check_type: String,
    pub intent: String,
    /// From now; required even where `scheduled_at` overrides it. 0 is allowed.
    pub delay_hours: i64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occasion: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interest_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_description: Option<String>,
}

/// What was scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub wakeup_id: String,
    /// RFC 3339, as the API wrote it.
    pub scheduled_at: Option<String>,
}

/// A wakeup as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wakeup {
    pub wakeup_id: String,
    pub agent_id: Option<String>,
    pub user_id: Option<String>,
    pub check_type: Option<String>,
    pub intent: Option<String>,
    /// `pending`, `executed`, ….
    pub status: Option<String>,
    /// RFC 3339, as the API wrote it; the others, too.
    pub scheduled_at: Option<String>,
    pub created_at: Option<String>,
    pub executed_at: Option<String>,
    pub occasion: Option<String>,
    pub interest_topic: Option<String>,
    pub event_description: Option<String>,
}

impl Client {
    /// Schedules a wakeup. The key (1 to 255 visible ASCII characters) is the same whenever the same
    /// wakeup is meant; the platform does not promise to heed it.
    pub async fn schedule_wakeup(
        &self,
        agent: &str,
        wakeup: &NewWakeup,
        idempotency_key: &str,
    ) -> Result<Scheduled, Error> {
        let _ = (agent, wakeup, idempotency_key);
        todo!()
    }

    /// An agent's wakeups. `limit` is 1 to 500.
    pub async fn wakeups(
        &self,
        agent: &str,
        status: Option<&str>,
        limit: u32,
    ) -> Result<Listed<Wakeup>, Error> {
        let _ = (agent, status, limit);
        todo!()
    }
}
