//! One place's state: what is settled, and what of that is durable.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    super::{
        Error, lock,
        segment::PLAIN,
        settled::Settled,
        slot::{Content, MAX_RANGES, SlotFile},
    },
    Stamp,
};
use crate::meter::Counter;

/// A place whose settled messages no commit has carried for this long is saved by itself.
const SAVE_AFTER: Duration = Duration::from_millis(100);

/// The same where it only stepped over what is not its own: nothing would be published twice.
pub(super) const STEP_SAVED_AFTER: Duration = Duration::from_secs(1);

/// One place's state.
pub(in super::super) struct Member {
    pub(super) name: String,
    pub(super) state: Mutex<State>,
    /// `None` until it is opened.
    pub(super) file: Mutex<Option<SlotFile>>,
    /// How many ranges above the cursor its file holds.
    pub(super) max_ranges: usize,
    /// Records that were lost to it.
    pub lost: Counter,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) settled: Settled,
    /// Counts what changed `settled`.
    pub(super) stamp: u64,
    /// What of it is durable, wherever.
    pub(super) durable: Settled,
    pub(super) durable_stamp: u64,
    /// Since when something is settled, or stepped over, that is not durable.
    pub(super) settled_since: Option<Instant>,
    pub(super) stepped_since: Option<Instant>,
    pub(super) is_open: bool,
    pub(super) is_retired: bool,
    /// Whether the disk could not read its file.
    pub(super) is_unread: bool,
}

impl State {
    pub(super) fn due(&self) -> Option<Instant> {
        let settled = self.settled_since.map(|since| since + SAVE_AFTER);
        let stepped = self.stepped_since.map(|since| since + STEP_SAVED_AFTER);
        settled.into_iter().chain(stepped).min()
    }

    /// What was settled at `stamp` is durable.
    fn made_durable(&mut self, stamp: u64, settled: Settled) {
        if stamp > self.durable_stamp {
            (self.durable_stamp, self.durable) = (stamp, settled);
        }
        if self.durable_stamp == self.stamp {
            (self.settled_since, self.stepped_since) = (None, None);
        } else {
            // What came meanwhile waits from now on.
            let now = Instant::now();
            self.settled_since = self.settled_since.map(|_| now);
            self.stepped_since = self.stepped_since.map(|_| now);
        }
    }
}

impl Member {
    pub(super) fn new(name: String, settled: Settled, version: u32) -> Member {
        let max_ranges = if version == PLAIN { 0 } else { MAX_RANGES };
        let durable = settled.with_ranges(max_ranges);
        let state = Mutex::new(State { settled, durable, ..State::default() });
        Member { name, state, file: Mutex::default(), max_ranges, lost: Counter::default() }
    }

    /// What was found while opening is durable, as far as it can be written down.
    pub(super) fn learn(&self, learn: impl FnOnce(&mut Settled)) {
        let mut state = lock(&self.state);
        learn(&mut state.settled);
        state.durable = state.settled.with_ranges(self.max_ranges);
    }

    /// What is settled.
    pub fn settled(&self) -> Settled {
        lock(&self.state).settled.clone()
    }

    /// Whether it pins nothing any more.
    pub fn is_retired(&self) -> bool {
        lock(&self.state).is_retired
    }

    pub(super) fn settle(&self, from: u64, to: u64, is_own: bool) -> Stamp {
        let mut state = lock(&self.state);
        if state.settled.settle(from, to) {
            state.stamp += 1;
            let since = match is_own {
                true => &mut state.settled_since,
                false => &mut state.stepped_since,
            };
            since.get_or_insert_with(Instant::now);
        }
        Stamp(state.stamp)
    }

    pub(super) fn save(&self, end: u64) -> Result<(), Error> {
        let mut file = lock(&self.file);
        let (stamp, settled) = {
            let state = lock(&self.state);
            if state.stamp == state.durable_stamp {
                return Ok(());
            }
            (state.stamp, state.settled.with_ranges(self.max_ranges))
        };
        let Some(file) = &mut *file else { return Ok(()) };
        let content = Content { settled, end };
        file.save(&content)?;
        lock(&self.state).made_durable(stamp, content.settled);
        Ok(())
    }
}

/// A copy of a place on its way with a commit.
pub(in super::super) struct Copied {
    pub(super) member: Arc<Member>,
    pub(super) stamp: u64,
    pub(super) settled: Settled,
}

impl Copied {
    /// The commit is durable.
    pub fn carried(self) {
        lock(&self.member.state).made_durable(self.stamp, self.settled);
    }
}
