//! The compiled table: sources by path, brokers, and routes that resolve an event into messages.

use std::{cell::OnceCell, path::PathBuf, sync::Arc, time::Duration};

use bytestring::ByteString;

use super::{diagnostic::Problem, path::Path, pattern::Pattern, template::Template};
use crate::{
    body::Paths,
    broker::{kafka, nats, rabbitmq},
    event::{Address, Event, Message},
    source::Source,
};

mod compile;

pub(super) use compile::compile;

/// Name of the built-in broker that owes every event no route takes; it only writes dead letters.
pub const UNROUTED: &str = "unrouted";

/// A compiled `routes.yaml`.
#[derive(Debug)]
pub struct Table {
    sources: Vec<(Path, Arc<Source>)>,
    brokers: Vec<BrokerSettings>,
    routes: Vec<Route>,
    /// The body fields that any template needs.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Those that it is owed are refused at the door.
    #[default]
    Refuse,
    /// The oldest parked messages make room.
    DeadLetterOldest,
}

/// What kind of broker, and what its client needs.
#[derive(Clone, Debug)]
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
    pub fn name(&self) -> &'static str {
        match self {
            BrokerKind::Kafka { .. } => "kafka",
            BrokerKind::RabbitMq { .. } => "rabbitmq",
            BrokerKind::Nats { .. } => "nats",
            BrokerKind::Log { .. } => "log",
        }
    }
}

#[derive(Debug)]
struct Route {
    name: ByteString,
    /// Empty: any.
    sources: Vec<Pattern>,
    /// Empty: any.
    types: Vec<Pattern>,
    /// Takes only what no route without this took.
    otherwise: bool,
    /// How long its messages are tried that fail by themselves; before what their broker says.
    retry_for: Option<Duration>,
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    broker: ByteString,
    address: AddressTemplate,
}

#[derive(Debug)]
enum AddressTemplate {
    Topic { topic: Template, key: Option<Template> },
    Exchange { exchange: Template, routing_key: Template },
    Subject(Template),
}

impl Table {
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

    /// The messages that an event owes: every matching route's targets, or one for [`UNROUTED`].
    /// Messages that would be the same to their broker are one.
    pub fn resolve(&self, event: &Event) -> Vec<Message> {
        let body = Body { paths: &self.paths, event, fields: OnceCell::new() };
        let mut messages = Vec::new();
        for otherwise in [false, true] {
            let matching = self.routes.iter().filter(|r| r.otherwise == otherwise);
            for route in matching.filter(|route| route.matches(event)) {
                route.render(&body, &mut messages);
            }
            if !messages.is_empty() {
                return messages;
            }
        }
        let reason = format!("no route takes type {:?} from source {:?}", event.kind, event.source);
        vec![Message {
            route: ByteString::new(),
            broker: ByteString::from_static(UNROUTED),
            address: Err(reason.into()),
        }]
    }
}

impl Route {
    fn matches(&self, event: &Event) -> bool {
        let any = |patterns: &[Pattern], name: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
        };
        any(&self.sources, &event.source) && any(&self.types, &event.kind)
    }

    fn render(&self, body: &Body, messages: &mut Vec<Message>) {
        for target in &self.targets {
            let message = Message {
                route: self.name.clone(),
                broker: target.broker.clone(),
                address: target.address.render(body).map_err(Into::into),
            };
            let merges = |other: &Message| {
                message.address.is_ok()
                    && (&other.broker, &other.address) == (&message.broker, &message.address)
            };
            if !messages.iter().any(merges) {
                messages.push(message);
            }
        }
    }
}

impl AddressTemplate {
    fn render(&self, body: &Body) -> Result<Address, String> {
        Ok(match self {
            AddressTemplate::Topic { topic, key } => Address::Topic {
                topic: body.render(topic)?,
                key: key.as_ref().map(|key| body.render(key)).transpose()?,
            },
            AddressTemplate::Exchange { exchange, routing_key } => Address::Exchange {
                exchange: body.render(exchange)?,
                routing_key: body.render(routing_key)?,
            },
            AddressTemplate::Subject(subject) => Address::Subject(body.render(subject)?),
        })
    }
}

/// An event whose body is read once, and only if some template asks for it.
struct Body<'e> {
    paths: &'e Paths,
    event: &'e Event,
    fields: OnceCell<Result<crate::body::Fields<'e>, String>>,
}

impl Body<'_> {
    fn render(&self, template: &Template) -> Result<ByteString, String> {
        if !template.reads_body() {
            return template.render(self.event, Err("the body was not read"));
        }
        let fields = self.fields.get_or_init(|| {
            self.paths
                .read(&self.event.body)
                .map_err(|error| format!("the body is not JSON ({error})"))
        });
        template.render(self.event, fields.as_ref().map_err(|why| &**why))
    }
}

#[cfg(test)]
mod tests;
