//! What came out, live: every settled message is told to whoever watches, and the last few are
//! remembered for who comes a moment later.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::broadcast;

use crate::event::{Event, Message};

/// How many settled messages are remembered.
const REMEMBERED: usize = 64;

/// How far a watcher may lag before it misses some.
const LAG: usize = 1024;

/// A larger body is left out of what is told, so that what is remembered stays small.
const MAX_BODY_BYTES: usize = 64 << 10;

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Confirmed,
    /// Set aside and still being tried; the reason.
    Parked(ByteString),
    /// Given up on; the reason.
    DeadLetter(ByteString),
}

/// One settled message.
#[derive(Debug)]
pub struct Told {
    pub event: Arc<Event>,
    pub message: Message,
    pub outcome: Outcome,
    /// Whether the body was left out.
    pub truncated: bool,
}

/// See the module. A cheap handle.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    remembered: Mutex<VecDeque<Arc<Told>>>,
    watchers: broadcast::Sender<Arc<Told>>,
}

impl Default for Feed {
    fn default() -> Feed {
        let remembered = Mutex::new(VecDeque::with_capacity(REMEMBERED));
        Feed(Arc::new(Inner { remembered, watchers: broadcast::Sender::new(LAG) }))
    }
}

impl Feed {
    /// Tells of a settled message.
    pub fn tell(&self, event: &Arc<Event>, message: Message, outcome: Outcome) {
        let truncated = event.body.len() > MAX_BODY_BYTES;
        let event = if truncated { Arc::new(without_body(event)) } else { event.clone() };
        let told = Arc::new(Told { event, message, outcome, truncated });
        let mut remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() == REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back(told.clone());
        if self.0.watchers.receiver_count() > 0 {
            // Fails only if the last watcher left just now.
            self.0.watchers.send(told).ok();
        }
    }

    /// What is remembered, oldest first, and all that is told from now on.
    pub fn watch(&self) -> (Vec<Arc<Told>>, broadcast::Receiver<Arc<Told>>) {
        let remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        (remembered.iter().cloned().collect(), self.0.watchers.subscribe())
    }
}

fn without_body(event: &Event) -> Event {
    Event { body: Bytes::new(), ..event.clone() }
}
