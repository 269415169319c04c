//! One topic, queue, stream and log file that the events of a test all go to, and what arrived there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::value::RawValue;

use super::{
    brokers::{Kafka, Nats, RabbitMq},
    consume::{self, Consumed, Until},
    daemon::SOURCES,
    sender::{self, Webhook},
    shared::Brokers,
};

/// How long a message that must come may take in all: a broker may have to recover first, and the
/// dispatcher to work off what waited.
const ARRIVES_WITHIN: Duration = Duration::from_secs(150);

/// The event type that goes to every sink, and the one that goes to all but RabbitMQ.
pub const TO_ALL: &str = "agent.message";
pub const NOT_TO_RABBITMQ: &str = "agent.mood_change";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sink {
    Kafka,
    RabbitMq,
    Nats,
    Log,
}

impl Sink {
    pub const ALL: [Sink; 4] = [Sink::Kafka, Sink::RabbitMq, Sink::Nats, Sink::Log];

    /// The broker's name in `routes.yaml`.
    pub fn broker(self) -> &'static str {
        match self {
            Sink::Kafka => "stream",
            Sink::RabbitMq => "tasks",
            Sink::Nats => "live",
            Sink::Log => "local",
        }
    }
}

/// One message, as much of it as tells whether it is the one that was sent.
pub struct Arrived {
    pub id: String,
    pub body: Vec<u8>,
}

/// Where the brokers are.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// `host:port`
    pub kafka: String,
    /// `amqp://…`
    pub rabbitmq: String,
    /// `nats://…`, several separated by commas.
    pub nats: String,
}

impl Addresses {
    pub fn of(kafka: &Kafka, rabbitmq: &RabbitMq, nats: &Nats) -> Addresses {
        Addresses {
            kafka: kafka.bootstrap().to_owned(),
            rabbitmq: rabbitmq.url().to_owned(),
            nats: nats.url().to_owned(),
        }
    }

    /// Those of the brokers that all tests share.
    pub fn shared() -> Addresses {
        let shared = Brokers::shared();
        Addresses::of(&shared.kafka, &shared.rabbitmq, &shared.nats)
    }
}

/// See the module.
pub struct Sinks {
    name: String,
    brokers: Addresses,
    /// How the daemon reaches them.
    pub daemon_s: Addresses,
    log: PathBuf,
}

impl Sinks {
    /// Creates what the events of a daemon in `dir` go to. `name` is the test's own.
    pub async fn create(name: &str, brokers: Addresses, dir: &Path) -> Sinks {
        Sinks::replicated(name, brokers, dir, 1).await
    }

    /// The same, with so many replicas of the NATS stream.
    pub async fn replicated(
        name: &str,
        brokers: Addresses,
        dir: &Path,
        num_replicas: usize,
    ) -> Sinks {
        consume::create_topic(&brokers.kafka, name, 3, &[]).await;
        consume::declare_queue(&brokers.rabbitmq, name, name, "#", Default::default()).await;
        let stream = async_nats::jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![format!("{name}.>")],
            num_replicas,
            ..Default::default()
        };
        consume::create_stream(&brokers.nats, stream).await;
        let (name, log) = (name.to_owned(), dir.join("data/log"));
        Sinks { name, daemon_s: brokers.clone(), brokers, log }
    }

    /// The daemon's `routes.yaml`.
    pub fn routes(&self) -> String {
        let Sinks { name, daemon_s, .. } = self;
        let Addresses { kafka, rabbitmq, nats } = daemon_s;
        format!(
            r#"{SOURCES}
brokers:
  stream: {{ type: kafka, bootstrap: "{kafka}" }}
  tasks: {{ type: rabbitmq, url: "{rabbitmq}" }}
  live: {{ type: nats, url: "{nats}" }}
  local: {{ type: log }}
routes:
  - name: tasks
    match: {{ type: {TO_ALL} }}
    to: [{{ broker: tasks, exchange: {name}, routing_key: "{{subject}}" }}]
  - name: all
    match: {{ type: "**" }}
    to:
      - {{ broker: stream, topic: {name}, key: "{{subject}}" }}
      - {{ broker: live, subject: "{name}.{{subject}}" }}
      - {{ broker: local, topic: {name} }}
"#
        )
    }

    /// Of a cluster, another server is read from now on.
    pub fn read_from_nats(&mut self, url: String) {
        self.brokers.nats = url;
    }

    /// Waits until each of these events is there; what was read until then.
    pub async fn await_events(&self, sink: Sink, ids: &[String]) -> Vec<Arrived> {
        let (wanted, started) = (ids.iter().cloned().collect(), Instant::now());
        loop {
            let arrived = self.read(sink, Until::from(&wanted)).await;
            let there: BTreeSet<&str> = arrived.iter().map(|message| &*message.id).collect();
            let missing = wanted.iter().filter(|id| !there.contains(&***id)).count();
            if missing == 0 {
                return arrived;
            }
            assert!(
                started.elapsed() < ARRIVES_WITHIN,
                "{missing} of {} events are missing at {sink:?}, among {} messages",
                wanted.len(),
                arrived.len()
            );
        }
    }

    /// Everything there is once each of these events, and no other, may still be on its way.
    pub async fn read_all(&self, sink: Sink, ids: &[String]) -> Vec<Arrived> {
        self.await_events(sink, ids).await;
        self.read(sink, Until::Quiet(ids.len())).await
    }

    async fn read(&self, sink: Sink, until: Until<'_>) -> Vec<Arrived> {
        let name = &*self.name;
        let messages = match sink {
            Sink::Kafka => consume::read_topic(&self.brokers.kafka, name, until).await,
            Sink::RabbitMq => consume::read_queue(&self.brokers.rabbitmq, name, until).await,
            Sink::Nats => consume::read_stream(&self.brokers.nats, name, until).await,
            Sink::Log => {
                // Nothing waits here: a short pause keeps the loop above from spinning.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return read_log(&self.log, name);
            }
        };
        messages.into_iter().map(arrived).collect()
    }
}

