//! What a poller remembers from one look to the next; bounded, and lost at a restart, which costs a
//! second look and nothing else.

use std::{collections::BTreeSet, time::Duration};

use bytestring::ByteString;
use rustc_hash::FxHashMap;

use super::{
    circuit::{Circuit, Failure, News},
    list::List,
    page_size::PageSize,
    recent::{Key, Recent},
    stuck::{self, Stuck, Verdict},
};

/// Items that were just taken and may be listed again: how many are remembered, and for how long.
const MAX_TAKEN: usize = 10_000;
const TAKEN_FOR: Duration = Duration::from_secs(600);

/// Items that are durable and not to be taken (`take: false`): how many are remembered, and for how
/// long after they were last listed. Above it one that stays pending for longer than
/// `dedupe.window` is published again.
const MAX_SEEN: usize = 200_000;
const SEEN_FOR: Duration = Duration::from_secs(2 * 24 * 3600);

/// Types of a project's notifications that are remembered, to look at each by itself if need be.
const MAX_TYPES: usize = 64;

/// See the module.
pub struct Memory {
    take: bool,
    recent: Recent,
    stuck: Stuck,
    /// Only those that are not as in the beginning.
    lists: FxHashMap<List, ListState>,
    types: BTreeSet<ByteString>,
}

/// How a list does by itself.
#[derive(Clone, Debug)]
struct ListState {
    page: PageSize,
    /// Whether it was told that one item alone is too large.
    told_too_large: bool,
    circuit: Circuit,
}

/// What to do with an item that is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Let it in, then take it.
    Admit,
    /// It is in: take it.
    Take,
    /// It was just taken, and listed again all the same.
    Taken,
    /// Nothing, for now: it is stuck, or in and not to be taken.
    Leave,
}

impl Memory {
    pub fn new(take: bool) -> Memory {
        let (max, keep) = if take { (MAX_TAKEN, TAKEN_FOR) } else { (MAX_SEEN, SEEN_FOR) };
        Memory {
            take,
            recent: Recent::new(max, keep.as_millis() as u64),
            stuck: Stuck::default(),
            lists: FxHashMap::default(),
            types: BTreeSet::new(),
        }
    }

    /// What to do with an item that is listed now.
    pub fn todo(&mut self, key: &Key, now_ms: u64) -> Todo {
        if self.recent.holds(key, now_ms) {
            if self.take {
                return Todo::Taken;
            }
            self.recent.note(*key, now_ms);
            return Todo::Leave;
        }
        match self.stuck.verdict(key, now_ms) {
            Verdict::Free | Verdict::AdmitAgain => Todo::Admit,
            Verdict::TakeAgain => Todo::Take,
            Verdict::Wait => Todo::Leave,
        }
    }

    /// An item needs nothing more: it is taken; or it is in, and not to be taken.
    pub fn done(&mut self, key: Key, now_ms: u64) {
        self.stuck.forget(&key);
        self.recent.note(key, now_ms);
    }

    /// An item is stuck; whether that is new.
    pub fn stuck(&mut self, key: Key, why: stuck::Why, now_ms: u64) -> bool {
        self.stuck.note(key, why, now_ms)
    }

    /// How many are stuck now for this reason.
    pub fn count(&self, why: stuck::Why) -> u64 {
        self.stuck.count(why)
    }

    /// Forgets what will not be asked for any more.
    pub fn tidy(&mut self, now_ms: u64) {
        self.stuck.forget_the_lost(now_ms);
    }

    /// Remembers the type of a notification.
    pub fn note_type(&mut self, kind: &ByteString) {
        if self.types.len() < MAX_TYPES && !self.types.contains(kind) {
            self.types.insert(ByteString::from(&**kind));
        }
    }

    /// Types of notifications that were seen.
    pub fn types(&self) -> impl Iterator<Item = &ByteString> {
        self.types.iter()
    }

    /// How much to ask a list for.
    pub fn page(&self, list: &List) -> u32 {
        self.lists.get(list).map_or(list.max_page(), |state| state.page.now())
    }

    /// A list's answer was too large; whether less can be asked for.
    pub fn too_large(&mut self, list: &List) -> bool {
        self.state(list).page.too_large()
    }

