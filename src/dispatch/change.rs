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
//! Messages for the client that takes over are held over meanwhile: those past the boundary, and
//! those with an address that the present one does not take.

use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{
    CLOSE, Dispatcher,
    job::{Job, LaneKind},
    orders::{Client, Farewell, Order},
};
use crate::{event::Address, journal::Position};

/// How long what is in flight may take once another client is to go on.
const FINISH: Duration = Duration::from_secs(5);

/// The client that is to go on.
pub(super) struct Succession {
    client: Client,
    /// How long the present one has for what is in flight.
    by: Instant,
}

/// The present client is being left.
pub(super) struct Leaving {
    farewell: Farewell,
    /// Who takes over.
    successor: Option<Client>,
    /// Which addresses are of the kind of the client that is being left.
    takes: fn(&Address) -> bool,
    /// Everything owed before lies below this.
    boundary: Option<Position>,
    /// Whether what is left becomes dead letters.
    is_over: bool,
    /// What is for the client that takes over.
    held_over: Vec<Job>,
    /// Dead letters of this dispatcher before.
    dead_before: u64,
}

impl Leaving {
    fn is_for_successor(&self, job: &Job) -> bool {
        let past = |boundary| job.lane == LaneKind::Main && job.position >= boundary;
        let of_other_kind = |address: &Address| !(self.takes)(address);
        self.successor.is_some()
            && (self.boundary.is_some_and(past)
                || job.message.address.as_ref().is_ok_and(of_other_kind))
    }
}

impl Dispatcher {
    /// Takes in what it was told.
    pub(super) fn follow(&mut self, order: Order) {
        let Order { client, farewell } = order;
        match client {
            Some(client) if self.kind.is_none() || self.kind == client.kind => {
                self.stay();
                self.succeed(client);
            }
            successor => self.leave(successor, farewell),
        }
        self.look_after_leave();
    }

    fn leave(&mut self, successor: Option<Client>, farewell: Farewell) {
        if let Some(leaving) = &mut self.leaving {
            // Its time has begun; but more may have been added to what it is owed.
            leaving.farewell.tables = farewell.tables;
            (leaving.successor, leaving.boundary) = (successor, None);
            let held_over = std::mem::take(&mut leaving.held_over);
            return self.requeue(held_over);
        }
        self.leaving = Some(Leaving {
            farewell,
            successor,
            takes: self.takes,
            boundary: None,
            is_over: false,
            held_over: Vec::new(),
            dead_before: self.stats.dead_letters.get(),
        });
    }

    /// The present client is not left after all, or the next one takes over.
    fn stay(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            self.requeue(leaving.held_over);
        }
    }

    fn succeed(&mut self, client: Client) {
        self.succession = Some(Succession { client, by: Instant::now() + FINISH });
    }

    /// Once a tick, and when told: finds the boundary, and the end of the time.
    pub(super) fn look_after_leave(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        let Farewell { tables, until, reason } = &leaving.farewell;
        let no_more_comes = tables.iter().all(|table| table.strong_count() == 0);
        let finds_boundary = leaving.boundary.is_none() && no_more_comes;
        if finds_boundary {
            leaving.boundary = Some(self.main.journal().end());
        }
        if !leaving.is_over && *until <= Instant::now() {
            leaving.is_over = true;
            let absent = Client::absent(reason);
            self.succeed(absent);
        }
        if finds_boundary {
            // What is past it may wait to be sent.
            self.requeue(Vec::new());
        }
    }

    /// Keeps a job for the client that takes over; gives back one that is not for it.
    pub(super) fn hold_over(&mut self, job: Job) -> Option<Job> {
        match &mut self.leaving {
            Some(leaving) if leaving.is_for_successor(&job) => leaving.held_over.push(job),
            _ => return Some(job),
        }
        None
    }

    /// Whether what is left becomes dead letters, so that nothing waits for its time.
    pub(super) fn is_over(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.is_over)
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
        (self.kind, self.takes, self.fruitless) = (next.kind, next.takes, 0);
        *client = next;
        self.health.renewed(&self.name);
        let mut jobs: Vec<Job> = self.in_flight.drain().map(|(_, job)| job).collect();
        if self.is_over() {
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
        let successor = self.leaving.as_mut().and_then(|leaving| leaving.successor.take());
        match successor {
            Some(client) => {
                self.stay();
                self.succeed(client);
            }
            None => self.has_left = self.orders.end(),
        }
        self.has_left
    }

    fn owes_nothing_before(&self) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let held_over = leaving.held_over.len();
        let unsettled = self.main.window().unsettled() + self.parked.window().unsettled();
        let read_main = |boundary| {
            // Held over, they may fill the window: then the rest is left to the next client.
            self.main.next_position() >= boundary
                || held_over > 0 && self.main.is_full_of(self.main.window().unsettled())
        };
        unsettled == held_over
            && leaving.boundary.is_some_and(read_main)
            && self.parked.has_read_all()
            && self.succession.is_none()
            && self.keeping.is_empty()
            && self.relief.is_idle()
    }

    /// The broker is gone: nothing of it stays but its cursor.
    pub(super) fn forget(&self) {
        let Some(leaving) = &self.leaving else { return };
        self.shared.progress.forget(&self.name);
        self.shared.backlogs.set_full(&self.name, false);
        let dead_letters = self.stats.dead_letters.get() - leaving.dead_before;
        match (dead_letters, leaving.is_over) {
            (0, false) => tracing::info!(
                broker = %self.name, "a broker is gone: all that it was owed is settled"
            ),
            // One that was gone before this start.
            (0, true) => {}
            (dead_letters, _) => tracing::warn!(
                broker = %self.name, dead_letters,
                "a broker is gone, and what it was still owed are dead letters"
            ),
        }
    }
}
