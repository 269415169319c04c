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
use tokio::time::timeout;

use super::words;
use crate::broker::Error;

/// How long an answer may take; the probe is three round trips.
const PROBE: Duration = Duration::from_secs(10);

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
    /// Fails if the exchange does not exist.
    pub async fn require(
        &mut self,
        connection: &Connection,
        name: &ByteString,
        declared: &ShortString,
    ) -> Result<(), Error> {
        // The default exchange always exists, and may not be asked for.
        if name.is_empty() || self.present.contains(name) {
            return Ok(());
        }
        let asked_before = self.missing.get(name);
        let known_missing = asked_before.is_some_and(|at| at.elapsed() < MISSING_FOR);
        if known_missing || !exists(connection, declared).await? {
            if !known_missing {
                bounded(self.missing.len(), || self.missing.clear());
                self.missing.insert(name.clone(), Instant::now());
            }
            let name: &str = name;
            return Err(Error::Failed(format!("no exchange {name:?}")));
        }
        bounded(self.present.len(), || self.present.clear());
        self.missing.remove(name);
        self.present.insert(name.clone());
        Ok(())
    }
}

fn bounded(len: usize, clear: impl FnOnce()) {
    if len >= MAX_KNOWN {
        clear();
    }
}

/// A passive declaration on a channel of its own, which the broker closes if there is no such
/// exchange.
async fn exists(connection: &Connection, name: &ShortString) -> Result<bool, Error> {
    let probe = async {
        let channel = connection.create_channel().await?;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        channel
            .exchange_declare(name.clone(), ExchangeKind::Direct, options, FieldTable::default())
            .await?;
        channel.close(200, "OK".into()).await
    };
    match timeout(PROBE, probe).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) => match missing(&error) {
            Some(missing) => Ok(!missing),
            None => Err(Error::Down(format!("while looking for an exchange: {}", words(&error)))),
        },
        Err(_) => Err(Error::Down(format!(
            "the broker did not answer within {} s whether an exchange exists",
            PROBE.as_secs()
        ))),
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
