//! The window of known keys: what makes the same event, sent twice, one event.
//!
//! A key is *claimed* before its event is appended. While the claim lives, others with the same key
//! wait; a claim that is dropped (a failed append) leaves no trace, a committed one is known until
//! it is older than the window or pushed out by newer ones. The window itself is memory only: the
//! journal stores each entry's keys with the entry and returns them when it is opened.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustc_hash::{FxHashMap, FxHashSet};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{event::Event, source::Dedupe};

/// A hash of something that an event is known by.
pub type Key = [u8; 16];

/// What an event is known by: any of these makes another the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Of its source and id.
    id: Key,
    /// Of its source, type and body, where its source says that these make an event.
    body: Option<Key>,
}

impl Keys {
    /// The keys of an event from a source that deduplicates so.
    pub fn new(event: &Event, by: Dedupe) -> Keys {
        // Lengths keep two neighbouring fields from passing for one another; none is as long as
        // what stands before a body's.
        let field = |text: &[u8]| (text.len() as u64).to_le_bytes();
        let id =
            hash(&[&field(event.source.as_bytes()), event.source.as_bytes(), event.id.as_bytes()]);
        let body = (by == Dedupe::Body).then(|| {
            hash(&[
                &u64::MAX.to_le_bytes(),
                &field(event.source.as_bytes()),
                event.source.as_bytes(),
                &field(event.kind.as_bytes()),
                event.kind.as_bytes(),
                &event.body,
            ])
        });
        Keys { id, body }
    }

    /// Each of them, always in the same order.
    pub fn iter(&self) -> impl Iterator<Item = Key> {
        [self.id].into_iter().chain(self.body)
    }
}

fn hash(parts: &[&[u8]]) -> Key {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut key = Key::default();
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

/// How long and how many.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A key older than this is forgotten.
    pub window: Duration,
    /// Beyond this many, the oldest are forgotten.
    pub max_keys: usize,
}

/// The known keys and those being committed.
pub struct Window {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: FxHashSet<Key>,
    /// Known keys by time, the oldest first; the same keys as in `known`.
    ages: VecDeque<(Key, u64)>,
    /// Keys that are claimed; a channel where somebody waits for the outcome. Bounded by the
    /// requests under way.
    claimed: FxHashMap<Key, Option<watch::Sender<()>>>,
}

enum Attempt {
    Claimed,
    Known,
    Wait(watch::Receiver<()>),
}

impl Window {
    /// A window that knows `keys`, oldest first, with their times in Unix milliseconds.
    pub fn new(limits: Limits, keys: Vec<(Key, u64)>) -> Arc<Window> {
        let mut state = State::default();
        // At once for all of them: a start that rehashes a million keys again and again takes longer.
        state.known.reserve(keys.len());
        state.ages.reserve(keys.len());
        for (key, time_ms) in keys {
            state.learn(key, time_ms, limits);
        }
        Arc::new(Window { limits, state: Mutex::new(state) })
    }

    /// Claims all of an event's keys, waiting while somebody else holds one; `None` if one is known
    /// by then.
    ///
    /// Nobody waits in a circle: whoever waits for an id holds nothing yet, and whoever holds a body
    /// waits for nothing more.
    pub async fn claim(self: &Arc<Self>, keys: Keys, now_ms: u64) -> Option<Claim> {
        let id = self.claim_one(keys.id, now_ms).await?;
        let body = match keys.body {
            Some(body) => Some(self.claim_one(body, now_ms).await?),
            None => None,
        };
        Some(Claim { id, body })
    }

    async fn claim_one(self: &Arc<Self>, key: Key, now_ms: u64) -> Option<Held> {
        loop {
            let attempt = self.try_claim(key, now_ms);
            match attempt {
                Attempt::Known => return None,
                Attempt::Claimed => return Some(Held { window: self.clone(), key }),
                // An error is the claim's end, whichever way; both mean: look again.
                Attempt::Wait(mut outcome) => drop(outcome.changed().await),
            }
        }
    }

    fn try_claim(&self, key: Key, now_ms: u64) -> Attempt {
        let mut state = self.state();
        state.forget(now_ms, self.limits);
        if state.known.contains(&key) {
            return Attempt::Known;
        }
        match state.claimed.get_mut(&key) {
            Some(waiters) => {
                Attempt::Wait(waiters.get_or_insert_with(|| watch::channel(()).0).subscribe())
            }
            None => {
                state.claimed.insert(key, None);
                Attempt::Claimed
            }
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.state().known.len()
    }

    /// Whether no key is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A panic while the lock was held left no half-made change: every method changes the state in
    /// steps that are each consistent.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, key: Key, time_ms: u64, limits: Limits) {
        if self.known.insert(key) {
            self.ages.push_back((key, time_ms));
        }
        self.forget(time_ms, limits);
    }

