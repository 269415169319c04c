//! Kafka, through librdkafka: idempotent, all replicas, in order, with every failure told apart.
//!
//! One [`Connection`] is one producer. It is never repaired: after [`Error::Down`] the dispatcher
//! asks for a new one, and the old one is purged first, so that nothing it still held is sent after
//! what is published again.
//!
//! A message has one owner at a time: librdkafka keeps it until its delivery report, at most
//! [`DELIVERY_TIMEOUT`](config::DELIVERY_TIMEOUT), and only then is it called failed and may be
//! published again. So a retry never queues behind its own older copy.

mod alone;
mod classify;
mod client;
mod config;
mod durability;
mod outgoing;
mod probe;
mod record;
mod security;
mod trouble;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use rdkafka::{
    error::RDKafkaErrorCode,
    producer::{Producer as _, PurgeConfig},
};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

use self::{
    alone::Alone,
    client::{Context, Delivery, Producer},
    durability::Durability,
    outgoing::{Enqueued, Outgoing},
    probe::Probe,
};
pub(crate) use self::{client::Context as ClientWords, trouble::explain};
pub use self::{
    config::{Settings, SettingsError},
    security::{Mechanism, Sasl},
};
use super::{Broker, Confirmation, Error, Publication};

/// Our own limit to a start: the client checks `CONNECT_DEADLINE` between its calls into librdkafka,
/// and this catches a call that hangs.
const START_DEADLINE: Duration = CONNECT_DEADLINE.saturating_add(END_DEADLINE);

/// How long `connect` waits for the first answer of any bootstrap broker: a few attempts, and
/// short enough to say soon what is wrong.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Our own limit from hand-over to a delivery report. librdkafka reports by `DELIVERY_TIMEOUT`,
/// checked once a second and after a request in flight has ended; this catches a client that hangs.
const REPORT_DEADLINE: Duration = config::DELIVERY_TIMEOUT.saturating_add(Duration::from_secs(15));

/// How long the end of a producer may take: rdkafka joins its polling thread (up to 100 ms) and
/// flushes purge reports (up to 500 ms), librdkafka joins its broker threads.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// A Kafka cluster to publish to.
pub struct Kafka {
    settings: Settings,
    durability: Arc<Durability>,
    connection: Option<Connection>,
    /// A start that hung; the next `connect` waits for it on, so that there is one at a time.
    starting: Option<JoinHandle<Result<Producer, Error>>>,
}

struct Connection {
    producer: Arc<Producer>,
    shared: Arc<Shared>,
}

/// What a confirmation needs after the hand-over. It does not keep the producer alive.
struct Shared {
    context: Arc<Context>,
    alone: Arc<Alone>,
    probe: Probe,
    durability: Arc<Durability>,
}

impl Kafka {
    /// Checks the settings and the files that they name; connects to nothing.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        settings.check()?;
        settings.producer()?;
        // Before librdkafka does it its own way: the process may end while one of its threads is in a
        // handshake, which crashes if OpenSSL cleans up at exit. This crate asks it not to.
        openssl_sys::init();
        let durability = Arc::new(Durability::new(settings.clone()));
        Ok(Self { settings, durability, connection: None, starting: None })
    }

    /// Starts a producer that has had a broker's answer.
    async fn start(&mut self) -> Result<Producer, Error> {
        let settings = self.settings.clone();
        let starting = self.starting.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || client::connect(&settings, CONNECT_DEADLINE))
        });
        let Ok(started) = timeout(START_DEADLINE, starting).await else {
            let limit = START_DEADLINE.as_secs();
            return Err(Error::Down(format!("the Kafka client did not start within {limit} s")));
        };
        self.starting = None;
        started.unwrap_or_else(|panic| Err(client::not_started(&panic)))
    }

    /// Ends the connection with everything in flight, and waits until it can send no more.
    async fn end_connection(&mut self, deadline: Duration) {
        let Some(connection) = self.connection.take() else { return };
        let end = tokio::task::spawn_blocking(move || connection.end());
        match timeout(deadline, end).await {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => tracing::warn!(%panic, "ending a Kafka producer panicked"),
            Err(_) => tracing::warn!("a Kafka producer takes long to end"),
        }
    }
}

