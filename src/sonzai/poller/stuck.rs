//! Items that can be neither taken nor let in, each remembered so that it costs nothing each time it
//! is listed again.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::recent::Key;

/// How many are remembered over all lists of a source; those that are due soonest make room.
const MAX_STUCK: usize = 10_000;

/// Before an item is tried again: after the first vain try, doubled with each other, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Why an item is stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is durable, and the API refuses to have it taken.
    Refused,
    /// It is larger than the journal takes: it can never get in.
    TooLarge,
}

/// See the module. Times are milliseconds of a clock that never goes back.
#[derive(Debug, Default)]
pub struct Stuck(FxHashMap<Key, Item>);

#[derive(Clone, Copy, Debug)]
struct Item {
    why: Why,
    tries: u32,
    not_before_ms: u64,
}

/// What is to be done with an item that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not stuck.
    Free,
    /// Not now.
    Wait,
    /// It is durable, and may be taken by now: without being admitted again, since by now the window
    /// of known events may have forgotten it.
    TakeAgain,
    /// It was too large, and settings change.
    AdmitAgain,
}

impl Stuck {
    pub fn verdict(&self, key: &Key, now_ms: u64) -> Verdict {
        match self.0.get(key) {
            None => Verdict::Free,
            Some(item) if now_ms < item.not_before_ms => Verdict::Wait,
            Some(Item { why: Why::Refused, .. }) => Verdict::TakeAgain,
            Some(Item { why: Why::TooLarge, .. }) => Verdict::AdmitAgain,
        }
    }

    /// Another vain try; whether it is the first.
    pub fn note(&mut self, key: Key, why: Why, now_ms: u64) -> bool {
        let before = self.0.get(&key).filter(|item| item.why == why).map_or(0, |item| item.tries);
        if before == 0 && self.0.len() >= MAX_STUCK {
            let soonest = self.0.iter().min_by_key(|(_, item)| item.not_before_ms);
            if let Some(key) = soonest.map(|(key, _)| *key) {
                self.0.remove(&key);
            }
        }
        let not_before_ms = now_ms.saturating_add(pause(before).as_millis() as u64);
        self.0.insert(key, Item { why, tries: before + 1, not_before_ms });
        before == 0
    }

    /// It is stuck no more.
    pub fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    /// How many there are.
    pub fn count(&self, why: Why) -> u64 {
        self.0.values().filter(|item| item.why == why).count() as u64
    }

    /// Forgets what was not listed again for long after it was due: it expired, or somebody else
    /// took it.
    pub fn forget_the_lost(&mut self, now_ms: u64) {
        let patience_ms = 2 * LONGEST_PAUSE.as_millis() as u64;
        self.0.retain(|_, item| now_ms < item.not_before_ms.saturating_add(patience_ms));
    }
}

fn pause(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tries.min(16)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Key {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&n.to_le_bytes());
        key
    }

    #[test]
    fn pauses_grow_to_an_hour() {
        let minutes = [0, 1, 2, 5, 6, 7, u32::MAX].map(|tries| pause(tries).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn what_is_stuck_waits_and_is_then_tried_as_it_can_be() {
        let mut stuck = Stuck::default();
        assert_eq!(stuck.verdict(&key(1), 0), Verdict::Free);
        assert!(stuck.note(key(1), Why::Refused, 0), "the first time is told");
        assert!(stuck.note(key(2), Why::TooLarge, 0));
        assert_eq!(stuck.verdict(&key(1), 59_999), Verdict::Wait);
        assert_eq!(stuck.verdict(&key(1), 60_000), Verdict::TakeAgain);
        assert_eq!(stuck.verdict(&key(2), 60_000), Verdict::AdmitAgain);
        assert!(!stuck.note(key(1), Why::Refused, 60_000), "and once is enough");
        assert_eq!(stuck.verdict(&key(1), 179_999), Verdict::Wait);
        assert_eq!((stuck.count(Why::Refused), stuck.count(Why::TooLarge)), (1, 1));
        stuck.forget(&key(1));
        assert_eq!(stuck.verdict(&key(1), 0), Verdict::Free);
    }

    #[test]
    fn what_is_never_listed_again_is_forgotten() {
        let mut stuck = Stuck::default();
        stuck.note(key(1), Why::Refused, 0);
        stuck.forget_the_lost(60_000 + 7_199_999);
        assert_eq!(stuck.count(Why::Refused), 1);
        stuck.forget_the_lost(60_000 + 7_200_000);
        assert_eq!(stuck.count(Why::Refused), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let mut stuck = Stuck::default();
        for n in 0..MAX_STUCK as u64 + 10 {
            stuck.note(key(n), Why::Refused, n);
        }
        assert_eq!(stuck.count(Why::Refused), MAX_STUCK as u64);
        assert_eq!(stuck.verdict(&key(0), 0), Verdict::Free, "the one that was due soonest went");
    }
}
