//! The shape of `routes.yaml`, in plain types. The JSON Schema that the file is checked against, and
//! that editors complete it by, is derived from them: a field's comment is what an editor shows, a
//! struct's title is what a diagnostic calls it.
//!
//! `x-secret` says what a literal value may give away: `true`, all of it; `url`, what of it
//! is not plainly the address of a host, or of several; `web-url`, the same of just one; `material`,
//! all of it unless it is the path of a file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    broker::kafka::Mechanism,
    event::Format,
    routing::table::WhenFull,
    source::{Dedupe, Unrouted},
};

mod commands;
mod sonzai;

pub use commands::{Command, CommandFrom};
pub use sonzai::{Api, Poll, Register};

/// The routing table of Waypost: who may send, where to publish, and what goes where.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "the file")]
pub struct File {
    /// Who may send webhooks, by name, and how each is verified.
    pub sources: BTreeMap<String, Source>,
    /// Where to publish, by name. A broker's place in the journal is kept under its name.
    pub brokers: BTreeMap<String, Broker>,
    /// What goes where. Every route that matches an event applies.
    pub routes: Vec<Route>,
    /// Where commands are taken from, and whose API carries them out, by name.
    pub commands: Option<BTreeMap<String, Command>>,
}

/// A sender, and how its requests are verified.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schemars(title = "source")]
#[expect(clippy::large_enum_variant, reason = "there are few sources, each read once a file")]
pub enum Source {
    /// Sonzai's webhooks.
    Sonzai(SonzaiSource),
    /// miibo's webhooks.
    Miibo(SecretSource),
    /// Whoever follows Standard Webhooks, or sends through Svix.
    Standard(SecretSource),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct SonzaiSource {
    #[serde(flatten)]
    pub common: SourceCommon,
    /// The signing secret of each event type, `"*"` for all that have none of their own. One or a
    /// list, all valid at once. Beside `register` they may be left out.
    #[schemars(extend("x-secret" = true))]
    pub secrets: Option<BTreeMap<String, OneOrMany>>,
    /// What the request's Authorization header must be: the `auth_header` given at registration.
    #[schemars(extend("x-secret" = true))]
    pub authorization: Option<String>,
    pub api: Option<Api>,
    pub register: Option<Register>,
    pub poll: Option<Poll>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct SecretSource {
    #[serde(flatten)]
    pub common: SourceCommon,
    /// The signing secret, as `${NAME}` or `${file:PATH}`: one or a list, all valid at once.
    #[schemars(extend("x-secret" = true))]
    pub secret: OneOrMany,
}

/// What every source takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SourceCommon {
    /// Where its requests come in, like `/hooks/shop`; matched exactly. `{type}`, as a whole
    /// segment, is the event type for which the URL was registered.
    pub path: String,
    /// What makes an event a duplicate: its `id`, or its `body`, type and source.
    pub dedupe: Option<Dedupe>,
    /// What becomes of an event that no route takes: a dead letter, or it is dropped and counted.
    pub unrouted: Option<Unrouted>,
}

/// A connection that publishes messages.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
#[schemars(title = "broker")]
pub enum Broker {
    /// A Kafka cluster.
    Kafka(Kafka),
    /// A RabbitMQ broker.
    RabbitMq(RabbitMq),
    /// NATS with JetStream.
    Nats(Nats),
    /// The embedded broker: one file a topic.
    Log(Log),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Kafka {
    /// Where the cluster is: `host:port`, several separated by commas; the port is 9092 if left out.
    #[schemars(extend("x-secret" = "url"))]
    pub bootstrap: String,
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
    #[serde(flatten)]
    pub common: BrokerCommon,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct RabbitMq {
    /// Where the broker is: `amqp://user:password@host:port/vhost`, or `amqps://` for TLS; `%2f` is
    /// the virtual host `/`.
    #[schemars(extend("x-secret" = "url"))]
    pub url: String,
    pub tls: Option<Tls>,
    /// Who we are, where the URL does not say it; together with `password`.
    pub user: Option<String>,
    /// The user's password, as `${NAME}` or `${file:PATH}`.
    #[schemars(extend("x-secret" = true))]
    pub password: Option<String>,
    #[serde(flatten)]
    pub common: BrokerCommon,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Nats {
    /// Where the servers are: `nats://user:password@host:port`, or `tls://`, several separated by
    /// commas.
    #[schemars(extend("x-secret" = "url"))]
    pub url: String,
    pub tls: Option<Tls>,
    /// Shake hands before the server has greeted, as its `handshake_first` wants it.
    pub tls_first: Option<bool>,
    /// Who we are, where the URL does not say it; together with `password`.
    pub user: Option<String>,
    /// The user's password, as `${NAME}` or `${file:PATH}`.
    #[schemars(extend("x-secret" = true))]
    pub password: Option<String>,
    /// The token of the server, instead of a user.
    #[schemars(extend("x-secret" = true))]
    pub token: Option<String>,
    /// A user's nkey seed, or the path of a file with it.
    #[schemars(extend("x-secret" = "material"))]
    pub nkey: Option<String>,
    /// The path of a `.creds` file, or its text.
    #[schemars(extend("x-secret" = "material"))]
    pub creds: Option<String>,
    #[serde(flatten)]
    pub common: BrokerCommon,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Log {
    /// Where its files go; DATA_DIR/log if left out. Each `log` broker needs one of its own.
    pub dir: Option<String>,
    /// When a topic's file is moved aside, in bytes.
    pub rotate_bytes: Option<u64>,
    /// How many of those stay; all if left out.
    pub keep: Option<u64>,
    #[serde(flatten)]
    pub common: BrokerCommon,
}

/// What every broker takes.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct BrokerCommon {
    /// How long a message that fails by itself is tried before it is a dead letter, like
    /// `{ for: 10m }`; `dispatch.retry_for` of the settings if left out.
    pub retry: Option<For>,
    /// How long a broker that was removed, or has another type now, goes on through its old client;
    /// `{ for: 5m }` if left out.
    pub drain: Option<For>,
    pub backlog: Option<Backlog>,
    /// What becomes of events for it when its backlog is full.
    pub when_full: Option<WhenFull>,
}

/// How long.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct For {
    /// Like `30s`, `10m` or `24h`.
    pub r#for: String,
}

/// What may wait for a broker.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Backlog {
    /// How much may wait for it: bytes, or like `512MiB`.
    pub max_bytes: Size,
}

/// Bytes as a number, or as text with a unit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Size {
    Bytes(u64),
    Text(String),
}

/// TLS: `true` trusts the system's CAs; or which files to use.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Tls {
    On(bool),
    With(TlsMaterial),
}

