//! The compiled table: sources by path, brokers, and routes that resolve an event into messages.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytestring::ByteString;
use rustc_hash::FxHashMap;
use schemars::JsonSchema;
use serde::Deserialize;

use self::index::Index;
use super::{
    condition::Condition, diagnostic::Problem, path::Path, pattern::Pattern, template::Template,
};
use crate::{
    body::Paths,
    broker::{self, kafka, nats, rabbitmq},
    event::{Format, Headers},
    meter::Counter,
    nearest::listed,
    source::{Provider, Source, sonzai::Keyring},
};

mod commands;
mod compile;
mod index;
mod resolve;

pub use commands::{CommandSettings, From};
pub(super) use compile::compile;
pub use resolve::{Mismatch, Trace, TracedMessage, TracedRoute};

/// Name of the built-in broker that owes every event no route takes; it only writes dead letters.
pub const UNROUTED: &str = "unrouted";

/// A compiled `routes.yaml`.
#[derive(Debug)]
pub struct Table {
    sources: Vec<(Path, Arc<Source>)>,
    brokers: Vec<BrokerSettings>,
    /// In the order of the file.
    routes: Vec<Route>,
    commands: Vec<CommandSettings>,
    index: Index,
    /// The body fields that any template or condition needs.
    paths: Paths,
    /// What is doubtful about the file.
    warnings: Vec<Problem>,
}

/// A broker's connection, as the file gives it.
#[derive(Clone, Debug)]
pub struct BrokerSettings {
    pub name: ByteString,
    pub kind: BrokerKind,
    pub policy: BrokerPolicy,
}

/// How patient we are with a broker; what is not given is for the process settings to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokerPolicy {
    /// How long a message that fails by itself is tried.
    pub retry_for: Option<Duration>,
    /// How long a broker that was removed goes on through its old client.
    pub drain_for: Option<Duration>,
    /// Bytes that it may hold back of the journal, and have parked.
    pub backlog_bytes: Option<u64>,
    pub when_full: WhenFull,
}

/// What becomes of events once a broker has as much parked as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Those that it is owed are refused at the door.
    #[default]
    Refuse,
    /// The oldest parked messages make room.
    DeadLetterOldest,
}

/// What kind of broker, and what its client needs. Equal ones are the same connection.
#[derive(Clone, Debug, PartialEq)]
pub enum BrokerKind {
    Kafka(kafka::Settings),
    RabbitMq(rabbitmq::Settings),
    Nats(nats::Settings),
    /// `dir`: where its files go; `None` is the data directory's own. `rotate_bytes`: when a file is
    /// moved aside; `None` is the broker's default. `keep`: how many of those stay; `None` is all.
    Log {
        dir: Option<PathBuf>,
        rotate_bytes: Option<u64>,
        keep: Option<usize>,
    },
}

impl BrokerKind {
    /// What `type:` says.
    pub fn of_type(&self) -> broker::Kind {
        match self {
            BrokerKind::Kafka(_) => broker::Kind::Kafka,
            BrokerKind::RabbitMq(_) => broker::Kind::RabbitMq,
            BrokerKind::Nats(_) => broker::Kind::Nats,
            BrokerKind::Log { .. } => broker::Kind::Log,
        }
    }
}

/// A route: what it takes, and where that goes.
#[derive(Debug)]
struct Route {
    name: ByteString,
    matcher: Matcher,
    /// `when:`
    condition: Option<Condition>,
    /// How long its messages are tried that fail by themselves; before what their broker says.
    retry_for: Option<Duration>,
    targets: Vec<Target>,
    stats: Arc<RouteStats>,
}

/// `match:`
#[derive(Debug)]
struct Matcher {
    sources: Patterns,
    types: Patterns,
    /// Takes only what no route without this took.
    otherwise: bool,
}

/// Patterns of names, of which one is enough; without any, every name is taken.
#[derive(Debug)]
struct Patterns {
    all: Vec<Pattern>,
    /// For people.
    shown: ByteString,
}

impl Patterns {
    fn new(names: &[String]) -> Patterns {
        let shown: Vec<&str> = names.iter().map(|name| &**name).collect();
        let all = names.iter().map(|name| Pattern::new(name)).collect();
        Patterns { all, shown: listed(&shown).into() }
    }

