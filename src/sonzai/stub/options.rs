//! What a stand-in is started with, and the limits of what it keeps.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use secrecy::SecretString;

/// The port, key and project that a stand-in has unless told otherwise.
pub const DEFAULT_PORT: u16 = 9900;
pub const DEFAULT_KEY: &str = "sk_stub";
pub const DEFAULT_PROJECT: &str = "11111111-1111-4111-8111-111111111111";

/// Most agents.
pub const MAX_AGENTS: usize = 100_000;
/// Most proactive messages that are kept, taken ones included.
pub const MAX_MESSAGES: usize = 200_000;
/// Most bytes of their payloads.
pub const MAX_MESSAGES_BYTES: usize = 256 << 20;
/// Most wakeups.
pub const MAX_WAKEUPS: usize = 200_000;
/// Most webhooks.
pub const MAX_WEBHOOKS: usize = 1000;
/// Most delivery attempts that are remembered; the oldest are forgotten.
pub const MAX_ATTEMPTS: usize = 50_000;
/// Most bytes of their requests and answers.
pub const MAX_ATTEMPTS_BYTES: usize = 64 << 20;
/// Most deliveries that are under way or wait for their next attempt.
pub const MAX_DELIVERIES: usize = 50_000;
/// Most bytes of their bodies.
pub const MAX_DELIVERIES_BYTES: usize = 256 << 20;
/// Most deliveries that are on the wire at one time.
pub const MAX_DELIVERIES_AT_ONCE: usize = 64;
/// Most of an answer to a delivery that is kept, in bytes.
pub const MAX_DELIVERY_ANSWER_BYTES: usize = 64 << 10;
/// Most events of one `POST /-/emit`.
pub const MAX_EMITTED: usize = 20_000;
/// Largest body of a request, in bytes.
pub const MAX_BODY_BYTES: usize = 2 << 20;
/// How long a request's head, and its body, may take.
pub const READ_WITHIN: Duration = Duration::from_secs(30);
/// Most connections; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 1024;
/// Most requests that are remembered; the oldest are forgotten.
pub const MAX_REQUESTS: usize = 5000;
/// Most of a request's body that is remembered, in bytes.
pub const MAX_REQUEST_BODY_SHOWN: usize = 16 << 10;
/// Most ids of taken items that are remembered, in each family.
pub const MAX_TAKEN_SHOWN: usize = 50_000;
/// Most attempts and wakeups that `GET /-/state` shows: the latest.
pub const MAX_SHOWN: usize = 1000;
/// Most rules of what goes wrong.
pub const MAX_FAULTS: usize = 1000;
/// Most lists that are cached; more are not.
pub const MAX_CACHED_LISTS: usize = 1000;
/// Most bytes of them.
pub const MAX_CACHED_BYTES: usize = 64 << 20;

/// See the module. The default is what `waypost sonzai stub` has without flags.
#[derive(Clone, Debug)]
pub struct Options {
    /// On loopback; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The only key that is right.
    pub key: SecretString,
    /// The key's own project, and the only one that is there.
    pub project: String,
    /// `agent-1`, named `Luna 1`, to `agent-N`.
    pub agents: usize,
    /// Notifications that each agent has pending at the start.
    pub notifications: usize,
    /// Wakeups that each agent has pending at the start, a day ahead.
    pub wakeups: usize,
    pub answers: Answers,
    /// Before the second attempt of a delivery; doubled before each further one.
    pub retry_delay: Duration,
    /// Whether a retry is signed again with a new `t`, or repeats the first header.
    pub resign: bool,
    /// How long a delivery's receiver may take to answer.
    pub delivery_timeout: Duration,
    /// The CAs that a delivery over https trusts; those of the system if left out.
    pub ca: Option<PathBuf>,
    /// How long a list of notifications is answered from a cache.
    pub cache: Duration,
    /// When a project notification that nobody took is no more.
    pub expire: Option<Duration>,
    /// Requests a second, beyond which they are refused with 429.
    pub rate: Option<u32>,
    /// How often due wakeups are looked for.
    pub tick: Duration,
}

/// How answers look where the document leaves a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Answers {
    /// Empty lists are `null`, and objects have a member more than the document says
    #[default]
    Real,
    /// No nulls, no further members: what the Python SDK needs
    Strict,
}

/// What is out of bounds.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    #[error("{0} agents are too many: at most {MAX_AGENTS}")]
    Agents(usize),
    #[error("so many agents with so many notifications are more than {MAX_MESSAGES}")]
    Notifications,
    #[error("so many agents with so many wakeups are more than {MAX_WAKEUPS}")]
    Wakeups,
    #[error("a key or project that is empty matches nothing")]
    Empty,
    #[error("0 requests a second would refuse them all; leave the rate out for none")]
    Rate,
    #[error("due wakeups cannot be looked for all the time: the tick is zero")]
    Tick,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            key: DEFAULT_KEY.into(),
            project: DEFAULT_PROJECT.into(),
            agents: 3,
            notifications: 2,
            wakeups: 1,
            answers: Answers::default(),
            retry_delay: Duration::from_secs(1),
            resign: true,
            delivery_timeout: Duration::from_secs(10),
            ca: None,
            cache: Duration::ZERO,
            expire: None,
            rate: None,
            tick: Duration::from_secs(1),
        }
    }
}

impl Options {
    pub(super) fn check(&self) -> Result<(), Wrong> {
        use secrecy::ExposeSecret;

        let Options { agents, notifications, wakeups, .. } = *self;
        let within = |each: usize, most| agents.checked_mul(each).is_some_and(|all| all <= most);
        if agents > MAX_AGENTS {
            return Err(Wrong::Agents(agents));
        }
        if !within(notifications, MAX_MESSAGES) {
            return Err(Wrong::Notifications);
        }
        if !within(wakeups, MAX_WAKEUPS) {
            return Err(Wrong::Wakeups);
        }
        if self.key.expose_secret().is_empty() || self.project.is_empty() {
            return Err(Wrong::Empty);
        }
        if self.rate == Some(0) {
            return Err(Wrong::Rate);
        }
        if self.tick.is_zero() { Err(Wrong::Tick) } else { Ok(()) }
    }
}
