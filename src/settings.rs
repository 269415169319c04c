//! Process settings: defaults, then `waypost.toml` if present, then `WAYPOST_*`, then flags.
//!
//! What the routing table says is in `routes.yaml` alone. Nested settings are written
//! `WAYPOST_JOURNAL__MAX_BYTES` in the environment. Sizes are bytes, durations read `10s`, `5m`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

mod bounds;
mod environment;
mod error;

pub use error::Error;

/// How every variable of ours begins.
const PREFIX: &str = "WAYPOST_";

/// The file that is read if it is there.
pub const FILE: &str = "waypost.toml";

/// Largest `ingress.max_body_bytes`: a record with its headers must fit the journal's largest.
const MOST_BODY_BYTES: u64 = 16 << 20;

/// Least of a sender's deadlines: below it nobody could keep them.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// Largest `dispatch.window_messages`: two lanes of it still fit what the NATS client may have
/// unconfirmed.
const MOST_WINDOW_MESSAGES: u64 = 4096;

/// All process settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The routing table.
    pub routes: PathBuf,
    /// Where the journal, cursors, parked messages and dead letters live.
    pub data_dir: PathBuf,
    /// Where webhooks are received. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where operators look, without the token at all but payloads. Keep it on loopback.
    pub admin_listen: SocketAddr,
    pub ingress: Ingress,
    pub journal: Journal,
    pub dedupe: Dedupe,
    pub dispatch: Dispatch,
    pub dead_letters: DeadLetters,
    pub shutdown: Shutdown,
    pub sonzai: Sonzai,
    pub log: Log,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            routes: "routes.yaml".into(),
            data_dir: "data".into(),
            listen: ([0, 0, 0, 0], 8080).into(),
            admin_listen: ([127, 0, 0, 1], 9090).into(),
            ingress: Ingress::default(),
            journal: Journal::default(),
            dedupe: Dedupe::default(),
            dispatch: Dispatch::default(),
            dead_letters: DeadLetters::default(),
            shutdown: Shutdown::default(),
            sonzai: Sonzai::default(),
            log: Log::default(),
        }
    }
}

/// What a sender may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ingress {
    pub tls: Tls,
    /// HTTP/2 beside HTTP/1.1: by ALPN over TLS, else by prior knowledge.
    pub http2: bool,
    /// Largest body; above it 413.
    pub max_body_bytes: u32,
    /// All bodies being read or committed at once; above it 503.
    pub max_in_flight_bytes: u32,
    /// Largest request head; above it 431.
    pub max_head_bytes: u32,
    /// Connections at once, and requests at once over all of them beyond the first few of each; more
    /// get 503.
    pub max_connections: u32,
    /// A connection that sends nothing for this long, or is not through its TLS handshake, is closed.
    #[serde(with = "duration")]
    pub first_byte_timeout: Duration,
    /// A head must be complete after this long; an idle connection is closed after it.
    #[serde(with = "duration")]
    pub head_timeout: Duration,
    /// A body must be complete after this long; then 408.
    #[serde(with = "duration")]
    pub body_timeout: Duration,
}

impl Default for Ingress {
    fn default() -> Ingress {
        Ingress {
            tls: Tls::default(),
            http2: false,
            max_body_bytes: 2 << 20,
            max_in_flight_bytes: 256 << 20,
            max_head_bytes: 16 << 10,
            max_connections: 4096,
            first_byte_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
        }
    }
}

/// The daemon's certificate: both files, or neither for plain HTTP. They are read again when they
/// change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM: the certificate, then its issuers up to the root.
    pub cert: Option<PathBuf>,
    /// PEM: its private key, not encrypted.
    pub key: Option<PathBuf>,
}

/// How much waits on disk.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Journal {
    /// The whole journal; above it 503.
    pub max_bytes: u64,
    /// When a new segment begins.
    pub segment_bytes: u64,
    /// The newest records, kept in memory for dispatchers that keep up.
    pub tail_bytes: usize,
    /// Room that is kept for the next start on a full disk; 0 keeps none.
    pub reserve_bytes: u64,
    /// How long a group commit may take: past it the daemon is not ready, and answers 503.
    #[serde(with = "duration")]
    pub commit_timeout: Duration,
    /// How long a broker waits before what the disk cannot read, before it goes on behind it.
    #[serde(with = "duration")]
    pub read_patience: Duration,
    /// How long what every broker has is kept for a replay; 0 keeps nothing.
    #[serde(with = "duration")]
    pub keep: Duration,
    /// Segments with damage, kept for whoever can make sense of them; past it only what is damaged.
    pub quarantine_max_bytes: u64,
    /// The format of what is written; the one before is the way back to the version before.
    pub write_version: u32,
}

impl Default for Journal {
    fn default() -> Journal {
        Journal {
            max_bytes: 8 << 30,
            segment_bytes: 64 << 20,
            tail_bytes: 16 << 20,
            // A group commit, which an opening copies at most, and the first blocks of some files.
            reserve_bytes: 12 << 20,
            commit_timeout: Duration::from_secs(5),
            read_patience: Duration::from_secs(60),
            keep: Duration::ZERO,
            quarantine_max_bytes: 256 << 20,
            write_version: 2,
        }
    }
}

