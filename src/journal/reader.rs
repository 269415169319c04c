//! Reads the journal forward: from the tail in memory where it can, from the segments, a chunk at a
//! time, where it has fallen behind.
//!
//! What the disk cannot read is tried again, with patience; then the reader goes on behind it, and
//! comes back to it from time to time, for as long as it takes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    Error, Item, Position, Shared, Stop, Watermark,
    place::Member,
    scan::Region,
    settled::Settled,
    visit::{Chunk, Walk},
};
use crate::backoff::Backoff;

/// Between two tries to read what the disk cannot.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(5) };

/// Regions that a reader leaves behind to come back to. It stops before the next.
const MAX_HOLES: usize = 4096;

/// A position in the journal that moves as records are taken.
pub struct Reader {
    shared: Arc<Shared>,
    watermark: watch::Receiver<Watermark>,
    position: u64,
    /// Whose place it reads for.
    member: Option<Arc<Member>>,
    /// What was settled above the position when it began, until it is past that.
    skips: Option<Settled>,
    /// Read from disk, not yet taken; bounded by a chunk and a record.
    ready: VecDeque<Item>,
    /// Only while behind the tail.
    walk: Option<Walk>,
    /// A visit to the disk: it outlives the future that began it, so that a reader which is often
    /// interrupted still gets on, with one visit at a time.
    visit: Option<Visit>,
    /// What cannot be read and is in the way.
    obstacle: Option<Hole>,
    /// What was left behind, and is tried again.
    holes: Vec<Hole>,
    /// Whether the last visit was for one of them: what comes next has its turn first.
    was_behind: bool,
}

/// A region that the disk cannot read.
#[derive(Clone)]
struct Hole {
    base: u64,
    region: Region,
    since: Instant,
    tries: u32,
    again: Instant,
}

impl Hole {
    /// To be tried again after a while.
    fn later(self) -> Hole {
        let tries = self.tries + 1;
        Hole { tries, again: Instant::now() + AGAIN.jittered(tries), ..self }
    }
}

struct Visit {
    task: JoinHandle<Result<Chunk, Error>>,
    /// For what was left behind; otherwise for what comes next.
    hole: Option<Hole>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Reader {
        let watermark = shared.watermark.subscribe();
        Reader {
            shared,
            watermark,
            position: from.0,
            member: None,
            skips: None,
            ready: VecDeque::new(),
            walk: None,
            visit: None,
            obstacle: None,
            holes: Vec::new(),
            was_behind: false,
        }
    }

    /// From the lowest position on that the place has not settled.
    pub(super) fn of_place(shared: Arc<Shared>, member: Arc<Member>) -> Reader {
        let settled = member.settled();
        let from = Position(settled.cursor());
        let has_more = settled.above().len() > 0;
        let skips = has_more.then_some(settled);
        Reader { member: Some(member), skips, ..Reader::new(shared, from) }
    }

    /// Position of what [`next`](Self::next) returns first, but for what was left behind.
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// Whether everything durable was read that can be.
    pub fn is_at_end(&self) -> bool {
        self.ready.is_empty() && self.position >= self.shared.watermark.borrow().end
    }

    /// Whether something before its position could not be read so far, and comes later.
    pub fn left_something_behind(&self) -> bool {
        let visited = self.visit.as_ref().is_some_and(|visit| visit.hole.is_some());
        visited || !self.holes.is_empty()
    }

    /// What comes next, in order: waits until something is durable, then returns at least one item
    /// and at most `max_entries`, with payloads of at most `max_bytes` unless the first alone is
    /// larger. What could not be read comes later, out of order, once it can. Dropping the future loses
    /// nothing. Fails once the journal is closed or has failed and everything durable has been read.
    pub async fn next(&mut self, max_entries: usize, max_bytes: usize) -> Result<Vec<Item>, Error> {
        loop {
            if !self.ready.is_empty() {
                return Ok(self.take(max_entries, max_bytes));
            }
            self.skip_settled();
            if self.visit.is_none() {
                let end = self.something_to_read().await?;
                if let Some(items) = self.tail(end, max_entries, max_bytes) {
                    return Ok(items);
                }
                self.begin_visit(end);
            }
            let Some(visit) = &mut self.visit else { continue };
            // What the disk takes its time over holds up nothing that is in memory.
            let position = self.position;
            let is_beside = visit.hole.is_some() && self.obstacle.is_none() && self.skips.is_none();
            let read = tokio::select! {
                biased;
                read = &mut visit.task => Some(read),
                _ = self.watermark.wait_for(|watermark| watermark.end > position), if is_beside => None,
            };
            let read = match read {
                Some(read) => read,
                None => {
                    let end = self.shared.watermark.borrow().end;
                    if let Some(items) = self.tail(end, max_entries, max_bytes) {
                        return Ok(items);
                    }
                    let Some(visit) = &mut self.visit else { continue };
                    (&mut visit.task).await
                }
            };
            let hole = self.visit.take().and_then(|visit| visit.hole);
            match (hole, read.map_err(|_| Error::Panicked)?) {
                (Some(hole), Ok(chunk)) => self.came_back(hole, chunk),
                (None, Ok(chunk)) => self.went_on(chunk),
                (hole, Err(error)) => {
                    self.holes.extend(hole.map(Hole::later));
                    return Err(error);
                }
            }
        }
    }

    /// Steps over what was settled when it began.
    fn skip_settled(&mut self) {
        if let Some(skips) = &self.skips {
            self.position = skips.next_open(self.position);
            if self.position >= skips.end() {
                self.skips = None;
            }
        }
    }

