//! The wall clock, read in one place.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since the Unix epoch; 0 for a clock set before it.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A time in milliseconds since the Unix epoch as RFC 3339 in UTC with milliseconds.
pub fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

/// Wall time as of a start, moved on by the runtime's own clock: a wall clock that is set back or
/// forward meanwhile shortens or stretches no wait.
#[derive(Clone, Copy, Debug)]
pub struct Steady {
    started: tokio::time::Instant,
    started_ms: u64,
}

impl Steady {
    pub fn start() -> Steady {
        Steady { started: tokio::time::Instant::now(), started_ms: now_ms() }
    }

    /// Now, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.started_ms.saturating_add(self.started.elapsed().as_millis() as u64)
    }
}
