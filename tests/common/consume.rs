//! Reads back what was published, with each broker's own client.
//!
//! Reading takes nothing away: the same call later, or after the broker's restart, finds it all
//! again. Problems panic, since a test can do nothing about them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::timeout;

mod kafka;
mod nats;
mod rabbitmq;

pub use kafka::{create_topic, read_topic};
pub use nats::{
    create_stream, create_stream_by, delete_stream, read_stream, read_stream_by, stream_of,
};
pub use rabbitmq::{declare_queue, read_queue};

/// How long a message that must come may take; a broker may just have been killed and restarted.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing may come until all that there is has been read. Long enough for a duplicate
/// that follows at once to be seen.
const QUIET: Duration = Duration::from_millis(500);

/// When enough has been read.
#[derive(Clone, Copy)]
pub enum Until<'a> {
    /// There are at least so many, and no more come.
    Quiet(usize),
    /// Each of these events was seen, more coming or not.
    Seen(&'a BTreeSet<String>),
}

impl From<usize> for Until<'_> {
    fn from(at_least: usize) -> Self {
        Until::Quiet(at_least)
    }
}

impl<'a> From<&'a BTreeSet<String>> for Until<'a> {
    fn from(ids: &'a BTreeSet<String>) -> Self {
        Until::Seen(ids)
    }
}

/// One message as a broker gave it back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Consumed {
    /// The topic, `exchange/routing_key`, or the subject.
    pub address: String,
    /// Kafka's record key.
    pub key: Option<Vec<u8>>,
    /// By their name as it was sent. Of a repeated one the last.
    pub headers: BTreeMap<String, Vec<u8>>,
    /// AMQP's property, elsewhere the header `content-type`.
    pub content_type: Option<String>,
    /// AMQP's other properties.
    pub properties: lapin::BasicProperties,
    /// `None` is Kafka's null, which is not the same as empty.
    pub body: Option<Vec<u8>>,
}

impl Consumed {
    /// A header as text.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name)?;
        Some(std::str::from_utf8(value).expect("a header of ours is text"))
    }

    /// The event's id, by the name that it has on each of the brokers.
    pub fn event_id(&self) -> Option<&str> {
        ["ce_id", "cloudEvents_id", "ce-id"].iter().find_map(|name| self.header(name))
    }
}

/// Everything there is until enough has been read, or no more comes.
async fn collect(until: Until<'_>, mut next: impl AsyncFnMut() -> Consumed) -> Vec<Consumed> {
    let mut taken = Vec::new();
    let mut unseen = match until {
        Until::Quiet(_) => BTreeSet::new(),
        Until::Seen(ids) => ids.iter().map(String::as_str).collect(),
    };
    loop {
        let wait = match until {
            Until::Quiet(at_least) if taken.len() >= at_least => QUIET,
            Until::Seen(_) if unseen.is_empty() => return taken,
            Until::Quiet(_) | Until::Seen(_) => PATIENCE,
        };
        let Ok(message) = timeout(wait, next()).await else { return taken };
        if let Some(id) = message.event_id() {
            unseen.remove(id);
        }
        taken.push(message);
    }
}
