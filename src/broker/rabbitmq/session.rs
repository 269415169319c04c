//! One connection: its socket, its publishing channel and what is known about the broker.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use lapin::{Connection, options::ConfirmSelectOptions};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    confirmer::{Confirmer, Outcome},
    lessons::Lessons,
    link::{Link, silent},
    message::Outgoing,
    queue::Order,
    settings::Endpoint,
    wire::Wire,
    words,
};
use crate::{
    broker::{Confirmation, Error, Hold, Publication},
    event::Address,
};

/// How long opening the publishing channel may take.
const OPEN: Duration = Duration::from_secs(10);

/// Messages between [`Session::publish`] and the confirmer; it takes them at once.
const ORDERS: usize = 64;

/// A connection that publishes. Dropping it ends everything on it.
pub struct Session {
    confirmer: AbortOnDropHandle<()>,
    orders: mpsc::Sender<Order>,
    outcome: Outcome,
    connection: Arc<Connection>,
    wire: Wire,
}

impl Session {
    /// Connects, and publishes the first `careful` messages one at a time.
    pub async fn open(
        endpoint: &Endpoint,
        lessons: Arc<Mutex<Lessons>>,
        careful: usize,
    ) -> Result<Session, Error> {
        let link = Link::open(endpoint).await?;
        let down = |what: String| Error::Down(format!("{}: {what}", endpoint.shown()));
        let channel = async {
            let channel = link.connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            Ok::<_, lapin::Error>(channel)
        };
        let channel = match timeout(OPEN, channel).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(down(words(&error))),
            Err(_) => return Err(down(silent("open a channel", OPEN))),
        };
        let careful = Arc::new(AtomicUsize::new(careful));
        let outcome = Outcome { lessons, careful, ..Outcome::default() };
        let (orders, receiver) = mpsc::channel(ORDERS);
        let Link { connection, wire } = link;
        let connection = Arc::new(connection);
        let confirmer = Confirmer::new(Arc::clone(&connection), channel, outcome.clone());
        let task = tokio::spawn(confirmer.run(receiver, connection.events_listener()));
        Ok(Session { confirmer: AbortOnDropHandle::new(task), orders, outcome, connection, wire })
    }

    /// How many messages the next session should publish one at a time.
    pub fn suspects(&self) -> usize {
        self.outcome.careful.load(Relaxed)
    }

    /// See [`Broker::hold`](crate::broker::Broker::hold).
    pub fn hold(&self) -> Hold {
        self.outcome.flow.subscribe()
    }

    /// See [`Broker::publish`](crate::broker::Broker::publish).
    pub async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Error> {
        if let Some(ended) = self.outcome.ended.get() {
            return Err(ended.clone());
        }
        let Address::Exchange { exchange, routing_key } = &publication.address else {
            return Err(Error::Refused(
                "the address is not an exchange and routing key".to_owned(),
            ));
        };
        let frame_max = self.connection.configuration().frame_max();
        let outgoing = Outgoing::new(publication, exchange, routing_key, frame_max)?;
        let body_bytes = outgoing.body.len();
        self.outcome.lessons.lock().unwrap_or_else(PoisonError::into_inner).check(
            exchange,
            routing_key,
            body_bytes,
            Instant::now(),
        )?;

        let (reply, verdict) = oneshot::channel();
        let (exchange, routing_key) = (exchange.clone(), routing_key.clone());
        let order = Order { outgoing, exchange, routing_key, reply };
        if self.orders.send(order).await.is_err() {
            return Err(why(&self.outcome.ended));
        }
        let ended = Arc::clone(&self.outcome.ended);
        let confirmation = verdict.map(move |verdict| match verdict {
            Ok(verdict) => verdict,
            Err(_) => Err(why(&ended)),
        });
        Ok(confirmation.boxed())
    }

    /// Waits for what is in flight, says goodbye and ends the connection.
    pub async fn close(self, deadline: Duration) {
        let Session { confirmer, orders, connection, wire, .. } = self;
        drop(orders);
        let goodbye = async {
            if let Err(error) = confirmer.await {
                tracing::error!(%error, "the task that waits for confirmations failed");
            }
            if let Err(error) = connection.close(200, "OK".into()).await {
                tracing::debug!(error = words(&error), "the connection had ended already");
            }
        };
        if timeout(deadline, goodbye).await.is_err() {
            tracing::debug!("the connection did not end in time; dropping it");
        }
        drop(wire);
    }
}

/// Why a message got no verdict: the session failed, or was dropped.
fn why(ended: &OnceLock<Error>) -> Error {
    let dropped = || Error::Down("the connection was dropped before the confirmation".to_owned());
    ended.get().cloned().unwrap_or_else(dropped)
}
