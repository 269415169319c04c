//! The task that owns a connection's publishing channel: hands messages to the client in order and
//! tells each what became of it.
//!
//! Every publish in flight is one future of the client: write the frames, then wait for the
//! broker's answer. One task polls them all, each with a waker of its own ([`Woken`]), for two
//! reasons. Between seeing a confirmation and giving a verdict it takes everything that was woken
//! before, which is what makes the [`Ledger`]'s verdicts certain. (The client's thread resolves and
//! wakes one after the other, and a publish that is still being written cannot hide a return: its
//! future is polled here, too.) And the cost of a confirmation does not grow with the window.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytestring::ByteString;
use futures_util::{FutureExt, Stream, StreamExt, future::BoxFuture};
use lapin::{
    Channel, Confirmation, Connection, ConnectionState, Event, options::BasicPublishOptions,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};

use super::{
    fault::Fault,
    ledger::{Ledger, PublishId, Resolution, Verdict},
    lessons::{Lessons, Objection},
    message::{Outgoing, publish_id},
    queue::{Order, Queue, Room},
    woken::Woken,
};
use crate::broker::{Error, Flow};

/// How long a message may wait for its confirmation. Brokers confirm within milliseconds, a quorum
/// queue that elects a leader within seconds.
pub const CONFIRM: Duration = Duration::from_secs(30);

/// How long to wait for the reason once the channel is known to be closed: it follows at once.
const REASON: Duration = Duration::from_secs(1);

/// How often to look whether the connection is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Messages handed over together reach their deadlines one after the other. Those this near to
/// theirs when the first one ends the session are judged like it, or each of them would cost
/// everybody a session of its own.
const NEARLY_DUE: Duration = Duration::from_secs(1);

/// What outlives the task.
#[derive(Clone, Default)]
pub struct Outcome {
    /// Why the channel is of no use any more.
    pub ended: Arc<OnceLock<Error>>,
    pub lessons: Arc<Mutex<Lessons>>,
    /// How many of the next messages go alone, because one of them may be what a channel was closed
    /// for, and nothing tells which.
    pub careful: Arc<AtomicUsize>,
    /// Whether the broker takes messages.
    pub flow: watch::Sender<Flow>,
}

struct Flight {
    /// Gone once it has resolved.
    answer: Option<BoxFuture<'static, lapin::Result<Confirmation>>>,
    waker: Waker,
    deadline: Instant,
    exchange: ByteString,
    routing_key: ByteString,
    reply: oneshot::Sender<Result<(), Error>>,
}

pub struct Confirmer {
    connection: Arc<Connection>,
    channel: Channel,
    queue: Queue,
    /// Unique to this connection; part of every publish's header.
    name: String,
    ledger: Ledger,
    flights: HashMap<PublishId, Flight>,
    woken: Arc<Woken>,
    outcome: Outcome,
    /// Whether the client notices a peer that is gone: then a block may last.
    has_heartbeats: bool,
    /// The newest message that the broker has answered.
    newest_answered: Option<PublishId>,
}

impl Confirmer {
    pub fn new(connection: Arc<Connection>, channel: Channel, outcome: Outcome) -> Confirmer {
        let queue = Queue::new(Arc::clone(&connection), Arc::clone(&outcome.careful));
        let has_heartbeats = connection.configuration().heartbeat() > 0;
        Confirmer {
            connection,
            channel,
            queue,
            name: uuid::Uuid::now_v7().simple().to_string(),
            ledger: Ledger::default(),
            flights: HashMap::new(),
            woken: Arc::default(),
            outcome,
            has_heartbeats,
            newest_answered: None,
        }
    }

