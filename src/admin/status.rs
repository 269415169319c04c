//! The daemon at a glance: what `/api/status` says and `waypost status` reads.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    config::Facts,
    damage::DamageStatus,
    ready::Reason,
    view::{Broker, Role, View},
};
use crate::{
    clock::{now_ms, rfc3339},
    commands::{self, stats::Shown},
    dispatch::State,
    footprint::Footprint,
    journal::{Journal, Room},
    sonzai::{poller::Poll, service::Account},
    source::{Provider, Source},
};

/// See the module. Counts are since the start of the process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    /// RFC 3339.
    pub started: String,
    pub uptime_seconds: u64,
    pub ready: bool,
    pub reasons: Vec<Reason>,
    pub events: Events,
    pub sources: Vec<SourceStatus>,
    /// Requests on no source's path.
    pub unknown_paths: u64,
    pub connections: Bounded,
    pub body_bytes_in_flight: Bounded,
    /// How many keys of events are remembered, so that the same one twice is one.
    pub known_events: Bounded,
    pub journal: Store,
    /// What the daemon may still write to the disk of its data directory; not told while that hangs.
    pub disk_left_bytes: Option<u64>,
    /// What waits for the disk for longer than `journal.commit_timeout`.
    #[serde(default)]
    pub hangs: Vec<HangStatus>,
    /// What the data directory may come to hold.
    #[serde(default)]
    pub data_dir: DataDirStatus,
    pub dead_letters: Store,
    /// What of the journals is damaged, or cannot be read at present.
    #[serde(default)]
    pub damage: DamageStatus,
    /// Of each source with `poll:`.
    #[serde(default)]
    pub polls: Vec<Poll>,
    pub brokers: Vec<BrokerStatus>,
    /// Where commands are taken from.
    #[serde(default)]
    pub commands: Vec<CommandStatus>,
    pub config: ConfigStatus,
}

/// Over all sources.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Events {
    /// New ones, on disk.
    pub accepted: u64,
    pub duplicates: u64,
    pub accepted_per_second: f64,
    /// What this rate and those of the brokers are over: the last minute, or the time since the
    /// start.
    pub rates_over_seconds: f64,
}

/// One source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    pub name: String,
    pub duplicates: u64,
    /// Right signatures with a timestamp too far from our clock.
    pub stale: u64,
    /// Requests by status of their answer.
    pub answers: BTreeMap<String, u64>,
    /// Of one with `api:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<WebhooksStatus>,
}

/// What a source has registered at Sonzai, as far as it is known here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WebhooksStatus {
    /// Types that `register:` names.
    pub wanted: u64,
    /// Types of those that have no secret here at all: their deliveries are answered 503.
    pub without_secret: Vec<String>,
    /// Secrets that the API gave, and that sign now.
    pub secrets: u64,
    pub changing: Vec<ChangingStatus>,
    /// Why secrets cannot be kept or had.
    pub trouble: Option<String>,
}

/// A secret that is being changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangingStatus {
    #[serde(rename = "type")]
    pub event_type: String,
    /// RFC 3339.
    pub since: String,
    pub since_seconds: u64,
}

/// A journal whose disk does not answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HangStatus {
    /// `main`, `dead_letters` or `parked`.
    pub journal: String,
    pub seconds: f64,
}

/// The data directory by its bounds; the files of `log` brokers come on top.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct DataDirStatus {
    pub limit_bytes: u64,
    #[serde(flatten)]
    pub parts: Footprint,
}

/// Something with a bound.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bounded {
    pub now: u64,
    pub max: u64,
}

/// Something kept on disk.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Store {
    /// How many there are.
    pub count: u64,
    pub bytes: u64,
    pub max_bytes: u64,
}

/// The routing table: what is in force, and whether the file is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConfigStatus {
    pub file: PathBuf,
    pub hash: String,
    /// In force since then; RFC 3339.
    pub since: String,
    /// Whether it is the last good one, since the file was bad when the daemon started.
    pub last_good: bool,
    /// Why the file as it is now is not in force; none if it is.
    pub problems: Vec<String>,
    pub restart_needed: Vec<String>,
    /// Why the daemon could not start with `waypost.toml` as it is now.
    #[serde(default)]
    pub settings_problem: Option<String>,
}

