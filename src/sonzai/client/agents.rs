//! Agents, page by page.

use super::{Client, Error};

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
        let _ = (project, cursor);
        todo!()
    }
}
