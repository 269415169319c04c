//! Warns, once a topic, where a message that Kafka has confirmed could still be lost.
//!
//! Runs beside publishing, bounded, and never holds it up: the answer changes nothing but the log.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytestring::ByteString;
use rdkafka::{
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::{runtime::Handle, sync::Semaphore};

use super::{client::Context, config::Settings};

/// How long each of the two questions may take.
const ASK_DEADLINE: Duration = Duration::from_secs(10);

/// Topics asked about in a process's life; templates can make many, and a warning each helps no
/// operator.
const MAX_TOPICS: usize = 256;

pub struct Durability {
    settings: Settings,
    asked: Mutex<HashSet<ByteString>>,
    // One question at a time: each starts a client with threads of its own.
    turn: Semaphore,
}

/// What a topic promises about what it has confirmed.
#[derive(Debug, PartialEq, Eq)]
struct Promise {
    replicas: usize,
    min_in_sync: Option<usize>,
}

impl Durability {
    pub fn new(settings: Settings) -> Self {
        Self { settings, asked: Mutex::default(), turn: Semaphore::new(1) }
    }

    /// Notes that a message to `topic` was confirmed; at the first, asks about it in the background.
    pub fn used(this: &Arc<Self>, topic: &ByteString) {
        {
            let mut asked = this.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.contains(topic) || asked.len() >= MAX_TOPICS {
                return;
            }
            asked.insert(topic.clone());
        }
        let (this, topic) = (this.clone(), topic.clone());
        // Not joined: it ends by itself within its deadlines and owns nothing that must be saved.
        tokio::spawn(async move { this.look(topic).await });
    }

    async fn look(&self, topic: ByteString) {
        // The semaphore is never closed.
        let Ok(_turn) = self.turn.acquire().await else { return };
        let (settings, runtime, name) = (self.settings.clone(), Handle::current(), topic.clone());
        let asked = tokio::task::spawn_blocking(move || ask(&settings, &runtime, &name)).await;
        match asked {
            Ok(Ok(promise)) => {
                if let Some(warning) = promise.warning() {
                    tracing::warn!(%topic, "{warning}");
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(%topic, %error, "could not read how durable the topic is")
            }
            Err(error) => tracing::debug!(%topic, %error, "reading the topic's settings panicked"),
        }
    }
}

/// Whatever kept the question from being answered; it is only logged.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Asks the cluster with a client of its own, which ends here. Blocks.
fn ask(settings: &Settings, runtime: &Handle, topic: &str) -> Result<Promise, Failure> {
    let admin: AdminClient<Context> = settings.client()?.create_with_context(Context::default())?;
    let metadata = admin.inner().fetch_metadata(Some(topic), ASK_DEADLINE)?;
    let topic_metadata = metadata.topics().first();
    let replicas = topic_metadata
        .and_then(|topic| topic.partitions().iter().map(|p| p.replicas().len()).min())
        .ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic))?;
    let options = AdminOptions::new().request_timeout(Some(ASK_DEADLINE));
    let specifier = [ResourceSpecifier::Topic(topic)];
    let configs = runtime.block_on(async {
        tokio::time::timeout(ASK_DEADLINE, admin.describe_configs(&specifier, &options)).await
    });
    // Reading settings may be forbidden to this user; the replicas are known all the same.
    let min_in_sync = match configs {
        Ok(Ok(configs)) => configs
            .into_iter()
            .flatten()
            .find_map(|config| config.get("min.insync.replicas")?.value.as_ref()?.parse().ok()),
        Ok(Err(_)) | Err(_) => None,
    };
    Ok(Promise { replicas, min_in_sync })
}

impl Promise {
    fn warning(&self) -> Option<String> {
        match self {
            Self { replicas: 0 | 1, .. } => Some(
                "this Kafka topic has one replica: what it has confirmed is lost with its broker; \
                 create it with replication factor 3 and min.insync.replicas=2"
                    .into(),
            ),
            Self { min_in_sync: Some(0 | 1), replicas } => Some(format!(
                "this Kafka topic has {replicas} replicas but min.insync.replicas=1: one broker \
                 alone may confirm, and what it confirmed is lost with it; set it to 2"
            )),
            Self { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_one_broker_can_lose_is_warned_about() {
        let cases = [
            (1, Some(1), true),
            (1, Some(2), true),
            (3, Some(1), true),
            (3, Some(2), false),
            (3, None, false),
        ];
        for (replicas, min_in_sync, warns) in cases {
            let promise = Promise { replicas, min_in_sync };
            assert_eq!(promise.warning().is_some(), warns, "{promise:?}");
        }
    }
}
