//! Warns, once a stream, where a message that NATS has confirmed could still be lost or doubled.
//!
//! Runs beside publishing, bounded, and never holds it up: the answer changes nothing but the log.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy, StorageType},
};
use tokio::time::timeout;

/// How long the JetStream API has to answer.
const ASK_DEADLINE: Duration = Duration::from_secs(5);

/// Streams asked about in a process's life.
const MAX_STREAMS: usize = 256;

/// The longest a message is usually tried before it is given up (`retry.for`). A stream that
/// forgets message ids sooner stores a late repetition twice.
const LONGEST_RETRY: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Durability {
    asked: Mutex<HashSet<String>>,
}

impl Durability {
    /// Notes that `stream` confirmed a message; at the first, asks about it in the background.
    pub fn used(this: &Arc<Self>, context: &jetstream::Context, stream: String) {
        {
            let mut asked = this.asked();
            if asked.contains(&stream) || asked.len() >= MAX_STREAMS {
                return;
            }
            asked.insert(stream.clone());
        }
        let (this, context) = (this.clone(), context.clone());
        // Not joined: it ends by itself within its deadline and owns nothing that must be saved.
        tokio::spawn(async move { this.look(&context, stream).await });
    }

    async fn look(&self, context: &jetstream::Context, stream: String) {
        match timeout(ASK_DEADLINE, context.get_stream(&stream)).await {
            Ok(Ok(found)) => {
                for warning in warnings(&found.cached_info().config) {
                    tracing::warn!(%stream, "{warning}");
                }
            }
            // May be forbidden to this user, which says nothing about the stream.
            Ok(Err(error)) => {
                tracing::debug!(%stream, %error, "could not read the stream's settings")
            }
            Err(_) => {
                tracing::debug!(%stream, "JetStream did not say how the stream is set");
                self.asked().remove(&stream);
            }
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        // A poisoned lock only means that another thread panicked; the set has no invariant.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.storage == StorageType::Memory {
        warnings.push(
            "this stream is kept in memory: what it has confirmed is lost with its servers; use \
             file storage"
                .to_owned(),
        );
    }
    if config.num_replicas <= 1 {
        warnings.push(
            "this stream has one replica: what it has confirmed is lost with its server; use three"
                .to_owned(),
        );
    }
    let limited =
        config.max_messages > 0 || config.max_bytes > 0 || config.max_messages_per_subject > 0;
    if config.discard == DiscardPolicy::Old && limited {
        warnings.push(
            "this stream drops its oldest messages when it reaches its limits, consumed or not; \
             `discard: new` makes it refuse instead: a message that it has refused for as long as \
             messages are tried (`retry_for`) is kept as a dead letter"
                .to_owned(),
        );
    }
    if config.duplicate_window < LONGEST_RETRY {
        warnings.push(format!(
            "this stream forgets message ids after {} s: a message repeated later than that is \
             stored twice; set its duplicate window to {} s or more",
            config.duplicate_window.as_secs(),
            LONGEST_RETRY.as_secs()
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe() -> Config {
        Config {
            storage: StorageType::File,
            num_replicas: 3,
            discard: DiscardPolicy::New,
            duplicate_window: LONGEST_RETRY,
            max_messages: 100,
            ..Config::default()
        }
    }

    #[test]
    fn each_way_to_lose_or_double_a_message_is_warned_about() {
        let window = Duration::from_secs(120);
        let cases = [
            (safe(), 0),
            (Config { storage: StorageType::Memory, ..safe() }, 1),
            (Config { num_replicas: 1, ..safe() }, 1),
            (Config { discard: DiscardPolicy::Old, ..safe() }, 1),
            (Config { discard: DiscardPolicy::Old, max_messages: -1, ..safe() }, 0),
            (Config { duplicate_window: window, ..safe() }, 1),
        ];
        for (config, expected) in cases {
            assert_eq!(warnings(&config).len(), expected, "{config:?}");
        }
    }
}
