//! The one thread that writes: whatever waits becomes one batch, one write, one `fdatasync`.
//!
//! An append is answered `Ok` only after the sync that covers it. When the disk is full, the file
//! is cut back to what was durable and the batch is refused; any other trouble ends the writer.
//!
//! Copies of places ride on a batch, in a note before its records, and cost no sync of their own.

use std::{
    io::{self, IoSlice},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    AppendError, Entry, Error, OnDurable, Position, Shared, Stop,
    frame::{self, HEADER_BYTES, Header, KEY_BYTES},
    identity::Identity,
    lock,
    place::Copied,
    release::Need,
    segment::{self, DATA_START, Meta, PLAIN, Trailer},
    segments::Segment,
    sidecar::{self, TimedKey},
    storage::{self, File},
};

/// Keys and headers of a batch share a buffer; this much of it is kept for the next one.
const HEADS_KEPT_BYTES: usize = 1 << 20;

/// How long a batch waits for company at the most; never longer than half of what the sync takes that
/// is saved by it.
const GATHER: Duration = Duration::from_micros(200);

/// Not worth falling asleep for.
const GATHER_LEAST: Duration = Duration::from_micros(20);

/// How many must have come together last time for it.
const GATHER_FROM: usize = 4;

/// An append on its way. Once it is in the queue its completion is called, whatever happens.
pub(super) struct Pending {
    payload: Bytes,
    head: Header,
    keys: Vec<super::Key>,
    done: Option<OnDurable>,
}

impl Pending {
    /// Computes the checksum here, in the caller's task, where it costs the writer nothing.
    /// The caller has checked that the entry is no larger than a record may be.
    pub fn new(entry: Entry) -> Pending {
        let head = Header {
            position: 0,
            time_ms: entry.time_ms,
            proven: 0,
            payload_len: entry.payload.len() as u32,
            key_count: entry.keys.len() as u32,
            body_crc: frame::body_crc(&entry.keys, &entry.payload),
            is_note: false,
        };
        Pending { payload: entry.payload, head, keys: entry.keys, done: None }
    }

    /// Binds the completion, from where on it is always called.
    pub fn with(mut self, done: OnDurable) -> Pending {
        self.done = Some(done);
        self
    }

    fn finish(mut self, result: Result<Position, AppendError>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(AppendError::Closed));
        }
    }
}

/// What the writer's queue carries.
pub(super) enum Command {
    Append(Pending),
    /// Nothing more will come: commit what waits, and end.
    Close,
}

/// The segment that is being written. Its file was created by this process: no page of it can have
/// been marked clean by a sync that failed in another.
pub(super) struct Active {
    pub file: Arc<dyn File>,
    pub meta: Meta,
    /// Durable length.
    pub len: u64,
    /// Newest time among its records.
    newest_ms: u64,
}

/// The keys of the segment that is being written.
#[derive(Default)]
pub(super) struct ActiveKeys {
    pub base: u64,
    pub keys: Vec<TimedKey>,
}

impl Active {
    /// Begins a segment durably, with a copy of every place: the newest segment holds the newest
    /// copies.
    pub fn create(
        storage: &dyn storage::Storage,
        dir: &std::path::Path,
        (identity, version): (&Identity, u32),
        base: u64,
        places: &super::place::Places,
    ) -> Result<Active, Error> {
        let meta = Meta { version, base, marker: identity.marker(base), proven: base };
        let (note, copied) = places.all().unzip();
        let mut len = DATA_START;
        let file = segment::create(storage, dir, meta, |file| {
            let Some(note) = &note else { return Ok(()) };
            let head = Header::of_note(base, base, note);
            len += head.frame_len();
            let head = head.encode(meta.marker);
            storage::write_all(file, DATA_START, &mut [IoSlice::new(&head), IoSlice::new(note)])
        })?;
        copied.into_iter().flatten().for_each(Copied::carried);
        Ok(Active { file, meta, len, newest_ms: 0 })
    }