    /// Publishes until the orders end and all of them have their verdict, or the connection fails.
    pub async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        events: impl Stream<Item = Event>,
    ) {
        let mut events = pin!(events.fuse());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        while open || !self.flights.is_empty() || !self.queue.is_empty() {
            let (confirmed_by, answered_by) = self.deadlines();
            let mut fault = None;
            tokio::select! {
                order = orders.recv(), if open => match order {
                    Some(order) => self.queue.push(order),
                    None => open = false,
                },
                () = self.woken.wait() => {}
                answered = self.queue.answered() => fault = answered.err().map(Fault::Client),
                Some(event) = events.next() => fault = self.notice(event),
                _ = looks.tick() => fault = self.look(),
                () = until(confirmed_by) => fault = Some(Fault::Unconfirmed),
                () = until(answered_by) => fault = Some(Fault::Unanswered),
            }
            if let Some(fault) = self.advance(fault) {
                return self.fail(fault).await;
            }
        }
    }

    /// When the oldest message must have its confirmation, and when the question under way its
    /// answer. A broker that is blocked, and shows that it is there, has the time it takes.
    fn deadlines(&self) -> (Option<Instant>, Option<Instant>) {
        if self.has_heartbeats && self.is_blocked() {
            return (None, None);
        }
        let oldest = self.ledger.pending().next();
        (oldest.map(|id| self.flights[&id].deadline), self.queue.deadline())
    }

    fn is_blocked(&self) -> bool {
        self.outcome.flow.borrow().on_hold().is_some()
    }

    /// Hands over the messages whose turn it is and tells those whose verdict is certain, as long as
    /// one makes way for the other.
    fn advance(&mut self, mut fault: Option<Fault>) -> Option<Fault> {
        loop {
            let mut begun = false;
            while fault.is_none()
                && let Some((order, room)) = self.queue.next(self.flights.len())
            {
                fault = self.begin(order, room).err();
                begun = true;
            }
            fault = self.harvest(fault);
            self.settle();
            if !begun {
                return fault;
            }
        }
    }

    fn begin(&mut self, order: Order, room: Room) -> Result<(), Fault> {
        let Order { outgoing, exchange, routing_key, reply } = order;
        let id = self.ledger.begin();
        let channel = self.channel.clone();
        let Outgoing { exchange: to, routing_key: key, body, attributes, .. } = outgoing;
        let properties = attributes.of_publish(&self.name, id);
        let answer = async move {
            let options = BasicPublishOptions { mandatory: true, immediate: false };
            let confirm = channel.basic_publish(to, key, options, &body, properties).await?;
            drop((body, room));
            confirm.await
        };
        let flight = Flight {
            answer: Some(answer.boxed()),
            waker: self.woken.waker(id),
            deadline: Instant::now() + CONFIRM,
            exchange,
            routing_key,
            reply,
        };
        self.flights.insert(id, flight);
        self.poll(id)
    }

    /// Polls a publish and enters what it resolved with.
    fn poll(&mut self, id: PublishId) -> Result<(), Fault> {
        // A future may have been woken more than once, or have been settled since.
        let Some(flight) = self.flights.get_mut(&id) else { return Ok(()) };
        let Some(answer) = &mut flight.answer else { return Ok(()) };
        let Poll::Ready(answer) = answer.as_mut().poll(&mut Context::from_waker(&flight.waker))
        else {
            return Ok(());
        };
        flight.answer = None;
        let (acked, returned) = match answer {
            Ok(Confirmation::Ack(returned)) => (true, returned),
            Ok(Confirmation::Nack(returned)) => (false, returned),
            Ok(Confirmation::NotRequested) => {
                return Err(Fault::Protocol("a publish without a confirmation"));
            }
            Err(error) => return Err(Fault::Client(error)),
        };
        let carried = match returned {
            Some(returned) => Some(
                publish_id(&returned.delivery.properties, &self.name)
                    .ok_or(Fault::Protocol("a message came back that we did not send"))?,
            ),
            None => None,
        };
        if self.ledger.resolved(id, Resolution { acked, carried }) {
            Ok(())
        } else {
            Err(Fault::Protocol("a message came back after its acknowledgement"))
        }
    }

    /// Polls whatever was woken until nothing is left. Keeps the fault that explains most: once the
    /// channel is closed every publish fails, but only those in flight then are told why.
    fn harvest(&mut self, mut fault: Option<Fault>) -> Option<Fault> {
        loop {
            let ids = self.woken.take();
            if ids.is_empty() {
                return fault;
            }
            for id in ids {
                if let Err(found) = self.poll(id)
                    && !fault.as_ref().is_some_and(Fault::explains)
                {
                    fault = Some(found);
                }
            }
        }
    }

    /// Tells those whose verdict is certain.
    fn settle(&mut self) {
        for (id, verdict) in self.ledger.settle() {
            let Some(flight) = self.flights.remove(&id) else { continue };
            self.newest_answered = self.newest_answered.max(Some(id));
            let outcome = match verdict {
                Verdict::Confirmed => Ok(()),
                Verdict::Rejected => Err(rejected()),
                Verdict::Unroutable => Err(unroutable(&flight)),
            };
            answer(flight, outcome);
        }
    }

    fn notice(&mut self, event: Event) -> Option<Fault> {
        match event {
            Event::ConnectionBlocked(reason) => {
                self.outcome.flow.send_replace(Flow::OnHold(blocked(&reason)));
            }
            Event::ConnectionUnblocked => {
                self.outcome.flow.send_replace(Flow::Open);
                let deadline = Instant::now() + CONFIRM;
                self.flights.values_mut().for_each(|flight| flight.deadline = deadline);
                self.queue.start_waiting_anew();
            }
            // Another channel's errors, those of a probe, come here as well.
            Event::Error(error) if self.is_dead() => return Some(Fault::Client(error)),
            _ => {}
        }
        None
    }

    /// The client marks a connection before it says so, and its channels afterwards.
    fn is_dead(&self) -> bool {
        !self.connection.status().connected() || !self.channel.status().connected()
    }

    /// What the client has no event for: a goodbye of the broker's while nothing is in flight.
    fn look(&self) -> Option<Fault> {
        let gone = || lapin::ErrorKind::InvalidConnectionState(ConnectionState::Closed);
        self.is_dead().then(|| Fault::Client(gone().into()))
    }

    /// Ends the session: what is in flight has an unknown outcome, unless only one message can be
    /// what the broker objected to.
    async fn fail(mut self, fault: Fault) {
        let fault = self.explained(fault).await;
        let objection = match &fault {
            Fault::Client(error) => Objection::read(error),
            Fault::Protocol(_) | Fault::Unconfirmed | Fault::Unanswered => None,
        };
        let down = Error::Down(self.describe(&fault));
        let pending: Vec<_> = self.ledger.pending().collect();
        // What outlives the task is set before anybody is told, so that whoever is told finds it.
        self.outcome.ended.get_or_init(|| down.clone());
        if let Some(objection) = objection {
            self.learn(&objection, &pending);
            if let [only] = pending[..]
                && let Some(flight) = self.flights.remove(&only)
            {
                answer(flight, Err(objection.into()));
            }
        }
        let (passed_over, others) = part(self.flights, self.newest_answered, Instant::now());
        // First: whoever meets the first `Down` takes what has its answer by then, and publishes
        // all the rest again, as if nothing were known about it.
        passed_over.into_iter().for_each(|flight| answer(flight, Err(unanswered())));
        others.into_iter().for_each(|flight| answer(flight, Err(down.clone())));
        self.outcome.flow.send_replace(Flow::Ended(down.to_string()));
    }

    fn learn(&self, objection: &Objection, pending: &[PublishId]) {
        let addresses = pending
            .iter()
            .filter_map(|id| self.flights.get(id))
            .map(|flight| (&flight.exchange, &flight.routing_key));
        let mut lessons = self.outcome.lessons.lock().unwrap_or_else(PoisonError::into_inner);
        let learnt = lessons.learn(objection, addresses, std::time::Instant::now());
        if !learnt && pending.len() > 1 {
            self.outcome.careful.fetch_max(pending.len(), Relaxed);
        }
    }

    /// The fault, or the reason for it, which may still be on its way from the client's thread.
    async fn explained(&mut self, fault: Fault) -> Fault {
        if !fault.may_be_explained() {
            return fault;
        }
        let woken = Arc::clone(&self.woken);
        let reason = async {
            loop {
                woken.wait().await;
                if let Some(reason) = self.harvest(None).filter(Fault::explains) {
                    return reason;
                }
            }
        };
        timeout(REASON, reason).await.unwrap_or(fault)
    }

    /// Why the session ends; where an answer is overdue, what the broker says of itself tells more.
    fn describe(&self, fault: &Fault) -> String {
        let flow = self.outcome.flow.borrow();
        let hold = flow.on_hold().filter(|_| fault.is_overdue());
        hold.map_or_else(|| fault.to_string(), str::to_owned)
    }
}

