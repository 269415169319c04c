//! An event from the data directory: what was decided when it came, and what would be now.

use std::{path::Path, sync::Arc};

use super::{
    document::{
        DeadLetter, EventShown, Explanation, MessageShown, Outcome, Recorded, Route, Verdict,
    },
    routes::Resolved,
};
use crate::{
    cli::{Error, tell},
    clock::rfc3339,
    dispatch::{dead_letter, kept::Kept},
    event::{Event, Record},
    journal::{self, Item, RealDisk},
    routing::Table,
};

/// What the data directory has of an event.
#[derive(Default)]
struct Found {
    /// The newest record with its position; the same id may come again once it is forgotten.
    record: Option<(u64, Record)>,
    dead_letters: Vec<Kept>,
}

/// Explains the event with this id. A daemon may be running on the data directory or not.
pub fn explain(table: &Table, id: &str, data_dir: &Path) -> Result<Explanation, Error> {
    let found = Found::read(id, data_dir)?;
    let event = found.event().ok_or_else(|| {
        Error(format!(
            "no event with the id `{id}` is in {} any more, or ever was: records are removed once \
             every broker has what it is owed; name another directory with --data-dir",
            data_dir.display()
        ))
    })?;
    let Resolved { routes, unrouted, owed: now } = Resolved::of(table, event);
    let then = found.messages();
    let without = |some: &[MessageShown], others: &[MessageShown]| -> Vec<MessageShown> {
        some.iter().filter(|message| !others.contains(message)).cloned().collect()
    };
    let (only_then, only_now) = match found.record {
        Some(_) => (without(&then, &now), without(&now, &then)),
        // Dead letters are not all that was owed.
        None => (without(&then, &now), Vec::new()),
    };
    let recorded = Recorded {
        position: found.record.as_ref().map(|(position, _)| *position),
        same_now: only_then.is_empty() && only_now.is_empty(),
        messages: then,
        only_then,
        only_now,
        dead_letters: found.dead_letters.iter().map(DeadLetter::from).collect(),
    };
    let outcome = Outcome::Recorded;
    Ok(Explanation {
        at: event.time_rfc3339(),
        request: None,
        source: None,
        verdict: Verdict { outcome, status: None, secret: None, clock: None, reasons: vec![] },
        event: Some(EventShown::from(event)),
        recorded: Some(recorded),
        matched: Route::matched(&routes),
        routes,
        unrouted,
    })
}

impl Found {
    fn read(id: &str, data_dir: &Path) -> Result<Found, Error> {
        let mut found = Found::default();
        let dir = data_dir.join("journal");
        if !dir.is_dir() {
            let hint = "name its data directory with --data-dir";
            return Err(Error(format!("no daemon has run in {}; {hint}", data_dir.display())));
        }
        for item in journal::read_all(Arc::new(RealDisk), &dir).map_err(Error::new)? {
            match item.map_err(Error::new)? {
                Item::Entry(position, payload) => match Record::decode(payload) {
                    Ok(record) if record.event.id == id => {
                        found.record = Some((position.ordinal(), record));
                    }
                    Ok(_) => {}
                    Err(error) => tell(&format!("waypost: journal record {position}: {error}")),
                },
                Item::Void { .. } => {}
                Item::Damaged { from, to, why } => {
                    tell(&format!("waypost: journal records {from} to {to} are damaged: {why}"));
                }
            }
        }
        for letter in dead_letter::list(Arc::new(RealDisk), data_dir).map_err(Error::new)? {
            match letter {
                Ok(kept) if kept.event.id == id => found.dead_letters.push(kept),
                Ok(_) => {}
                Err(error) => tell(&format!("waypost: {error}")),
            }
        }
        Ok(found)
    }

    fn event(&self) -> Option<&Event> {
        let record = self.record.as_ref().map(|(_, record)| &record.event);
        record.or(self.dead_letters.last().map(|kept| &kept.event))
    }

    fn messages(&self) -> Vec<MessageShown> {
        match &self.record {
            Some((_, record)) => record.messages.iter().map(MessageShown::from).collect(),
            None => self.dead_letters.iter().map(|kept| (&kept.message).into()).collect(),
        }
    }
}

impl From<&Kept> for DeadLetter {
    fn from(kept: &Kept) -> DeadLetter {
        DeadLetter {
            time: rfc3339(kept.at_ms),
            attempts: kept.attempts,
            reason: kept.reason.to_string(),
            message: (&kept.message).into(),
        }
    }
}
