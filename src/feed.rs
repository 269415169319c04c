//! What came out, live: every settled message is told to whoever watches, and the last few are
//! remembered for who comes a moment later.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::sync::broadcast;

use crate::event::{Event, Message, Record};

/// How many settled messages are remembered.
const REMEMBERED: usize = 64;

/// How far a watcher may lag before it misses some.
const LAG: usize = 256;

/// A larger body is left out of what is told, so that what is remembered stays small: with the head,
/// a message told holds at most about 80 KiB.
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
        let (event, message) = match truncated.then(|| without_body(event, &message)).flatten() {
            Some((event, message)) => (Arc::new(event), message),
            None => (event.clone(), message),
        };
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

/// A copy without the body. Written and read back, it does not share the record's buffer, which
/// holds the body too.
fn without_body(event: &Event, message: &Message) -> Option<(Event, Message)> {
    let event = Event { body: Bytes::new(), ..event.clone() };
    let record = Record { event, messages: vec![message.clone()] };
    let Record { event, messages } = Record::decode(record.encode()).ok()?;
    Some((event, messages.into_iter().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{binary, plain};

    #[test]
    fn a_large_body_is_not_held_by_what_is_remembered() {
        let body = Bytes::from(vec![b'x'; MAX_BODY_BYTES + 1]);
        let event = plain("1", body);
        let message = binary("r", "b", Err("why".into()));
        let record = Record { event, messages: vec![message] }.encode();
        let Record { event, mut messages } = Record::decode(record.clone()).unwrap();
        let feed = Feed::default();
        feed.tell(&Arc::new(event), messages.remove(0), Outcome::Confirmed);
        let (remembered, _) = feed.watch();
        assert!(remembered[0].truncated && remembered[0].event.body.is_empty());
        assert_eq!(remembered[0].event.id, "1");
        assert!(record.is_unique(), "nothing else holds the record");
    }
}
