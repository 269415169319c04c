//! What a dispatcher shares with the rest of the daemon.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use bytestring::ByteString;

use super::{DeadLetters, Holds};
use crate::{
    admit::Backlogs,
    feed::Feed,
    journal::{Journal, Position},
};

/// See the module. A cheap handle.
#[derive(Clone)]
pub struct Shared {
    pub main: Journal,
    pub dead_letters: DeadLetters,
    pub backlogs: Arc<Backlogs>,
    pub progress: Arc<Progress>,
    pub holds: Arc<Holds>,
    pub feed: Feed,
}

/// The saved cursor of every dispatcher: below the lowest, the main journal may be freed.
#[derive(Debug, Default)]
pub struct Progress(Mutex<BTreeMap<ByteString, Position>>);

impl Progress {
    pub(super) fn save(&self, broker: &ByteString, position: Position) {
        let mut saved = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        saved.insert(broker.clone(), position);
    }

    pub(super) fn forget(&self, broker: &ByteString) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(broker);
    }

    /// The lowest saved cursor; `None` while there is no dispatcher.
    pub fn lowest(&self) -> Option<Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied()
    }
}
