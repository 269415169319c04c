//! Wakeups: what an agent is to do later by itself.

use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Client, Error, Listed,
    answer::{Object, Unreadable, entries},
    call::Call,
    target::Target,
};

/// The largest list of wakeups.
pub const MAX_WAKEUPS: u32 = 500;

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
    /// Schedules a wakeup. The key (visible ASCII) is the same whenever the same wakeup is meant; the
    /// platform does not promise to heed it.
    pub async fn schedule_wakeup(
        &self,
        agent: &str,
        wakeup: &NewWakeup,
        idempotency_key: &str,
    ) -> Result<Scheduled, Error> {
        let call = Call::post(of_agent(agent)).idempotent(idempotency_key.to_owned()).json(wakeup);
        self.call(call, |answer| {
            let answer = Object::read(answer)?;
            let wakeup_id = answer.text(&["wakeup_id", "id"]);
            Ok(Scheduled {
                wakeup_id: wakeup_id.ok_or(Unreadable::Lacks("wakeup_id"))?,
                scheduled_at: answer.text(&["scheduled_at"]),
            })
        })
        .await
    }

    /// An agent's wakeups, of one status or of all. `limit` is 1 to [`MAX_WAKEUPS`].
    pub async fn wakeups(
        &self,
        agent: &str,
        status: Option<&str>,
        limit: u32,
    ) -> Result<Listed<Wakeup>, Error> {
        let target =
            of_agent(agent).query("status", status).number("limit", limit.clamp(1, MAX_WAKEUPS));
        self.call(Call::get(target), |answer| {
            let list = Object::read(answer)?.list(&["wakeups", "items"])?;
            let (items, unreadable) = entries(list, wakeup);
            Ok(Listed { items, unreadable })
        })
        .await
    }
}

fn of_agent(agent: &str) -> Target {
    Target::root().word("agents").part("the agent", agent).word("wakeups")
}

fn wakeup(raw: &RawValue) -> Option<Wakeup> {
    let entry = Object::entry(raw)?;
    let text = |name| entry.text(&[name]);
    Some(Wakeup {
        wakeup_id: entry.text(&["wakeup_id", "id"])?,
        agent_id: text("agent_id"),
        user_id: text("user_id"),
        check_type: text("check_type"),
        intent: text("intent"),
        status: text("status"),
        scheduled_at: text("scheduled_at"),
        created_at: text("created_at"),
        executed_at: text("executed_at"),
        occasion: text("occasion"),
        interest_topic: text("interest_topic"),
        event_description: text("event_description"),
    })
}
