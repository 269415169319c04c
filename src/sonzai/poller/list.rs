//! A list of pending notifications: how to ask for it, what its items are as events, how they are
//! taken.

use std::{fmt, sync::Arc};

use bytestring::ByteString;

use super::recent::{self, Key};
use crate::{
    dedupe::Keys,
    event::Event,
    sonzai::client::{
        AgentNotification, Client, Error, MAX_AGENT_PAGE, MAX_PROJECT_PAGE, ProjectFilter,
        ProjectNotification,
    },
    source::{
        Source,
        sonzai::{
            Via,
            polled::{self, AgentItem, ProjectItem},
        },
    },
};

/// A list. One is never asked for twice at a time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// A project's, or what of it is of one agent, of one type.
    Project { project: Arc<str>, agent: Option<Arc<str>>, kind: Option<Arc<str>> },
    /// An agent's, of one user or of all.
    Agent { agent: Arc<str>, user: Option<Arc<str>> },
}

/// What is pending, as far as one answer holds it.
pub struct Page {
    /// In the API's order.
    pub items: Vec<Item>,
    /// How many entries could not be read.
    pub unreadable: usize,
}

/// One notification.
pub struct Item {
    pub key: Key,
    /// What it is taken by. It owns its memory: it outlives the answer.
    pub id: ByteString,
    /// Unix time, where it can be read.
    pub created_ms: Option<u64>,
    what: What,
}

enum What {
    Project(ProjectItem),
    Agent(AgentItem),
}

impl List {
    /// The whole list of a project.
    pub fn of_project(project: &str) -> List {
        List::Project { project: project.into(), agent: None, kind: None }
    }

    /// The most that it can be asked for at a time.
    pub fn max_page(&self) -> u32 {
        match self {
            List::Project { .. } => MAX_PROJECT_PAGE,
            List::Agent { .. } => MAX_AGENT_PAGE,
        }
    }

    /// Whether less of it can be asked for.
    pub fn can_be_narrowed(&self) -> bool {
        matches!(self, List::Project { agent, kind, .. } if agent.is_none() || kind.is_none())
    }

    /// How many items are taken with one request.
    pub fn taken_at_once(&self) -> usize {
        match self {
            List::Project { .. } => MAX_PROJECT_PAGE as usize,
            List::Agent { .. } => 1,
        }
    }

    /// Asks for it.
    pub async fn ask(&self, client: &Client, limit: u32) -> Result<Page, Error> {
        match self {
            List::Project { project, agent, kind } => {
                let filter =
                    ProjectFilter { agent_id: agent.as_deref(), event_type: kind.as_deref() };
                let listed = client.project_notifications(project, filter, limit).await?;
                let items = listed.items.into_iter().map(|item| Item::of_project(project, item));
                Ok(Page { items: items.collect(), unreadable: listed.unreadable })
            }
            List::Agent { agent, user } => {
                let listed = client.agent_notifications(agent, user.as_deref(), limit).await?;
                let items = listed.items.into_iter().map(|item| Item::of_agent(agent, item));
                Ok(Page { items: items.collect(), unreadable: listed.unreadable })
            }
        }
    }

    /// Takes these: a project's with one request, an agent's one by one.
    pub async fn take(&self, client: &Client, ids: &[ByteString]) -> Result<(), Error> {
        match self {
            List::Project { project, .. } => client.acknowledge(project, ids).await.map(drop),
            List::Agent { agent, .. } => {
                for id in ids {
                    client.consume(agent, id).await?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, name, parts) = match self {
            List::Project { project, agent, kind } => {
                ("project", project, [("agent", agent), ("type", kind)])
            }
            List::Agent { agent, user } => ("agent", agent, [("user", user), ("", &None)]),
        };
        write!(f, "{what} {name}")?;
        for (what, part) in parts {
            if let Some(name) = part {
                write!(f, ", {what} {name}")?;
            }
        }
        Ok(())
    }
}

impl Item {
    fn of_project(project: &str, item: ProjectNotification) -> Item {
        Item {
            key: recent::key(project, &item.id),
            id: owned(&item.id),
            created_ms: item.created_ms,
            what: What::Project(ProjectItem {
                notification_id: item.id,
                event_type: item.event_type,
                payload: item.payload,
                agent_id: item.agent_id,
                user_id: item.user_id,
                project_id: item.project_id,
            }),
        }
    }

    fn of_agent(agent: &str, item: AgentNotification) -> Item {
        Item {
            key: recent::key(agent, &item.id),
            id: owned(&item.id),
            created_ms: item.created_ms,
            what: What::Agent(AgentItem {
                message_id: item.id,
                entry: item.raw,
                agent_id: item.agent_id,
                user_id: item.user_id,
                wakeup_id: item.wakeup_id,
            }),
        }
    }

    /// The type that the list says it has.
    pub fn kind(&self) -> Option<&ByteString> {
        match &self.what {
            What::Project(item) => Some(&item.event_type),
            What::Agent(_) => None,
        }
    }

    /// The event that it is, and what that is known by. `kind` is the type of an agent's
    /// notification, which does not say it.
    pub fn event(self, source: &Source, kind: &ByteString, now_ms: u64) -> (Event, Keys) {
        match self.what {
            What::Project(item) => polled::project_notification(source, item, now_ms, Via::Poll),
            What::Agent(item) => polled::agent_notification(source, item, kind, now_ms, Via::Poll),
        }
    }
}

/// The same text in memory of its own: an answer of megabytes is not kept for an id.
fn owned(text: &ByteString) -> ByteString {
    ByteString::from(&**text)
}
