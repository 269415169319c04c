//! What a dispatcher counts, and how it stands, for whoever looks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Dispatcher, job::Job};
use crate::{
    broker,
    clock::now_ms,
    feed::Outcome,
    meter::{Counter, Gauge, Histogram},
};

/// How a broker's connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// For the first time.
    Connecting,
    Connected,
    /// Unreachable or unwell; its messages wait.
    Down,
    /// Told to stop; what can be published still is.
    Draining,
    Ended,
}

/// A state, since when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub state: State,
    /// Unix milliseconds.
    pub since_ms: u64,
    /// What is wrong, in words for operators.
    pub trouble: Option<String>,
    /// The type of the client that it goes on through; `None` if that stands in for one.
    pub kind: Option<broker::Kind>,
}

/// How far one lane is.
#[derive(Debug, Default)]
pub struct LaneProgress {
    unsettled: Gauge,
    /// Time of receipt of the first event that is not settled, Unix milliseconds; 0 if none is.
    oldest_ms: Gauge,
}

impl LaneProgress {
    /// Messages that are read and not settled.
    pub fn unsettled(&self) -> u64 {
        self.unsettled.get()
    }

    /// Time of receipt of the first event with a message that is not settled, Unix milliseconds, as
    /// far as it is read.
    pub fn oldest_ms(&self) -> Option<u64> {
        Some(self.oldest_ms.get()).filter(|ms| *ms > 0)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Stats {
    /// Connections made.
    pub connections: Counter,
    pub connect_failures: Counter,
    /// Messages handed to the client, each time.
    pub published: Counter,
    /// Those handed over again after they failed by themselves.
    pub retries: Counter,
    pub confirmed: Counter,
    /// From the hand-over to the confirmation.
    pub confirm_times: Histogram,
    /// Messages set aside to be tried from there.
    pub parked: Counter,
    /// Messages given up on.
    pub dead_letters: Counter,
    /// Connections lost.
    pub(super) lost: Counter,
    /// Messages that could not be taken for now, each time.
    pub(super) failed: Counter,
    /// Messages that can never be taken.
    pub(super) refused: Counter,
    pub in_flight: Gauge,
    /// Messages that wait for their time to be tried again.
    pub retrying: Gauge,
    pub main: LaneProgress,
    pub parked_lane: LaneProgress,
    condition: Mutex<Condition>,
}

impl Stats {
    pub(super) fn new() -> Stats {
        let (state, since_ms) = (State::Connecting, now_ms());
        let condition = Condition { state, since_ms, trouble: None, kind: None };
        Stats {
            connections: Counter::default(),
            connect_failures: Counter::default(),
            published: Counter::default(),
            retries: Counter::default(),
            confirmed: Counter::default(),
            confirm_times: Histogram::of_times(),
            parked: Counter::default(),
            dead_letters: Counter::default(),
            lost: Counter::default(),
            failed: Counter::default(),
            refused: Counter::default(),
            in_flight: Gauge::default(),
            retrying: Gauge::default(),
            main: LaneProgress::default(),
            parked_lane: LaneProgress::default(),
            condition: Mutex::new(condition),
        }
    }

    /// How the connection stands.
    pub fn condition(&self) -> Condition {
        self.lock().clone()
    }

    /// Every class of failure, with how often it was met: *down* once a lost connection, the others
    /// once a message that was tried.
    pub fn failures(&self) -> [(&'static str, u64); 3] {
        [("down", &self.lost), ("failed", &self.failed), ("refused", &self.refused)]
            .map(|(class, counter)| (class, counter.get()))
    }

    pub(super) fn stands(&self, state: State, trouble: Option<&str>) {
        let mut condition = self.lock();
        // A drain has only one end.
        let draining = condition.state == State::Draining && state != State::Ended;
        let state = if draining { State::Draining } else { state };
        if condition.state != state {
            condition.since_ms = now_ms();
        }
        condition.state = state;
        condition.trouble = trouble.map(str::to_owned);
    }

    pub(super) fn goes_on_through(&self, kind: Option<broker::Kind>) {
        self.lock().kind = kind;
    }

    pub(super) fn handed_over(&self, again: bool) {
        self.published.inc();
        if again {
            self.retries.inc();
        }
    }

    pub(super) fn settled(&self, job: &Job, outcome: &Outcome) {
        match outcome {
            Outcome::Confirmed => {
                self.confirmed.inc();
                if let Some(sent) = job.sent {
                    self.confirm_times.observe_time(sent.elapsed());
                }
            }
            Outcome::Parked(_) => self.parked.inc(),
            Outcome::DeadLetter(_) => self.dead_letters.inc(),
        }
    }

    /// No method leaves a condition half-made.
    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dispatcher {
    /// Shows how far it is; a few stores, before each rest.
    pub(super) fn show_progress(&self) {
        let stats = &self.stats;
        stats.in_flight.set(self.in_flight.len() as u64);
        stats.retrying.set(self.retries.len() as u64);
        for (lane, progress) in [(&self.main, &stats.main), (&self.parked, &stats.parked_lane)] {
            let window = lane.window();
            progress.unsettled.set(window.unsettled() as u64);
            progress.oldest_ms.set(window.oldest_ms().unwrap_or_default());
        }
    }
}
