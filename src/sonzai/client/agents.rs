//! Agents, page by page.

use serde_json::value::RawValue;

use super::{
    Client, Error,
    answer::{Object, entries},
    call::Call,
    target::Target,
};

/// The largest page of agents.
pub const MAX_AGENTS_PAGE: u32 = 100;

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub id: String,
    pub name: Option<String>,
    pub project_id: Option<String>,
}

/// A page of agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentsPage {
    /// In the API's order.
    pub agents: Vec<Agent>,
    /// How many entries of the page could not be read.
    pub unreadable: usize,
    /// What to ask for next.
    pub next_cursor: Option<String>,
}

impl Client {
    /// A page, as large as the API makes them, of a project's agents; without `project` those of the
    /// key's own.
    pub async fn agents(
        &self,
        project: Option<&str>,
        cursor: Option<&str>,
    ) -> Result<AgentsPage, Error> {
        let target = Target::root()
            .word("agents")
            .number("page_size", MAX_AGENTS_PAGE)
            .query("project_id", project)
            .query("cursor", cursor);
        self.call(Call::get(target), |answer| {
            let answer = Object::read(answer)?;
            let (agents, unreadable) = entries(answer.list(&["items", "agents"])?, agent);
            Ok(AgentsPage { agents, unreadable, next_cursor: answer.next_cursor(cursor)? })
        })
        .await
    }
}

fn agent(raw: &RawValue) -> Option<Agent> {
    let entry = Object::entry(raw)?;
    Some(Agent {
        id: entry.text(&["agent_id", "id"])?,
        name: entry.text(&["name"]),
        project_id: entry.text(&["project_id"]),
    })
}
