//! Reads the journal forward: from the tail in memory where it can, from the segments, a chunk at a
//! time, where it has fallen behind.
//!
//! What the disk cannot read is tried again, with patience; then the reader goes on behind it, and
//! comes back to it from time to time, for as long as it takes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    Error, Item, Position, Shared, Stop, Watermark,
    place::Member,
    scan::{Bounds, Cause, Region, Scanner, Step},
    segment::{self, DATA_START, Head},
    segments::Located,
    settled::Settled,
    window::CHUNK_BYTES,
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

/// A walk over the segment that holds the next record.
struct Walk {
    base: u64,
    scanner: Scanner,
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

/// What one visit to the disk yields.
struct Chunk {
    items: VecDeque<Item>,
    walk: Option<Walk>,
    /// What comes behind the items and cannot be read.
    unread: Option<(u64, Region)>,
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

impl Shared {
    /// Reads about a chunk from `position` on, within one segment and below `end`; at least one
    /// item, or what cannot be read.
    fn read_chunk(
        &self,
        walk: Option<Walk>,
        position: u64,
        end: u64,
        member: Option<&Member>,
    ) -> Result<Chunk, Error> {
        let Some(located) = self.segments.locate(position) else {
            let to = self.after_gap(Position(position)).0.min(end);
            let why = "released before it was read".to_owned();
            let item = Item::Damaged { from: Position(position), to: Position(to), why };
            return Ok(Chunk { items: [item].into(), walk: None, unread: None });
        };
        let limit = located.limit.map_or(end, |limit| limit.min(end));
        let fits = |walk: &Walk| walk.base == located.base && walk.scanner.position() == position;
        let mut walk = match walk.filter(fits) {
            Some(walk) => walk,
            None => match self.seek(&located, position) {
                Ok(Ok(walk)) => walk,
                Ok(Err(cause)) => {
                    return Ok(self.without_marker(&located, (position, limit), cause, member));
                }
                // Released, or set aside, since it was located.
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    let path = located.path(&self.dir);
                    let is_there = |now: Located| now.path(&self.dir) == path;
                    if !self.segments.locate(position).is_some_and(is_there) {
                        return self.read_chunk(None, position, end, member);
                    }
                    // Just now, or moved away by hand: it may come back.
                    let (from, to, offset, len) = (position, limit, DATA_START, located.bytes);
                    let (cause, is_end, why) =
                        (Cause::ReadError, false, "the segment's file is not there");
                    let region = Region { from, to, offset, len, cause, is_end, why };
                    return Ok(self.unless_skipped(&located, region, from, member));
                }
                // It is there, and cannot be opened: that says nothing about what it holds.
                Err(Error::Io { .. }) => {
                    let (from, to, offset, len) = (position, limit, DATA_START, located.bytes);
                    let (cause, is_end, why) =
                        (Cause::ReadError, false, "the segment's file cannot be opened");
                    let region = Region { from, to, offset, len, cause, is_end, why };
                    return Ok(self.unless_skipped(&located, region, from, member));
                }
                Err(error) => return Err(error),
            },
        };
        walk.scanner.extend(limit, located.bytes, located.unsure > 0);
        let (items, unread) = self.scan(&mut walk, &located, position, member);
        if let (Some(first), Some(last)) = (items.front(), items.back()) {
            // Whoever met it: the opening may have, or another reader.
            self.ledger.readable(located.base, first.position().0, last.next_position().0);
        }
        let walk = unread.is_none().then_some(walk);
        Ok(Chunk { items, walk, unread: unread.map(|region| (located.base, region)) })
    }

    /// Tries again what could not be read.
    fn read_hole(&self, region: &Region, member: Option<&Member>) -> Result<Chunk, Error> {
        let (mut items, mut unread) = (VecDeque::new(), None);
        if let Some(located) = self.segments.locate(region.from) {
            let again = self.read_chunk(None, region.from, region.to, member)?;
            items = again.items;
            let next = items.back().map_or(region.from, |item| item.next_position().0);
            // The rest of it at the next visit, at once.
            let rest = || Region { from: next, ..region.clone() };
            unread = again.unread.or_else(|| (next < region.to).then(|| (located.base, rest())));
        }
        Ok(Chunk { items, walk: None, unread })
    }

