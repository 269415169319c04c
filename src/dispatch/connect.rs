//! Between two connections: the next one is made, however long it takes, and all goes on meanwhile
//! that needs none; and when there is to be no other.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Backoff, Client, Dispatcher, Error};

/// Between attempts to connect. The maximum is what a recovered broker may have to wait.
pub(super) const RECONNECT: Backoff =
    Backoff { first: Duration::from_millis(200), max: Duration::from_secs(5) };

/// When a dispatcher is to end.
pub(super) struct Ending {
    /// Nothing new comes: publish what is left.
    pub stop: CancellationToken,
    /// [`Limits::drain`] later, for which this waits: the time for that is over.
    pub over: CancellationToken,
    _timer: AbortOnDropHandle<()>,
}

impl Ending {
    pub fn new(stop: CancellationToken, drain: Duration) -> Ending {
        let over = CancellationToken::new();
        let (asked, ended) = (stop.clone(), over.clone());
        let timer = tokio::spawn(async move {
            asked.cancelled().await;
            tokio::time::sleep(drain).await;
            ended.cancel();
        });
        Ending { stop, over, _timer: AbortOnDropHandle::new(timer) }
    }
}

/// How waiting without a connection came to its end.
enum Waited<T> {
    Done(T),
    /// It was told to stop.
    Stopped,
    /// Another client goes on, or none.
    Changed,
}

impl Dispatcher {
    /// Connects, however long it takes; `false` when told to stop before that, or when its broker is
    /// gone.
    pub(super) async fn connect(
        &mut self,
        client: &mut Client,
        ending: &Ending,
    ) -> Result<bool, Error> {
        let mut failures = self.fruitless;
        loop {
            if self.exchange(client).await {
                failures = 0;
            }
            if self.has_left() {
                return Ok(false);
            }
            if failures > 0 {
                let wait = tokio::time::sleep(RECONNECT.jittered(failures));
                match self.meanwhile(wait, &ending.stop).await? {
                    Waited::Done(()) => {}
                    Waited::Stopped => return Ok(false),
                    Waited::Changed => continue,
                }
            }
            let broker = &mut *client.broker;
            // A broker that is not known to be down is given its chance before a drain is given up:
            // there may be something to publish.
            let give_up = if self.health.is_well() { &ending.over } else { &ending.stop };
            match self.meanwhile(broker.connect(), give_up).await? {
                Waited::Stopped => return Ok(false),
                Waited::Changed => continue,
                Waited::Done(Ok(())) => {
                    self.fruitless += 1;
                    self.stats.connections.inc();
                    self.health.connected(&self.name, broker.hold());
                    if self.health.is_well() && broker.is_there() {
                        tracing::info!(broker = %self.name, "connected");
                    }
                    return Ok(true);
                }
                Waited::Done(Err(error)) => {
                    self.stats.connect_failures.inc();
                    self.health.trouble(&self.name, error.to_string());
                }
            }
            failures += 1;
        }
    }

    /// Waits for `work` while everything goes on that needs no connection, until `give_up` is
    /// cancelled.
    async fn meanwhile<T>(
        &mut self,
        work: impl Future<Output = T>,
        give_up: &CancellationToken,
    ) -> Result<Waited<T>, Error> {
        tokio::pin!(work);
        loop {
            let wake = tokio::select! {
                biased;
                () = give_up.cancelled() => return Ok(Waited::Stopped),
                done = &mut work => return Ok(Waited::Done(done)),
                wake = self.next(false) => wake?,
            };
            // Nothing is in flight without a connection, so nothing can report it down.
            let _no_connection = self.handle(wake);
            if self.has_left() || self.is_succeeded() {
                return Ok(Waited::Changed);
            }
        }
    }
}
