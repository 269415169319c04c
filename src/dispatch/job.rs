//! One message under way.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytestring::ByteString;
use tokio::time::Instant;

use super::kept::Kept;
use crate::{
    broker::{self, Confirmation},
    event::{Event, Message},
    journal::Position,
};

/// Where a message was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    Parked,
    Main,
    /// The main journal too, ahead of where that lane stopped: see [`Lane::ahead`](super::lane::Lane::ahead).
    Ahead,
}

/// See the module.
#[derive(Debug)]
pub struct Job {
    pub lane: LaneKind,
    pub position: Position,
    /// Its place in the order in which messages were read, which is the order they are owed in.
    pub turn: u64,
    pub event: Arc<Event>,
    pub message: Message,
    /// How often it failed by itself; a broker that was down does not count.
    pub attempts: u32,
    /// When it first failed, Unix milliseconds; 0 if never.
    pub first_ms: u64,
    /// Parked messages are not tried before this, Unix milliseconds.
    pub not_before_ms: u64,
    /// Set once the message is given up on, until that is durable.
    pub doom: Option<ByteString>,
    /// When it was last handed to the client.
    pub sent: Option<Instant>,
    /// Whether it may be what brings the connection down.
    pub suspicion: Suspicion,
}

/// How often the connection went down with this message alone in flight, as far as that counts
/// against the message and not against the broker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Suspicion {
    pub downs: u32,
    /// Whether it waits behind others, to see whether they pass.
    pub put_back: bool,
    /// How many messages the broker had confirmed when this one was sent for the first time.
    confirmed_first: Option<u64>,
    /// And when the connection last went down with it.
    confirmed_last: u64,
}

impl Suspicion {
    /// The message is sent, for the first time or again.
    pub fn sent(&mut self, confirmed: u64) {
        self.confirmed_first.get_or_insert(confirmed);
        self.put_back = false;
    }

    /// The connection went down once more. It counts only if others passed since the last time; or,
    /// where no other is left that could pass, if some did since the message was first sent.
    pub fn add(&mut self, confirmed: u64, last_one: bool) {
        let others_passed = confirmed > self.confirmed_last;
        let some_passed = self.confirmed_first.is_some_and(|first| confirmed > first);
        if self.downs == 0 || others_passed || last_one && some_passed {
            self.downs += 1;
            self.confirmed_last = confirmed;
        }
    }
}

impl Job {
    /// A message that was read for the first time.
    pub fn new(lane: LaneKind, position: Position, event: &Arc<Event>, message: Message) -> Job {
        Job {
            lane,
            position,
            turn: 0,
            event: event.clone(),
            message,
            attempts: 0,
            first_ms: 0,
            not_before_ms: 0,
            doom: None,
            sent: None,
            suspicion: Suspicion::default(),
        }
    }

    /// A parked message, with what was tried before.
    pub fn resume(position: Position, kept: Kept) -> Job {
        Job {
            attempts: kept.attempts,
            first_ms: kept.first_ms,
            not_before_ms: kept.at_ms,
            ..Job::new(LaneKind::Parked, position, &Arc::new(kept.event), kept.message)
        }
    }

    /// What is written when it is set aside.
    pub fn keep(&self, at_ms: u64, reason: &str) -> Kept {
        Kept {
            event: Event::clone(&self.event),
            message: self.message.clone(),
            attempts: self.attempts,
            first_ms: self.first_ms,
            at_ms,
            reason: reason.into(),
        }
    }
}

/// A message that was handed over, by its ticket.
pub struct InFlight {
    pub ticket: u64,
    pub confirmation: Confirmation,
}

impl Future for InFlight {
    type Output = (u64, Result<(), broker::Error>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.ticket;
        self.confirmation.as_mut().poll(context).map(|outcome| (ticket, outcome))
    }
}
