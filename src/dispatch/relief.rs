//! Relief of the main journal: what waits in it for a broker that takes nothing, and holds back too
//! much of it, is parked, in order, so that its place goes on. A broker that takes messages is served,
//! whatever it holds back: that frees the journal, and needs no room on the disk.
//!
//! The order holds because of four rules:
//!
//! 1. While relief is on, no message of the main lane is sent.
//! 2. Nothing is parked while one that was sent before is still in flight. It is older, and might
//!    come back to be parked behind what is younger.
//! 3. One batch is parked at a time, handed over one after the other, and the main lane is not read
//!    past what is not parked yet.
//! 4. Afterwards the main lane is read only once all that was parked has been read back.

use bytestring::ByteString;
use futures_util::FutureExt;

use super::{
    Dispatcher, Down, SetAside,
    fate::BACKLOG_SETTING,
    job::{Job, LaneKind},
    kept::SettingAside,
};
use crate::{
    feed::Outcome,
    journal::{Journal, Position},
    routing::WhenFull,
};

/// What a message is parked for that did not fail.
const REASON: ByteString = ByteString::from_static("waits for its broker");

/// See the module.
pub struct Relief {
    on: bool,
    /// Read from the main journal, to be parked.
    waiting: Vec<Job>,
    /// How many of the batch under way are not durable yet.
    parking: usize,
    /// Parked messages below this are older than what the main lane reads next.
    parked_first: Position,
}

impl Relief {
    /// None so far; what was parked in an earlier life, below `parked_end`, goes first.
    pub fn at_start(parked_end: Position) -> Relief {
        Relief { on: false, waiting: Vec::new(), parking: 0, parked_first: parked_end }
    }

    /// Whether messages of the main lane are parked.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Whether no message of the main lane waits to be parked.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.parking == 0
    }

    /// Whether the main lane is to be read: for relief, or to be published. Then it comes after what
    /// is parked and older, unless the parked lane itself waits (`parked_waits`) for messages that
    /// fail.
    pub fn reads_main(&self, parked_next: Position, parked_waits: bool) -> bool {
        self.is_idle() && (self.on || self.has_turn(parked_next, parked_waits))
    }

    /// Whether what is parked and older has been read back, or waits itself.
    fn has_turn(&self, parked_next: Position, parked_waits: bool) -> bool {
        parked_next >= self.parked_first || parked_waits
    }
}

impl Dispatcher {
    /// Puts a job whose turn has come where it goes now.
    pub(super) fn enqueue(&mut self, job: Job) {
        let Some(job) = self.unless_overflow(job) else { return };
        let Some(job) = self.hold_over(job) else { return };
        if self.relief.on && job.lane == LaneKind::Main {
            self.relief.waiting.push(job);
        } else {
            self.unsent.push_back(job);
        }
    }

    /// Once a tick: begins or ends relief, and says whether the backlog is full.
    pub(super) fn look_after_backlog(&mut self) {
        let (held, policy) = (self.main.held_bytes(), self.orders.policy().clone());
        let bound = policy.held_bytes;
        // One that confirms is served, and needs no relief whatever it holds back.
        let is_served = self.health.is_served();
        if !self.relief.on && held > bound && !is_served {
            tracing::warn!(broker = %self.name, held_bytes = held, "parking what waits for a broker");
            self.relief.on = true;
        } else if self.relief.on && (held <= bound / 2 && self.relief.is_idle() || is_served) {
            self.relief.on = false;
        }
        if self.relief.on {
            self.take_back_main();
            self.relieve();
        }
        self.resume_main();
        self.make_room();
        let parked = self.parked.held_bytes();
        let full = match policy.when_full {
            // What relief has not got to yet counts as well.
            WhenFull::Refuse => parked + held.saturating_sub(bound) >= policy.backlog_bytes,
            // Only where no room can be made: there is none among the dead letters.
            WhenFull::DeadLetterOldest => parked / 2 >= policy.backlog_bytes,
        };
        self.shared.backlogs.set_full(&self.name, full);
    }

    /// Sends what was to be parked, and was not, once what is parked and older has been read back.
    fn resume_main(&mut self) {
        let parked_waits = self.parked.is_full_of(self.parked_retries);
        let has_turn = self.relief.has_turn(self.parked.next_position(), parked_waits);
        if self.relief.on || self.relief.parking > 0 || !has_turn {
            return;
        }
        let mut waiting = std::mem::take(&mut self.relief.waiting);
        waiting.sort_by_key(|job| job.turn);
        waiting.into_iter().for_each(|job| self.enqueue(job));
    }

    /// Takes back what of the main lane waits to be sent, or sent again.
    fn take_back_main(&mut self) {
        for job in std::mem::take(&mut self.unsent) {
            self.enqueue(job);
        }
        let (now, now_ms) = (tokio::time::Instant::now(), self.clock.now_ms());
        for ((due, number), mut job) in std::mem::take(&mut self.retries) {
            if job.lane == LaneKind::Main {
                let wait = due.saturating_duration_since(now);
                job.not_before_ms = now_ms.saturating_add(wait.as_millis() as u64);
                self.enqueue(job);
            } else {
                self.retries.insert((due, number), job);
            }
        }
    }

    /// Parks what waits to be, unless something is in the way; then the next tick tries again.
    pub(super) fn relieve(&mut self) {
        let is_to = self.relief.on && !self.relief.waiting.is_empty();
        if !is_to || self.relief.parking > 0 || self.main_in_flight() {
            return;
        }
        let relief = &mut self.relief;
        let mut batch = std::mem::take(&mut relief.waiting);
        batch.sort_by_key(|job| job.turn);
        relief.parking = batch.len();
        self.keeping.push(park(self.parked.journal().clone(), batch, self.clock.now_ms()).boxed());
    }

    /// What is in flight on a connection that is on hold would be in relief's way for as long as that
    /// lasts: it is given up.
    pub(super) fn yield_to_relief(&self) -> Result<(), Down> {
        let in_the_way = self.relief.on && self.health.is_on_hold() && self.main_in_flight();
        if in_the_way {
            let reason = self.health.reason().unwrap_or_default();
            return Err(Down(reason.to_owned()));
        }
        Ok(())
    }

    fn main_in_flight(&self) -> bool {
        self.in_flight.values().any(|job| job.lane == LaneKind::Main)
    }

    /// One of the batch is parked, or could not be and waits for the next.
    pub(super) fn relieved(&mut self, kept: SetAside) {
        self.relief.parking -= 1;
        match kept.written {
            Ok(()) => {
                self.relief.parked_first = self.parked.journal().fence();
                self.settle(kept.job, kept.outcome);
            }
            Err(error) => {
                if let Some(more) = self.not_kept.speaks(self.clock.now_ms()) {
                    tracing::error!(
                        broker = %self.name, %error, more,
                        "not kept among the parked messages, which {BACKLOG_SETTING} bound; messages wait \
                         for that"
                    );
                }
                self.relief.waiting.push(kept.job);
            }
        }
    }
}

/// Hands over one after the other, which is the order they are read back in, and waits for all.
async fn park(journal: Journal, batch: Vec<Job>, now_ms: u64) -> Vec<SetAside> {
    let mut parking = Vec::with_capacity(batch.len());
    for job in batch {
        let kept = job.keep(job.not_before_ms, &REASON);
        let parked = SettingAside::begin(&journal, now_ms, kept).await;
        parking.push((job, parked));
    }
    let mut kept = Vec::with_capacity(parking.len());
    for (job, parked) in parking {
        let written = parked.known().await;
        kept.push(SetAside { job, outcome: Outcome::Parked(REASON), written, relief: true });
    }
    kept
}
