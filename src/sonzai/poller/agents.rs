//! Finds the agents to poll, page by page.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::sonzai::client::{AgentsPage, Client, Error};

/// Agents that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By id, in the API's order, none twice.
    pub agents: Vec<Arc<str>>,
    /// Whether there are more than were wanted.
    pub more: bool,
}

/// At most `max` agents of a project; without one, of the key's own.
pub async fn find(client: &Client, project: Option<&str>, max: usize) -> Result<Found, Error> {
    collect(max, |cursor| async move { client.agents(project, cursor.as_deref()).await }).await
}

/// Pages that bring nothing new end it, whatever cursor they come with.
async fn collect<E, F>(max: usize, page: impl Fn(Option<String>) -> F) -> Result<Found, E>
where
    F: Future<Output = Result<AgentsPage, E>>,
{
    let mut found = Found::default();
    let mut known: FxHashSet<Arc<str>> = FxHashSet::default();
    let mut cursor = None;
    loop {
        let AgentsPage { agents, next_cursor, .. } = page(cursor).await?;
        let before = found.agents.len();
        for agent in agents {
            let id: Arc<str> = agent.id.into();
            if known.contains(&id) {
                continue;
            }
            if found.agents.len() >= max {
                return Ok(Found { more: true, ..found });
            }
            known.insert(id.clone());
            found.agents.push(id);
        }
        match next_cursor {
            Some(next) if found.agents.len() > before => cursor = Some(next),
            _ => return Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sonzai::client::Agent;

    fn find(pages: &[&[&str]], max: usize) -> (usize, bool, usize) {
        let asked = std::cell::Cell::new(0);
        let page = |cursor: Option<String>| {
            asked.set(asked.get() + 1);
            let at: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
            let ids = pages.get(at).copied().unwrap_or_default();
            let agent = |id: &&str| Agent { id: id.to_string(), name: None, project_id: None };
            let agents = ids.iter().map(agent).collect();
            let next_cursor = Some((at + 1).to_string());
            std::future::ready(Ok::<_, ()>(AgentsPage { agents, unreadable: 0, next_cursor }))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(collect(max, page)).unwrap();
        (found.agents.len(), found.more, asked.get())
    }

    #[test]
    fn all_pages_are_read_and_no_agent_is_twice() {
        assert_eq!(find(&[&["a", "b"], &["b", "c"]], 10), (3, false, 3));
        assert_eq!(find(&[], 10), (0, false, 1));
    }

    #[test]
    fn no_more_are_found_than_are_wanted() {
        assert_eq!(find(&[&["a", "b"], &["c"]], 2), (2, true, 2));
        assert_eq!(find(&[&["a", "b", "c"], &["d"]], 2), (2, true, 1));
        assert_eq!(find(&[&["a", "b"], &["a"]], 2), (2, false, 2));
    }

    #[test]
    fn a_cursor_that_leads_nowhere_is_not_followed_for_ever() {
        let same: &[&str] = &["a"];
        assert_eq!(find(&[same; 100], 10), (1, false, 2));
    }
}