    /// Whether it is news that one item of a list alone is too large.
    pub fn tells_too_large(&mut self, list: &List) -> bool {
        !std::mem::replace(&mut self.state(list).told_too_large, true)
    }

    /// A list answered: its trouble is over, if it had any.
    pub fn answered(&mut self, list: &List) {
        if let Some(state) = self.lists.get_mut(list) {
            state.page.answered();
            state.circuit.succeeded();
            if state.page.is_largest() {
                self.lists.remove(list);
            }
        }
    }

    /// A list failed by itself.
    pub fn failed(
        &mut self,
        list: &List,
        failure: Failure,
        now_ms: u64,
        longest: Duration,
    ) -> News {
        self.state(list).circuit.failed(failure, now_ms, longest)
    }

    /// Whether a list may be asked now.
    pub fn lets_through(&self, list: &List, now_ms: u64) -> bool {
        self.lists.get(list).is_none_or(|state| state.circuit.lets_through(now_ms))
    }

    /// Lists in trouble of their own.
    pub fn lists_in_trouble(&self) -> usize {
        self.lists.values().filter(|state| state.circuit.trouble().is_some()).count()
    }

    /// Forgets lists that are polled no more.
    pub fn keep_lists(&mut self, keep: impl Fn(&List) -> bool) {
        self.lists.retain(|list, _| keep(list));
    }

    fn state(&mut self, list: &List) -> &mut ListState {
        self.lists.entry(list.clone()).or_insert_with(|| ListState {
            page: PageSize::new(list.max_page()),
            told_too_large: false,
            circuit: Circuit::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sonzai::poller::{circuit::Kind, recent::key};

    fn agent(name: &str) -> List {
        List::Agent { agent: name.into(), user: None }
    }

    #[test]
    fn what_was_taken_and_is_listed_again_is_left_alone_for_some_minutes() {
        let mut memory = Memory::new(true);
        let item = key("a", "1");
        assert_eq!(memory.todo(&item, 0), Todo::Admit);
        memory.done(item, 0);
        assert_eq!(memory.todo(&item, 599_999), Todo::Taken);
        assert_eq!(memory.todo(&item, 600_000), Todo::Admit, "the window will know it");
    }

    #[test]
    fn what_is_not_to_be_taken_is_left_alone_as_long_as_it_is_listed() {
        let mut memory = Memory::new(false);
        let item = key("a", "1");
        memory.done(item, 0);
        let day_ms = 24 * 3600 * 1000;
        for day in 1..10 {
            assert_eq!(memory.todo(&item, day * day_ms), Todo::Leave);
        }
        assert_eq!(memory.todo(&item, 12 * day_ms), Todo::Admit);
    }

    #[test]
    fn what_cannot_be_taken_is_taken_again_and_not_let_in_again() {
        let mut memory = Memory::new(true);
        let (item, large) = (key("a", "1"), key("a", "2"));
        memory.stuck(item, stuck::Why::Refused, 0);
        memory.stuck(large, stuck::Why::TooLarge, 0);
        assert_eq!([&item, &large].map(|key| memory.todo(key, 1)), [Todo::Leave; 2]);
        let later = 60_000;
        assert_eq!(memory.todo(&item, later), Todo::Take);
        assert_eq!(memory.todo(&large, later), Todo::Admit);
        memory.done(item, later);
        assert_eq!(memory.count(stuck::Why::Refused), 0);
    }

    #[test]
    fn one_lists_trouble_is_its_own_and_leaves_no_trace() {
        let mut memory = Memory::new(true);
        let failure = Failure { kind: Kind::Refused, words: String::new(), wait: None };
        let longest = Duration::from_secs(30);
        assert_eq!(memory.failed(&agent("a"), failure, 0, longest), News::Begun);
        assert!(!memory.lets_through(&agent("a"), 0) && memory.lets_through(&agent("b"), 0));
        assert_eq!(memory.lists_in_trouble(), 1);
        memory.answered(&agent("a"));
        memory.answered(&agent("b"));
        assert!(memory.lists.is_empty());
        assert!(memory.too_large(&agent("a")));
        assert_eq!((memory.page(&agent("a")), memory.page(&agent("b"))), (250, 500));
        memory.keep_lists(|list| *list != agent("a"));
        assert_eq!(memory.page(&agent("a")), 500);
    }
}
