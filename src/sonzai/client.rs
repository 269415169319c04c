//! A client of Sonzai's API: one host, one key, every call that Waypost makes.
//!
//! A call is a few attempts ([`exchange`]: one request, one answer), each in its turn ([`pace`]), with
//! a pause between them where trying again may help ([`retry`]). What is asked for is a [`target`];
//! what is answered is read leniently ([`answer`]), in a file for each kind of thing. Why a call
//! failed is an [`Error`], which says what to do.
//!
//! The host is fixed: redirects are not followed, and the key is sent nowhere else.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use tokio_rustls::rustls::RootCertStore;

use crate::{
    certificates::{self, NoAuthorities},
    settings, small_file,
    source::sonzai::settings::Api,
};

mod agents;
mod answer;
mod call;
mod error;
mod exchange;
mod notifications;
mod pace;
mod problem;
mod retry;
mod stats;
mod target;
mod wakeups;
mod webhooks;

pub use agents::{Agent, AgentsPage, MAX_AGENTS_PAGE};
pub use error::{Error, Refusal, Why};
pub use notifications::{
    AgentNotification, MAX_AGENT_PAGE, MAX_PROJECT_PAGE, ProjectFilter, ProjectNotification,
};
pub use stats::Stats;
pub use wakeups::{MAX_WAKEUPS, NewWakeup, Scheduled, Wakeup};
pub use webhooks::{Attempt, Attempts, MAX_ATTEMPTS_PAGE, Webhook};

use call::Key;
use exchange::Exchange;
use pace::Pace;
use target::Base;

/// Calls the API. A cheap handle: clones share connections, pace and counts.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    base: Base,
    key: Key,
    exchange: Exchange,
    pace: Pace,
    limits: Limits,
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
    #[error("api.url: it {0}")]
    Url(&'static str),
    #[error(
        "api.key: it is empty, or holds a space or another character that no key has; a key looks \
         like sk_…"
    )]
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
    /// A client for this API. Reads the CAs; blocks shortly.
    pub fn new(api: &Api, limits: Limits) -> Result<Client, SetupError> {
        let base = Base::parse(&api.url)?;
        let key = Key::new(&api.key)?;
        let roots = match &api.ca {
            Some(path) => authorities(path.clone())?,
            None if base.is_tls() => certificates::system_authorities()?,
            None => RootCertStore::empty(),
        };
        let Limits { request_timeout, max_answer_bytes, .. } = limits;
        let exchange = Exchange::new(roots, base.host.clone(), request_timeout, max_answer_bytes);
        let pace = Pace::per_second(limits.max_requests_per_second);
        let stats = Stats::default();
        Ok(Client(Arc::new(Inner { base, key, exchange, pace, limits, stats })))
    }

    /// What it counted since it was made.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("host", &self.0.base.host).finish_non_exhaustive()
    }
}

fn authorities(path: PathBuf) -> Result<RootCertStore, SetupError> {
    let pem = match small_file::read(&path) {
        Ok(pem) => pem,
        Err(cause) => return Err(SetupError::Unreadable { path, cause }),
    };
    certificates::authorities(&pem).map_err(|cause| SetupError::Pem { path, cause })
}
