//! Settles whose fault a refused batch was, by sending each of its messages alone.
//!
//! A broker refuses a batch as a whole: too large for its topic, one invalid record in it. Its
//! answer blames every message, and a batch made again from the same messages is refused again. So
//! each of them goes once more through a producer that makes batches of one, whose answer is about
//! that message and no other.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::producer::{Producer as _, PurgeConfig};
use tokio::runtime::Handle;

use super::{
    super::Error,
    client::{self, Producer},
    config::Settings,
    outgoing::{Enqueued, Outgoing},
};

pub struct Alone {
    settings: Settings,
    producer: Mutex<State>,
    // Keeps the messages in order, and at most one blocking thread busy with them.
    turn: tokio::sync::Mutex<()>,
}

enum State {
    /// Not needed so far.
    Unused,
    Running(Arc<Producer>),
    /// The connection is gone, and nothing may be sent for it any more.
    Ended,
}

impl Alone {
    pub fn new(settings: Settings) -> Self {
        Self { settings, producer: Mutex::new(State::Unused), turn: Default::default() }
    }

    /// Hands `message` over, to be sent by itself.
    pub async fn enqueue(self: &Arc<Self>, message: Outgoing) -> Result<Enqueued, Error> {
        let _turn = self.turn.lock().await;
        let (this, runtime) = (self.clone(), Handle::current());
        // On the blocking pool, because the last reference to a producer blocks as it ends.
        let enqueued = tokio::task::spawn_blocking(move || {
            let producer = this.producer()?;
            runtime.block_on(message.enqueue(&producer))
        });
        enqueued.await.unwrap_or_else(|panic| Err(Error::Failed(panic.to_string())))
    }

    /// Ends the producer with everything in flight. Blocks.
    pub fn end(&self) {
        let state = std::mem::replace(&mut *self.state(), State::Ended);
        if let State::Running(producer) = state {
            producer.purge(PurgeConfig::default().queue().inflight());
        }
    }

    fn producer(&self) -> Result<Arc<Producer>, Error> {
        let mut state = self.state();
        match &*state {
            State::Running(producer) => Ok(producer.clone()),
            State::Ended => Err(client::ended()),
            State::Unused => {
                let producer = Arc::new(client::start(&self.settings.lone_producer()?)?);
                *state = State::Running(producer.clone());
                Ok(producer)
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // A poisoned lock only means that another thread panicked; each state is whole.
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