    /// Waits until a record is durable here, or it is time to try again what could not be read. Returns
    /// the journal's end.
    async fn something_to_read(&mut self) -> Result<u64, Error> {
        let position = self.position;
        let reached =
            |watermark: &Watermark| watermark.end > position || watermark.stopped.is_some();
        let again = self.holes.iter().map(|hole| hole.again).min();
        let waits = self.obstacle.as_ref().map(|hole| hole.again);
        let now = Instant::now();
        let (skipped, watermark) = (self.shared.ledger.skipped.notified(), &mut self.watermark);
        tokio::select! {
            biased;
            () = sleep_until(waits.unwrap_or(now)), if waits.is_some() => {}
            () = sleep_until(again.unwrap_or(now)), if again.is_some() => {}
            () = skipped, if waits.is_some() || again.is_some() => {
                self.holes.iter_mut().chain(&mut self.obstacle).for_each(|hole| hole.again = now);
            }
            // The sender lives in what this reader holds.
            watermark = watermark.wait_for(reached), if waits.is_none() => {
                let watermark = watermark.map_err(|_| Error::Closed)?;
                match &watermark.stopped {
                    _ if watermark.end > position => {}
                    Some(Stop::Failed(error)) => return Err(Error::Failed(error.clone())),
                    _ => return Err(Error::Closed),
                }
            }
        }
        Ok(self.shared.watermark.borrow().end)
    }

    /// Reads from memory, if what comes next is there.
    fn tail(&mut self, end: u64, max_entries: usize, max_bytes: usize) -> Option<Vec<Item>> {
        if self.skips.is_some() || self.obstacle.is_some() || self.position >= end {
            return None;
        }
        let items = self.shared.tail.read(self.position, end, max_entries, max_bytes)?;
        self.walk = None;
        self.position += items.len() as u64;
        Some(items)
    }

    fn begin_visit(&mut self, end: u64) {
        let now = Instant::now();
        let (shared, member) = (self.shared.clone(), self.member.clone());
        let goes_on = self.position < end && self.obstacle.as_ref().is_none_or(|o| o.again <= now);
        let due = self.holes.iter().position(|hole| hole.again <= now);
        let due = due.filter(|_| !(self.was_behind && goes_on));
        self.was_behind = due.is_some();
        let hole = due.map(|at| self.holes.swap_remove(at));
        let task = if let Some(Hole { region, .. }) = hole.clone() {
            tokio::task::spawn_blocking(move || shared.read_hole(&region, member.as_deref()))
        } else if goes_on {
            let (walk, position) = (self.walk.take(), self.position);
            tokio::task::spawn_blocking(move || {
                shared.read_chunk(walk, position, end, member.as_deref())
            })
        } else {
            return;
        };
        self.visit = Some(Visit { task, hole });
    }

    fn went_on(&mut self, chunk: Chunk) {
        let Chunk { items, walk, unread } = chunk;
        self.walk = walk;
        if let Some(first) = items.front() {
            self.gets_past(first.position().0);
        }
        self.ready = items;
        if let Some(skips) = &self.skips {
            self.ready.retain(|item| !item.is_in(skips));
        }
        let Some((base, region)) = unread.filter(|_| self.ready.is_empty()) else { return };
        let known_since = Instant::from_std(self.shared.ledger.unread(base, &region, region.why));
        let before = self.obstacle.take().filter(|hole| hole.region.from == region.from);
        let (since, tries) = before.map_or((known_since, 0), |hole| (hole.since, hole.tries));
        let to = region.to;
        let hole = Hole { base, region, since, tries, again: Instant::now() }.later();
        if since.elapsed() < self.shared.options.read_patience || self.holes.len() >= MAX_HOLES {
            self.obstacle = Some(hole);
        } else {
            self.position = to;
            self.walk = None;
            self.holes.push(hole);
        }
    }

    /// What was in the way can be read.
    fn gets_past(&mut self, position: u64) {
        self.obstacle.take_if(|hole| hole.region.from <= position);
    }

    fn came_back(&mut self, hole: Hole, chunk: Chunk) {
        self.ready = chunk.items;
        if let Some(member) = &self.member {
            let settled = member.settled();
            self.ready.retain(|item| !item.is_in(&settled));
        }
        let ledger = &self.shared.ledger;
        let Some((base, region)) = chunk.unread else {
            return ledger.readable(hole.base, hole.region.from, hole.region.to);
        };
        let (from, since, tries, again) = (region.to, hole.since, 0, Instant::now());
        if from < hole.region.to {
            // What lies behind was not looked at.
            let region = Region { from, ..hole.region.clone() };
            self.holes.push(Hole { base, region, since, tries, again });
        }
        if region.from > hole.region.from {
            ledger.readable(base, hole.region.from, region.from);
            self.holes.push(Hole { base, region, since, tries, again });
        } else {
            ledger.unread(base, &region, region.why);
            self.holes.push(Hole { region, ..hole }.later());
        }
    }

    fn take(&mut self, max_entries: usize, max_bytes: usize) -> Vec<Item> {
        let (mut items, mut room) = (Vec::new(), max_bytes);
        while items.len() < max_entries.max(1) {
            let fits = |item: &Item| items.is_empty() || item.len() <= room;
            if !self.ready.front().is_some_and(fits) {
                break;
            }
            let Some(item) = self.ready.pop_front() else { break };
            room = room.saturating_sub(item.len());
            self.position = self.position.max(item.next_position().0);
            items.push(item);
        }
        items
    }
}
