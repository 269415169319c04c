//! Ports for the brokers.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
};

/// Below Linux's ephemeral range. A client that keeps reconnecting to a dead broker's port in that
/// range can be given this very port as its own, connect to itself, and keep the broker from
/// coming back.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// Starts at a random place, since other test processes choose at the same time, and goes up, so
/// that two brokers of one process never choose the same.
static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(RANGE)));

/// A loopback port that nothing listens on.
pub fn free() -> Result<u16, String> {
    for _ in RANGE {
        let port = RANGE.start + NEXT.fetch_add(1, Ordering::Relaxed) % (RANGE.end - RANGE.start);
        if is_free(port) {
            return Ok(port);
        }
    }
    Err(format!("every port in {RANGE:?} is taken"))
}

/// Whether a broker could listen on this loopback port now.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