/// How long and how many events are remembered, so that the same one twice is one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dedupe {
    #[serde(with = "duration")]
    pub window: Duration,
    pub max_keys: usize,
}

impl Default for Dedupe {
    fn default() -> Dedupe {
        Dedupe { window: Duration::from_secs(24 * 3600), max_keys: 1_000_000 }
    }
}

/// How each broker is served.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// Messages under way per broker; what a crash may publish again.
    pub window_messages: usize,
    /// Bytes under way per broker.
    pub window_bytes: usize,
    /// How long a message that fails by itself is tried before it is a dead letter.
    #[serde(with = "duration")]
    pub retry_for: Duration,
    /// What one broker may hold back of the journal, and what it may have parked; 0 is half of
    /// `journal.max_bytes`.
    pub backlog_max_bytes: u64,
}

impl Default for Dispatch {
    fn default() -> Dispatch {
        Dispatch {
            window_messages: 2048,
            window_bytes: 32 << 20,
            retry_for: Duration::from_secs(600),
            backlog_max_bytes: 0,
        }
    }
}

/// What was given up on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetters {
    /// When full, messages stay with their broker, unsettled.
    pub max_bytes: u64,
}

impl Default for DeadLetters {
    fn default() -> DeadLetters {
        DeadLetters { max_bytes: 1 << 30 }
    }
}

/// How the daemon ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long requests are still accepted after the first signal, so that a load balancer can
    /// notice; unset: 5 s, or none on a terminal.
    #[serde(with = "optional_duration")]
    pub delay: Option<Duration>,
    /// How long requests, and then brokers, may take to finish.
    #[serde(with = "duration")]
    pub deadline: Duration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { delay: None, deadline: Duration::from_secs(10) }
    }
}

/// What a source asks of Sonzai's API.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sonzai {
    /// How long one attempt may take, from connecting to the last byte of the answer.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How often a call is tried in all, where trying again may help.
    pub max_attempts: u32,
    /// The longest pause before the next attempt; a longer `Retry-After` ends the call.
    #[serde(with = "duration")]
    pub max_pause: Duration,
    /// Largest answer.
    pub max_answer_bytes: usize,
    /// Requests a second of one source, over all that it does.
    pub max_requests_per_second: u32,
    /// Lists of one source that are polled at once; one list is never asked for twice at a time.
    pub max_concurrent_lists: usize,
    /// Agents of one source that are polled; more are told, and not polled.
    pub max_agents: usize,
    /// Between two looks at the same list while push works.
    #[serde(with = "duration")]
    pub slow_every: Duration,
    /// How long after its creation an item's webhook may come: an older one that no webhook brought
    /// says that push does not work.
    #[serde(with = "duration")]
    pub push_grace: Duration,
    /// How long a mismatch is answered 503 while a secret is being changed.
    #[serde(with = "duration")]
    pub rotation_hold: Duration,
}

impl Default for Sonzai {
    fn default() -> Sonzai {
        Sonzai {
            request_timeout: Duration::from_secs(30),
            max_attempts: 4,
            max_pause: Duration::from_secs(30),
            max_answer_bytes: 16 << 20,
            max_requests_per_second: 50,
            max_concurrent_lists: 4,
            max_agents: 10_000,
            slow_every: Duration::from_secs(300),
            push_grace: Duration::from_secs(120),
            rotation_hold: Duration::from_secs(600),
        }
    }
}

/// What the log looks like.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// A level, or directives like `waypost=debug,info`.
    pub level: Option<String>,
    /// Lines that wait for whoever reads the log, of 1 KiB on average; more are dropped.
    pub max_queued_lines: usize,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Auto, level: None, max_queued_lines: 8192 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

/// What `--help` lists them under, behind what a command has of its own.
const EVERYWHERE: &str = "Options of every command";

/// The four flags that scripts rely on, each `None` where it was not given.
#[derive(Clone, Debug, Default, Serialize, clap::Args)]
pub struct Flags {
    /// The routing table [default: routes.yaml]
    #[arg(long, env = "WAYPOST_ROUTES", value_name = "FILE")]
    #[arg(global = true, help_heading = EVERYWHERE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<PathBuf>,
    /// Where the journal and everything else is kept [default: data]
    #[arg(long, env = "WAYPOST_DATA_DIR", value_name = "DIR")]
    #[arg(global = true, help_heading = EVERYWHERE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Where webhooks are received; port 0 picks a free one [default: 0.0.0.0:8080]
    #[arg(long, env = "WAYPOST_LISTEN", value_name = "IP:PORT")]
    #[arg(global = true, help_heading = EVERYWHERE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Where operators look; port 0 picks a free one [default: 127.0.0.1:9090]
    #[arg(long, env = "WAYPOST_ADMIN_LISTEN", value_name = "IP:PORT")]
    #[arg(global = true, help_heading = EVERYWHERE)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<SocketAddr>,
}

