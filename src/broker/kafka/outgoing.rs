//! A message on its way into librdkafka.

use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer as _},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    super::{Error, Publication},
    classify,
    client::{self, Delivery, Producer},
    record,
};
use crate::event::Address;

/// How long to wait for room in librdkafka's queue. Room appears with every delivery report; none
/// for this long means that nothing is being delivered.
const ENQUEUE_DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two attempts to enqueue: about the time a batch lingers.
const ENQUEUE_PAUSE: Duration = Duration::from_millis(5);

/// Kafka's own limit for a topic's name.
const MAX_TOPIC_BYTES: usize = 249;

/// A publication and its place. Clones share event and payload.
#[derive(Clone)]
pub struct Outgoing {
    publication: Publication,
    pub payload: Bytes,
    pub topic: ByteString,
    key: Option<ByteString>,
}

/// When the message was handed over, and where its delivery report will arrive.
pub struct Enqueued {
    pub at: Instant,
    pub report: oneshot::Receiver<Delivery>,
}

type Message<'a> = BaseRecord<'a, [u8], [u8], Box<oneshot::Sender<Delivery>>>;

impl Outgoing {
    /// Takes what can be a Kafka message. librdkafka would call an impossible name "unknown topic",
    /// which may change; this cannot.
    pub fn new(publication: &Publication) -> Result<Self, Error> {
        match &publication.address {
            Address::Topic { topic, key } if is_topic(topic) => Ok(Self {
                publication: publication.clone(),
                payload: publication.payload(),
                topic: topic.clone(),
                key: key.clone(),
            }),
            other => Err(Error::Refused(format!(
                "{:?} is not a Kafka topic: 1 to {MAX_TOPIC_BYTES} of a-z, A-Z, 0-9, `.`, `_`, `-`",
                other.to_string()
            ))),
        }
    }

    /// Hands the message to librdkafka. On a full queue the same record waits, so order is kept.
    pub async fn enqueue(&self, producer: &Producer) -> Result<Enqueued, Error> {
        const FULL: KafkaError = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        let at = Instant::now();
        let (sender, report) = oneshot::channel();
        let mut message = self.message(sender);
        loop {
            match producer.send(message) {
                Ok(()) => return Ok(Enqueued { at, report }),
                Err((FULL, returned)) if at.elapsed() < ENQUEUE_DEADLINE => {
                    message = returned;
                    sleep(ENQUEUE_PAUSE).await;
                }
                Err((KafkaError::MessageProduction(code), _)) => {
                    let fatal = client::fatal(producer);
                    let trouble = fatal.or_else(|| producer.client().context().trouble());
                    return Err(classify::error(code, &self.topic, trouble));
                }
                Err((error, _)) => {
                    return Err(Error::Failed(format!("topic {}: {error}", self.topic)));
                }
            }
        }
    }

    fn message(&self, report: oneshot::Sender<Delivery>) -> Message<'_> {
        // An empty payload is given as one; none at all would be a tombstone on a compacted topic.
        let message: Message<'_> = BaseRecord::with_opaque_to(&self.topic, Box::new(report))
            .payload(&*self.payload)
            .headers(record::headers(&self.publication));
        match &self.key {
            Some(key) => message.key(key.as_bytes()),
            None => message,
        }
    }
}

fn is_topic(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_TOPIC_BYTES).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kafka_calls_a_topic_is_one() {
        let longest = "a".repeat(MAX_TOPIC_BYTES);
        for name in ["a", "agent.message", "a_b-c.9", "...", &longest] {
            assert!(is_topic(name), "{name}");
        }
        let too_long = "a".repeat(MAX_TOPIC_BYTES + 1);
        for name in ["", ".", "..", "a/b", "a b", "a\0", "ユ", &too_long] {
            assert!(!is_topic(name), "{name:?}");
        }
    }
}
