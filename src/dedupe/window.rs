//! The window of known keys, and the claims on those to come.
//!
//! Two clocks, each for what the other gets wrong. A key is forgotten by *running time*, which no wall
//! clock that jumps moves on, nor time in which the daemon was down: nothing is forgotten early. Whether
//! something was registered *lately* is asked of the wall clock too, since only that saw a downtime; a
//! jump of it then makes two events of one at the worst. Both must say so: a wall clock that was set
//! back makes nothing lately for longer than it is by running time.

use std::{
    collections::{VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    keys::{Key, Keys, LookUp, Registered},
    running::{self, Running, START_S},
};
use crate::meter::Counter;

/// How long and how many.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A key older than this by running time is forgotten, within a second or so.
    pub window: Duration,
    /// Beyond this many, the oldest are forgotten. One that was registered again counts for each
    /// time until its first would have been forgotten.
    pub max_keys: usize,
}

/// Another event with one of the keys is being appended, and whether it is durable was not known in
/// time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not known yet whether the same event, come before, is durable")]
pub struct Undecided;

/// The known keys and those being committed.
pub struct Window {
    limits: Limits,
    running: Running,
    state: Mutex<State>,
    /// Events that took a key which is good for one.
    taken: Counter,
}

#[derive(Default)]
struct State {
    /// When each was last registered.
    known: FxHashMap<Key, Time>,
    /// Keys in the order in which they were registered, with the running time at which they were. One
    /// that was registered again is here more than once; only the newest counts.
    ages: VecDeque<(Key, u32)>,
    /// Of their times those that are lower by the wall clock than all after them: the first is the
    /// lowest of all.
    lows: VecDeque<Time>,
    /// Bounded by the requests under way.
    claimed: FxHashMap<Key, Claimed>,
}

/// A time by both clocks, in seconds: a million keys are many, and no age is asked for more exactly.
#[derive(Clone, Copy, Debug)]
struct Time {
    /// Since the Unix epoch.
    wall_s: u32,
    /// Of [`Running`].
    run_s: u32,
}

/// A key under claim.
#[derive(Default)]
struct Claimed {
    /// By so many. Two events may register the same key without being the same: neither looks it
    /// up, and neither waits for the other.
    claims: u32,
    /// Where somebody waits for the outcome of one of them.
    waiters: Option<watch::Sender<()>>,
}

