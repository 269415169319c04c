//! What becomes of a message once its broker has spoken: settled, tried again, parked, given up on.

use std::time::Duration;

use bytestring::ByteString;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{task::coop::unconstrained, time::Instant};

use super::{
    ATTEMPTS, Dispatcher, Down, FRUITLESS, RETRY, SetAside,
    connect::RECONNECT,
    job::{Job, LaneKind, Suspicion},
    kept::set_aside,
};
use crate::{broker, feed::Outcome, journal::AppendError};

/// What bounds the parked messages of a broker.
pub(super) const BACKLOG_SETTING: &str =
    "backlog.max_bytes in routes.yaml and dispatch.backlog_max_bytes";

impl Dispatcher {
    pub(super) fn published(
        &mut self,
        ticket: u64,
        outcome: Result<(), broker::Error>,
    ) -> Result<(), Down> {
        if let Err(broker::Error::Down(reason)) = outcome {
            return Err(Down(reason));
        }
        let Some(mut job) = self.in_flight.remove(&ticket) else { return Ok(()) };
        match outcome {
            Ok(()) => self.confirm(job),
            Err(broker::Error::Refused(reason)) => {
                self.stats.refused.inc();
                self.give_up(job, reason.into());
            }
            Err(broker::Error::Failed(reason)) | Err(broker::Error::Down(reason)) => {
                self.stats.failed.inc();
                job.attempts += 1;
                self.failed(job, reason);
            }
        }
        Ok(())
    }

    fn confirm(&mut self, job: Job) {
        self.confirmed += 1;
        if self.fruitless > FRUITLESS {
            self.take_back_suspects();
        }
        self.fruitless = 0;
        self.health.better();
        self.settle(job, Outcome::Confirmed);
    }

    pub(super) fn settle(&mut self, job: Job, outcome: Outcome) {
        self.stats.settled(&job, &outcome);
        match job.lane {
            LaneKind::Main => self.main.settle(job.position),
            LaneKind::Parked => self.parked.settle(job.position),
            LaneKind::Ahead => {
                if let Some(ahead) = &mut self.ahead {
                    ahead.settle(job.position);
                }
            }
        }
        self.shared.feed.tell(&job.event, job.message, outcome);
    }

    /// Decides what becomes of a message that failed by itself.
    fn failed(&mut self, mut job: Job, reason: String) {
        let now_ms = self.clock.now_ms();
        if job.first_ms == 0 {
            job.first_ms = now_ms;
        }
        let tried_ms = now_ms.saturating_sub(job.first_ms);
        let wait = RETRY.jittered(job.attempts);
        let retry_for = self.orders.policy().retry_for(&job.message.route);
        if job.attempts < ATTEMPTS {
            self.retry_after(job, wait);
        } else if u128::from(tried_ms) >= retry_for.as_millis() {
            let reason = format!("tried {} times, at last: {reason}", job.attempts);
            self.give_up(job, reason.into());
        } else {
            let not_before_ms = now_ms.saturating_add(wait.as_millis() as u64);
            self.park(job, not_before_ms, reason.into());
        }
    }

    pub(super) fn retry_after(&mut self, job: Job, wait: Duration) {
        let number = self.next_ticket;
        self.next_ticket += 1;
        self.parked_retries += usize::from(job.lane == LaneKind::Parked);
        self.retries.insert((Instant::now() + wait, number), job);
    }

    pub(super) fn enqueue_due(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.retries.first_entry()
            && entry.key().0 <= now
        {
            let job = entry.remove();
            self.parked_retries -= usize::from(job.lane == LaneKind::Parked);
            self.enqueue(job);
        }
    }

    /// A message was confirmed while they went one at a time: those that were put behind it go
    /// first again, in order.
    fn take_back_suspects(&mut self) {
        let mut jobs = Vec::new();
        for (due, job) in std::mem::take(&mut self.retries) {
            if job.suspicion.put_back {
                self.parked_retries -= usize::from(job.lane == LaneKind::Parked);
                jobs.push(job);
            } else {
                self.retries.insert(due, job);
            }
        }
        self.requeue(jobs);
    }

    /// Puts jobs back where they were in the order.
    pub(super) fn requeue(&mut self, mut jobs: Vec<Job>) {
        jobs.extend(self.unsent.drain(..));
        jobs.sort_by_key(|job| job.turn);
        jobs.into_iter().for_each(|job| self.enqueue(job));
    }