    /// Writes the trailer of a segment that ends before `end`, durably.
    fn close(&self, dir: &std::path::Path, end: u64) -> Result<u64, Error> {
        let Meta { version, base, marker, .. } = self.meta;
        if version == PLAIN {
            return Ok(self.len);
        }
        let path = dir.join(segment::file_name(base));
        let newest_ms = self.newest_ms;
        let trailer = Trailer { base, marker, end, newest_ms, unsure: 0 }.encode();
        storage::write_all(&*self.file, self.len, &mut [IoSlice::new(&trailer)])
            .map_err(Error::io("close", &path))?;
        self.file.sync_data().map_err(Error::sync(&path))?;
        Ok(self.len + trailer.len() as u64)
    }
}

/// State of the writer's thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Command>,
    active: Active,
    /// Position of the next record; all below are durable.
    next: u64,
    /// Headers and keys of the batch being written.
    heads: Vec<u8>,
    /// How many entries the last batch held.
    last_batch: usize,
    /// How long the last sync took.
    sync_took: Duration,
    /// Whether the last batch met a full disk; only changes are logged.
    disk_full: bool,
    /// When copies of places last rode on a batch.
    carried_at: Option<Instant>,
}

/// How a batch went that was not written.
enum Trouble {
    NoSpace,
    Fatal(Arc<Error>),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        if error.is_no_space() { Trouble::NoSpace } else { Trouble::Fatal(Arc::new(error)) }
    }
}

impl Writer {
    pub fn new(
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Command>,
        active: Active,
        next: u64,
    ) -> Writer {
        Writer {
            shared,
            queue,
            active,
            next,
            heads: Vec::new(),
            last_batch: 0,
            sync_took: Duration::ZERO,
            disk_full: false,
            carried_at: None,
        }
    }

    /// Runs until the queue is closed and empty, or a fatal error.
    pub fn run(mut self) {
        while let Some(command) = self.queue.blocking_recv() {
            self.gather();
            let batch = self.collect(command);
            self.last_batch = batch.len();
            self.shared.stats.commits(true);
            let committed = self.commit(batch);
            self.shared.stats.commits(false);
            if let Err(error) = committed {
                return self.fail(error);
            }
        }
        self.end();
        self.shared.stop(Stop::Closed);
    }

    /// Closes the segment, so that the next opening knows that it is whole. It does without, too.
    fn end(&self) {
        if self.next == self.active.meta.base {
            return;
        }
        if let Err(error) = self.active.close(&self.shared.dir, self.next) {
            tracing::info!(dir = %self.shared.dir.display(), %error, "the last segment stays open");
        }
    }

    /// Waits a moment for the others, where many came together last time: those who were answered
    /// then come again one after the other, and the first of them alone is not worth a sync that
    /// keeps the rest waiting. Who comes alone waits for nobody.
    fn gather(&self) {
        let pointless = self.last_batch < GATHER_FROM || self.queue.len() + 1 >= self.last_batch;
        let wait = (self.sync_took / 2).min(GATHER);
        if !pointless && wait >= GATHER_LEAST {
            thread::sleep(wait);
        }
    }

    /// Takes what else waits, within a batch's bounds.
    fn collect(&mut self, first: Command) -> Vec<Pending> {
        let (max_bytes, max_entries) =
            (self.shared.options.batch_bytes as u64, self.shared.options.queue);
        let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some(command) = next {
            match command {
                Command::Append(pending) => {
                    bytes += pending.head.frame_len();
                    batch.push(pending);
                }
                Command::Close => self.queue.close(),
            }
            let full = bytes >= max_bytes || batch.len() >= max_entries;
            next = if full { None } else { self.queue.try_recv().ok() };
        }
        batch
    }