/// One broker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BrokerStatus {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Role,
    pub state: State,
    /// Of the state; RFC 3339.
    pub since: String,
    pub since_seconds: u64,
    pub trouble: Option<String>,
    /// Journal records that it has not settled.
    pub lag_records: u64,
    pub lag_bytes: u64,
    /// How long the first message that it is owed has waited; 0 if none waits.
    pub oldest_waiting_seconds: f64,
    pub in_flight: u64,
    /// Messages that failed and wait to be tried again.
    pub retrying: u64,
    /// Messages set aside on disk, still to be delivered.
    pub parked: u64,
    pub parked_bytes: u64,
    /// Whether events that it is owed are refused, since too much waits for it already.
    pub backlog_full: bool,
    pub confirmed: u64,
    pub confirmed_per_second: f64,
    /// Since the start; those that are kept are in the status of all.
    pub dead_letters: u64,
    /// Records that it may have been owed and that were damaged on disk, since the start.
    #[serde(default)]
    pub lost_records: u64,
}

/// One place of `commands:`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CommandStatus {
    pub name: String,
    /// Whose API carries them out.
    pub source: String,
    pub broker: String,
    pub state: commands::stats::State,
    /// Of the state; RFC 3339.
    pub since: String,
    pub since_seconds: u64,
    pub trouble: Option<String>,
    /// Messages, each time.
    pub taken: u64,
    pub scheduled: u64,
    pub duplicates: u64,
    /// Since the start; those that are kept are in the status of all.
    pub dead_letters: u64,
    /// Calls of the API that failed and were made again.
    pub retries: u64,
}

impl View {
    /// The daemon at a glance. Asks the disk, so it may block.
    pub fn status(&self) -> Status {
        let reasons = self.not_ready();
        let (accepted_per_second, confirmed_per_second, over) = self.rates();
        let table = self.table.load();
        let sources: Vec<SourceStatus> =
            table.sources().map(|(_, source)| self.source_status(source)).collect();
        let ingress = &self.ingress;
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: rfc3339(self.started_ms),
            uptime_seconds: self.started.elapsed().as_secs(),
            ready: reasons.is_empty(),
            reasons,
            events: Events {
                accepted: self.accepted(),
                duplicates: sources.iter().map(|source| source.duplicates).sum(),
                accepted_per_second,
                rates_over_seconds: over.as_secs_f64(),
            },
            sources,
            unknown_paths: ingress.stats().strangers.read().map(|(_, count)| count).sum(),
            connections: Bounded {
                now: self.connections.open(),
                max: self.connections.max_connections as u64,
            },
            body_bytes_in_flight: Bounded {
                now: ingress.in_flight_bytes() as u64,
                max: ingress.limits().max_in_flight_bytes as u64,
            },
            known_events: Bounded {
                now: self.window.len() as u64,
                max: self.window.limits().max_keys as u64,
            },
            journal: Store::of(&self.main),
            disk_left_bytes: self.disk_left_bytes(),
            hangs: self.hang_status(),
            data_dir: DataDirStatus::of(self.footprint()),
            dead_letters: Store::of(&self.dead_letters),
            damage: self.damage(),
            polls: self.polls(),
            brokers: self
                .brokers
                .load()
                .iter()
                .map(|broker| {
                    let rate = confirmed_per_second.get(&broker.name).copied();
                    self.broker_status(broker, rate.unwrap_or_default())
                })
                .collect(),
            commands: self.commands.load().iter().map(CommandStatus::of).collect(),
            config: ConfigStatus::of(&self.config.facts()),
        }
    }

    fn hang_status(&self) -> Vec<HangStatus> {
        let hangs = self.hangs().into_iter().filter(|(_, hangs)| !hangs.is_zero());
        let status = |(journal, hangs): (&str, std::time::Duration)| HangStatus {
            journal: journal.to_owned(),
            seconds: hangs.as_secs_f64(),
        };
        hangs.map(status).collect()
    }

    fn polls(&self) -> Vec<Poll> {
        let max_agents = self.sonzai.settings().max_agents as u64;
        let accounts = self.sonzai.accounts();
        let polls = accounts.iter().filter_map(|account| {
            let poll = account.settings.poll.as_ref()?;
            Some(account.polled.status(&account.source, poll, max_agents))
        });
        polls.collect()
    }

    fn source_status(&self, source: &Source) -> SourceStatus {
        let stats = &source.stats;
        let answers = stats.answers.read().filter(|(_, count)| *count > 0);
        let accounts = self.sonzai.accounts();
        let account = accounts.iter().find(|account| account.source == source.name);
        SourceStatus {
            name: source.name.to_string(),
            duplicates: stats.duplicates.get(),
            stale: stats.stale.get(),
            answers: answers.map(|(status, count)| (status.to_owned(), count)).collect(),
            webhooks: account.map(|account| WebhooksStatus::of(account, source)),
        }
    }

    fn broker_status(&self, broker: &Broker, confirmed_per_second: f64) -> BrokerStatus {
        let (stats, condition) = (&broker.stats, broker.stats.condition());
        let lag = self.lag(broker);
        BrokerStatus {
            name: broker.name.to_string(),
            kind: broker.role(),
            state: condition.state,
            since: rfc3339(condition.since_ms),
            since_seconds: now_ms().saturating_sub(condition.since_ms) / 1000,
            trouble: condition.trouble,
            lag_records: lag.records,
            lag_bytes: lag.bytes,
            oldest_waiting_seconds: broker.oldest_waiting().as_secs_f64(),
            in_flight: stats.in_flight.get(),
            retrying: stats.retrying.get(),
            parked: broker.parked(),
            parked_bytes: broker.parked_bytes(),
            backlog_full: self.backlogs.is_full(&broker.name),
            confirmed: stats.confirmed.get(),
            confirmed_per_second,
            dead_letters: stats.dead_letters.get(),
            lost_records: self.lost(broker),
        }
    }
}

