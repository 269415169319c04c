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

use crate::event::Event;

/// What an event is known by: a hash of its source and id.
pub type Key = [u8; 16];

/// The key of an event's identity.
pub fn key(event: &Event) -> Key {
    let mut hash = Sha256::new();
    hash.update((event.source.len() as u64).to_le_bytes());
    hash.update(event.source.as_bytes());
    hash.update(event.id.as_bytes());
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

    /// Claims a key, waiting while somebody else holds it; `None` if it is known by then.
    pub async fn claim(self: &Arc<Self>, key: Key, now_ms: u64) -> Option<Claim> {
        loop {
            let attempt = self.try_claim(key, now_ms);
            match attempt {
                Attempt::Known => return None,
                Attempt::Claimed => return Some(Claim { window: self.clone(), key }),
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

/// The right to append the event with this key. Dropped without a commit, it leaves no trace.
pub struct Claim {
    window: Arc<Window>,
    key: Key,
}

impl Claim {
    /// The event is durable: the key is known from now on, and those who wait for it are told.
    pub fn commit(self, time_ms: u64) {
        self.window.state().learn(self.key, time_ms, self.window.limits);
    }
}

impl Drop for Claim {
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

    async fn known(window: &Arc<Window>, n: u8, now_ms: u64) -> bool {
        window.claim(key(n), now_ms).await.is_none()
    }

    #[tokio::test]
    async fn a_committed_key_is_known_until_its_window_ends() {
        let window = Window::new(LIMITS, vec![]);
        window.claim(key(1), 1_000).await.unwrap().commit(1_000);
        assert!(known(&window, 1, 1_000).await);
        assert!(known(&window, 1, 11_000).await);
        assert!(!known(&window, 1, 11_001).await);
    }

    #[tokio::test]
    async fn a_dropped_claim_leaves_no_trace() {
        let window = Window::new(LIMITS, vec![]);
        drop(window.claim(key(1), 0).await);
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
            let first = window.claim(key(1), 0).await.unwrap();
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
}