impl Drop for Kafka {
    /// The end of a producer blocks for up to a second; no worker of the runtime should.
    fn drop(&mut self) {
        // What a start has yielded since goes the same way.
        let (connection, starting) = (self.connection.take(), self.starting.take());
        if (connection.is_some() || starting.is_some())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || {
                drop(starting);
                connection.map(Connection::end)
            });
        }
    }
}

impl Connection {
    /// Purges everything in flight. Blocks, as does dropping what is left.
    fn end(self) {
        self.shared.alone.end();
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

#[async_trait]
impl Broker for Kafka {
    async fn connect(&mut self) -> Result<(), Error> {
        self.end_connection(END_DEADLINE).await;
        let producer = Arc::new(self.start().await?);
        let shared = Arc::new(Shared {
            context: producer.client().context().clone(),
            alone: Arc::new(Alone::new(self.settings.clone())),
            probe: Probe::new(Arc::downgrade(&producer)),
            durability: self.durability.clone(),
        });
        self.connection = Some(Connection { producer, shared });
        Ok(())
    }

    async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Error> {
        let message = Outgoing::new(publication)?;
        let Some(connection) = &self.connection else {
            return Err(Error::Down("not connected to Kafka".into()));
        };
        let enqueued = message.enqueue(&connection.producer).await?;
        let in_flight = InFlight { shared: connection.shared.clone(), message };
        Ok(in_flight.confirmed(enqueued).boxed())
    }

    async fn close(&mut self, deadline: Duration) {
        let ends = Instant::now() + deadline;
        if let Some(connection) = &self.connection {
            let producer = connection.producer.clone();
            // The end has its part of the deadline; half of a short one.
            let flush_for = deadline.saturating_sub(END_DEADLINE.min(deadline / 2));
            let flush = tokio::task::spawn_blocking(move || producer.flush(flush_for));
            match timeout_at(ends, flush).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => {
                    tracing::debug!(%error, "Kafka was closed with messages in flight")
                }
                Ok(Err(panic)) => tracing::warn!(%panic, "flushing a Kafka producer panicked"),
                Err(_) => tracing::warn!("flushing a Kafka producer takes long"),
            }
        }
        self.end_connection(ends.saturating_duration_since(Instant::now())).await;
    }
}

/// A message that librdkafka owns.
struct InFlight {
    shared: Arc<Shared>,
    message: Outgoing,
}

impl InFlight {
    async fn confirmed(self, enqueued: Enqueued) -> Result<(), Error> {
        let mut delivery = report(enqueued).await?;
        if let Err(code) = delivery
            && self.may_be_another_s_fault(code)
        {
            delivery = report(self.shared.alone.enqueue(self.message.clone()).await?).await?;
        }
        match delivery {
            Ok(()) => {
                Durability::used(&self.shared.durability, &self.message.topic);
                Ok(())
            }
            Err(code) => Err(self.why(code).await),
        }
    }

    /// Whether the refusal was a whole batch's. What fills a batch was in one by itself.
    fn may_be_another_s_fault(&self, code: RDKafkaErrorCode) -> bool {
        classify::concerns_batch(code) && self.message.payload.len() < config::BATCH_BYTES
    }

    async fn why(&self, code: RDKafkaErrorCode) -> Error {
        let Shared { context, probe, .. } = &*self.shared;
        match code {
            RDKafkaErrorCode::MessageTimedOut => {
                probe.judge(&self.message.topic, context.delivers()).await
            }
            RDKafkaErrorCode::Fatal => {
                classify::error(code, &self.message.topic, probe.fatal().await)
            }
            code => classify::error(code, &self.message.topic, context.trouble()),
        }
    }
}

/// Waits for librdkafka's word on a message.
async fn report(enqueued: Enqueued) -> Result<Delivery, Error> {
    match timeout_at(enqueued.at + REPORT_DEADLINE, enqueued.report).await {
        Ok(Ok(delivery)) => Ok(delivery),
        Ok(Err(_)) => Err(client::ended()),
        Err(_) => Err(Error::Down(format!(
            "the Kafka client did not report on a message within {} s, outcome unknown",
            REPORT_DEADLINE.as_secs()
        ))),
    }
}
