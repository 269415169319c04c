//! Reads the journal from a broker's place, publishes what that broker owes, and settles it.
//!
//! One [`Dispatcher`] a broker, one loop. All patience lives here: a broker publishes once and
//! classifies, this loop decides what happens next.
//!
//! - *confirmed*: settled.
//! - *down*: the connection is built anew, with backoff, for as long as it takes; what was
//!   unconfirmed is published again in order. Nothing is dead-lettered for it.
//! - *failed*: tried again with backoff, [`ATTEMPTS`] times in place, then **parked**: appended to
//!   the broker's own journal, so that the cursor goes on. From there it is tried until
//!   [`Limits::retry_for`] is over, then it is a dead letter.
//! - *refused*: a dead letter at once.
//!
//! A message settles only once it is confirmed, or durably parked, or durably a dead letter. A
//! broker that holds back more than [`Limits::backlog_bytes`] of the main journal has its waiting
//! messages parked too, in order ([`relief`]), and they go first when it is back; when its parked
//! messages reach the same bound, [`Backlogs`](crate::admit::Backlogs) says so and its events are refused at the door, or the
//! oldest parked ones make room ([`overflow`]).
//!
//! It is told through [`Orders`] when its broker's settings change ([`change`]): it goes on through
//! another client, or leaves.
//!
//! Order is kept except across a retry, with one exception: where a broker accepts connections and
//! confirms nothing on [`FRUITLESS`] of them in a row, messages are tried one at a time, each by
//! itself, until one is confirmed. That one may have passed all of the window that is older; the
//! others then go in order again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytestring::ByteString;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rustc_hash::FxHashMap;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    broker::{self, Broker, Publication},
    clock::Steady,
    feed::Outcome,
    journal::{self, Journal, Position},
    quiet::Quiet,
};

mod change;
mod connect;
pub mod dead_letter;
mod fate;
mod health;
mod job;
pub mod kept;
mod lane;
mod line;
mod orders;
mod overflow;
mod relief;
mod shared;
mod stats;
mod window;

pub use dead_letter::DeadLetters;
pub use health::Holds;
pub use orders::{Client, Farewell, Order, Orders, Policy};
pub use shared::Shared;
pub use stats::{LaneProgress, State, Stats};
pub use window::Capacity;

use change::Succession;
use connect::Ending;
use health::Health;
use job::{InFlight, Job, LaneKind};
use lane::{Lane, LaneWake};
use line::Line;
use relief::Relief;

/// How often a message is tried in place before it is parked.
const ATTEMPTS: u32 = 5;

/// Between attempts to publish a message that failed.
const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(30) };

/// After so many connections in a row that confirmed nothing, messages go one at a time, so that one
/// which brings the connection down cannot take the others with it for ever.
const FRUITLESS: u32 = 3;

/// How long a connection may take to end once everything is drained or the drain's time is over.
const CLOSE: Duration = Duration::from_secs(2);

/// How often cursors are saved that moved, and backlogs looked at.
const TICK: Duration = Duration::from_secs(1);

/// Bounds of one dispatcher.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages under way: in flight, or settled but not yet below a saved cursor. What a crash may
    /// publish again.
    pub window: Capacity,
    /// How long a failing message is tried, unless the [`Policy`] says otherwise.
    pub retry_for: Duration,
    /// Bytes of the main journal that one broker may hold back, and bytes it may have parked, unless
    /// the [`Policy`] says otherwise.
    pub backlog_bytes: u64,
    /// How long a drain may take to publish what is left.
    pub drain: Duration,
}

/// Why a dispatcher ended: the daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error("the task that saves a place ended: {0}")]
    Saving(#[from] tokio::task::JoinError),
    #[error("journal entry {position} cannot be read ({cause}); it may be of a newer version")]
    Unreadable { position: Position, cause: String },
}

impl Error {
    /// See [`journal::Error::is_no_space`].
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Journal(error) if error.is_no_space())
    }
}

