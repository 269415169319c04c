//! Reads the journal forward from a position: from the tail in memory where it can, from the
//! segments, a chunk at a time, where it has fallen behind.

use std::{collections::VecDeque, io, sync::Arc};

use bytes::Bytes;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Error, Item, Position, Shared, Stop, Watermark,
    scan::{Bounds, Scanner, Step},
    segment,
    segments::Located,
    storage::File,
    window::CHUNK_BYTES,
};

/// A position in the journal that moves as records are taken.
pub struct Reader {
    shared: Arc<Shared>,
    watermark: watch::Receiver<Watermark>,
    position: u64,
    /// Read from disk, not yet taken; bounded by a chunk and a record.
    ready: VecDeque<Item>,
    /// Only while behind the tail.
    walk: Option<Walk>,
    /// A visit to the disk: it outlives the future that began it, so that a reader which is often
    /// interrupted still gets on, with one visit at a time.
    visit: Option<JoinHandle<Result<Chunk, Error>>>,
}

/// A walk over the segment that holds the next record.
struct Walk {
    base: u64,
    file: Arc<dyn File>,
    scanner: Scanner,
}

/// What one visit to the disk yields.
struct Chunk {
    items: VecDeque<Item>,
    walk: Option<Walk>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: Position) -> Reader {
        let watermark = shared.watermark.subscribe();
        Reader {
            shared,
            watermark,
            position: from.0,
            ready: VecDeque::new(),
            walk: None,
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
                self.walk = None;
                self.position += items.len() as u64;
                return Ok(items);
            }
            let visit = self.visit.get_or_insert_with(|| {
                let (shared, walk, position) =
                    (self.shared.clone(), self.walk.take(), self.position);
                tokio::task::spawn_blocking(move || shared.read_chunk(walk, position, end))
            });
            let read = visit.await;
            self.visit = None;
            let chunk = read.map_err(|_| Error::Panicked)??;
            (self.ready, self.walk) = (chunk.items, chunk.walk);
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
    fn read_chunk(&self, walk: Option<Walk>, position: u64, end: u64) -> Result<Chunk, Error> {
        let Some(located) = self.segments.locate(position) else {
            return Ok(self.released(position, end));
        };
        let limit = located.limit.map_or(end, |limit| limit.min(end));
        let Some(marker) = located.marker else {
            let why = "the segment's header and first record are damaged";
            return Ok(Chunk { items: [damaged(position, limit, why)].into(), walk: None });
        };
        let fits = |walk: &Walk| walk.base == located.base && walk.scanner.position() == position;
        let mut walk = match walk.filter(fits) {
            Some(walk) => walk,
            None => match self.seek(&located, marker, position) {
                Ok(walk) => walk,
                // Released since it was located: the reader goes on at what is left.
                Err(Error::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound
                        && self.segments.first() > position =>
                {
                    return Ok(self.released(position, end));
                }
                Err(error) => return Err(error),
            },
        };
        walk.scanner.extend(limit, located.bytes);
        let items = self.scan(&mut walk, position)?;
        Ok(Chunk { items, walk: Some(walk) })
    }

    /// What lies below the first segment is gone; the reader goes on at what there is.
    fn released(&self, position: u64, end: u64) -> Chunk {
        let first = self.segments.first().min(end).max(position + 1);
        let why = "released before it was read";
        Chunk { items: [damaged(position, first, why)].into(), walk: None }
    }

    /// Opens a segment at the known place nearest to `position`.
    fn seek(&self, located: &Located, marker: u64, position: u64) -> Result<Walk, Error> {
        let path = self.dir.join(segment::file_name(located.base));
        let file = self.storage.open_read(&path).map_err(Error::io("open", &path))?;
        let (from, offset) = located.near;
        let (limit, end) = (located.limit, located.bytes);
        let bounds = Bounds { from, limit, offset, end, verify_from: position };
        let scanner = Scanner::new(file.clone(), marker, bounds);
        Ok(Walk { base: located.base, file, scanner })
    }

    fn scan(&self, walk: &mut Walk, from: u64) -> Result<VecDeque<Item>, Error> {
        let path = self.dir.join(segment::file_name(walk.base));
        let (mut items, mut bytes) = (VecDeque::new(), 0);
        while bytes < CHUNK_BYTES {
            match walk.scanner.step().map_err(Error::io("read", &path))? {
                Step::Frame(frame) if frame.header.position < from => {}
                Step::Frame(frame) => {
                    bytes += frame.header.frame_len();
                    // A copy: a slice would hold its whole chunk for as long as the record lives.
                    let payload = Bytes::copy_from_slice(frame.payload());
                    items.push_back(Item::Entry(Position(frame.header.position), payload));
                }
                Step::Damage(region) => {
                    self.quarantine.take(Some(&*walk.file), walk.base, &region);
                    if region.to > from {
                        items.push_back(damaged(region.from.max(from), region.to, region.why));
                    }
                }
                Step::End(_) => break,
            }
        }
        Ok(items)
    }
}

fn damaged(from: u64, to: u64, why: &str) -> Item {
    Item::Damaged { from: Position(from), to: Position(to), why: why.to_owned() }
}
