//! Items that can never be taken.

use http::StatusCode;
use serde::Deserialize;

use super::{messages::Message, problem::Problem};

/// Most ids and agents that one can name.
pub const MAX_NAMES: usize = 20_000;

/// What can never be taken, and what is answered instead; `POST /-/fail-take`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stubborn {
    /// Of messages and notifications.
    pub ids: Vec<String>,
    /// All items of these agents, by id.
    pub agents: Vec<String>,
    pub all: bool,
    /// What is answered. Without it the answer is a 200 that says that nothing was taken.
    pub status: Option<u16>,
}

impl Stubborn {
    /// Whether this message cannot be taken, as either notification.
    pub fn holds(&self, message: &Message, agent_id: &str) -> bool {
        self.all
            || self.ids.contains(&message.message_id)
            || self.ids.contains(&message.notification_id)
            || self.agents.iter().any(|agent| agent == agent_id)
    }

    /// What is answered where something cannot be taken; `None` for a 200.
    pub fn problem(&self) -> Option<Problem> {
        let status = StatusCode::from_u16(self.status?).unwrap_or_default();
        Some(Problem::new(status, "this stand-in was told that it cannot be taken"))
    }

    /// What is wrong with it, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.ids.len().max(self.agents.len()) > MAX_NAMES {
            return Err(format!("at most {MAX_NAMES} ids and agents"));
        }
        match self.status {
            None | Some(400..=599) => Ok(()),
            Some(status) => Err(format!("status {status} is no refusal: 400 to 599")),
        }
    }
}