    fn park(&mut self, job: Job, not_before_ms: u64, reason: ByteString) {
        let (journal, now_ms) = (self.parked.journal().clone(), self.clock.now_ms());
        self.keeping.push(
            async move {
                let kept = job.keep(not_before_ms, &reason);
                let written = set_aside(&journal, now_ms, kept).await;
                vec![SetAside { job, outcome: Outcome::Parked(reason), written, relief: false }]
            }
            .boxed(),
        );
    }

    pub(super) fn give_up(&mut self, mut job: Job, reason: ByteString) {
        if let Some(more) = self.given_up.speaks(self.clock.now_ms()) {
            tracing::warn!(
                broker = %self.name, route = %job.message.route, event = %job.event.id, %reason,
                more, "a message becomes a dead letter"
            );
        }
        job.doom = Some(reason.clone());
        let (dead_letters, now_ms) = (self.shared.dead_letters.clone(), self.clock.now_ms());
        self.keeping.push(
            async move {
                let written = dead_letters.keep(job.keep(now_ms, &reason)).await;
                vec![SetAside { job, outcome: Outcome::DeadLetter(reason), written, relief: false }]
            }
            .boxed(),
        );
    }

    pub(super) fn kept(&mut self, kept: SetAside) {
        if kept.relief {
            return self.relieved(kept);
        }
        match kept.written {
            Ok(()) => self.settle(kept.job, kept.outcome),
            Err(error) => self.not_set_aside(kept.job, &kept.outcome, &error),
        }
    }

    /// Nothing is settled that is not durable. What the dead letters have no room for is parked, so
    /// that it holds up nobody; what cannot be parked either stays, and is tried again.
    fn not_set_aside(&mut self, job: Job, outcome: &Outcome, error: &AppendError) {
        let now_ms = self.clock.now_ms();
        let (store, setting) = match outcome {
            Outcome::DeadLetter(_) => ("dead letters", "dead_letters.max_bytes"),
            Outcome::Parked(_) | Outcome::Confirmed => ("parked messages", BACKLOG_SETTING),
        };
        if let Some(more) = self.not_kept.speaks(now_ms) {
            tracing::error!(
                broker = %self.name, %error, more,
                "not kept among the {store}, which {setting} bounds; messages wait for that"
            );
        }
        match outcome {
            Outcome::DeadLetter(reason) if job.lane != LaneKind::Parked => {
                let not_before_ms = now_ms.saturating_add(RETRY.max.as_millis() as u64);
                self.park(job, not_before_ms, reason.clone());
            }
            _ => self.retry_after(job, RETRY.max),
        }
    }

    /// Takes in every verdict that is there already: what is known is not published again. The error
    /// is the first that says the broker is down.
    pub(super) fn harvest(&mut self) -> Result<(), Down> {
        let mut outcome = Ok(());
        // Without the runtime's budget, which ends after so many: what is ready would seem not to be.
        while let Some(Some((ticket, verdict))) =
            unconstrained(self.publishing.next()).now_or_never()
        {
            outcome = outcome.and(self.published(ticket, verdict));
        }
        outcome
    }

    /// The connection is gone: everything in flight goes back to where it was in the order.
    pub(super) fn recall(&mut self, reason: String) {
        let alone = self.fruitless > FRUITLESS && self.in_flight.len() == 1;
        // That the broker is down is known by now.
        let _known = self.harvest();
        self.publishing = FuturesUnordered::new();
        self.stats.lost.inc();
        self.health.disconnected(&self.name, reason.clone());
        let jobs: Vec<Job> = self.in_flight.drain().map(|(_, job)| job).collect();
        if alone {
            for mut job in jobs {
                // Parked messages hold nobody up, so with them only evidence counts.
                let last_one = job.lane == LaneKind::Main && self.unsent.is_empty();
                job.suspicion.add(self.confirmed, last_one);
                if job.suspicion.downs >= ATTEMPTS {
                    job.suspicion = Suspicion::default();
                    job.attempts = job.attempts.max(ATTEMPTS);
                    self.failed(job, format!("the connection goes down with it: {reason}"));
                } else {
                    // Longer than it takes to connect again, so that others go first.
                    job.suspicion.put_back = true;
                    self.retry_after(job, RECONNECT.max * 2);
                }
            }
        } else {
            self.requeue(jobs);
        }
        self.relieve();
    }
}
