//! Which exchanges exist: asked before the first publish to each, since publishing to a missing one
//! closes the channel and fails everything in flight.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use bytestring::ByteString;
use lapin::{
    Connection, ErrorKind, ExchangeKind,
    options::ExchangeDeclareOptions,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{FieldTable, ShortString},
};

/// How long a missing exchange is not asked for again, so that a run of messages to it does not
/// cost every other message a probe.
const MISSING_FOR: Duration = Duration::from_secs(1);

/// Names remembered at most; one more forgets them all. A name may hold payload text, so there is
/// no end to them.
const MAX_KNOWN: usize = 1024;

/// What one connection has found out. A new connection asks again.
#[derive(Debug, Default)]
pub struct Exchanges {
    present: HashSet<ByteString>,
    missing: HashMap<ByteString, Instant>,
}

impl Exchanges {
    /// Whether the exchange exists; `None` if that is to be asked.
    pub fn has(&self, name: &ByteString) -> Option<bool> {
        // The default exchange always exists, and may not be asked for.
        if name.is_empty() || self.present.contains(name) {
            return Some(true);
        }
        let asked_before = self.missing.get(name);
        asked_before.is_some_and(|at| at.elapsed() < MISSING_FOR).then_some(false)
    }

    /// Remembers what was asked.
    pub fn learn(&mut self, name: ByteString, exists: bool) {
        if exists {
            bounded(self.present.len(), || self.present.clear());
            self.missing.remove(&name);
            self.present.insert(name);
        } else {
            bounded(self.missing.len(), || self.missing.clear());
            self.missing.insert(name, Instant::now());
        }
    }
}

fn bounded(len: usize, clear: impl FnOnce()) {
    if len >= MAX_KNOWN {
        clear();
    }
}

/// Asks whether an exchange exists: a passive declaration on a channel of its own, which the broker
/// closes if there is none.
pub async fn exists(connection: &Connection, name: &ShortString) -> lapin::Result<bool> {
    let probe = async {
        let channel = connection.create_channel().await?;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        channel
            .exchange_declare(name.clone(), ExchangeKind::Direct, options, FieldTable::default())
            .await?;
        channel.close(200, "OK".into()).await
    };
    match probe.await {
        Ok(()) => Ok(true),
        Err(error) => missing(&error).map(|missing| !missing).ok_or(error),
    }
}

/// Whether the broker's objection to a probe says that the exchange is missing. Being forbidden to
/// ask says nothing: publishing may be allowed all the same.
fn missing(error: &lapin::Error) -> Option<bool> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    match error.kind() {
        AMQPErrorKind::Soft(kind) => Some(*kind == AMQPSoftError::NOTFOUND),
        AMQPErrorKind::Hard(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_is_asked_for_once_and_a_missing_one_again_after_a_while() {
        let mut exchanges = Exchanges::default();
        assert_eq!(exchanges.has(&"".into()), Some(true), "the default exchange");
        assert_eq!(exchanges.has(&"e".into()), None);
        exchanges.learn("e".into(), false);
        assert_eq!(exchanges.has(&"e".into()), Some(false));
        exchanges.missing.insert("e".into(), Instant::now() - MISSING_FOR);
        assert_eq!(exchanges.has(&"e".into()), None);
        exchanges.learn("e".into(), true);
        assert_eq!(exchanges.has(&"e".into()), Some(true));
    }
}
