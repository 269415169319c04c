//! Reads the journal forward from a position: from the tail in memory where it can, from the
//! segments, a chunk at a time, where it has fallen behind.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Error, Item, Position, Shared, Stop, Watermark,
    scan::{Bounds, CHUNK_BYTES, Region, Scanner, Step},
    segment,
    segments::Located,
    storage::File,
};

/// A position in the journal that moves as records are taken.
pub struct Reader {
    shared: Arc<Shared>,
    watermark: watch::Receiver<Watermark>,
    position: u64,
    /// Read from disk, not yet taken; bounded by a chunk and a record.
    ready: VecDeque<Item>,
    place: Option<Place>,
    /// A visit to the disk: it outlives the future that began it, so that a reader which is often
    /// interrupted still gets on, with one visit at a time.
    visit: Option<JoinHandle<Result<Chunk, Error>>>,
}

/// Where in a segment the next record lies.
#[derive(Clone)]
struct Place {
    file: Arc<dyn File>,
    base: u64,
    position: u64,
    offset: u64,
}

/// What one visit to the disk yields.
struct Chunk {
    items: VecDeque<Item>,
    place: Option<Place>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Reader {
        let watermark = shared.watermark.subscribe();
        Reader {
            shared,
            watermark,
            position: from.0,
            ready: VecDeque::new(),
            place: None,
            visit: None,
        }
    }

    /// Position of what [`next`](Self::next) returns first.
    pub fn position(&self) -> Position {
        Position(self.position)
    }

    /// What comes next, in order: waits until something is durable, then returns at least one item
    /// and at most `max_entries`, with payloads of at most `max_bytes` unless the first alone is
    /// larger. Dropping the future loses nothing. Fails once the journal is closed or has failed
    /// and everything durable has been read.
    pub async fn next(&mut self, max_entries: usize, max_bytes: usize) -> Result<Vec<Item>, Error> {
        loop {
            if !self.ready.is_empty() {
                return Ok(self.take(max_entries, max_bytes));
            }
            let end = self.durable_end().await?;
            if self.visit.is_none()
                && let Some(items) =
                    self.shared.tail.read(self.position, end, max_entries, max_bytes)
            {
                self.place = None;
                self.position += items.len() as u64;
                return Ok(items);
            }
            let visit = self.visit.get_or_insert_with(|| {
                let (shared, place, position) =
                    (self.shared.clone(), self.place.clone(), self.position);
                tokio::task::spawn_blocking(move || shared.read_chunk(place, position, end))
            });
            let read = visit.await;
            self.visit = None;
            let chunk = read.map_err(|_| Error::Panicked)??;
            (self.ready, self.place) = (chunk.items, chunk.place);
        }
    }

    async fn durable_end(&mut self) -> Result<u64, Error> {
        let position = self.position;
        let reached =
            |watermark: &Watermark| watermark.end > position || watermark.stopped.is_some();
        // The sender lives in what this reader holds.
        let watermark = self.watermark.wait_for(reached).await.map_err(|_| Error::Closed)?;
        match &watermark.stopped {
            _ if watermark.end > position => Ok(watermark.end),
            Some(Stop::Failed(error)) => Err(Error::Failed(error.clone())),
            _ => Err(Error::Closed),
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
            self.position = item.next_position().0;
            items.push(item);
        }
        items
    }
}

impl Shared {
    /// Reads about a chunk from `position` on, within one segment and below `end`; at least one
    /// item.
    fn read_chunk(&self, place: Option<Place>, position: u64, end: u64) -> Result<Chunk, Error> {
        let Some(located) = self.segments.locate(position) else {
            return Ok(self.released(position, end));
        };
        let limit = located.limit.map_or(end, |limit| limit.min(end));
        let Some(marker) = located.marker else {
            let why = "the segment's header and first record are damaged";
            return Ok(Chunk { items: [damaged(position, limit, why)].into(), place: None });
        };
        let place = match place.filter(|p| p.base == located.base && p.position == position) {
            Some(place) => place,
            None => match self.seek(&located) {
                Ok(place) => place,
                // Released since it was located: the next round starts at what is left.
                Err(Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound
                        && self.segments.first() > position =>
                {
                    return Ok(self.released(position, end));
                }
                Err(error) => return Err(error),
            },
        };
        self.scan(&located, marker, place, position, limit)
    }

    /// What lies below the first segment is gone; the reader goes on at what there is.
    fn released(&self, position: u64, end: u64) -> Chunk {
        let first = self.segments.first().min(end).max(position + 1);
        let why = "released before it was read";
        Chunk { items: [damaged(position, first, why)].into(), place: None }
    }

    fn seek(&self, located: &Located) -> Result<Place, Error> {
        let path = self.dir.join(segment::file_name(located.base));
        let file = self.storage.open_read(&path).map_err(Error::io("open", &path))?;
        let (position, offset) = located.near;
        Ok(Place { file, base: located.base, position, offset })
    }

    fn scan(
        &self,
        located: &Located,
        marker: u64,
        place: Place,
        from: u64,
        limit: u64,
    ) -> Result<Chunk, Error> {
        let bounds = Bounds {
            from: place.position,
            limit: Some(limit),
            offset: place.offset,
            end: located.bytes,
            verify_from: from,
        };
        let mut scanner = Scanner::new(place.file.clone(), marker, bounds);
        let (mut items, mut bytes) = (VecDeque::new(), 0);
        while bytes < CHUNK_BYTES {
            let path = || self.dir.join(segment::file_name(located.base));
            let step = scanner.step().map_err(|source| Error::Io {
                doing: "read",
                path: path(),
                source,
            })?;
            match step {
                Step::Frame(frame) if frame.header.position < from => {}
                Step::Frame(frame) => {
                    bytes += frame.header.frame_len();
                    // A copy: a slice would hold its whole chunk for as long as the record lives.
                    let payload = Bytes::copy_from_slice(frame.payload());
                    items.push_back(Item::Entry(Position(frame.header.position), payload));
                }
                Step::Damage(region) => items.extend(self.report(&place, region, from)),
                Step::End(_) => break,
            }
        }
        let (position, offset) = scanner.place();
        Ok(Chunk { items, place: Some(Place { position, offset, ..place }) })
    }

    /// Reports a damaged region; an item if any of it is asked for.
    fn report(&self, place: &Place, region: Region, from: u64) -> Option<Item> {
        self.quarantine.take(Some(&*place.file), place.base, &region);
        (region.to > from).then(|| damaged(region.from.max(from), region.to, region.why))
    }
}

fn damaged(from: u64, to: u64, why: &str) -> Item {
    Item::Damaged { from: Position(from), to: Position(to), why: why.to_owned() }
}
