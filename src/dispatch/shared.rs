//! What a dispatcher shares with the rest of the daemon.

use std::sync::Arc;

use super::{DeadLetters, Holds};
use crate::{admit::Backlogs, feed::Feed, journal::Journal};

/// See the module. A cheap handle.
#[derive(Clone)]
pub struct Shared {
    pub main: Journal,
    pub dead_letters: DeadLetters,
    pub backlogs: Arc<Backlogs>,
    pub holds: Arc<Holds>,
    pub feed: Feed,
}