/// See the module.
pub struct Dispatcher {
    name: ByteString,
    limits: Limits,
    main: Lane,
    parked: Lane,
    /// While messages for the next client fill the main lane: what the present one is owed behind them.
    ahead: Option<Lane>,
    shared: Shared,
    stats: Arc<Stats>,
    orders: Orders,
    line: Line,
    /// The client that goes on as soon as the present one lets go.
    succession: Option<Succession>,
    /// Work that is for a client that takes over later.
    held_over: Vec<Job>,
    /// Whether it ends because its broker is gone.
    has_left: bool,
    /// Parked messages below this make room.
    overflow_end: Position,
    /// Work that waits for its turn, in order.
    unsent: VecDeque<Job>,
    /// Work that waits for its time. The number keeps equal times apart.
    retries: BTreeMap<(Instant, u64), Job>,
    /// How many of those are parked messages.
    parked_retries: usize,
    in_flight: FxHashMap<u64, Job>,
    publishing: FuturesUnordered<InFlight>,
    /// Messages being written to the parked journal or to the dead letters.
    keeping: FuturesUnordered<BoxFuture<'static, Vec<SetAside>>>,
    next_ticket: u64,
    /// Of the turn given to the next message that is read.
    next_turn: u64,
    relief: Relief,
    /// Connections in a row that confirmed nothing.
    fruitless: u32,
    confirmed: u64,
    health: Health,
    given_up: Quiet,
    not_kept: Quiet,
    clock: Steady,
    tick: Interval,
}

/// A message set aside, and whether that is durable.
struct SetAside {
    job: Job,
    outcome: Outcome,
    written: Result<(), journal::AppendError>,
    /// Whether it did not fail, but was parked for the main cursor to go on.
    relief: bool,
}

/// What the loop woke up for.
enum Wake {
    Published(u64, Result<(), broker::Error>),
    Kept(Vec<SetAside>),
    Main(LaneWake),
    Parked(LaneWake),
    Ahead(LaneWake),
    Due,
    Tick,
    /// The connection has something to say of itself.
    Flow,
    /// There is an order.
    Told,
}

/// The broker is down, and why.
struct Down(String);

/// Why a connection is served no more.
enum Turn {
    Down(String),
    /// Another client goes on.
    Exchange,
    /// Everything is drained, or the time for that is over; or the broker is gone.
    Over,
}

impl Dispatcher {
    /// A dispatcher for the broker `name`, whose parked messages are in `parked`.
    pub fn open(
        name: ByteString,
        limits: Limits,
        parked: Journal,
        shared: Shared,
    ) -> Result<Dispatcher, Error> {
        let main = Lane::open(LaneKind::Main, shared.main.clone(), &name, &limits)?;
        let relief = Relief::at_start(parked.fence());
        let parked = Lane::open(LaneKind::Parked, parked, &name, &limits)?;
        let line = Line::vacant(main.journal().fence());
        let stats = Arc::new(Stats::new());
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let dispatcher = Dispatcher {
            name,
            limits,
            main,
            parked,
            ahead: None,
            health: Health::new(shared.holds.clone(), stats.clone()),
            shared,
            stats,
            orders: Orders::new(Policy::of(&limits)),
            line,
            succession: None,
            held_over: Vec::new(),
            has_left: false,
            overflow_end: Position::FIRST,
            unsent: VecDeque::new(),
            retries: BTreeMap::new(),
            parked_retries: 0,
            in_flight: FxHashMap::default(),
            publishing: FuturesUnordered::new(),
            keeping: FuturesUnordered::new(),
            next_ticket: 0,
            next_turn: 0,
            relief,
            fruitless: 0,
            confirmed: 0,
            given_up: Quiet::default(),
            not_kept: Quiet::default(),
            clock: Steady::start(),
            tick,
        };
        dispatcher.show_progress();
        Ok(dispatcher)
    }

    /// What it counts, also after it has ended.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Through which it is told what changes.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }

