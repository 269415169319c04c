//! The librdkafka producer: its start, its delivery reports, and what it says on the way.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use super::{super::Error, config::Settings, trouble};

/// `ThreadedProducer` rather than `FutureProducer`: the latter copies each message that fails.
pub type Producer = ThreadedProducer<Context>;

/// librdkafka's delivery report.
pub type Delivery = Result<(), RDKafkaErrorCode>;

/// A delivery this recent shows that the cluster takes messages: half of the time after which a
/// message times out, so that it happened while the one in question was already waiting.
const RECENT: Duration = Duration::from_secs(super::config::DELIVERY_TIMEOUT.as_secs() / 2);

/// How often a starting producer is asked for a broker's answer; it says so at once when it comes.
const ANSWER_PAUSE: Duration = Duration::from_millis(200);

/// At most one log line a facility in this time: librdkafka repeats itself at every attempt.
const LOG_PAUSE: Duration = Duration::from_secs(30);

/// Facilities remembered; librdkafka has about twenty.
const MAX_FACILITIES: usize = 64;

/// Starts a producer and waits until a broker has answered it. Blocks.
pub fn connect(settings: &Settings, deadline: Duration) -> Result<Producer, Error> {
    let producer = start(&settings.producer()?)?;
    let context = producer.client().context();
    let begun = Instant::now();
    // librdkafka is lazy about a second attempt while there is nothing to send: once every broker
    // has failed, a fresh producer is faster, and when to try again is the dispatcher's.
    while begun.elapsed() < deadline && !context.all_down.load(Ordering::Relaxed) {
        // The cluster's id is only known from a broker's answer to this client, and unlike a full
        // metadata request it does not list every topic of the cluster.
        if producer.client().fetch_cluster_id(ANSWER_PAUSE).is_some() {
            return Ok(producer);
        }
    }
    let words = trouble::explain(context.trouble().as_deref(), settings);
    Err(Error::Down(format!("no Kafka broker at {} answered{words}", settings.bootstrap)))
}

/// Starts a producer without waiting for a broker.
pub fn start(config: &ClientConfig) -> Result<Producer, Error> {
    config.create_with_context(Context::default()).map_err(|error| match error {
        // Its own words show the value, which may be a secret.
        KafkaError::ClientConfig(_, why, setting, _) => not_started(&format!("{setting}: {why}")),
        error => not_started(&error),
    })
}

pub fn not_started(why: &dyn fmt::Display) -> Error {
    Error::Down(format!("the Kafka client could not be started: {why}"))
}

/// The producer was replaced or closed before it said what became of a message.
pub fn ended() -> Error {
    Error::Down("the Kafka producer has ended, outcome unknown".into())
}

/// What librdkafka calls back into, from its polling thread.
#[derive(Default)]
pub struct Context {
    delivered_at: Mutex<Option<Instant>>,
    trouble: Mutex<Option<String>>,
    /// Every broker failed at once, at some time.
    all_down: AtomicBool,
    logged: Mutex<HashMap<String, Instant>>,
}

impl Context {
    /// The last connection trouble, in librdkafka's words.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Whether the cluster took a message a short while ago.
    pub fn delivers(&self) -> bool {
        lock(&self.delivered_at).is_some_and(|at| at.elapsed() < RECENT)
    }

    /// Whether this facility has been quiet for long enough to be logged.
    fn may_log(&self, facility: &str) -> bool {
        let now = Instant::now();
        let mut logged = lock(&self.logged);
        if let Some(at) = logged.get_mut(facility) {
            let quiet = now.duration_since(*at) >= LOG_PAUSE;
            if quiet {
                *at = now;
            }
            return quiet;
        }
        let room = logged.len() < MAX_FACILITIES;
        if room {
            logged.insert(facility.to_owned(), now);
        }
        room
    }
}

/// A poisoned lock only means that another thread panicked; these values have no invariant.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    // At debug: one line a change of state is the dispatcher's.
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        if self.may_log(facility) {
            tracing::debug!(facility, "librdkafka: {message}");
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // "All brokers down" follows the reason why, and would hide it.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.all_down.store(true, Ordering::Relaxed);
        } else {
            *lock(&self.trouble) = Some(without_timing(reason).to_owned());
        }
        if self.may_log("error") {
            tracing::debug!(%error, "librdkafka: {reason}");
        }
    }
}

/// Cuts `(after 3ms in state CONNECT, 2 identical error(s) suppressed)`, so that the same trouble
/// reads the same each time and can be logged once.
fn without_timing(reason: &str) -> &str {
    reason.split_once(" (after ").map_or(reason, |(what, _)| what)
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<Delivery>>;

    fn delivery(&self, result: &DeliveryResult<'_>, report: Self::DeliveryOpaque) {
        let delivery = match result {
            Ok(_) => {
                *lock(&self.delivered_at) = Some(Instant::now());
                Ok(())
            }
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        // Nobody may be waiting any more: the dispatcher drops confirmations of a dead connection.
        report.send(delivery).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_broker_does_not_flood_the_log() {
        let context = Context::default();
        assert!(context.may_log("FAIL"));
        assert!(!context.may_log("FAIL"));
        assert!(context.may_log("ERROR"));
    }

    #[test]
    fn the_reason_for_trouble_is_kept_over_its_consequence() {
        let context = Context::default();
        let refused = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        context.error(refused, "Connection refused (after 3ms in state CONNECT)");
        context.error(KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(context.trouble().as_deref(), Some("Connection refused"));
    }
}