impl Settings {
    /// Reads the settings; the error names the setting and where its value came from.
    pub fn load(file: &Path, flags: &Flags) -> Result<Settings, Error> {
        environment::check(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
        Figment::from(Serialized::defaults(Settings::default()))
            .merge(Toml::file(file))
            .merge(environment::settings())
            .merge(Serialized::defaults(flags))
            .extract()
            .map_err(Error::from)
            .and_then(Settings::check)
    }

    /// Refuses what could never work, where the setting can still be named.
    fn check(self) -> Result<Settings, Error> {
        let (ingress, journal, dispatch) = (&self.ingress, &self.journal, &self.dispatch);
        let max_body = u64::from(ingress.max_body_bytes);
        for (name, value, least, most) in [
            ("ingress.max_body_bytes", max_body, 1, MOST_BODY_BYTES),
            ("ingress.max_in_flight_bytes", ingress.max_in_flight_bytes.into(), max_body, u64::MAX),
            ("ingress.max_head_bytes", ingress.max_head_bytes.into(), 8 << 10, 1 << 20),
            ("ingress.max_connections", ingress.max_connections.into(), 1, u64::MAX),
            ("journal.max_bytes", journal.max_bytes, 64 << 10, u64::MAX),
            ("journal.segment_bytes", journal.segment_bytes, 4 << 10, u64::MAX),
            ("journal.write_version", journal.write_version.into(), 1, 2),
            ("dedupe.max_keys", self.dedupe.max_keys as u64, 1, u64::MAX),
            ("dispatch.window_messages", dispatch.window_messages as u64, 1, MOST_WINDOW_MESSAGES),
            ("dispatch.window_bytes", dispatch.window_bytes as u64, 1, u64::MAX),
            ("dead_letters.max_bytes", self.dead_letters.max_bytes, 64 << 10, u64::MAX),
            ("sonzai.max_attempts", self.sonzai.max_attempts.into(), 1, 10),
            ("sonzai.max_answer_bytes", self.sonzai.max_answer_bytes as u64, 64 << 10, 256 << 20),
            (
                "sonzai.max_requests_per_second",
                self.sonzai.max_requests_per_second.into(),
                1,
                10_000,
            ),
            ("sonzai.max_concurrent_lists", self.sonzai.max_concurrent_lists as u64, 1, 256),
            ("sonzai.max_agents", self.sonzai.max_agents as u64, 1, 1_000_000),
            ("log.max_queued_lines", self.log.max_queued_lines as u64, 64, 1_000_000),
        ] {
            if !(least..=most).contains(&value) {
                let bounds = if most == u64::MAX {
                    format!("at least {least}")
                } else {
                    format!("{least} to {most}")
                };
                return Err(Error::new(format!("`{name}` is {value}; it must be {bounds}")));
            }
        }
        for (name, value) in [
            ("ingress.first_byte_timeout", ingress.first_byte_timeout),
            ("ingress.head_timeout", ingress.head_timeout),
            ("ingress.body_timeout", ingress.body_timeout),
            ("journal.commit_timeout", journal.commit_timeout),
            ("sonzai.slow_every", self.sonzai.slow_every),
        ] {
            if value < LEAST_TIMEOUT {
                let value = humantime::format_duration(value);
                return Err(Error::new(format!(
                    "`{name}` is {value}; it must be at least 1ms, and 0 does not stand for unlimited"
                )));
            }
        }
        let (given, missing) = match (&ingress.tls.cert, &ingress.tls.key) {
            (Some(_), None) => ("cert", "key"),
            (None, Some(_)) => ("key", "cert"),
            _ => return Error::of(self.contradictions()).map_or(Ok(self), Err),
        };
        Err(Error::new(format!(
            "`ingress.tls.{given}` is set and `ingress.tls.{missing}` is not; set both"
        )))
    }

    /// The files of the daemon's certificate and its key, where it is to speak TLS.
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        Some((self.ingress.tls.cert.as_deref()?, self.ingress.tls.key.as_deref()?))
    }

    /// What one broker may hold back, and have parked.
    pub fn backlog_bytes(&self) -> u64 {
        match self.dispatch.backlog_max_bytes {
            0 => self.journal.max_bytes / 2,
            bytes => bytes,
        }
    }
}

/// `10s`, `5m`, `24h`.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&humantime::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(input)?;
        humantime::parse_duration(&text).map_err(|error| {
            let hint = "write `10s`, `5m` or `24h`";
            D::Error::custom(format!("{text:?} is no duration ({error}): {hint}"))
        })
    }
}

/// The same, where nothing means the default.
mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => super::duration::serialize(value, out),
            None => out.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Given(#[serde(with = "super::duration")] Duration);
        Ok(Option::<Given>::deserialize(input)?.map(|Given(value)| value))
    }
}

#[cfg(test)]
mod tests;
