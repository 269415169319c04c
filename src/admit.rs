//! The one way in, for whoever has a verified event: known already? → resolve → append → durable.

use std::{collections::HashSet, sync::Arc, time::Duration};

use crate::{
    dedupe,
    event::{Event, Message, Record},
    journal::{AppendError, Entry, Journal},
    routing::Table,
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use bytestring::ByteString;

/// Admits events. A cheap handle.
#[derive(Clone)]
pub struct Admit {
    journal: Journal,
    window: Arc<dedupe::Window>,
    backlogs: Arc<Backlogs>,
    /// How long the outcome of an event that came before is waited for: as long as that of its own.
    patience: Duration,
}

/// An event that its sender need not send again.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    pub id: ByteString,
    pub outcome: Outcome,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Appended,
    /// It was known before, and is durable since; nothing was appended, or only that it came.
    Duplicate,
    /// It owes nothing, by its source's `unrouted: drop`: it left no trace.
    Dropped,
}

/// Why an event was not admitted; its sender is to send it again. It left no trace, but for one whose
/// outcome was not known in time: that keeps its claim until it is, and comes again as a duplicate or
/// as new.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("the backlog of broker `{0}` is full")]
    BacklogFull(ByteString),
    #[error(transparent)]
    Undecided(#[from] dedupe::Undecided),
}

impl Admit {
    /// `commit_timeout` is the journal's.
    pub fn new(
        journal: Journal,
        window: Arc<dedupe::Window>,
        backlogs: Arc<Backlogs>,
        commit_timeout: Duration,
    ) -> Admit {
        Admit { journal, window, backlogs, patience: commit_timeout }
    }

    /// Whether an event with these keys would be a duplicate now. Leaves no trace.
    pub fn knows(&self, keys: &dedupe::Keys, now_ms: u64) -> bool {
        self.window.knows(keys, now_ms)
    }

    /// How long an event is remembered.
    pub fn remembers_for(&self) -> Duration {
        self.window.limits().window
    }

    /// Returns once the event is on disk, with what `table` says it owes; `keys` are what its source
    /// knows it by.
    ///
    /// If the caller goes away meanwhile, the append goes on: the claim on the event's keys travels
    /// with it, so that a sender who comes again cannot get a second copy in; and so does `room`,
    /// whatever bounds the events under way.
    pub async fn admit(
        &self,
        table: &Table,
        keys: dedupe::Keys,
        event: Event,
        room: impl Send + 'static,
    ) -> Result<Admitted, Error> {
        let (id, time_ms) = (event.id.clone(), event.time_ms);
        let Some(claim) = self.window.claim(keys, time_ms, self.patience()).await? else {
            return Ok(Admitted { id, outcome: Outcome::Duplicate });
        };
        let (record, outcome) = if claim.is_taken() {
            // Owed to nobody. Its keys must be as durable as an event's.
            let event = Event { headers: Vec::new(), body: Bytes::new(), ..event };
            (Record { event, messages: Vec::new() }, Outcome::Duplicate)
        } else {
            let messages = table.resolve(&event);
            if messages.is_empty() {
                return Ok(Admitted { id, outcome: Outcome::Dropped });
            }
            self.backlogs.check(&messages)?;
            (Record { event, messages }, Outcome::Appended)
        };
        self.append(&record, claim, time_ms, room).await?;
        Ok(Admitted { id, outcome })
    }

    /// Admits a record as it was once, with the keys that were stored with it: what it owes is not
    /// decided again. It is known by the first of them, which is its own; others may be of several
    /// events. They count from `now_ms` on, so that doing this again makes no second one.
    pub async fn readmit(
        &self,
        record: &Record,
        keys: &[dedupe::Key],
        now_ms: u64,
    ) -> Result<Outcome, Error> {
        let mut known_by = keys.first().map(|own| dedupe::Keys::known_by(*own)).unwrap_or_default();
        keys.iter().skip(1).for_each(|key| known_by.register(*key));
        let Some(claim) = self.window.claim(known_by, now_ms, self.patience()).await? else {
            return Ok(Outcome::Duplicate);
        };
        self.backlogs.check(&record.messages)?;
        self.append(record, claim, now_ms, ()).await?;
        Ok(Outcome::Appended)
    }

    /// How long to wait for the outcome of somebody else's append.
    fn patience(&self) -> Duration {
        // While the disk does not answer nobody's outcome is about to be known.
        if self.journal.is_stuck() { Duration::ZERO } else { self.patience }
    }

    /// Durable on return. Who goes away meanwhile leaves the append going on.
    async fn append(
        &self,
        record: &Record,
        claim: dedupe::Claim,
        time_ms: u64,
        room: impl Send + 'static,
    ) -> Result<(), AppendError> {
        let (payload, keys) = (record.encode(), claim.keys().to_vec());
        let entry = Entry { payload, keys, time_ms: claim.time_ms(time_ms) };
        let known = move |outcome: &Result<_, _>| {
            if outcome.is_ok() {
                claim.commit(time_ms);
            }
            drop(room);
        };
        self.journal.append_then(entry, known).await.map(drop)
    }
}

/// The brokers whose backlog is full: events owed to them are refused at the door.
#[derive(Debug, Default)]
pub struct Backlogs(ArcSwap<HashSet<ByteString>>);

impl Backlogs {
    /// Says whether a broker's backlog is full.
    pub fn set_full(&self, broker: &ByteString, full: bool) {
        if self.is_full(broker) == full {
            return;
        }
        tracing::warn!(%broker, full, "the backlog of a broker; while full, its events are refused");
        self.0.rcu(|brokers| {
            let mut brokers = HashSet::clone(brokers);
            if full {
                brokers.insert(broker.clone());
            } else {
                brokers.remove(broker);
            }
            brokers
        });
    }

    /// Whether a broker's backlog is full.
    pub fn is_full(&self, broker: &ByteString) -> bool {
        self.0.load().contains(broker)
    }

    fn check(&self, messages: &[Message]) -> Result<(), Error> {
        let full = self.0.load();
        if full.is_empty() {
            return Ok(());
        }
        match messages.iter().find(|message| full.contains(&message.broker)) {
            Some(message) => Err(Error::BacklogFull(message.broker.clone())),
            None => Ok(()),
        }
    }
}
