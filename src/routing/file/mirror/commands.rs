//! `commands:`

use schemars::JsonSchema;
use serde::Deserialize;

/// Commands that Waypost takes from a broker and carries out through a source's API.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(title = "a command")]
pub struct Command {
    /// Whose API is called: the name of a `sonzai` source that has `api`.
    pub source: String,
    pub from: CommandFrom,
}

/// Where commands are taken from: a broker, and its subject, queue or topic.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CommandFrom {
    /// The name of a broker, of any type but `log`.
    pub broker: String,
    /// The subject, at a `nats` broker; a stream must take it.
    pub subject: Option<String>,
    /// The queue, at a `rabbitmq` broker.
    pub queue: Option<String>,
    /// The topic, at a `kafka` broker.
    pub topic: Option<String>,
    /// The durable consumer at a `nats` broker, the consumer group at a `kafka` broker; `waypost-` and
    /// the command's name if left out.
    pub group: Option<String>,
}