    /// Publishes until `stop`, then drains what can be drained within [`Limits::drain`]; or until its
    /// broker is gone and everything that it was owed is settled.
    pub async fn run(mut self, mut client: Client, stop: CancellationToken) -> Result<(), Error> {
        self.line = Line::of(&client, self.main.journal().fence());
        self.stats.goes_on_through(client.kind);
        let ending = Ending::new(stop, self.limits.drain);
        while self.connect(&mut client, &ending).await? {
            match self.serve(&mut *client.broker, &ending).await? {
                Turn::Over => break,
                Turn::Exchange => {}
                Turn::Down(reason) => self.recall(reason),
            }
        }
        self.finish(client.broker).await
    }

    /// Publishes through one connection.
    async fn serve(&mut self, broker: &mut dyn Broker, ending: &Ending) -> Result<Turn, Error> {
        let mut draining = false;
        loop {
            let sent = tokio::select! {
                biased;
                // What is being handed over is not settled, and comes again after the next start.
                () = ending.over.cancelled() => return Ok(Turn::Over),
                sent = self.send(broker) => sent,
            };
            if let Err(Down(reason)) = sent {
                return Ok(Turn::Down(reason));
            }
            if draining && self.is_drained() || self.has_left() {
                return Ok(Turn::Over);
            }
            if self.may_exchange() {
                return Ok(Turn::Exchange);
            }
            let wake = tokio::select! {
                biased;
                () = ending.over.cancelled() => return Ok(Turn::Over),
                () = ending.stop.cancelled(), if !draining => {
                    draining = true;
                    self.stats.stands(State::Draining, None);
                    continue;
                }
                wake = self.next(true) => wake?,
            };
            if let Err(Down(reason)) = self.handle(wake).and_then(|()| self.harvest()) {
                return Ok(Turn::Down(reason));
            }
        }
    }

