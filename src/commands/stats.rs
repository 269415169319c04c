//! What is counted of a command's place in `commands:`, and how it stands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

use crate::{clock::now_ms, meter::Counter};

/// How soon another reason for the same trouble is told again, milliseconds.
const TOLD_AGAIN_MS: u64 = 5 * 60 * 1000;

/// Counts since the start of the process; they go on through changes that keep the name.
#[derive(Debug, Default)]
pub struct Stats {
    /// Messages taken, each time.
    pub taken: Counter,
    /// Wakeups that the API took, each once.
    pub scheduled: Counter,
    /// Messages whose command was done before.
    pub duplicates: Counter,
    /// Messages that became dead letters.
    pub dead_letters: Counter,
    /// Calls of the API that failed and are made again.
    pub retries: Counter,
    condition: Mutex<Condition>,
}

/// What it is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It has no connection to the broker, or none that gives anything.
    #[default]
    Connecting,
    /// It waits for a message.
    Ready,
    /// It carries out a command.
    Working,
    /// It has a command and waits to ask the API again.
    Waiting,
    /// The API refuses the key; it has a command and waits for somebody to see to that.
    Denied,
    /// It has a command and waits for room on the disk.
    NoRoom,
    /// It was told to end.
    Ended,
}

impl State {
    /// Whether commands are carried out as they come.
    pub fn is_up(self) -> bool {
        matches!(self, State::Ready | State::Working)
    }
}

/// How it stands.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    pub state: State,
    /// Unix milliseconds.
    pub since_ms: u64,
    /// What is wrong, for operators; none if nothing is.
    pub trouble: Option<String>,
    /// What was logged of it last, and when.
    told: Option<(State, String, u64)>,
}

impl Stats {
    pub fn condition(&self) -> Condition {
        self.lock().clone()
    }

    /// It goes about something, and what was wrong may still be.
    pub fn goes(&self, state: State) {
        self.lock().enter(state);
    }

    /// All is well: says so in the log if something was told not to be.
    pub fn is_well(&self, command: &str, state: State) {
        let was_told = {
            let mut condition = self.lock();
            condition.enter(state);
            condition.trouble = None;
            condition.told.take()
        };
        if was_told.is_some() {
            tracing::info!(command, "commands are taken and carried out again");
        }
    }

    /// Something is wrong. It is logged once, and again if it becomes something else; another reason
    /// for the same is told after a while.
    pub fn is_in_trouble(&self, command: &str, state: State, trouble: &str) {
        let now_ms = now_ms();
        let is_news = {
            let mut condition = self.lock();
            condition.enter(state);
            condition.trouble = Some(trouble.to_owned());
            let is_news = match &condition.told {
                None => true,
                Some((told, words, at_ms)) => {
                    let long_ago = now_ms.saturating_sub(*at_ms) >= TOLD_AGAIN_MS;
                    *told != state || words != trouble && long_ago
                }
            };
            if is_news {
                condition.told = Some((state, trouble.to_owned(), now_ms));
            }
            is_news
        };
        if !is_news {
            return;
        }
        match state {
            State::Denied => tracing::error!(
                command, %trouble,
                "the API refuses the key, and commands wait until that is mended"
            ),
            State::Waiting => {
                tracing::warn!(command, %trouble, "the API carries out no command, and they wait");
            }
            State::NoRoom => {
                tracing::error!(command, %trouble, "a command cannot be noted on disk, and waits");
            }
            _ => tracing::warn!(command, %trouble, "no commands can be taken from the broker"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Condition> {
        // Each change leaves it consistent.
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    fn enter(&mut self, state: State) {
        if self.state != state || self.since_ms == 0 {
            (self.state, self.since_ms) = (state, now_ms());
        }
    }
}

/// A place in `commands:`, as operators are shown it.
#[derive(Clone, Debug)]
pub struct Shown {
    pub name: ByteString,
    pub source: ByteString,
    pub broker: ByteString,
    pub stats: Arc<Stats>,
}

/// All of them, by name.
pub type AllShown = Arc<ArcSwap<Vec<Shown>>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stats: &Stats) -> Option<String> {
        stats.condition().told.map(|(_, words, _)| words)
    }

    #[test]
    fn a_trouble_is_told_once_until_it_ends_or_becomes_another() {
        let stats = Stats::default();
        stats.is_in_trouble("w", State::Waiting, "one");
        stats.is_in_trouble("w", State::Waiting, "two");
        assert_eq!(told(&stats).as_deref(), Some("one"));
        assert_eq!(stats.condition().trouble.as_deref(), Some("two"));
        stats.is_in_trouble("w", State::Denied, "three");
        assert_eq!(told(&stats).as_deref(), Some("three"));
        stats.goes(State::Working);
        assert!(stats.condition().trouble.is_some() && stats.condition().state.is_up());
        stats.is_well("w", State::Ready);
        assert_eq!((told(&stats), stats.condition().trouble), (None, None));
    }
}