    fn take(&self, name: &str) -> bool {
        self.all.is_empty() || self.all.iter().any(|pattern| pattern.matches(name))
    }
}

#[derive(Debug)]
struct Target {
    broker: ByteString,
    address: AddressTemplate,
    format: Format,
    headers: Headers,
}

#[derive(Debug)]
enum AddressTemplate {
    Topic { topic: Template, key: Option<Template> },
    LogTopic(Template),
    Exchange { exchange: Template, routing_key: Template },
    Subject(Template),
}

/// What a route counts. Goes on through reloads that keep the route's name.
#[derive(Debug, Default)]
pub struct RouteStats {
    /// Events to which its condition could not be applied.
    pub condition_errors: Counter,
}

impl Table {
    /// Joins what was compiled.
    fn new(
        sources: Vec<(Path, Arc<Source>)>,
        brokers: Vec<BrokerSettings>,
        routes: Vec<Route>,
        commands: Vec<CommandSettings>,
        paths: Paths,
    ) -> Table {
        let mut index = Index::default();
        for (place, route) in routes.iter().enumerate() {
            index.add(place, &route.matcher);
        }
        Table { sources, brokers, routes, commands, index, paths, warnings: Vec::new() }
    }

    /// The source that owns a request path, and the event type that the path names.
    pub fn source<'p>(&self, path: &'p str) -> Option<(&Arc<Source>, Option<&'p str>)> {
        self.sources.iter().find_map(|(pattern, source)| Some((source, pattern.matches(path)?)))
    }

    /// The sources, each with its path.
    pub fn sources(&self) -> impl Iterator<Item = (&Path, &Source)> {
        self.sources.iter().map(|(path, source)| (path, &**source))
    }

    pub fn brokers(&self) -> &[BrokerSettings] {
        &self.brokers
    }

    /// Where commands are taken from, by name.
    pub fn commands(&self) -> &[CommandSettings] {
        &self.commands
    }

    /// What compiled and probably does not do what was meant.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    pub(super) fn with_warnings(self, warnings: Vec<Problem>) -> Table {
        Table { warnings, ..self }
    }

    /// The names of all routes, in the order of the file.
    pub fn route_names(&self) -> impl Iterator<Item = &ByteString> {
        self.routes.iter().map(|route| &route.name)
    }

    /// The routes that say how long their messages are tried.
    pub fn route_retries(&self) -> impl Iterator<Item = (&ByteString, Duration)> {
        self.routes.iter().filter_map(|route| Some((&route.name, route.retry_for?)))
    }

    /// The names of the routes that have a condition, and what they count.
    pub fn conditional_routes(&self) -> impl Iterator<Item = (&ByteString, &RouteStats)> {
        let conditional = self.routes.iter().filter(|route| route.condition.is_some());
        conditional.map(|route| (&route.name, &*route.stats))
    }

    /// Gives every Sonzai source the keyring of its name. For a table that nobody shares yet.
    pub fn give_keyrings(&mut self, of: impl Fn(&ByteString) -> Arc<Keyring>) {
        for (_, source) in &mut self.sources {
            let Some(source) = Arc::get_mut(source) else { continue };
            if let Provider::Sonzai(sonzai) = &mut source.provider {
                sonzai.keyring = of(&source.name);
            }
        }
    }

    /// Counts on where `old` does: the sources of the same name and type, the routes of the same
    /// name. For a table that is about to take the place of `old`.
    pub fn inherit(&mut self, old: &Table) {
        for (_, source) in &mut self.sources {
            let before = old.sources().find(|(_, before)| before.name == source.name);
            if let (Some(source), Some((_, before))) = (Arc::get_mut(source), before) {
                source.inherit(before);
            }
        }
        let stats: FxHashMap<&ByteString, &Arc<RouteStats>> =
            old.routes.iter().map(|route| (&route.name, &route.stats)).collect();
        for route in &mut self.routes {
            if let Some(stats) = stats.get(&route.name) {
                route.stats = Arc::clone(stats);
            }
        }
    }
}
#[cfg(test)]
mod tests;
