//! What was seen not long ago, so that it is not taken up again each time it is listed.
//!
//! Lists are cached upstream: what was just taken may be listed again for a while. And what is not
//! taken at all (`take: false`) is listed each time. Both are remembered by a hash, bounded; what is
//! forgotten too early is only looked at once more, and the window of known events says that it is
//! known.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

/// An item: whose it is and its id, hashed.
pub type Key = [u8; 16];

/// The key of an item of an owner (an agent, a project).
pub fn key(owner: &str, id: &str) -> Key {
    let mut hash = Sha256::new();
    for part in [owner, id] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

/// See the module. Times are milliseconds of a clock that never goes back.
#[derive(Debug)]
pub struct Recent {
    max: usize,
    keep_ms: u64,
    /// When each was last noted.
    noted: FxHashMap<Key, u64>,
    /// The same, oldest first; what was noted again since is out of date here.
    order: VecDeque<(u64, Key)>,
}

impl Recent {
    /// Remembers at most `max`, each for `keep_ms` after it was last noted.
    pub fn new(max: usize, keep_ms: u64) -> Recent {
        Recent { max, keep_ms, noted: FxHashMap::default(), order: VecDeque::new() }
    }

    /// Remembers this one from now on. The oldest make room.
    pub fn note(&mut self, key: Key, now_ms: u64) {
        if self.noted.insert(key, now_ms) == Some(now_ms) {
            return;
        }
        self.order.push_back((now_ms, key));
        if self.order.len() > 2 * self.max {
            self.leave_out_what_is_out_of_date();
        }
        while let Some((at_ms, oldest)) = self.order.front().copied() {
            let newest_of_it = self.noted.get(&oldest) == Some(&at_ms);
            if newest_of_it && self.noted.len() <= self.max && !self.is_over(at_ms, now_ms) {
                break;
            }
            if newest_of_it {
                self.noted.remove(&oldest);
            }
            self.order.pop_front();
        }
    }

    /// Whether it was noted not long ago.
    pub fn holds(&self, key: &Key, now_ms: u64) -> bool {
        self.noted.get(key).is_some_and(|at_ms| !self.is_over(*at_ms, now_ms))
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.noted.len()
    }

    fn is_over(&self, at_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(at_ms) >= self.keep_ms
    }

    fn leave_out_what_is_out_of_date(&mut self) {
        let noted = &self.noted;
        self.order.retain(|(at_ms, key)| noted.get(key) == Some(at_ms));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_item_is_known_for_its_time_and_no_longer() {
        let mut recent = Recent::new(10, 100);
        let item = key("agent", "1");
        assert!(!recent.holds(&item, 0));
        recent.note(item, 5);
        assert!(recent.holds(&item, 104) && !recent.holds(&item, 105));
        recent.note(item, 104);
        assert!(recent.holds(&item, 203));
        assert_eq!(recent.len(), 1);
    }

    #[test]
    fn the_same_id_of_another_owner_is_another_item() {
        assert_ne!(key("a", "1"), key("b", "1"));
        assert_ne!(key("a1", ""), key("a", "1"));
    }

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_newest_are_known(
            notes in prop::collection::vec((0u8..40, 1u64..5), 1..300),
            max in 1usize..20,
        ) {
            let mut recent = Recent::new(max, 1_000_000);
            let mut newest: Vec<Key> = Vec::new();
            let mut now = 0;
            for (id, later) in notes {
                now += later;
                let key = key("a", &id.to_string());
                recent.note(key, now);
                newest.retain(|other| *other != key);
                newest.push(key);
                prop_assert!(recent.len() <= max);
                prop_assert!(recent.order.len() <= 2 * max + 1);
                prop_assert!(newest.iter().rev().take(max).all(|key| recent.holds(key, now)));
            }
        }
    }
}