enum Attempt {
    /// These, and if some of them say that it takes what is good for one, since when that is.
    Claimed(Registered, Option<u32>),
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
        let times_s = keys.iter().map(|(_, time_ms)| seconds(*time_ms));
        for ((key, time_ms), run_s) in keys.iter().zip(running::of_earlier(times_s)) {
            if START_S - run_s <= limits.window_s() {
                state.learn(*key, Time { wall_s: seconds(*time_ms), run_s }, limits);
            }
        }
        let (running, state, taken) = (Running::start(), Mutex::new(state), Counter::default());
        Arc::new(Window { limits, running, state, taken })
    }

    /// Claims all of an event's keys in one step, waiting while somebody else has a claim on one
    /// that it looks up, `patience` at the most; `None` if one of those is known by then. If only a key
    /// is that is good for one, the claim [says so](Claim::is_taken).
    ///
    /// Nobody waits in a circle: who waits holds nothing.
    ///
    /// # Errors
    ///
    /// What it waited for was not decided within `patience`.
    pub async fn claim(
        self: &Arc<Self>,
        keys: Keys,
        now_ms: u64,
        patience: Duration,
    ) -> Result<Option<Claim>, Undecided> {
        // Set by who waits: hardly anybody does, and the others need no clock.
        let mut until = None;
        loop {
            let attempt = self.try_claim(&keys, self.now(now_ms));
            match attempt {
                Attempt::Known => return Ok(None),
                Attempt::Claimed(keys, takes_since_s) => {
                    let (window, committed_ms) = (self.clone(), None);
                    return Ok(Some(Claim { window, keys, takes_since_s, committed_ms }));
                }
                Attempt::Wait(mut outcome) => {
                    let until = *until.get_or_insert_with(|| Instant::now() + patience);
                    let ended = timeout_at(until, outcome.changed()).await;
                    // An error of the channel is the claim's end, whichever way: look again.
                    drop(ended.map_err(|_| Undecided)?);
                }
            }
        }
    }

    /// Whether an event with these keys would be the same as one before it. Claims nothing and waits for
    /// nobody, so what is being committed does not count.
    pub fn knows(&self, keys: &Keys, now_ms: u64) -> bool {
        let (now, mut state) = (self.now(now_ms), self.state());
        state.forget(now.run_s, self.limits);
        keys.looked_up()
            .iter()
            .any(|look_up| state.known_since(look_up, now, self.limits).is_some())
    }

    /// Before which time (Unix milliseconds) no key is held any more. Keys that are kept elsewhere and
    /// are older are good for nothing.
    pub fn holds_none_before_ms(&self, now_ms: u64) -> u64 {
        let (now, mut state) = (self.now(now_ms), self.state());
        state.forget(now.run_s, self.limits);
        // What is durable and not told here yet is as new as can be.
        let fresh_s = now.wall_s.saturating_sub(self.limits.window_s());
        let held_s = state.lows.front().map_or(fresh_s, |time| time.wall_s);
        u64::from(held_s.min(fresh_s)) * 1000
    }

    fn try_claim(&self, keys: &Keys, now: Time) -> Attempt {
        let mut state = self.state();
        state.forget(now.run_s, self.limits);
        let mut takes: SmallVec<[Key; 2]> = SmallVec::new();
        let mut takes_since_s = None;
        let mut giver = None;
        for look_up in keys.looked_up() {
            let Some(since_s) = state.known_since(look_up, now, self.limits) else { continue };
            let (Some(taken), Some(for_one)) = (look_up.taken(), look_up.for_one) else {
                return Attempt::Known;
            };
            if *giver.get_or_insert(for_one.giver) == for_one.giver {
                takes.push(taken);
                takes_since_s = takes_since_s.max(Some(since_s));
            }
        }
        for look_up in keys.looked_up() {
            for key in [look_up.key].into_iter().chain(look_up.taken()) {
                if let Some(claimed) = state.claimed.get_mut(&key) {
                    let waiters = claimed.waiters.get_or_insert_with(|| watch::channel(()).0);
                    return Attempt::Wait(waiters.subscribe());
                }
            }
        }
        let stored = keys.stored(&takes);
        for key in &stored {
            state.claimed.entry(*key).or_default().claims += 1;
        }
        Attempt::Claimed(stored, takes_since_s)
    }

    /// Forgets keys of what is lost, so that its sender's next try gets in. Claims go on.
    pub fn forget_keys(&self, keys: &[Key]) {
        let mut state = self.state();
        for key in keys {
            state.known.remove(key);
        }
    }

    /// Now, where the wall clock says `wall_ms`.
    fn now(&self, wall_ms: u64) -> Time {
        Time { wall_s: seconds(wall_ms), run_s: self.running.now_s() }
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many events took a key that is good for one, since the start.
    pub fn taken(&self) -> u64 {
        self.taken.get()
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

/// Whole seconds since the Unix epoch; enough until 2106.
pub fn seconds(time_ms: u64) -> u32 {
    u32::try_from(time_ms / 1000).unwrap_or(u32::MAX)
}

impl Limits {
    /// The window in seconds, rounded up: nothing is forgotten too early.
    pub fn window_s(&self) -> u32 {
        let rest = u64::from(self.window.subsec_nanos() > 0);
        u32::try_from(self.window.as_secs().saturating_add(rest)).unwrap_or(u32::MAX)
    }
}

impl State {
    /// When the key was registered, by the wall clock, if it makes an event of now the same as one
    /// before. An age in whole seconds may be a second too long and is never too short, so a limit that
    /// is reached always counts.
    ///
    /// One that is good for one is good again once it was registered again, in a later second.
    fn known_since(&self, look_up: &LookUp, now: Time, limits: Limits) -> Option<u32> {
        let LookUp { key, younger_than_s, .. } = look_up;
        let time = *self.known.get(key)?;
        let ran_s = now.run_s.saturating_sub(time.run_s);
        let age_s = now.wall_s.saturating_sub(time.wall_s).max(ran_s);
        let is_known =
            ran_s <= limits.window_s() && (*younger_than_s == u32::MAX || age_s < *younger_than_s);
        let taken = || self.known.get(&look_up.taken()?);
        let is_good = is_known && taken().is_none_or(|taken| taken.wall_s < time.wall_s);
        is_good.then_some(time.wall_s)
    }

    fn learn(&mut self, key: Key, time: Time, limits: Limits) {
        self.forget(time.run_s, limits);
        match self.known.entry(key) {
            Entry::Occupied(mut known) => {
                let before = *known.get();
                // What was registered within the same second is as good.
                if before.run_s >= time.run_s && before.wall_s >= time.wall_s {
                    return;
                }
                // Never an earlier time, by either clock: what was taken stays so.
                known.insert(Time {
                    wall_s: before.wall_s.max(time.wall_s),
                    run_s: before.run_s.max(time.run_s),
                });
                if before.run_s >= time.run_s {
                    return;
                }
            }
            Entry::Vacant(new) => drop(new.insert(time)),
        }
        // Before there is one more, so that what was reserved for all of them is enough.
        while self.ages.len() >= limits.max_keys && self.forget_oldest() {}
        self.ages.push_back((key, time.run_s));
        while self.lows.back().is_some_and(|low| low.wall_s >= time.wall_s) {
            self.lows.pop_back();
        }
        self.lows.push_back(time);
    }

    fn forget(&mut self, now_s: u32, limits: Limits) {
        let oldest_s = now_s.saturating_sub(limits.window_s());
        while self.ages.front().is_some_and(|(_, run_s)| *run_s < oldest_s) {
            self.forget_oldest();
        }
    }

    /// Forgets what is oldest, unless that key was registered again since; false if there is none.
    fn forget_oldest(&mut self) -> bool {
        let Some((key, run_s)) = self.ages.pop_front() else { return false };
        if let Entry::Occupied(known) = self.known.entry(key)
            && known.get().run_s == run_s
        {
            known.remove();
        }
        let next_s = self.ages.front().map_or(u32::MAX, |(_, run_s)| *run_s);
        while self.lows.front().is_some_and(|low| low.run_s < next_s) {
            self.lows.pop_front();
        }
        true
    }

    /// Ends one claim on a key; whoever is dropped in turn wakes those who wait for it.
    fn release(&mut self, key: Key) -> Option<watch::Sender<()>> {
        let Entry::Occupied(mut claimed) = self.claimed.entry(key) else { return None };
        claimed.get_mut().claims -= 1;
        if claimed.get().claims == 0 {
            claimed.remove().waiters
        } else {
            claimed.get_mut().waiters.take()
        }
    }
}

/// The right to append the event with these keys. Dropped without a commit, it leaves no trace.
pub struct Claim {
    window: Arc<Window>,
    keys: Registered,
    /// When the newest of what it takes was registered.
    takes_since_s: Option<u32>,
    committed_ms: Option<u64>,
}

impl Claim {
    /// The keys to be stored with the event.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether the event is the same as one before it by a key that is good for one: then nothing of it
    /// is to be appended but its keys, so that the next one is another event.
    pub fn is_taken(&self) -> bool {
        self.takes_since_s.is_some()
    }

    /// The time from which its keys count: that of the event, and never before that of what it takes. A
    /// clock that was set back, or an event that waited, would leave that good for a second one.
    pub fn time_ms(&self, event_ms: u64) -> u64 {
        event_ms.max(u64::from(self.takes_since_s.unwrap_or_default()) * 1000)
    }

    /// The event of this time is durable: its keys are known from now on, all at once, and those who
    /// wait for one are told.
    pub fn commit(mut self, event_ms: u64) {
        self.committed_ms = Some(self.time_ms(event_ms));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.window.state();
        if let Some(time_ms) = self.committed_ms {
            let time = self.window.now(time_ms);
            for key in &self.keys {
                state.learn(*key, time, self.window.limits);
            }
            if self.is_taken() {
                self.window.taken.inc();
            }
        }
        let waiters: SmallVec<[_; 2]> =
            self.keys.iter().filter_map(|key| state.release(*key)).collect();
        drop(state);
        // Dropping the channels wakes those who wait: not while the lock is held that they want.
        drop(waiters);
    }
}

#[cfg(test)]
mod tests;
