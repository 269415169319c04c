//! Kafka, through librdkafka: idempotent, all replicas, in order, with every failure told apart.
//!
//! One [`Connection`] is one producer. It is never repaired: after [`Error::Down`] the dispatcher
//! asks for a new one, and the old one is purged first, so that nothing it still held is sent after
//! what is published again.
//!
//! A message has one owner at a time: librdkafka keeps it until its delivery report, at most
//! [`DELIVERY_TIMEOUT`](config::DELIVERY_TIMEOUT), and only then is it called failed and may be
//! published again. So a retry never queues behind its own older copy.

mod classify;
mod client;
mod config;
mod durability;
mod probe;
mod record;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytestring::ByteString;
use futures_util::FutureExt;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer as _},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout, timeout_at},
};

pub use self::config::{Settings, SettingsError};
use self::{
    client::{Context, Delivery, Producer},
    durability::Durability,
    probe::Probe,
};
use super::{Broker, Confirmation, Error, Publication};
use crate::event::Address;

/// How long `connect` waits for the first answer of any bootstrap broker. Above librdkafka's
/// connection setup (TCP, version request) over a slow link, short enough to say soon what is wrong.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Our own limit from hand-over to an outcome. librdkafka reports by `DELIVERY_TIMEOUT`, checked
/// once a second and after a request in flight has ended; this catches a client that hangs.
const CONFIRM_DEADLINE: Duration = config::DELIVERY_TIMEOUT.saturating_add(Duration::from_secs(15));

/// How long `publish` waits for room in librdkafka's queue. Room appears with every delivery
/// report; none for this long means that nothing is being delivered.
const ENQUEUE_DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two attempts to enqueue: about the time a batch lingers.
const ENQUEUE_PAUSE: Duration = Duration::from_millis(5);

/// How long the end of a producer may take: rdkafka joins its polling thread (up to 100 ms) and
/// flushes purge reports (up to 500 ms), librdkafka joins its broker threads.
const DROP_DEADLINE: Duration = Duration::from_secs(5);

/// A Kafka cluster to publish to.
pub struct Kafka {
    settings: Settings,
    durability: Arc<Durability>,
    connection: Option<Connection>,
}

struct Connection {
    producer: Arc<Producer>,
    shared: Arc<Shared>,
}

/// What a confirmation needs after the hand-over. It does not keep the producer alive.
struct Shared {
    context: Arc<Context>,
    probe: Probe,
    durability: Arc<Durability>,
}

impl Kafka {
    /// Checks the settings; connects to nothing.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        let durability = Arc::new(Durability::new(settings.clone()));
        Ok(Self { settings, durability, connection: None })
    }

    /// Ends the producer with everything in flight, and waits until it can send no more.
    async fn drop_connection(&mut self) {
        let Some(Connection { producer, shared }) = self.connection.take() else { return };
        let end = tokio::task::spawn_blocking(move || {
            producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
            drop((producer, shared));
        });
        if timeout(DROP_DEADLINE, end).await.is_err() {
            tracing::warn!(bootstrap = %self.settings.bootstrap, "an old Kafka producer is slow to end");
        }
    }
}

#[async_trait]
impl Broker for Kafka {
    async fn connect(&mut self) -> Result<(), Error> {
        self.drop_connection().await;
        let settings = self.settings.clone();
        let producer =
            tokio::task::spawn_blocking(move || client::connect(&settings, CONNECT_DEADLINE))
                .await
                .map_err(|error| {
                    Error::Down(format!("the Kafka client could not be started: {error}"))
                })??;
        let producer = Arc::new(producer);
        let shared = Arc::new(Shared {
            context: producer.client().context().clone(),
            probe: Probe::new(Arc::downgrade(&producer)),
            durability: self.durability.clone(),
        });
        self.connection = Some(Connection { producer, shared });
        Ok(())
    }

