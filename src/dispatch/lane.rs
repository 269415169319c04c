//! A lane: one journal read at one cursor. A dispatcher has two of the same kind: the main journal,
//! and its broker's own journal of parked messages.
//!
//! Sometimes a third reads ahead in the main journal, without a cursor of its own.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::task::{JoinError, JoinHandle};

use super::{
    Error, Limits,
    job::{Job, LaneKind},
    kept::Kept,
    window::Window,
};
use crate::{
    broker,
    event::{Message, Record},
    journal::{self, Cursor, Item, Journal, Position, Reader},
};

/// Most records read at a time; a read ends with what is there, so this bounds only a burst.
const READ_ENTRIES: usize = 256;
const READ_BYTES: usize = 4 << 20;

/// What a lane woke up for.
pub enum LaneWake {
    /// The cursor is durable here.
    Saved(Position),
    /// Messages of ours, in order.
    Read(Vec<Job>),
}

type Saving = Result<Result<Saved, Error>, JoinError>;

/// A cursor after an attempt to save it.
struct Saved {
    cursor: Cursor,
    /// Why it is durable only where it was before: the disk is full.
    postponed: Option<journal::Error>,
}

/// See the module.
pub struct Lane {
    kind: LaneKind,
    /// Whose messages are taken; others are skipped.
    broker: ByteString,
    journal: Journal,
    reader: Reader,
    window: Window,
    /// `None` while a save is under way.
    cursor: Option<Cursor>,
    saving: Option<JoinHandle<Result<Saved, Error>>>,
    /// Whether the last attempt found the disk full: the next is left to the tick.
    postponed: bool,
    /// What alone is read.
    only: Option<Stretch>,
    /// What was read by a lane ahead, and is settled.
    passed: Vec<Stretch>,
}

/// The messages on addresses of one type in a range of the main journal.
#[derive(Clone, Debug)]
struct Stretch {
    range: Range<Position>,
    kind: broker::Kind,
}

impl Stretch {
    fn holds(&self, position: Position, message: &Message) -> bool {
        let is_of_kind = |address| broker::Kind::of(address) == self.kind;
        self.range.contains(&position) && message.address.as_ref().is_ok_and(is_of_kind)
    }
}

impl Lane {
    /// Opens the broker's cursor in `journal` and starts reading there.
    pub fn open(
        kind: LaneKind,
        journal: Journal,
        broker: &ByteString,
        limits: &Limits,
    ) -> Result<Lane, Error> {
        let cursor = journal.cursor(broker)?;
        let saved = cursor.position();
        Ok(Lane {
            kind,
            broker: broker.clone(),
            reader: journal.reader(saved),
            journal,
            window: Window::new(saved, limits.window),
            cursor: Some(cursor),
            saving: None,
            postponed: false,
            only: None,
            passed: Vec::new(),
        })
    }

    /// A lane for the messages of one type from where this one has read to, up to `end`, while this one
    /// reads no further.
    pub fn ahead(&self, kind: broker::Kind, end: Position, limits: &Limits) -> Lane {
        let start = self.next_position();
        Lane {
            kind: LaneKind::Ahead,
            broker: self.broker.clone(),
            reader: self.journal.reader(start),
            journal: self.journal.clone(),
            window: Window::new(start, limits.window),
            cursor: None,
            saving: None,
            postponed: false,
            only: Some(Stretch { range: start..end, kind }),
            passed: Vec::new(),
        }
    }

    /// Whether this lane, which is [ahead](Self::ahead), has come to its end and all is settled.
    pub fn is_through(&self) -> bool {
        let Some(only) = &self.only else { return false };
        self.next_position() >= only.range.end && self.window.unsettled() == 0
    }

    /// Skips what was read and settled ahead.
    pub fn pass(&mut self, ahead: Lane) {
        self.passed.retain(|stretch| stretch.range.end > self.reader.position());
        self.passed.extend(ahead.only);
    }

