//! A dispatcher goes on through another client, or leaves.
//!
//! - Another client of the same type: nothing more is sent; what is in flight has [`FINISH`] to be
//!   confirmed and is otherwise sent again, in order, through the new one. The cursor, what is parked
//!   and what is being retried stay.
//! - None, or one of another type: what was owed until now still goes through the present client.
//!   "Until now" is over when no request runs on a table that was in force before: the journal's end
//!   at that moment is the boundary. What is left at the end of the time allowed becomes dead letters.
//!   Then the other client takes over, or the dispatcher ends; its cursor stays where it is and pins
//!   nothing.
//!
//! If it is told something else meanwhile, that comes after: the clients stand in a [`Line`], and each
//! has its time. Messages for those that take over are held over until then.

use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{
    CLOSE, Dispatcher,
    job::{Job, LaneKind},
    lane::Lane,
    line::Left,
    orders::{Client, Order},
};

/// How long what is in flight may take once another client is to go on.
const FINISH: Duration = Duration::from_secs(5);

/// The client that is to go on.
pub(super) struct Succession {
    client: Client,
    /// How long the present one has for what is in flight.
    by: Instant,
}

impl Dispatcher {
    /// Takes in what it was told.
    pub(super) fn follow(&mut self, order: Order) {
        let dead_letters = self.stats.dead_letters.get();
        if let Some(client) = self.line.follow(order, Instant::now(), dead_letters) {
            self.succeed(client);
        }
        self.enqueue_held_over();
        self.look_after_leave();
    }

    fn succeed(&mut self, client: Client) {
        self.succession = Some(Succession { client, by: Instant::now() + FINISH });
    }

    /// Once a tick, and when told: finds the boundaries, and the end of the time.
    pub(super) fn look_after_leave(&mut self) {
        let found = self.line.find_boundaries(self.main.journal().fence());
        if let Some(reason) = self.line.runs_out(Instant::now()) {
            self.succeed(Client::absent(&reason));
        }
        if found {
            // What is past one may wait to be sent.
            self.requeue(Vec::new());
        }
        self.look_ahead();
    }

    /// Keeps a job for a client that takes over; gives back one that is not for any.
    pub(super) fn hold_over(&mut self, job: Job) -> Option<Job> {
        if !self.line.is_for_successor(&job) {
            return Some(job);
        }
        self.held_over.push(job);
        None
    }

    /// Others may take over, or be left: each job that was held over goes where it belongs now.
    fn enqueue_held_over(&mut self) {
        let held_over = std::mem::take(&mut self.held_over);
        self.requeue(held_over);
    }

    /// Whether another client is to go on, and the present one should send nothing more.
    pub(super) fn is_succeeded(&self) -> bool {
        self.succession.is_some()
    }

    /// Whether the present client has had its time.
    pub(super) fn may_exchange(&self) -> bool {
        let is_done = |next: &Succession| self.in_flight.is_empty() || next.by <= Instant::now();
        self.succession.as_ref().is_some_and(is_done)
    }

    /// Goes on through the client that it was told to, if it was.
    pub(super) async fn exchange(&mut self, client: &mut Client) -> bool {
        let Some(Succession { client: next, .. }) = self.succession.take() else { return false };
        client.broker.close(CLOSE).await;
        // A broker that is down by now makes no difference any more.
        let _down = self.harvest();
        self.publishing = FuturesUnordered::new();
        self.fruitless = 0;
        *client = next;
        self.stats.goes_on_through(self.line.kind());
        self.health.renewed(&self.name);
        let mut jobs: Vec<Job> = self.in_flight.drain().map(|(_, job)| job).collect();
        if self.line.is_over() {
            jobs.extend(std::mem::take(&mut self.retries).into_values());
            self.parked_retries = 0;
        }
        self.requeue(jobs);
        self.relieve();
        true
    }

    /// Once all is settled that was owed before: whether the dispatcher ends. If not, the next client
    /// takes over, or there is word for it.
    pub(super) fn has_left(&mut self) -> bool {
        if self.has_left || !self.owes_nothing_before() {
            return self.has_left;
        }
        if let Some(ahead) = self.ahead.take() {
            self.main.pass(ahead);
        }
        match self.line.next(Instant::now(), self.stats.dead_letters.get()) {
            Some(client) => {
                tracing::info!(broker = %self.name, "all is settled that the broker was owed before");
                self.succeed(client);
                self.enqueue_held_over();
            }
            None => self.has_left = self.orders.end(),
        }
        self.has_left
    }

    fn held_over_of(&self, lane: LaneKind) -> usize {
        self.held_over.iter().filter(|job| job.lane == lane).count()
    }

    /// If what is held over fills the main lane, what the present client is owed behind it is read
    /// ahead.
    fn look_ahead(&mut self) {
        let (Some(boundary), Some(kind)) = (self.line.boundary(), self.line.kind()) else { return };
        let held_over = self.held_over_of(LaneKind::Main);
        let is_stuck = held_over > 0
            && self.main.is_full_of(held_over)
            && self.main.next_position() < boundary;
        if self.ahead.is_none() && is_stuck {
            self.ahead = Some(self.main.ahead(kind, boundary, &self.limits));
        }
    }

    fn owes_nothing_before(&self) -> bool {
        let Some(boundary) = self.line.boundary() else { return false };
        let waits_for_the_disk =
            self.main.left_something_behind() || self.parked.left_something_behind();
        if !self.in_flight.is_empty() || waits_for_the_disk {
            return false;
        }
        let held_main = self.held_over_of(LaneKind::Main);
        let held_parked = self.held_over_of(LaneKind::Parked);
        let is_through = || self.ahead.as_ref().is_some_and(Lane::is_through);
        let read_main = self.main.next_position() >= boundary || is_through();
        // Held over, they may fill the window: then the rest is left to the next client.
        let read_parked =
            self.parked.has_read_all() || held_parked > 0 && self.parked.is_full_of(held_parked);
        read_main
            && read_parked
            && self.main.window().unsettled() == held_main
            && self.parked.window().unsettled() == held_parked
            && self.succession.is_none()
            && self.keeping.is_empty()
            && self.relief.is_idle()
    }

    /// The broker is gone: nothing of it stays but its place, until nothing could be owed to it.
    pub(super) fn forget(&self) {
        let Some(left) = self.line.left(self.stats.dead_letters.get()) else { return };
        self.main.retire();
        self.shared.backlogs.set_full(&self.name, false);
        match left {
            Left { dead_letters: 0, was_over: false } => tracing::info!(
                broker = %self.name, "a broker is gone: all that it was owed is settled"
            ),
            // One that was gone before this start.
            Left { dead_letters: 0, was_over: true } => {}
            Left { dead_letters, .. } => tracing::warn!(
                broker = %self.name, dead_letters,
                "a broker is gone, and what it was still owed are dead letters"
            ),
        }
    }
}
