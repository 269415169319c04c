//! A lane: one journal read from one place. A dispatcher has two of the same kind: the main journal,
//! and its broker's own journal of parked messages.
//!
//! Sometimes a third reads ahead in the main journal, without a place of its own.

use std::{ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;
use bytestring::ByteString;
use tokio::{
    task::{JoinError, JoinHandle},
    time::{Instant, Sleep},
};

use super::{
    Error, Limits,
    job::{Job, LaneKind},
    kept::Kept,
    window::Window,
};
use crate::{
    broker,
    clock::now_ms,
    event::{Message, Record},
    journal::{self, Durable, Item, Journal, Place, Position, Reader},
    quiet::Quiet,
};

/// Most records read at a time; a read ends with what is there, so this bounds only a burst.
const READ_ENTRIES: usize = 256;
const READ_BYTES: usize = 4 << 20;

/// What a lane woke up for.
pub enum LaneWake {
    /// The place was saved.
    Saved,
    /// Messages of ours, in order.
    Read(Vec<Job>),
}

/// What became of a save that was no failure.
struct Saved {
    /// Why the place is not saved: the disk is full.
    postponed: Option<journal::Error>,
    /// What was durable when what is settled was freed, or why it was not.
    freed: Result<Option<Durable>, journal::Error>,
}

type Saving = Result<Result<Saved, Error>, JoinError>;

/// See the module.
pub struct Lane {
    kind: LaneKind,
    /// Whose messages are taken; others are skipped.
    broker: ByteString,
    journal: Journal,
    reader: Reader,
    window: Window,
    /// `None` for a lane ahead.
    place: Option<Arc<Place>>,
    /// When the place wants to be saved.
    due: Pin<Box<Sleep>>,
    saving: Option<JoinHandle<Result<Saved, Error>>>,
    /// Whether the last attempt found the disk full: the next is left to the tick.
    postponed: bool,
    /// What was durable when what is settled was last freed; nobody else frees what is parked.
    freed: Option<Durable>,
    told: Quiet,
    /// What alone is read.
    only: Option<Stretch>,
    /// Of that, what has come, in order: what the disk could not read has not.
    came: Vec<Range<Position>>,
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
    /// Opens the broker's place in `journal` and starts reading there.
    pub fn open(
        kind: LaneKind,
        journal: Journal,
        broker: &ByteString,
        limits: &Limits,
    ) -> Result<Lane, Error> {
        let place = journal.place(broker)?;
        Ok(Lane {
            kind,
            broker: broker.clone(),
            reader: place.reader(),
            journal,
            window: Window::new(limits.window),
            place: Some(Arc::new(place)),
            due: Box::pin(tokio::time::sleep_until(Instant::now())),
            saving: None,
            postponed: false,
            freed: None,
            told: Quiet::default(),
            only: None,
            came: Vec::new(),
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
            window: Window::new(limits.window),
            place: None,
            due: Box::pin(tokio::time::sleep_until(Instant::now())),
            saving: None,
            postponed: false,
            freed: None,
            told: Quiet::default(),
            only: Some(Stretch { range: start..end, kind }),
            came: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// Whether this lane, which is [ahead](Self::ahead), has come to its end and all is settled.
    pub fn is_through(&self) -> bool {
        let Some(only) = &self.only else { return false };
        self.next_position() >= only.range.end && self.window.unsettled() == 0
    }

    /// Skips what was read and settled ahead. What the disk could not read there comes here, once it
    /// can.
    pub fn pass(&mut self, ahead: Lane) {
        self.passed.retain(|stretch| stretch.range.end > self.reader.position());
        let Some(Stretch { kind, .. }) = ahead.only else { return };
        self.passed.extend(ahead.came.into_iter().map(|range| Stretch { range, kind }));
    }

    /// Of a lane ahead: this has come.
    fn note(&mut self, from: Position, to: Position) {
        let Some(only) = &self.only else { return };
        let to = to.min(only.range.end);
        match self.came.last_mut() {
            Some(last) if last.end == from => last.end = to,
            _ => self.came.push(from..to),
        }
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
        self.reader.is_at_end()
    }

    /// Whether something could not be read, and comes later.
    pub fn left_something_behind(&self) -> bool {
        self.reader.left_something_behind()
    }

    /// Whether nothing more can be read until one of the `waiting` messages is settled, since those
    /// are all that is under way and they fill the window.
    pub fn is_full_of(&self, waiting: usize) -> bool {
        let window = &self.window;
        let saving_helps =
            window.wants_saving() && self.place.as_ref().is_some_and(|place| place.due().is_some());
        window.room() == 0 && !saving_helps && window.unsettled() == waiting
    }

    /// Bytes of the journal that wait for this lane's place.
    pub fn held_bytes(&self) -> u64 {
        self.place.as_ref().map_or(0, |place| place.behind().bytes)
    }

    /// Up to where to give up, from the oldest on, so that less than `bytes` are held back; see
    /// [`Place::excess`].
    pub fn excess(&self, bytes: u64) -> Option<Position> {
        self.place.as_ref()?.excess(bytes)
    }

    /// Waits for a save to end, and with `read` for records too. Cancel-safe.
    pub async fn next(&mut self, read: bool) -> Result<LaneWake, Error> {
        loop {
            let due = self.look_at_place();
            let entries = self.window.room().min(READ_ENTRIES);
            let items = tokio::select! {
                biased;
                saved = ended(&mut self.saving) => {
                    self.saved(saved)?;
                    return Ok(LaneWake::Saved);
                }
                () = &mut self.due, if due => {
                    self.start_saving();
                    continue;
                }
                items = self.reader.next(entries, READ_BYTES), if read && entries > 0 => items?,
            };
            return self.take_in(items).map(LaneWake::Read);
        }
    }

    /// What has become durable leaves the window. Whether there is a time at which the place wants to
    /// be saved.
    fn look_at_place(&mut self) -> bool {
        let Some(place) = &self.place else { return false };
        self.window.durable(place.durable());
        let Some(due) = place.due().map(Instant::from_std) else { return false };
        if self.due.deadline() != due {
            self.due.as_mut().reset(due);
        }
        self.saving.is_none() && !self.postponed
    }

    fn take_in(&mut self, items: Vec<Item>) -> Result<Vec<Job>, Error> {
        let mut jobs = Vec::new();
        // What owes nothing here is stepped over in one go, as far as it is in a row.
        let mut stretch: Option<Range<Position>> = None;
        for item in items {
            let (from, to) = (item.position(), item.next_position());
            self.note(from, to);
            let owes = match item {
                Item::Entry(position, bytes) => self.take(position, bytes, &mut jobs)?,
                // Told by the journal.
                Item::Damaged { .. } | Item::Void { .. } => false,
            };
            if owes {
                continue;
            }
            match &mut stretch {
                Some(stretch) if stretch.end == from => stretch.end = to,
                _ => self.step_over(stretch.replace(from..to)),
            }
        }
        self.step_over(stretch);
        Ok(jobs)
    }

    fn step_over(&self, stretch: Option<Range<Position>>) {
        if let (Some(place), Some(stretch)) = (&self.place, stretch) {
            place.step_over(stretch.start, stretch.end);
        }
    }

    /// Takes in a record; whether it owes anything here.
    fn take(
        &mut self,
        position: Position,
        bytes: Bytes,
        jobs: &mut Vec<Job>,
    ) -> Result<bool, Error> {
        let size = bytes.len();
        let before = jobs.len();
        let time_ms;
        let unreadable = |cause: String| Error::Unreadable { position, cause };
        match self.kind {
            LaneKind::Main | LaneKind::Ahead => {
                let owes = Record::owes(&bytes, &self.broker);
                if !owes.map_err(|e| unreadable(e.to_string()))? {
                    return Ok(false);
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
        let messages = jobs.len() - before;
        if messages > 0 {
            self.window.take(position, time_ms, messages, size);
        }
        Ok(messages > 0)
    }

    /// One message of the record at `position` is settled.
    pub fn settle(&mut self, position: Position) {
        if self.window.settle(position) {
            let stamp = self.place.as_ref().map(|place| place.settle(position));
            self.window.settled(position, stamp);
        }
    }

    /// Whether the window fills up with settled messages that only a save lets go.
    pub fn wants_saving(&self) -> bool {
        self.saving.is_none() && !self.postponed && self.window.wants_saving()
    }

    /// Once a tick: a full disk may have room again, and what commits made durable, so that no save was
    /// due, is to be freed all the same.
    pub fn try_again(&mut self) {
        if std::mem::take(&mut self.postponed) || self.has_to_free() {
            self.begin_saving();
        }
    }

    fn has_to_free(&self) -> bool {
        let durable = self.place.as_ref().map(|place| place.durable());
        self.kind == LaneKind::Parked && durable != self.freed
    }

    /// Starts saving the place, unless all is durable or a save is under way.
    pub fn start_saving(&mut self) {
        if self.place.as_ref().is_some_and(|place| place.due().is_some()) {
            self.begin_saving();
        }
    }

    fn begin_saving(&mut self) {
        let Some(place) = self.place.clone() else { return };
        if self.saving.is_none() {
            // Nobody else settles what is parked; the main journal is released by the daemon.
            let journal = (self.kind == LaneKind::Parked).then(|| self.journal.clone());
            self.saving = Some(tokio::spawn(save(place, journal)));
        }
    }

    /// Saves the place and waits for it.
    pub async fn save(&mut self) -> Result<(), Error> {
        // One that is under way may have begun before the last was settled.
        self.finish_saving().await?;
        self.start_saving();
        self.finish_saving().await
    }

    async fn finish_saving(&mut self) -> Result<(), Error> {
        if self.saving.is_none() {
            return Ok(());
        }
        let saved = ended(&mut self.saving).await;
        self.saved(saved)
    }

    /// Nothing more is owed here: it holds nothing back.
    pub fn retire(&self) {
        if let Some(place) = &self.place {
            place.retire();
        }
    }

    fn saved(&mut self, outcome: Saving) -> Result<(), Error> {
        self.saving = None;
        let Saved { postponed, freed } = outcome??;
        if let Some(error) = &postponed
            && let Some(more) = self.told.speaks(now_ms())
        {
            tracing::warn!(broker = %self.broker, %error, more, "a place waits for room on the disk");
        }
        self.postponed = postponed.is_some();
        match freed {
            Ok(freed) => self.freed = freed.or(self.freed),
            // What cannot be freed now is freed later; no message depends on it.
            Err(error) => {
                if let Some(more) = self.told.speaks(now_ms()) {
                    tracing::warn!(
                        broker = %self.broker, %error, more, "cannot free what is settled of what was parked"
                    );
                }
            }
        }
        Ok(())
    }
}

/// Waits for the save under way; for ever if there is none.
async fn ended(saving: &mut Option<JoinHandle<Result<Saved, Error>>>) -> Saving {
    match saving {
        Some(saving) => saving.await,
        None => std::future::pending().await,
    }
}

/// Saves the place, and only then frees what it has settled. A full disk postpones both: what is
/// settled meanwhile is only published again after a crash.
async fn save(place: Arc<Place>, journal: Option<Journal>) -> Result<Saved, Error> {
    let saving = tokio::task::spawn_blocking(move || match place.save() {
        Err(error) if error.is_no_space() => Ok((Some(error), place.durable())),
        saved => saved.map(|()| (None, place.durable())),
    });
    let (postponed, durable) = saving.await??;
    let freed = match journal {
        Some(journal) => journal.release().await.map(|()| Some(durable)),
        None => Ok(None),
    };
    Ok(Saved { postponed, freed })
}

/// The next of a lane, if there is one that has not come to its end. Cancel-safe.
pub async fn next_of(lane: &mut Option<Lane>, read: bool) -> Option<Result<LaneWake, Error>> {
    let lane = lane.as_mut()?;
    let end = lane.only.as_ref()?.range.end;
    Some(lane.next(read && lane.next_position() < end).await)
}