    /// The next thing to do. Confirmations come first, since they make room. Cancel-safe.
    async fn next(&mut self, connected: bool) -> Result<Wake, Error> {
        for lane in [&mut self.main, &mut self.parked] {
            // Here, where the loop may come to rest: a full window waits for nothing else.
            if lane.wants_saving() {
                lane.start_saving();
            }
        }
        self.show_progress();
        let parked_next = self.parked.next_position();
        let parked_waits = self.parked.is_full_of(self.parked_retries);
        // Read also without a connection, up to the first message: a broker that is owed nothing
        // holds nothing back, and how long that one waits is known. More would only cost memory.
        let reads = |lane: &Lane| connected || lane.window().unsettled() == 0;
        let read_parked = reads(&self.parked);
        let read_main = self.ahead.is_none()
            && self.relief.reads_main(parked_next, parked_waits)
            && (self.relief.is_on() || reads(&self.main));
        let due = self.retries.first_key_value().map(|((at, _), _)| *at);
        let wake = tokio::select! {
            biased;
            Some((ticket, outcome)) = self.publishing.next() => Wake::Published(ticket, outcome),
            Some(kept) = self.keeping.next() => Wake::Kept(kept),
            _ = self.tick.tick() => Wake::Tick,
            () = self.orders.told() => Wake::Told,
            () = self.health.flow_changed(), if connected => Wake::Flow,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)),
                if connected && due.is_some() => Wake::Due,
            wake = self.parked.next(read_parked) => Wake::Parked(wake?),
            Some(wake) = lane::next_of(&mut self.ahead, connected) => Wake::Ahead(wake?),
            wake = self.main.next(read_main) => Wake::Main(wake?),
        };
        Ok(wake)
    }

    fn handle(&mut self, wake: Wake) -> Result<(), Down> {
        match wake {
            Wake::Published(ticket, outcome) => return self.published(ticket, outcome),
            Wake::Kept(kept) => {
                kept.into_iter().for_each(|kept| self.kept(kept));
                self.make_room();
            }
            Wake::Main(LaneWake::Saved)
            | Wake::Parked(LaneWake::Saved)
            | Wake::Ahead(LaneWake::Saved) => {}
            Wake::Due => self.enqueue_due(),
            Wake::Main(LaneWake::Read(jobs))
            | Wake::Parked(LaneWake::Read(jobs))
            | Wake::Ahead(LaneWake::Read(jobs)) => self.take(jobs),
            Wake::Tick => {
                for lane in [&mut self.main, &mut self.parked] {
                    lane.try_again();
                }
                if !self.health.is_well() && self.owes_nothing() {
                    self.health.owes_nothing();
                }
                self.health.look(&self.name);
                self.look_after_leave();
                self.look_after_backlog();
                return self.yield_to_relief();
            }
            Wake::Told => {
                self.orders.take().into_iter().for_each(|order| self.follow(order));
            }
            Wake::Flow => return self.health.note_flow(&self.name).map_err(Down),
        }
        Ok(())
    }

    fn take(&mut self, jobs: Vec<Job>) {
        let now_ms = self.clock.now_ms();
        for mut job in jobs {
            job.turn = self.next_turn;
            self.next_turn += 1;
            let Some(job) = self.unless_overflow(job) else { continue };
            if job.not_before_ms > now_ms && !self.line.is_over() {
                // Bounded, since the clock may have been set back meanwhile.
                let wait = Duration::from_millis(job.not_before_ms - now_ms).min(RETRY.max);
                self.retry_after(job, wait);
            } else {
                self.enqueue(job);
            }
        }
        self.relieve();
    }

    /// Hands over what waits for its turn.
    async fn send(&mut self, broker: &mut dyn Broker) -> Result<(), Down> {
        if self.health.is_on_hold() || self.is_succeeded() {
            return Ok(());
        }
        let at_once = if self.fruitless > FRUITLESS { 1 } else { usize::MAX };
        while self.in_flight.len() < at_once
            && let Some(mut job) = self.unsent.pop_front()
        {
            let address = match (&job.doom, &job.message.address) {
                (None, Ok(address)) => address.clone(),
                (Some(reason), _) | (None, Err(reason)) => {
                    let reason = reason.clone();
                    self.give_up(job, reason);
                    continue;
                }
            };
            job.suspicion.sent(self.confirmed);
            job.sent = Some(Instant::now());
            self.stats.handed_over(job.attempts > 0);
            let publication = Publication {
                event: job.event.clone(),
                address,
                format: job.message.format,
                headers: job.message.headers.clone(),
            };
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            let handed_over = broker.publish(&publication).await;
            self.in_flight.insert(ticket, job);
            match handed_over {
                Ok(confirmation) => {
                    self.publishing.push(InFlight { ticket, confirmation });
                }
                Err(error) => self.published(ticket, Err(error))?,
            }
        }
        Ok(())
    }

    /// Whether there is nothing to publish at this moment, nor on its way, so that nothing will show
    /// how the broker is.
    fn owes_nothing(&self) -> bool {
        // A suspect waits its time out and will show it then.
        let suspects = self.retries.values().any(|job| job.suspicion.put_back);
        self.unsent.is_empty()
            && self.in_flight.is_empty()
            && !suspects
            && self.main.has_read_all()
            && self.parked.has_read_all()
    }

    /// Whether all that can be published now is; what is being retried is on disk and can wait.
    fn is_drained(&self) -> bool {
        self.in_flight.is_empty()
            && self.keeping.is_empty()
            && self.unsent.is_empty()
            && self.relief.is_idle()
            && self.main.has_read_all()
            && self.parked.has_read_all()
    }

    /// Ends the connection, takes in what is known by then, and saves the cursors.
    async fn finish(mut self, mut broker: Box<dyn Broker>) -> Result<(), Error> {
        broker.close(CLOSE).await;
        // A broker that is down by now makes no difference any more.
        let _down = self.harvest();
        // Nobody waits for the rest any more; it is published again after the next start.
        self.publishing.clear();
        // What is durably set aside by now must also be settled: it would be set aside twice.
        while let Some(kept) = self.keeping.next().await {
            kept.into_iter().for_each(|kept| self.kept(kept));
        }
        self.main.save().await?;
        self.parked.save().await?;
        self.parked.journal().clone().close().await;
        if self.has_left {
            self.forget();
        }
        self.show_progress();
        self.stats.stands(State::Ended, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
