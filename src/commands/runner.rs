//! One place of `commands:` at work: connect, take, carry out, acknowledge, one message at a time.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    consumer::{Consumer, Trouble},
    delivery::Delivery,
    hands::{Fate, Hands},
    stats::{State, Stats},
};
use crate::backoff::Backoff;

/// Pauses between attempts to connect.
const CONNECT_PAUSE: Backoff =
    Backoff { first: Duration::from_millis(500), max: Duration::from_secs(30) };

/// A connection that has lasted so long, or has given a message, is well.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Most of a drain's time that is left for the last words to the broker.
const FAREWELL_WITHIN: Duration = Duration::from_secs(3);

/// See the module.
pub struct Runner {
    pub name: String,
    pub consumer: Box<dyn Consumer>,
    pub hands: Hands,
    pub stats: Arc<Stats>,
    /// How long the command in hand may take once it is told to stop.
    pub deadline: Duration,
}

/// Why no more messages are taken.
enum End {
    Stopped,
    Down(String),
}

impl Runner {
    /// Runs until told to stop; then the command in hand is finished, or let go.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut failures = 0;
        loop {
            self.stats.goes(State::Connecting);
            let connected = stop.run_until_cancelled(self.consumer.connect()).await;
            let end = match connected {
                None => End::Stopped,
                Some(Err(Trouble::Down(trouble))) => End::Down(trouble),
                // Nothing was in hand.
                Some(Err(Trouble::Moved)) => continue,
                Some(Ok(())) => self.take_all(&mut failures, &stop).await,
            };
            let End::Down(trouble) = end else { break };
            failures += 1;
            self.stats.is_in_trouble(&self.name, State::Connecting, &trouble);
            let pause = CONNECT_PAUSE.jittered(failures);
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
        }
        self.stats.goes(State::Ended);
        if timeout(FAREWELL_WITHIN, self.consumer.close()).await.is_err() {
            tracing::debug!(command = self.name, "a consumer takes long to end");
        }
    }

    /// Takes messages from a connection as long as it lasts.
    async fn take_all(&mut self, failures: &mut u32, stop: &CancellationToken) -> End {
        loop {
            self.stats.goes(State::Ready);
            let taken = self.take(failures, stop).await;
            let outcome = match taken {
                Ok(None) => return End::Stopped,
                Ok(Some(delivery)) => {
                    *failures = 0;
                    self.finish(&delivery, stop).await
                }
                Err(trouble) => Err(trouble),
            };
            match outcome {
                Ok(Fate::Ack) => {}
                Ok(Fate::LetGo) => return End::Stopped,
                Err(Trouble::Moved) => {
                    tracing::info!(command = self.name, "a command is another consumer's now");
                }
                Err(Trouble::Down(trouble)) => return End::Down(trouble),
            }
        }
    }

    /// Carries out what a message asks for, and tells the broker what became of it.
    async fn finish(
        &mut self,
        delivery: &Delivery,
        stop: &CancellationToken,
    ) -> Result<Fate, Trouble> {
        self.stats.goes(State::Working);
        let (fate, lost) = self.work(delivery, &stop.child_token()).await;
        if let Some(trouble) = lost {
            return Err(trouble);
        }
        match fate {
            Fate::Ack => self.consumer.ack().await?,
            Fate::LetGo => self.consumer.let_go().await,
        }
        Ok(fate)
    }

    /// Waits for a message; `None` once told to stop.
    async fn take(
        &mut self,
        failures: &mut u32,
        stop: &CancellationToken,
    ) -> Result<Option<Delivery>, Trouble> {
        let Runner { name, consumer, stats, .. } = self;
        // One and the same question for a message: asked anew, an answer under way would be lost.
        let next = consumer.next();
        tokio::pin!(next);
        let taken = match timeout(SETTLED_AFTER, stop.run_until_cancelled(&mut next)).await {
            Ok(taken) => taken,
            Err(_) => {
                *failures = 0;
                stats.is_well(name, State::Ready);
                stop.run_until_cancelled(next).await
            }
        };
        taken.transpose()
    }

    /// Carries out what a message asks for, and keeps the message meanwhile. The second value says
    /// that it is no longer in hand.
    async fn work(
        &mut self,
        delivery: &Delivery,
        give_up: &CancellationToken,
    ) -> (Fate, Option<Trouble>) {
        let work = self.hands.carry_out(delivery, give_up);
        tokio::pin!(work);
        let mut lost = tokio::select! {
            biased;
            fate = &mut work => return (fate, None),
            trouble = self.consumer.hold() => Some(trouble),
            () = give_up.cancelled() => None,
        };
        // Nothing is waited for any more; a call that was sent is, for its outcome should be known.
        give_up.cancel();
        let rest = timeout(self.deadline, work);
        tokio::pin!(rest);
        if lost.is_none() {
            tokio::select! {
                biased;
                fate = &mut rest => return (fate.unwrap_or(Fate::LetGo), None),
                trouble = self.consumer.hold() => lost = Some(trouble),
            }
        }
        (rest.await.unwrap_or(Fate::LetGo), lost)
    }
}
