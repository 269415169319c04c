//! What was done before: which commands were begun, which are done, and which wakeups they made.
//!
//! A journal of its own, in `DATA_DIR/commands`, whose entries are nothing but keys; opened, it gives
//! those of the window back. It is not the main one: what is no event would count there as one that
//! came in, and be met by whoever reads the past; and a main journal that a dead broker has filled up
//! would hold up commands, which have nothing to do with it.

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};

use super::message::Command;
use crate::{
    dedupe::{self, Limits, Running},
    journal::{AppendError, Entry, Error, Journal, Key, Options, Place, Storage},
};

/// A segment of it: some ten thousand commands.
const SEGMENT_BYTES: u64 = 1 << 20;

/// All its segments. They are freed as soon as they are closed, since keys outlive them.
pub const MAX_BYTES: u64 = 64 << 20;

const TAIL_BYTES: usize = 64 << 10;

/// What a key says, in its last byte.
#[derive(Clone, Copy)]
enum Mark {
    Begun = 1,
    Done = 2,
    /// Of a wakeup: one of our commands made it.
    Made = 3,
}

/// What a command is known by, within the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity([u8; 32]);

impl Identity {
    /// By the name of its place in `commands:`, and by who sent it and the id, as CloudEvents has it.
    pub fn of(name: &str, command: &Command) -> Identity {
        Identity(hash([name, &command.source, &command.id]))
    }

    fn key(&self, mark: Mark) -> Key {
        key(&self.0, mark)
    }

    /// For the API: the same for every attempt at this command, and for nothing else.
    pub fn idempotency_key(&self, source: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(source);
        const_hex::encode(&hash.finalize()[..16])
    }
}

/// The one place in it.
const PLACE: &str = "commands";

/// What is known of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    Unknown,
    /// The API may have been asked, from this time on (Unix milliseconds), and what became of it is
    /// not known.
    Begun {
        at_ms: u64,
    },
    Done,
}

/// See the module.
pub struct Ledger {
    journal: Journal,
    place: Place,
    limits: Limits,
    running: Running,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    times: FxHashMap<Key, Time>,
    /// The same keys, oldest first; of one that was noted again the older places count no more.
    ages: VecDeque<(Key, Time)>,
}

/// When something was noted. It is forgotten by running time: a clock that jumps would have a command
/// done twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    /// By the wall clock, since the Unix epoch.
    at_ms: u64,
    run_s: u32,
}

impl Ledger {
    /// Opens it in this directory; `journal` is what all journals have in common. Blocks.
    pub fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        limits: Limits,
        journal: Options,
    ) -> Result<Ledger, Error> {
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            max_bytes: MAX_BYTES,
            tail_bytes: TAIL_BYTES,
            max_keys: limits.max_keys,
            ..journal
        };
        let opened = Journal::open(storage, dir, options)?;
        let place = opened.journal.place(PLACE)?;
        let mut known = Known::default();
        let times_s = opened.keys.iter().map(|(_, at_ms)| dedupe::seconds(*at_ms));
        for ((key, at_ms), run_s) in opened.keys.iter().zip(dedupe::of_earlier(times_s)) {
            known.learn(*key, Time { at_ms: *at_ms, run_s }, limits);
        }
        let (running, known) = (Running::start(), Mutex::new(known));
        Ok(Ledger { journal: opened.journal, place, limits, running, known })
    }

    /// What is known of a command.
    pub fn past(&self, command: &Identity) -> Past {
        let mut known = self.known();
        known.forget(self.running.now_s(), self.limits);
        if known.times.contains_key(&command.key(Mark::Done)) {
            return Past::Done;
        }
        let begun = known.times.get(&command.key(Mark::Begun));
        begun.map_or(Past::Unknown, |time| Past::Begun { at_ms: time.at_ms })
    }

    /// Whether one of our commands made this wakeup.
    pub fn made(&self, source: &str, wakeup: &str) -> bool {
        self.known().times.contains_key(&made(source, wakeup))
    }

    /// Notes that the API is about to be asked; durable on return.
    pub async fn begin(&self, command: &Identity, now_ms: u64) -> Result<(), AppendError> {
        self.note(vec![command.key(Mark::Begun)], now_ms).await
    }

    /// Notes that a command has made this wakeup of this source; durable on return.
    pub async fn finish(
        &self,
        command: &Identity,
        (source, wakeup): (&str, &str),
        now_ms: u64,
    ) -> Result<(), AppendError> {
        self.note(vec![command.key(Mark::Done), made(source, wakeup)], now_ms).await
    }

    async fn note(&self, keys: Vec<Key>, time_ms: u64) -> Result<(), AppendError> {
        let entry = Entry { keys: keys.clone(), ..Entry::new(Default::default(), time_ms) };
        self.journal.append_durable(entry).await?;
        let time = Time { at_ms: time_ms, run_s: self.running.now_s() };
        let mut known = self.known();
        keys.into_iter().for_each(|key| known.learn(key, time, self.limits));
        Ok(())
    }

    /// Frees what is asked for no more.
    pub async fn free(&self, now_ms: u64) -> Result<(), Error> {
        // Keys are all there is to its entries.
        self.place.settle_all();
        self.journal.release().await?;
        let fresh_ms = now_ms.saturating_sub(self.limits.window.as_millis() as u64);
        let oldest_ms = self.known().times.values().map(|time| time.at_ms).min();
        let before_ms = oldest_ms.map_or(fresh_ms, |oldest_ms| oldest_ms.min(fresh_ms));
        self.journal.forget_keys(before_ms).await
    }

    /// Resolves once nothing more can be noted in this process; never otherwise.
    pub async fn failed(&self) -> Arc<Error> {
        self.journal.failed().await
    }

    pub async fn close(&self) {
        self.journal.clone().close().await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one step that leaves it consistent.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn learn(&mut self, key: Key, time: Time, limits: Limits) {
        self.times.insert(key, time);
        self.ages.push_back((key, time));
        self.forget(time.run_s, limits);
    }

    fn forget(&mut self, now_s: u32, limits: Limits) {
        let oldest_s = now_s.saturating_sub(limits.window_s());
        while let Some(&(key, time)) = self.ages.front()
            && (time.run_s < oldest_s || self.ages.len() > limits.max_keys)
        {
            self.ages.pop_front();
            if self.times.get(&key) == Some(&time) {
                self.times.remove(&key);
            }
        }
    }
}

