//! How many connections a listener holds and held, and how they ended.

use std::io;

use super::Limits;
use crate::meter::Counter;

/// How connections end that are not ended in order, in the order of [`Load::failures`].
const FAILURES: [&str; 5] = ["silent", "timeout", "malformed", "head_too_large", "aborted"];

/// See the module.
#[derive(Debug)]
pub struct Load {
    pub max_connections: usize,
    accepted: Counter,
    ended: Counter,
    /// Connections over the limit.
    pub shed: Counter,
    failures: [Counter; FAILURES.len()],
}

/// A connection that is open; dropped, it is not any more.
pub(super) struct Open<'l>(&'l Load);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.ended.inc();
    }
}

impl Load {
    pub fn new(limits: &Limits) -> Load {
        Load {
            max_connections: limits.max_connections,
            accepted: Counter::default(),
            ended: Counter::default(),
            shed: Counter::default(),
            failures: Default::default(),
        }
    }

    pub(super) fn opened(&self) -> Open<'_> {
        self.accepted.inc();
        Open(self)
    }

    /// A connection ended early: before its first byte, or with hyper's error inside.
    pub(super) fn failed(&self, error: &io::Error) {
        let hyper = error.get_ref().and_then(|inner| inner.downcast_ref::<hyper::Error>());
        let at = match hyper {
            None if error.kind() == io::ErrorKind::TimedOut => 0,
            Some(error) if error.is_timeout() => 1,
            // A head that is too large is a kind of malformed one.
            Some(error) if error.is_parse_too_large() => 3,
            Some(error) if error.is_parse() => 2,
            _ => 4,
        };
        self.failures[at].inc();
    }

    /// Connections taken since the start, those over the limit apart.
    pub fn accepted(&self) -> u64 {
        self.accepted.get()
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        // In this order, so that never more have ended than were taken.
        let ended = self.ended.get();
        self.accepted.get().saturating_sub(ended)
    }

    /// Every way to end early, with how many connections did.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> {
        FAILURES.into_iter().zip(self.failures.iter().map(Counter::get))
    }
}