    fn is_ours(&self, position: Position, message: &Message) -> bool {
        message.broker == self.broker
            && self.only.as_ref().is_none_or(|only| only.holds(position, message))
            && !self.passed.iter().any(|passed| passed.holds(position, message))
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    pub fn window(&self) -> &Window {
        &self.window
    }

    pub fn next_position(&self) -> Position {
        self.reader.position()
    }

    /// Whether everything durable was read.
    pub fn has_read_all(&self) -> bool {
        self.reader.position() >= self.journal.end()
    }

    /// Whether nothing more can be read until one of the `waiting` messages is settled, since those
    /// are all that is under way and they fill the window.
    pub fn is_full_of(&self, waiting: usize) -> bool {
        let window = &self.window;
        window.room() == 0 && !window.wants_saving() && window.unsettled() == waiting
    }

    /// Bytes of the journal that wait for this lane's cursor.
    pub fn held_bytes(&self) -> u64 {
        self.journal.bytes_from(self.window.cursor())
    }

    /// Waits for a save to end, and with `read` for records too. Cancel-safe.
    pub async fn next(&mut self, read: bool) -> Result<LaneWake, Error> {
        let entries = self.window.room().min(READ_ENTRIES);
        let items = tokio::select! {
            biased;
            saved = ended(&mut self.saving) => return self.saved(saved).map(LaneWake::Saved),
            items = self.reader.next(entries, READ_BYTES), if read && entries > 0 => items?,
        };
        let mut jobs = Vec::new();
        for item in items {
            match item {
                Item::Entry(position, bytes) => self.take(position, bytes, &mut jobs)?,
                // Reported by the journal, which keeps the damaged bytes.
                Item::Damaged { to, .. } => self.window.skip(to),
            }
        }
        Ok(LaneWake::Read(jobs))
    }

    fn take(&mut self, position: Position, bytes: Bytes, jobs: &mut Vec<Job>) -> Result<(), Error> {
        let size = bytes.len();
        let before = jobs.len();
        let time_ms;
        let unreadable = |cause: String| Error::Unreadable { position, cause };
        match self.kind {
            LaneKind::Main | LaneKind::Ahead => {
                let owes = Record::owes(&bytes, &self.broker);
                if !owes.map_err(|e| unreadable(e.to_string()))? {
                    self.window.skip(position.next());
                    return Ok(());
                }
                let record = Record::decode(bytes).map_err(|e| unreadable(e.to_string()))?;
                let event = Arc::new(record.event);
                time_ms = event.time_ms;
                let owed = record.messages.into_iter().filter(|m| self.is_ours(position, m));
                jobs.extend(owed.map(|message| Job::new(self.kind, position, &event, message)));
            }
            LaneKind::Parked => {
                let kept = Kept::decode(bytes).map_err(|e| unreadable(e.to_string()))?;
                time_ms = kept.event.time_ms;
                jobs.push(Job::resume(position, kept));
            }
        }
        self.window.take(position, time_ms, jobs.len() - before, size);
        Ok(())
    }

    /// One message of the record at `position` is settled.
    pub fn settle(&mut self, position: Position) {
        self.window.settle(position);
        if self.kind == LaneKind::Ahead {
            // No cursor has to be saved first.
            self.window.save(self.window.cursor());
        }
    }

    /// Whether the window fills up with settled messages that only a save lets go.
    pub fn wants_saving(&self) -> bool {
        self.saving.is_none() && !self.postponed && self.window.wants_saving()
    }

    /// Starts saving the cursor, unless it is saved already or a save is under way.
    pub fn start_saving(&mut self) {
        let position = self.window.cursor();
        if position == self.window.saved() {
            return;
        }
        if let Some(cursor) = self.cursor.take() {
            // Nobody else reads a broker's parked journal; the main one is freed by the daemon,
            // which knows every cursor.
            let journal = (self.kind == LaneKind::Parked).then(|| self.journal.clone());
            self.saving = Some(tokio::spawn(save(cursor, position, journal)));
        }
    }

    /// Saves the cursor and waits for it.
    pub async fn save(&mut self) -> Result<(), Error> {
        if self.saving.is_some() {
            let saved = ended(&mut self.saving).await;
            self.saved(saved)?;
        }
        self.start_saving();
        if self.saving.is_some() {
            let saved = ended(&mut self.saving).await;
            self.saved(saved)?;
        }
        Ok(())
    }

    fn saved(&mut self, outcome: Saving) -> Result<Position, Error> {
        self.saving = None;
        let Saved { cursor, postponed } = outcome??;
        let position = cursor.position();
        self.cursor = Some(cursor);
        if let (Some(error), false) = (&postponed, self.postponed) {
            tracing::warn!(broker = %self.broker, %error, "a cursor waits for room on the disk");
        }
        self.postponed = postponed.is_some();
        self.window.save(position);
        Ok(position)
    }

    /// The cursor as last saved.
    pub fn saved_position(&self) -> Position {
        self.window.saved()
    }
}

/// Waits for the save under way; for ever if there is none.
async fn ended(saving: &mut Option<JoinHandle<Result<Saved, Error>>>) -> Saving {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

/// Saves the cursor, and only then frees what lies below it. A full disk postpones both: what is
/// settled meanwhile is only published again after a crash.
async fn save(
    mut cursor: Cursor,
    position: Position,
    journal: Option<Journal>,
) -> Result<Saved, Error> {
    let saving = tokio::task::spawn_blocking(move || match cursor.save(position) {
        Ok(()) => Ok(Saved { cursor, postponed: None }),
        Err(error) if error.is_no_space() => Ok(Saved { cursor, postponed: Some(error) }),
        Err(error) => Err(error),
    });
    let saved = saving.await??;
    if let Some(journal) = journal {
        journal.release(saved.cursor.position()).await?;
    }
    Ok(saved)
}

/// The next of a lane, if there is one that has not come to its end. Cancel-safe.
pub async fn next_of(lane: &mut Option<Lane>, read: bool) -> Option<Result<LaneWake, Error>> {
    let lane = lane.as_mut()?;
    let end = lane.only.as_ref()?.range.end;
    Some(lane.next(read && lane.next_position() < end).await)
}