    fn commit(&mut self, mut batch: Vec<Pending>) -> Result<(), Arc<Error>> {
        if batch.is_empty() {
            return Ok(());
        }
        // Before looking for room: what fills the journal must be in closed segments, which can be
        // released.
        let rolled = self.roll_if_due();
        if rolled.is_ok() {
            self.let_go_of_the_past(&batch);
            self.admit(&mut batch);
            if batch.is_empty() {
                return Ok(());
            }
        }
        match rolled.and_then(|()| self.persist(&mut batch)) {
            Ok(len) => {
                self.note_disk_full(false);
                self.publish(batch, len);
            }
            Err(Trouble::NoSpace) => {
                self.note_disk_full(true);
                self.refuse(batch, &AppendError::NoSpace);
            }
            Err(Trouble::Fatal(error)) => {
                self.refuse(batch, &AppendError::Failed(error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }

    fn note_disk_full(&mut self, full: bool) {
        let dir = self.shared.dir.display();
        match (self.disk_full, full) {
            (false, true) => tracing::error!(%dir, "the disk is full: appends are refused"),
            (true, false) => tracing::info!(%dir, "there is room on the disk again"),
            _ => {}
        }
        self.disk_full = full;
    }

    /// What is kept of the settled past never stands in a new record's way.
    fn let_go_of_the_past(&self, batch: &[Pending]) {
        let shared = &self.shared;
        let bytes = batch.iter().map(|pending| pending.head.frame_len()).sum();
        if shared.options.keep.is_zero() || !shared.is_short_of(bytes) {
            return;
        }
        if let Err(error) = shared.release(Need::Room(bytes)) {
            tracing::warn!(%error, "the settled past cannot be let go");
        }
    }

    /// Refuses what has no room left under `max_bytes`.
    fn admit(&self, batch: &mut Vec<Pending>) {
        let mut room = self.shared.room_bytes();
        let full = |pending: &mut Pending| match room.checked_sub(pending.head.frame_len()) {
            Some(left) => {
                room = left;
                false
            }
            None => true,
        };
        let refused: Vec<Pending> = batch.extract_if(.., full).collect();
        self.refuse(refused, &AppendError::Full);
    }

    fn refuse(&self, batch: impl IntoIterator<Item = Pending>, error: &AppendError) {
        for pending in batch {
            self.shared.stats.refused(error);
            pending.finish(Err(error.clone()));
        }
    }

    /// Writes the batch and syncs it; returns where its records begin and the segment's new length.
    fn persist(&mut self, batch: &mut [Pending]) -> Result<(u64, u64), Trouble> {
        let path = self.shared.dir.join(segment::file_name(self.active.meta.base));
        let start = self.active.len;
        let (note, copied) = self.copies().unzip();
        match self.write(batch, note.as_deref()) {
            Ok(written) => {
                let started = Instant::now();
                self.active.file.sync_data().map_err(Error::sync(&path))?;
                self.sync_took = started.elapsed();
                self.shared.stats.synced(self.sync_took);
                for copied in copied.into_iter().flatten() {
                    copied.carried();
                    self.carried_at = Some(started);
                }
                Ok(written)
            }
            Err(error) => {
                let trouble =
                    Trouble::from(Error::Io { doing: "write", path: path.clone(), source: error });
                if matches!(trouble, Trouble::NoSpace) {
                    self.active.file.truncate(start).map_err(|source| {
                        // Not `Trouble::NoSpace` even if the disk says so: the file is now unknown.
                        Trouble::Fatal(Arc::new(Error::Io { doing: "truncate", path, source }))
                    })?;
                }
                Err(trouble)
            }
        }
    }

    /// What rides on a batch, if it is time for that.
    fn copies(&self) -> Option<(Bytes, Vec<Copied>)> {
        let every = self.shared.options.carry_every;
        let is_time = self.carried_at.is_none_or(|at| at.elapsed() >= every);
        is_time.then(|| self.shared.places.copies()).flatten()
    }

    fn write(&mut self, batch: &mut [Pending], note: Option<&[u8]>) -> io::Result<(u64, u64)> {
        let marker = self.active.meta.marker;
        self.heads.clear();
        let note_head = note.map(|note| Header::of_note(self.next, self.next, note));
        self.heads.extend(note_head.iter().flat_map(|head| head.encode(marker)));
        for (position, pending) in (self.next..).zip(batch.iter_mut()) {
            pending.head.position = position;
            pending.head.proven = self.next;
            self.heads.extend_from_slice(&pending.head.encode(marker));
            self.heads.extend_from_slice(pending.keys.as_flattened());
        }
        let mut heads = &self.heads[..];
        let mut slices = Vec::with_capacity(batch.len() * 2 + 2);
        let mut first = self.active.len;
        if let (Some(note), Some(head)) = (note, note_head) {
            slices.push(IoSlice::new(heads.split_off(..HEADER_BYTES).unwrap_or_default()));
            slices.push(IoSlice::new(note));
            first += head.frame_len();
        }
        let mut len = first;
        for pending in batch.iter() {
            let (head, rest) = heads.split_at(HEADER_BYTES + pending.keys.len() * KEY_BYTES);
            heads = rest;
            slices.push(IoSlice::new(head));
            slices.push(IoSlice::new(&pending.payload));
            len += pending.head.frame_len();
        }
        storage::write_all(&*self.active.file, self.active.len, &mut slices)?;
        self.heads.shrink_to(HEADS_KEPT_BYTES);
        Ok((first, len))
    }

    /// Tells everybody: readers first, so that who is told of a position can read it.
    fn publish(&mut self, batch: Vec<Pending>, (offset, len): (u64, u64)) {
        let first = self.next;
        self.active.len = len;
        self.next += batch.len() as u64;
        {
            let mut active = lock(&self.shared.active_keys);
            for pending in &batch {
                let time_ms = pending.head.time_ms;
                self.active.newest_ms = self.active.newest_ms.max(time_ms);
                active.keys.extend(pending.keys.iter().map(|key| (*key, time_ms)));
            }
        }
        self.shared.segments.grown(self.active.meta.base, len, first, offset);
        self.shared.tail.push(batch.iter().map(|pending| pending.payload.clone()));
        self.shared.watermark.send_modify(|watermark| watermark.end = self.next);
        self.shared.stats.committed(batch.len() as u64);
        for (position, pending) in (first..).zip(batch) {
            pending.finish(Ok(Position(position)));
        }
    }

    fn roll_if_due(&mut self) -> Result<(), Trouble> {
        let full = self.active.len >= self.shared.bounds.segment_bytes.load(Relaxed);
        if full && self.next > self.active.meta.base { self.roll() } else { Ok(()) }
    }

    /// Closes the active segment and begins the next. The keys come first: a closed segment always
    /// has them on disk, so that releasing it never needs room.
    fn roll(&mut self) -> Result<(), Trouble> {
        let shared = self.shared.clone();
        let (storage, dir, base) = (&*shared.storage, &shared.dir, self.active.meta.base);
        let keys = lock(&shared.active_keys).keys.clone();
        sidecar::write(storage, dir, base, &keys)?;
        let closed = self.active.close(dir, self.next)?;
        let format = (&shared.identity, shared.options.write_version);
        let active = Active::create(storage, dir, format, self.next, &shared.places)?;
        shared.segments.closes(base, closed, self.active.newest_ms);
        let (marker, len) = (active.meta.marker, active.len);
        shared.segments.add(Segment::new(self.next, Some(marker), len));
        *lock(&shared.active_keys) = ActiveKeys { base: self.next, keys: Vec::new() };
        self.active = active;
        Ok(())
    }

    /// Nothing more is taken, and nothing that waits is answered `Ok`.
    fn fail(mut self, error: Arc<Error>) {
        tracing::error!(dir = %self.shared.dir.display(), %error, "the journal has failed");
        self.shared.stop(Stop::Failed(error.clone()));
        self.queue.close();
        while let Some(command) = self.queue.blocking_recv() {
            if let Command::Append(pending) = command {
                self.refuse([pending], &AppendError::Failed(error.clone()));
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.stop(Stop::Failed(Arc::new(Error::Panicked)));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::journal::{AppendError, Entry, Journal, Options, RealDisk};

    #[tokio::test]
    async fn a_batch_of_which_nothing_is_taken_wakes_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { max_bytes: 1, ..Options::default() };
        let opened = Journal::open(std::sync::Arc::new(RealDisk), dir.path(), options).unwrap();
        let watermark = opened.journal.shared.watermark.subscribe();
        let refused = opened.journal.append_durable(Entry::default()).await;
        assert!(matches!(refused, Err(AppendError::Full)), "{refused:?}");
        assert!(!watermark.has_changed().unwrap());
        opened.journal.close().await;
    }
}