/// The flights that the broker has passed over, and the others. It is well if it has answered what
/// came later: the trouble is those messages' queue's.
fn part(
    flights: impl IntoIterator<Item = (PublishId, Flight)>,
    newest_answered: Option<PublishId>,
    now: Instant,
) -> (Vec<Flight>, Vec<Flight>) {
    let (mut passed_over, mut others) = (Vec::new(), Vec::new());
    for (id, flight) in flights {
        let due = flight.deadline <= now + NEARLY_DUE;
        let part = if due && Some(id) < newest_answered { &mut passed_over } else { &mut others };
        part.push(flight);
    }
    (passed_over, others)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn answer(flight: Flight, outcome: Result<(), Error>) {
    // Whoever asked may have stopped waiting; nothing is owed to it then.
    let _ = flight.reply.send(outcome);
}

/// Why messages wait, with what the broker said: `low on memory`, `low on disk`.
fn blocked(reason: &str) -> String {
    let reason = reason.replace(char::is_control, "\u{fffd}");
    format!("the broker blocks publishing ({reason}): give it memory or disk, or drain its queues")
}

fn unanswered() -> Error {
    let limit = CONFIRM.as_secs();
    Error::Failed(format!(
        "no confirmation within {limit} s, although later messages had theirs: a queue is stuck, \
         or without a majority of its replicas"
    ))
}

fn rejected() -> Error {
    let text = "the broker rejected the message: a queue is full, or its node is down";
    Error::Failed(text.to_owned())
}

fn unroutable(flight: &Flight) -> Error {
    let (exchange, routing_key): (&str, &str) = (&flight.exchange, &flight.routing_key);
    Error::Refused(format!(
        "unroutable: no queue is bound to exchange {exchange:?} for routing key {routing_key:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_over_together_fails_together_and_says_nothing_about_the_rest() {
        let now = Instant::now();
        let flight = |id: PublishId, left: Duration| {
            let (reply, _) = oneshot::channel();
            let flight = Flight {
                answer: None,
                waker: Waker::noop().clone(),
                deadline: now + left,
                exchange: ByteString::new(),
                routing_key: id.to_string().into(),
                reply,
            };
            (id, flight)
        };
        let flights = || {
            let left = [Duration::ZERO, NEARLY_DUE, 2 * NEARLY_DUE, Duration::ZERO];
            (0..).zip(left).map(|(id, left)| flight(id, left))
        };
        let names = |flights: Vec<Flight>| {
            flights.into_iter().map(|flight| flight.routing_key.to_string()).collect::<Vec<_>>()
        };
        let (passed_over, others) = part(flights(), Some(3), now);
        assert_eq!(names(passed_over), ["0", "1"]);
        assert_eq!(names(others), ["2", "3"], "not due, or nothing later was answered");
        let (passed_over, others) = part(flights(), None, now);
        assert_eq!((passed_over.len(), others.len()), (0, 4));
    }
}