fn made(source: &str, wakeup: &str) -> Key {
    key(&hash([source, wakeup]), Mark::Made)
}

fn key(hash: &[u8; 32], mark: Mark) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&hash[..16]);
    key[15] = mark as u8;
    key
}

/// Of texts, each with its length, so that no two lists look the same.
fn hash<const N: usize>(texts: [&str; N]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::{journal::RealDisk, sonzai::client::NewWakeup};

    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 100 * HOUR_MS;

    fn open(dir: &Path, max_keys: usize) -> Ledger {
        let limits = Limits { window: Duration::from_secs(24 * 3600), max_keys };
        Ledger::open(Arc::new(RealDisk), dir, limits, Options::default()).expect("a ledger")
    }

    fn identity(name: &str, source: &str, id: &str) -> Identity {
        let (source, id) = (source.into(), id.into());
        let wakeup = NewWakeup::default();
        Identity::of(name, &Command { id, source, agent: String::new(), wakeup })
    }

    #[tokio::test]
    async fn what_was_noted_is_known_after_a_restart_and_within_the_window() {
        let dir = tempfile::tempdir().unwrap();
        let [begun, done, other] = ["1", "2", "3"].map(|id| identity("w", "s", id));
        let ledger = open(dir.path(), 100);
        assert_eq!(ledger.past(&begun), Past::Unknown);
        ledger.begin(&begun, NOW_MS).await.unwrap();
        ledger.begin(&done, NOW_MS).await.unwrap();
        ledger.finish(&done, ("sonzai", "w1"), NOW_MS + 1).await.unwrap();
        ledger.close().await;
        drop(ledger);

        let ledger = open(dir.path(), 100);
        assert_eq!(ledger.past(&begun), Past::Begun { at_ms: NOW_MS });
        assert_eq!((ledger.past(&done), ledger.past(&other)), (Past::Done, Past::Unknown));
        assert!(ledger.made("sonzai", "w1"));
        assert!(!ledger.made("sonzai", "w2") && !ledger.made("other", "w1"));
        // Whatever the wall clock says by now.
        ledger.free(NOW_MS + 1000 * HOUR_MS).await.unwrap();
        ledger.close().await;
        drop(ledger);
        assert_eq!(open(dir.path(), 100).past(&done), Past::Done);
    }

    #[test]
    fn what_was_noted_is_forgotten_once_the_window_has_passed_by_running_time() {
        let limits = Limits { window: Duration::from_secs(24 * 3600), max_keys: 100 };
        let mut known = Known::default();
        for (n, run_s) in [(1, 1000), (2, 1001), (1, 1002)] {
            known.learn([n; 16], Time { at_ms: NOW_MS, run_s }, limits);
        }
        for (later_s, expected) in [(1, [true, true]), (2, [true, false]), (3, [false, false])] {
            known.forget(1000 + 24 * 3600 + later_s, limits);
            assert_eq!([1, 2].map(|n| known.times.contains_key(&[n; 16])), expected, "{later_s}");
        }
    }

    #[tokio::test]
    async fn one_that_is_begun_again_counts_from_then_and_the_oldest_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path(), 3);
        let [a, b] = ["a", "b"].map(|id| identity("w", "s", id));
        ledger.begin(&a, NOW_MS).await.unwrap();
        ledger.begin(&b, NOW_MS + 1).await.unwrap();
        ledger.begin(&a, NOW_MS + 2).await.unwrap();
        ledger.begin(&a, NOW_MS + 3).await.unwrap();
        assert_eq!(ledger.past(&a), Past::Begun { at_ms: NOW_MS + 3 });
        assert_eq!(ledger.past(&b), Past::Begun { at_ms: NOW_MS + 1 });
        ledger.begin(&a, NOW_MS + 4).await.unwrap();
        assert_eq!(ledger.past(&b), Past::Unknown);
    }

    #[test]
    fn a_command_is_known_by_its_place_its_sender_and_its_id() {
        let all =
            [("w", "s", "1"), ("v", "s", "1"), ("w", "t", "1"), ("w", "s", "2"), ("ws", "", "1")];
        let all = all.map(|(name, source, id)| identity(name, source, id));
        for (n, one) in all.iter().enumerate() {
            assert!(all[n + 1..].iter().all(|other| other != one));
        }
        let key = all[0].idempotency_key("sonzai");
        assert!(key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(key, all[0].idempotency_key("other"));
        assert_ne!(key, all[1].idempotency_key("sonzai"));
    }
}
