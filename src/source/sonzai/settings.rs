//! What `routes.yaml` says of a Sonzai source beside how its webhooks are verified: its API, the
//! webhooks to register there, and what to poll.

use std::{fmt, path::PathBuf, time::Duration};

use bytestring::ByteString;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::secret;

/// Where the API is unless `api.url` says otherwise.
pub const DEFAULT_URL: &str = "https://api.sonz.ai";

/// The type of an agent's notification unless `poll.type` says otherwise. Such a notification holds
/// no type of its own.
pub const AGENT_NOTIFICATION: &str = "agent.message";

/// How often what is pending is asked for, unless `poll.every` says otherwise.
pub const DEFAULT_EVERY: Duration = Duration::from_secs(30);

/// See the module. `register` and `poll` are there only beside `api`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub api: Option<Api>,
    pub register: Option<Register>,
    pub poll: Option<Poll>,
}

/// `api:`. Prints no secret.
#[derive(Clone, Debug)]
pub struct Api {
    /// `http://` or `https://`, a host, perhaps a port and a path, no slash at its end.
    pub url: String,
    /// For one project; `sk_…`.
    pub key: SecretString,
    /// A PEM file with the only CAs that are trusted; those of the system if left out.
    pub ca: Option<PathBuf>,
}

impl PartialEq for Api {
    fn eq(&self, other: &Api) -> bool {
        let Api { url, key, ca } = self;
        *url == other.url && secret::same(key, &other.key) && *ca == other.ca
    }
}

/// `register:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// How senders reach Waypost, without a slash at its end. A webhook's URL is this and the
    /// source's path, with the event type in it.
    pub public_url: String,
    pub scope: Scope,
    /// In the order of the file, none twice.
    pub types: Vec<String>,
}

/// Whose webhooks are meant. Both path families of the API may name the same one: a webhook always
/// belongs to a project.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Those of the key's own project.
    Tenant,
    /// Those of the project with this id.
    Project(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Tenant => f.write_str("the key's own project"),
            Scope::Project(id) => write!(f, "project {id}"),
        }
    }
}

/// `poll:`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    pub whose: Whose,
    /// Between two looks at the same list, while push does not work or the mode is `always`.
    pub every: Duration,
    pub mode: Mode,
    /// Whether what is durable is taken upstream: acknowledged, or consumed.
    pub take: bool,
    /// How far back is repaired, once, after a start; `None`: not at all.
    pub repair: Option<Duration>,
    /// The type of an agent's notification as an event.
    pub kind: ByteString,
}

/// Whose notifications are polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of the project with this id; they hold the payloads of its webhooks.
    Project(String),
    /// Those of agents; without `users`, for all users.
    Agents { agents: Agents, users: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agents {
    /// All of the key's own project.
    All,
    /// By id or name.
    Named(Vec<String>),
}

/// When to poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Every `every`.
    Always,
    /// Every `every` while push does not work, and seldom while it does.
    #[default]
    Fallback,
}
