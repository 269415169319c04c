//! Reads back what was published, with each broker's own client.
//!
//! Reading takes nothing away: the same call later, or after the broker's restart, finds it all
//! again. Problems panic, since a test can do nothing about them.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

mod kafka;
mod nats;
mod rabbitmq;

pub use kafka::{create_topic, read_topic};
pub use nats::{create_stream, read_stream};
pub use rabbitmq::{declare_queue, read_queue};

/// How long a message that must come may take; a broker may just have been killed and restarted.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long nothing may come until all that there is has been read. Long enough for a duplicate
/// that follows at once to be seen.
const QUIET: Duration = Duration::from_millis(500);

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
}

/// Everything there is: waits for `at_least` messages, then for more until it is quiet. Fewer mean
/// that no more came.
async fn collect(at_least: usize, mut next: impl AsyncFnMut() -> Consumed) -> Vec<Consumed> {
    let mut taken = Vec::new();
    loop {
        let wait = if taken.len() < at_least { PATIENCE } else { QUIET };
        match timeout(wait, next()).await {
            Ok(message) => taken.push(message),
            Err(_) => return taken,
        }
    }
}