fn arrived(message: Consumed) -> Arrived {
    let id = message.event_id().expect("an id").to_owned();
    Arrived { id, body: message.body.expect("a body") }
}

#[derive(serde::Deserialize)]
struct Document<'a> {
    id: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

/// The whole lines of a topic's files, those moved aside first; the last line may be on its way.
fn read_log(dir: &Path, topic: &str) -> Vec<Arrived> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_topic = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix(topic).is_some_and(|rest| rest.starts_with(['+', '.']))
    };
    let mut files: Vec<PathBuf> = files.filter(of_topic).collect();
    files.sort();
    let text: String = files.iter().flat_map(fs::read_to_string).collect();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| {
        let Document { id, data, data_base64 } = serde_json::from_str(line).expect("a document");
        let body = match (data, data_base64) {
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(text)) => BASE64_STANDARD.decode(text).expect("base64"),
            _ => panic!("a document has its body once: {line}"),
        };
        Arrived { id, body }
    };
    whole.lines().map(parse).collect()
}

/// The `number`-th event of an agent, which is also its key. Its body can be told from any other.
pub fn event(event_type: &str, agent: &str, number: u64, padding_bytes: usize) -> Webhook {
    sender::sonzai(event_type, body(agent, number, padding_bytes))
}

fn body(agent: &str, number: u64, padding_bytes: usize) -> String {
    // The padding differs from event to event, so that a body put together from two would show.
    let digit = char::from(b'a' + (number % 26) as u8).to_string();
    let padding = digit.repeat(padding_bytes);
    format!(r#"{{ "agent_id":"{agent}", "number":{number},"padding":"{padding}" }}"#)
}

/// The agent and number of an event, whose body must be as it was sent.
pub fn told_by(message: &Arrived) -> (String, u64) {
    #[derive(serde::Deserialize)]
    struct Body {
        agent_id: String,
        number: u64,
        padding: String,
    }
    let text = std::str::from_utf8(&message.body).expect("text");
    let Body { agent_id, number, padding } = serde_json::from_str(text).expect("a body");
    assert_eq!(text, body(&agent_id, number, padding.len()), "event {}", message.id);
    (agent_id, number)
}

/// Asserts that every event that was accepted has arrived, intact; returns how many came twice.
pub fn assert_complete(sink: Sink, accepted: &[String], arrived: &[Arrived]) -> usize {
    let mut bodies = BTreeMap::new();
    for message in arrived {
        let told = told_by(message);
        let known = bodies.entry(&*message.id).or_insert_with(|| told.clone());
        assert_eq!(*known, told, "{sink:?}: two events have the id {}", message.id);
    }
    let distinct: BTreeSet<_> = bodies.values().collect();
    assert_eq!(distinct.len(), bodies.len(), "{sink:?}: an event has two ids");
    let missing = accepted.iter().filter(|id| !bodies.contains_key(&***id)).count();
    assert_eq!(missing, 0, "{sink:?}: of {} accepted events", accepted.len());
    arrived.len() - bodies.len()
}

/// Asserts that each agent's events came first in the order in which they were sent.
pub fn assert_in_order(sink: Sink, arrived: &[Arrived]) {
    let mut seen: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for message in arrived {
        let (agent, number) = told_by(message);
        let numbers = seen.entry(agent.clone()).or_default();
        if numbers.insert(number) {
            let last = numbers.last().copied();
            assert_eq!(last, Some(number), "{sink:?}: {agent}'s {number} came after {last:?}");
        }
    }
}
