//! Notifications: what is pending for polling, by project and by agent, and taking it.

use bytes::Bytes;
use bytestring::ByteString;

use super::{Client, Error, Listed};

/// The largest page of a project's notifications.
pub const MAX_PROJECT_PAGE: u32 = 200;

/// The largest page of an agent's notifications, and of its history.
pub const MAX_AGENT_PAGE: u32 = 500;

/// A notification of a project: what its webhook would have brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectNotification {
    pub id: ByteString,
    pub event_type: ByteString,
    /// As it stands in the list, byte for byte. It shares the answer's memory.
    pub payload: Bytes,
    pub agent_id: Option<ByteString>,
    pub user_id: Option<ByteString>,
    pub project_id: Option<ByteString>,
    /// Unix time; `None` if it cannot be read.
    pub created_ms: Option<u64>,
    pub status: Option<ByteString>,
}

/// A notification of an agent: a proactive message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentNotification {
    /// Its `message_id`.
    pub id: ByteString,
    /// The whole entry as it stands in the list, byte for byte. It shares the answer's memory.
    pub raw: Bytes,
    pub agent_id: Option<ByteString>,
    pub user_id: Option<ByteString>,
    pub wakeup_id: Option<ByteString>,
    /// Unix time; `None` if it cannot be read.
    pub created_ms: Option<u64>,
    pub status: Option<ByteString>,
}

/// Which of a project's notifications are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProjectFilter<'f> {
    pub agent_id: Option<&'f str>,
    pub event_type: Option<&'f str>,
}

impl Client {
    /// What is pending in a project. `limit` is 1 to [`MAX_PROJECT_PAGE`].
    pub async fn project_notifications(
        &self,
        project: &str,
        filter: ProjectFilter<'_>,
        limit: u32,
    ) -> Result<Listed<ProjectNotification>, Error> {
        let _ = (project, filter, limit);
        todo!()
    }

    /// Takes notifications of a project; says how many the API took.
    pub async fn acknowledge(&self, project: &str, ids: &[ByteString]) -> Result<u64, Error> {
        let _ = (project, ids);
        todo!()
    }

    /// What is pending for an agent, of one user or of all. `limit` is 1 to [`MAX_AGENT_PAGE`].
    pub async fn agent_notifications(
        &self,
        agent: &str,
        user: Option<&str>,
        limit: u32,
    ) -> Result<Listed<AgentNotification>, Error> {
        let _ = (agent, user, limit);
        todo!()
    }

    /// Takes one notification of an agent.
    pub async fn consume(&self, agent: &str, message: &str) -> Result<(), Error> {
        let _ = (agent, message);
        todo!()
    }

    /// An agent's notifications of every status. `limit` is 1 to [`MAX_AGENT_PAGE`].
    pub async fn history(
        &self,
        agent: &str,
        limit: u32,
    ) -> Result<Listed<AgentNotification>, Error> {
        let _ = (agent, limit);
        todo!()
    }
}
