//! What the client counts.

use crate::meter::{Counter, Histogram};

/// Counts of the requests of one client and its clones: attempts, not calls.
#[derive(Debug)]
pub struct Stats {
    /// Answered 2xx, and readable.
    pub ok: Counter,
    /// Failed and followed by another attempt, whatever the reason.
    pub retried: Counter,
    /// The last of their call, refused with 3xx or 4xx.
    pub refused: Counter,
    /// The last of their call, and failed: 5xx, cut, late, too large, not readable.
    pub failed: Counter,
    /// The last of their call, without a connection.
    pub unreachable: Counter,
    /// How long each took, from the connection to the last byte.
    pub time: Histogram,
}

impl Default for Stats {
    fn default() -> Stats {
        Stats {
            ok: Counter::default(),
            retried: Counter::default(),
            refused: Counter::default(),
            failed: Counter::default(),
            unreachable: Counter::default(),
            time: Histogram::of_times(),
        }
    }
}