/// What to speak TLS with. Each is the path of a PEM file, or PEM itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct TlsMaterial {
    /// The only CAs whose brokers are trusted; those of the system if left out.
    pub ca: Option<String>,
    /// Our certificate, for brokers that ask for one; together with `key`.
    pub cert: Option<String>,
    /// The certificate's private key, not encrypted.
    #[schemars(extend("x-secret" = "material"))]
    pub key: Option<String>,
}

/// A login at Kafka.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub user: String,
    /// The user's password, as `${NAME}` or `${file:PATH}`.
    #[schemars(extend("x-secret" = true))]
    pub password: String,
}

/// What goes where.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "a route")]
pub struct Route {
    /// Unique; stands in dead letters, in `waypost tail` and in metrics.
    pub name: String,
    pub r#match: Match,
    /// A condition in CEL over `source`, `type`, `id`, `subject`, `time`, `headers` and `data`, like
    /// `data.delta > 0.3`. Where it cannot be evaluated the route does not match.
    pub when: Option<String>,
    /// How long its messages are tried that fail by themselves, like `{ for: 1h }`; before what their
    /// broker says.
    pub retry: Option<For>,
    /// Where to publish: at least one target.
    pub to: Vec<Target>,
}

/// Which events a route takes. `*` stays within one dot-separated part, `**` crosses parts.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Match {
    /// The names of sources, one or a list; any if left out.
    pub source: Option<OneOrMany>,
    /// The types of events, one or a list; any if left out.
    pub r#type: Option<OneOrMany>,
    /// Take only what no other route took.
    pub otherwise: Option<bool>,
}

/// A broker and an address at it. Addresses may hold placeholders like `{type}` or `{data.agent_id}`.
#[derive(Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(title = "a target")]
pub struct Target {
    /// The name of a broker.
    pub broker: String,
    /// The topic, at a `kafka` or `log` broker.
    pub topic: Option<String>,
    /// The record's key, at a `kafka` broker: records of one key keep their order.
    pub key: Option<String>,
    /// The exchange, at a `rabbitmq` broker.
    pub exchange: Option<String>,
    /// The routing key, at a `rabbitmq` broker.
    pub routing_key: Option<String>,
    /// The subject, at a `nats` broker.
    pub subject: Option<String>,
    /// How the event is put into a message.
    pub format: Option<Format>,
    /// Fixed headers beside the event's own. No placeholders, no secrets.
    #[schemars(extend("x-secret" = "headers"))]
    pub headers: Option<BTreeMap<String, String>>,
}

/// A value, or a list of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Source {
    /// What it has in common with every source.
    pub fn common(&self) -> &SourceCommon {
        match self {
            Source::Sonzai(source) => &source.common,
            Source::Miibo(source) | Source::Standard(source) => &source.common,
        }
    }
}

impl Broker {
    /// What it has in common with every broker.
    pub fn common(&self) -> &BrokerCommon {
        match self {
            Broker::Kafka(broker) => &broker.common,
            Broker::RabbitMq(broker) => &broker.common,
            Broker::Nats(broker) => &broker.common,
            Broker::Log(broker) => &broker.common,
        }
    }
}

impl OneOrMany {
    pub fn as_slice(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}