impl CommandStatus {
    fn of(shown: &Shown) -> CommandStatus {
        let (stats, condition) = (&shown.stats, shown.stats.condition());
        CommandStatus {
            name: shown.name.to_string(),
            source: shown.source.to_string(),
            broker: shown.broker.to_string(),
            state: condition.state,
            since: rfc3339(condition.since_ms),
            since_seconds: now_ms().saturating_sub(condition.since_ms) / 1000,
            trouble: condition.trouble,
            taken: stats.taken.get(),
            scheduled: stats.scheduled.get(),
            duplicates: stats.duplicates.get(),
            dead_letters: stats.dead_letters.get(),
            retries: stats.retries.get(),
        }
    }
}

impl ConfigStatus {
    fn of(facts: &Facts) -> ConfigStatus {
        let Facts { file, in_force, last_attempt, restart_needed, settings_problem } =
            facts.clone();
        ConfigStatus {
            file,
            hash: in_force.hash,
            since: in_force.since,
            last_good: in_force.last_good,
            problems: last_attempt.problems,
            restart_needed,
            settings_problem,
        }
    }
}

impl WebhooksStatus {
    fn of(account: &Account, source: &Source) -> WebhooksStatus {
        let types = account.settings.register.as_ref().map(|register| &register.types[..]);
        let types = types.unwrap_or_default();
        let (store, now_ms) = (&account.store, now_ms());
        let has_key = |event_type: &str| match &source.provider {
            Provider::Sonzai(sonzai) => sonzai.has_key(event_type, now_ms),
            _ => true,
        };
        let changing = store.changes().into_iter().map(|(change, _)| ChangingStatus {
            event_type: change.name.event_type,
            since: rfc3339(change.since_ms),
            since_seconds: now_ms.saturating_sub(change.since_ms) / 1000,
        });
        let behind = store.is_behind().then(|| "the newest are not written to disk yet".to_owned());
        WebhooksStatus {
            wanted: types.len() as u64,
            without_secret: types.iter().filter(|of| !has_key(of)).cloned().collect(),
            secrets: store.secrets() as u64,
            changing: changing.collect(),
            trouble: store.trouble().map(|trouble| trouble.to_string()).or(behind),
        }
    }
}

impl DataDirStatus {
    fn of(parts: Footprint) -> DataDirStatus {
        DataDirStatus { limit_bytes: parts.total_bytes(), parts }
    }
}

impl Store {
    fn of(journal: &Journal) -> Store {
        let Room { records: count, bytes, max_bytes } = journal.room();
        Store { count, bytes, max_bytes }
    }
}