    /// A segment whose marker is not known.
    fn without_marker(
        &self,
        located: &Located,
        (from, to): (u64, u64),
        cause: Cause,
        member: Option<&Member>,
    ) -> Chunk {
        let (offset, len, is_end) = (0, located.bytes, false);
        let why = match cause {
            Cause::Damage => "the segment's header is damaged, and its records cannot be told",
            Cause::ReadError => "the disk cannot read what the segment's records are told by",
        };
        let region = Region { from, to, offset, len, cause, is_end, why };
        self.unless_skipped(located, region, from, member)
    }

    /// Nothing but a region that is damaged, or cannot be read.
    fn unless_skipped(
        &self,
        located: &Located,
        region: Region,
        from: u64,
        member: Option<&Member>,
    ) -> Chunk {
        if region.cause == Cause::ReadError && !self.ledger.is_skipped(located.base, &region) {
            let (items, unread) = (VecDeque::new(), Some((located.base, region)));
            return Chunk { items, walk: None, unread };
        }
        let items = [self.damaged(located.base, &region, from, member)].into();
        Chunk { items, walk: None, unread: None }
    }

    /// Opens a segment at the known place nearest to `position`; or says why its marker is not known.
    fn seek(&self, located: &Located, position: u64) -> Result<Result<Walk, Cause>, Error> {
        let path = located.path(&self.dir);
        let file = self.storage.open_read(&path).map_err(Error::io("open", &path))?;
        let marker = match located.marker {
            Some(marker) => marker,
            None => match segment::read(&*file, &path, located.base, Some(&self.identity))?.head {
                Head::Intact(meta) => meta.marker,
                Head::Damaged(Some(marker)) | Head::Unread(Some(marker)) => marker,
                Head::Damaged(None) => return Ok(Err(Cause::Damage)),
                Head::Unread(None) => return Ok(Err(Cause::ReadError)),
            },
        };
        let (from, offset) = located.near;
        let (limit, end) = (located.limit, located.bytes);
        let bounds = Bounds { from, limit, offset, end, verify_from: position };
        Ok(Ok(Walk { base: located.base, scanner: Scanner::new(file, marker, bounds) }))
    }

    /// Items up to about a chunk, or up to what cannot be read.
    fn scan(
        &self,
        walk: &mut Walk,
        located: &Located,
        from: u64,
        member: Option<&Member>,
    ) -> (VecDeque<Item>, Option<Region>) {
        let (mut items, mut bytes) = (VecDeque::new(), 0);
        while bytes < CHUNK_BYTES {
            match walk.scanner.step() {
                Step::Record(frame) if frame.header.position < from => {}
                Step::Record(frame) => {
                    bytes += frame.header.frame_len();
                    // A copy: a slice would hold its whole chunk for as long as the record lives.
                    let payload = Bytes::copy_from_slice(frame.payload());
                    items.push_back(Item::Entry(Position(frame.header.position), payload));
                }
                Step::Note(_) => {}
                // Of a record that is not asked for, or of none.
                Step::Region(region) if region.to <= region.from.max(from) => {
                    if region.cause == Cause::Damage {
                        self.ledger.met(walk.base, &region);
                    }
                }
                Step::Region(region) if region.cause == Cause::ReadError => {
                    let rest = Region { from: region.from.max(from), ..region };
                    if !self.ledger.is_skipped(walk.base, &rest) {
                        return (items, Some(rest));
                    }
                    items.push_back(self.damaged(walk.base, &rest, from, member));
                }
                Step::Region(region) => {
                    let may_be_void = |limit: u64| region.from + located.unsure >= limit;
                    let is_void = region.is_end && located.limit.is_some_and(may_be_void);
                    items.push_back(match is_void {
                        true => Item::Void {
                            from: Position(region.from.max(from)),
                            to: Position(region.to),
                        },
                        false => self.damaged(walk.base, &region, from, member),
                    });
                }
                Step::End(_) => break,
            }
        }
        (items, None)
    }

    /// A damaged region, as far as it lies from `from` on; lost to the one who reads it.
    fn damaged(&self, base: u64, region: &Region, from: u64, member: Option<&Member>) -> Item {
        if region.cause == Cause::Damage {
            self.ledger.met(base, region);
        }
        if let Some(member) = member {
            let open = member.settled().open_in(region.from.max(from), region.to);
            member.lost.add(open);
            if open > 0 {
                self.lost(base, region);
            }
        }
        let (from, to) = (Position(region.from.max(from)), Position(region.to));
        Item::Damaged { from, to, why: region.why.to_owned() }
    }
}
