//! Messages that were handed to the session and wait for their turn, in order.
//!
//! The first one waits until its exchange is known to exist, until the client has written enough of
//! what was sent before, and, where one of these messages closed the last channel, until it goes
//! alone. All behind it wait with it. Bounded by the dispatcher's window.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytestring::ByteString;
use futures_util::{FutureExt, future::BoxFuture};
use lapin::Connection;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use super::{
    exchanges::{self, Exchanges},
    message::Outgoing,
};
use crate::broker::Error;

/// Bytes that the client holds and has not written. Enough to keep a socket busy; what is more
/// waits with us.
const UNWRITTEN_BYTES: usize = 4 << 20;

/// How long the broker may take to say whether an exchange exists: three round trips.
pub const PROBE: Duration = Duration::from_secs(10);

/// A message on its way to the client.
pub struct Order {
    pub outgoing: Outgoing,
    pub exchange: ByteString,
    pub routing_key: ByteString,
    pub reply: oneshot::Sender<Result<(), Error>>,
}

/// Room among the bytes that the client has not written; given back once they are.
pub type Room = OwnedSemaphorePermit;

/// See the module.
pub struct Queue {
    connection: Arc<Connection>,
    waiting: VecDeque<Order>,
    unwritten: Arc<Semaphore>,
    exchanges: Exchanges,
    probe: Option<Probe>,
    /// How many of the next messages go alone.
    careful: Arc<AtomicUsize>,
}

/// A question under way.
struct Probe {
    exchange: ByteString,
    answer: BoxFuture<'static, lapin::Result<bool>>,
    deadline: Instant,
}

impl Queue {
    /// An empty queue, of which the first `careful` messages go alone.
    pub fn new(connection: Arc<Connection>, careful: Arc<AtomicUsize>) -> Queue {
        Queue {
            connection,
            waiting: VecDeque::new(),
            unwritten: Arc::new(Semaphore::new(UNWRITTEN_BYTES)),
            exchanges: Exchanges::default(),
            probe: None,
            careful,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn push(&mut self, order: Order) {
        self.waiting.push_back(order);
    }

    /// The next message, if its turn has come while so many are `in_flight`. Those whose exchange
    /// is missing are told so on the way.
    pub fn next(&mut self, in_flight: usize) -> Option<(Order, Room)> {
        loop {
            let order = self.waiting.front()?;
            match self.exchanges.has(&order.exchange) {
                Some(true) => break,
                Some(false) => {
                    let order = self.waiting.pop_front()?;
                    let name: &str = &order.exchange;
                    let missing = Error::Failed(format!("no exchange {name:?}"));
                    // Whoever asked may have stopped waiting; nothing is owed to it then.
                    let _ = order.reply.send(Err(missing));
                }
                None => {
                    self.ask();
                    return None;
                }
            }
        }
        let careful = self.careful.load(Relaxed);
        if careful > 0 && in_flight > 0 {
            return None;
        }
        let bytes = self.waiting.front()?.outgoing.bytes;
        // A message larger than the whole allowance takes all of it. The cast is lossless.
        let room = bytes.min(UNWRITTEN_BYTES) as u32;
        let room = Arc::clone(&self.unwritten).try_acquire_many_owned(room).ok()?;
        self.careful.store(careful.saturating_sub(1), Relaxed);
        Some((self.waiting.pop_front()?, room))
    }

    /// Asks for the first message's exchange, unless a question is under way.
    fn ask(&mut self) {
        let Some(order) = self.waiting.front().filter(|_| self.probe.is_none()) else { return };
        let (connection, name) = (Arc::clone(&self.connection), order.outgoing.exchange.clone());
        self.probe = Some(Probe {
            exchange: order.exchange.clone(),
            answer: async move { exchanges::exists(&connection, &name).await }.boxed(),
            deadline: Instant::now() + PROBE,
        });
    }

    /// Waits for the answer to the question under way; for ever if there is none. Cancel-safe.
    pub async fn answered(&mut self) -> lapin::Result<()> {
        let Some(probe) = &mut self.probe else { return std::future::pending().await };
        let answer = (&mut probe.answer).await;
        if let Some(probe) = self.probe.take() {
            self.exchanges.learn(probe.exchange, answer?);
        }
        Ok(())
    }

    /// When the question under way is to be given up.
    pub fn deadline(&self) -> Option<Instant> {
        self.probe.as_ref().map(|probe| probe.deadline)
    }

    /// The time until now does not count: the broker was not to be heard.
    pub fn start_waiting_anew(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.deadline = Instant::now() + PROBE;
        }
    }
}