    async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Error> {
        let Address::Topic { topic, key } = &publication.address else {
            return Err(Error::Refused(format!("{} is not a Kafka topic", publication.address)));
        };
        let Some(connection) = &self.connection else {
            return Err(Error::Down("not connected to Kafka".into()));
        };
        let event = &publication.event;
        let (report, delivery) = oneshot::channel();
        let mut message: Message<'_> = BaseRecord::with_opaque_to(topic, Box::new(report))
            .payload(&*event.body)
            .headers(record::headers(event));
        if let Some(key) = key {
            message = message.key(key.as_bytes());
        }
        let handed_over = Instant::now();
        enqueue(connection, message, topic).await?;
        let in_flight = InFlight {
            shared: connection.shared.clone(),
            topic: topic.clone(),
            body_bytes: event.body.len(),
            handed_over,
        };
        Ok(in_flight.confirmed(delivery).boxed())
    }

    async fn close(&mut self, deadline: Duration) {
        if let Some(connection) = &self.connection {
            let producer = connection.producer.clone();
            let flush = tokio::task::spawn_blocking(move || producer.flush(deadline));
            match timeout(deadline + Duration::from_secs(1), flush).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => {
                    tracing::debug!(%error, "Kafka was closed with messages in flight")
                }
                Ok(Err(error)) => tracing::warn!(%error, "flushing the Kafka producer panicked"),
                Err(_) => tracing::debug!("flushing the Kafka producer took too long"),
            }
        }
        self.drop_connection().await;
    }
}

type Message<'a> = BaseRecord<'a, [u8], [u8], Box<oneshot::Sender<Delivery>>>;

/// Hands the message to librdkafka. On a full queue the same record waits, so order is kept.
async fn enqueue(connection: &Connection, message: Message<'_>, topic: &str) -> Result<(), Error> {
    const FULL: KafkaError = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
    let deadline = Instant::now() + ENQUEUE_DEADLINE;
    let mut message = message;
    loop {
        let error = match connection.producer.send(message) {
            Ok(()) => return Ok(()),
            Err((FULL, returned)) if Instant::now() < deadline => {
                message = returned;
                sleep(ENQUEUE_PAUSE).await;
                continue;
            }
            Err((error, _)) => error,
        };
        return Err(match error {
            KafkaError::MessageProduction(code) => {
                classify::error(code, topic, connection.shared.context.trouble())
            }
            // The topic holds a NUL, which no C string can.
            KafkaError::Nul(_) => Error::Refused(format!("{topic:?} is not a topic name")),
            other => Error::Failed(other.to_string()),
        });
    }
}

/// A message that librdkafka owns.
struct InFlight {
    shared: Arc<Shared>,
    topic: ByteString,
    body_bytes: usize,
    handed_over: Instant,
}

impl InFlight {
    async fn confirmed(self, delivery: oneshot::Receiver<Delivery>) -> Result<(), Error> {
        match timeout_at(self.handed_over + CONFIRM_DEADLINE, delivery).await {
            Ok(Ok(Ok(()))) => {
                Durability::used(&self.shared.durability, &self.topic);
                Ok(())
            }
            Ok(Ok(Err(code))) => Err(self.failed(code).await),
            Ok(Err(_)) => Err(Error::Down("the Kafka producer has ended".into())),
            Err(_) => Err(Error::Down(format!(
                "the Kafka client did not report on a message within {} s",
                CONFIRM_DEADLINE.as_secs()
            ))),
        }
    }

    async fn failed(&self, code: RDKafkaErrorCode) -> Error {
        match code {
            RDKafkaErrorCode::MessageTimedOut => {
                let others_pass = self.shared.context.delivers();
                self.shared.probe.judge(&self.topic, others_pass).await
            }
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge => {
                classify::too_large(&self.topic, self.body_bytes)
            }
            code => classify::error(code, &self.topic, self.shared.context.trouble()),
        }
    }
}