    fn forget(&mut self, now_ms: u64, limits: Limits) {
        let oldest_ms = now_ms.saturating_sub(limits.window.as_millis() as u64);
        while let Some(&(key, time_ms)) = self.ages.front()
            && (time_ms < oldest_ms || self.ages.len() > limits.max_keys)
        {
            self.ages.pop_front();
            self.known.remove(&key);
        }
    }
}

/// The right to append the event with these keys. Dropped without a commit, it leaves no trace.
pub struct Claim {
    id: Held,
    body: Option<Held>,
}

impl Claim {
    /// The event is durable: its keys are known from now on, and those who wait for them are told.
    pub fn commit(self, time_ms: u64) {
        [self.id].into_iter().chain(self.body).for_each(|held| held.learn(time_ms));
    }
}

/// A key that is claimed.
struct Held {
    window: Arc<Window>,
    key: Key,
}

impl Held {
    fn learn(self, time_ms: u64) {
        self.window.state().learn(self.key, time_ms, self.window.limits);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Dropping the channel wakes those who wait.
        self.window.state().claimed.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { window: Duration::from_secs(10), max_keys: 3 };

    fn key(n: u8) -> Key {
        [n; 16]
    }

    fn keys(n: u8) -> Keys {
        Keys { id: key(n), body: None }
    }

    fn with_body(id: u8, body: u8) -> Keys {
        Keys { id: key(id), body: Some(key(body)) }
    }

    async fn known(window: &Arc<Window>, n: u8, now_ms: u64) -> bool {
        window.claim(keys(n), now_ms).await.is_none()
    }

    #[tokio::test]
    async fn a_committed_key_is_known_until_its_window_ends() {
        let window = Window::new(LIMITS, vec![]);
        window.claim(keys(1), 1_000).await.unwrap().commit(1_000);
        assert!(known(&window, 1, 1_000).await);
        assert!(known(&window, 1, 11_000).await);
        assert!(!known(&window, 1, 11_001).await);
    }

    #[tokio::test]
    async fn a_dropped_claim_leaves_no_trace() {
        let window = Window::new(LIMITS, vec![]);
        drop(window.claim(keys(1), 0).await);
        assert!(!known(&window, 1, 0).await);
        assert!(window.is_empty());
    }

    #[tokio::test]
    async fn the_oldest_make_room_for_the_newest() {
        let window = Window::new(LIMITS, (1..=5).map(|n| (key(n), 0)).collect());
        assert_eq!(window.len(), 3);
        assert!(!known(&window, 2, 0).await);
        assert!(known(&window, 3, 0).await);
        assert!(known(&window, 5, 0).await);
    }

    #[tokio::test]
    async fn a_second_sender_waits_for_the_first_and_sees_its_outcome() {
        for commit in [true, false] {
            let window = Window::new(LIMITS, vec![]);
            let first = window.claim(keys(1), 0).await.unwrap();
            let other = tokio::spawn({
                let window = window.clone();
                async move { known(&window, 1, 0).await }
            });
            tokio::task::yield_now().await;
            assert!(!other.is_finished());
            if commit {
                first.commit(0);
            } else {
                drop(first);
            }
            assert_eq!(other.await.unwrap(), commit);
        }
    }

    #[tokio::test]
    async fn an_event_is_known_by_any_of_its_keys() {
        let window = Window::new(LIMITS, vec![]);
        window.claim(with_body(1, 9), 0).await.unwrap().commit(0);
        assert_eq!(window.len(), 2);
        assert!(window.claim(with_body(2, 9), 0).await.is_none());
        assert!(window.claim(with_body(1, 8), 0).await.is_none());
        assert!(!known(&window, 2, 0).await, "what was refused left no trace");
        assert!(window.claim(with_body(3, 8), 0).await.is_some());
    }

    #[tokio::test]
    async fn a_second_sender_of_a_body_waits_for_the_first() {
        let window = Window::new(LIMITS, vec![]);
        let first = window.claim(with_body(1, 9), 0).await.unwrap();
        let other = tokio::spawn({
            let window = window.clone();
            async move { window.claim(with_body(2, 9), 0).await.is_none() }
        });
        tokio::task::yield_now().await;
        assert!(!other.is_finished());
        first.commit(0);
        assert!(other.await.unwrap());
    }

    #[test]
    fn a_body_is_another_event_under_another_source_or_type() {
        use crate::event::tests::plain;
        let keys = |event: Event| Keys::new(&event, Dedupe::Body);
        let first = keys(plain("1", "x"));
        assert_eq!(first.body, keys(plain("2", "x")).body);
        assert_eq!(Keys::new(&plain("1", "x"), Dedupe::Id), Keys { body: None, ..first });
        for other in [
            plain("1", "y"),
            Event { source: "other".into(), ..plain("1", "x") },
            Event { kind: "other".into(), ..plain("1", "x") },
            // The same bytes, otherwise divided.
            Event { kind: "kx".into(), ..plain("1", "") },
        ] {
            assert_ne!(first.body, keys(other).body);
        }
    }
}
