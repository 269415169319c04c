//! File descriptors: senders may use up theirs, never those of the journal and the brokers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{admin, server};

/// Kept for segments, cursors, topics' files and brokers' connections.
const OWN: usize = 256;

/// Kept from senders: our own, operators' connections, and those of either listener that are being
/// told that they are one too many.
const RESERVED: u64 = (OWN + admin::MAX_CONNECTIONS + 2 * server::MAX_REFUSALS) as u64;

/// Raises the soft limit to the hard one, and says how many of `wanted` connections fit beside what
/// is reserved, at least one.
pub fn connections(wanted: usize) -> usize {
    let fit = usize::try_from(limit().saturating_sub(RESERVED)).unwrap_or(usize::MAX).max(1);
    if fit < wanted {
        tracing::warn!(
            wanted,
            fit,
            "the limit on file descriptors holds down ingress.max_connections; raise LimitNOFILE \
             or ulimit -n"
        );
    }
    wanted.min(fit)
}

fn limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Not raised is no error: what there is still counts.
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(_) => current.unwrap_or(u64::MAX),
    }
}
