//! Opening a journal: what the last process left, made durable before anybody relies on it.
//!
//! Only the last segment is walked; the others were closed after their last sync and are checked
//! as they are read. What the last segment holds past the highest position *proven* durable may be
//! no more than pages that a dead process left in the cache, perhaps marked clean by a sync that
//! failed. It is written again, in place and as it was read, and synced: that takes no room, and what
//! it overwrites is the same. Then the segment is closed, and a new one begun.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Error, Key, Options,
    damage::Ledger,
    frame::{HEADER_BYTES, Header},
    identity::{self, Identity},
    keys::{self, Window},
    place::{self, Places},
    quarantine::Quarantine,
    scan::{Bounds, Cause, Ending, Region, Scanner, Step},
    segment::{self, DATA_START, Found, Head, PLAIN, Trailer},
    segments::{Segment, Segments, aside_dir_of},
    sidecar::TimedKey,
    storage::{self, File, LockGuard, Storage},
    writer::{Active, ActiveKeys},
};

/// A journal ready to be written and read.
pub(super) struct Recovered {
    pub lock: LockGuard,
    pub identity: Identity,
    pub quarantine: Quarantine,
    pub ledger: Ledger,
    pub places: Places,
    pub segments: Segments,
    pub active: Active,
    pub active_keys: ActiveKeys,
    /// Position of the next record.
    pub end: u64,
    pub keys: Vec<TimedKey>,
}

/// Recovers the journal in `dir`, creating it if there is none.
pub(super) fn recover(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    options: &Options,
) -> Result<Recovered, Error> {
    let lock = prepare(&**storage, dir)?;
    let quarantine = Quarantine::new(storage.clone(), dir, options.quarantine_bytes);
    let set_aside = |path: &Path| quarantine.keep_file(path, identity::FILE);
    let identity = Identity::open(&**storage, dir, set_aside)?;
    let ledger = Ledger::load(storage.clone(), dir)?;
    let places = Places::load(&**storage, dir, options.write_version, &quarantine)?;
    let recovery = Recovery {
        storage: &**storage,
        dir,
        options,
        identity: &identity,
        quarantine: &quarantine,
        ledger: &ledger,
        places: &places,
    };
    let (segments, active, active_keys, end) = recovery.segments()?;
    recovery.keep_orphans(&segments)?;
    let window = Window { storage: &**storage, dir, quarantine: &quarantine, options };
    let closed = segments.closed();
    let keys = window.load(&closed, active.meta.base, active_keys.keys.clone())?;
    Ok(Recovered {
        lock,
        identity,
        quarantine,
        ledger,
        places,
        segments,
        active,
        active_keys,
        end,
        keys,
    })
}

/// The file that is locked while a process has the journal open.
const LOCK: &str = "lock";

/// Whether a process has the journal in `dir` open now. Creates nothing; a process that opens it at
/// the very moment of the look may be told that it is open already.
pub fn is_open(dir: &Path) -> io::Result<bool> {
    let file = match fs::File::open(dir.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // Shared, so that two who look do not take each other for its owner.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Directories, lock, and names that can be trusted: what the last process renamed or removed may
/// be so only in memory until the directory is synced.
fn prepare(storage: &dyn Storage, dir: &Path) -> Result<LockGuard, Error> {
    let dirs = [dir.to_owned(), place::dir_of(dir), Quarantine::dir_of(dir), aside_dir_of(dir)];
    for dir in &dirs {
        storage.create_dir_all(dir).map_err(Error::io("create", dir))?;
    }
    // Also where the directory was here: who created it may have died before this.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    storage.sync_dir(parent).map_err(Error::sync(parent))?;
    let path = dir.join(LOCK);
    let lock = storage.lock(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { dir: dir.to_owned() },
        _ => Error::Io { doing: "lock", path, source },
    })?;
    for dir in &dirs {
        let names = storage.list(dir).map_err(Error::io("list", dir))?;
        for name in names.iter().filter(|name| name.ends_with(storage::TEMPORARY)) {
            let path = dir.join(name);
            storage.remove(&path).map_err(Error::io("remove", &path))?;
        }
        storage.sync_dir(dir).map_err(Error::sync(dir))?;
    }
    Ok(lock)
}

struct Recovery<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    options: &'a Options,
    identity: &'a Identity,
    quarantine: &'a Quarantine,
    ledger: &'a Ledger,
    places: &'a Places,
}

/// What a walk over the last segment found.
#[derive(Default)]
struct Last {
    /// One past the last record.
    end: u64,
    /// The highest position proven durable.
    proven: u64,
    /// Position and offset of each frame not yet proven: at most one batch.
    unproven: VecDeque<(u64, u64)>,
    /// Keys with the position of their record.
    keys: Vec<(u64, TimedKey)>,
    newest_ms: u64,
    /// So many of the highest positions may never have been given.
    unsure: u64,
    /// Where the last whole frame ends; what lies behind was not written whole.
    torn_at: Option<u64>,
    is_damaged: bool,
    /// Whether the disk could not read all of it.
    is_unread: bool,
}

impl Last {
    fn record(&mut self, header: &Header, keys: &[Key], offset: u64) {
        self.end = header.position + 1;
        self.newest_ms = self.newest_ms.max(header.time_ms);
        self.frame(header, offset);
        self.keys.extend(keys.iter().map(|key| (header.position, (*key, header.time_ms))));
    }

    fn met(&mut self, cause: Cause) {
        match cause {
            Cause::Damage => self.is_damaged = true,
            Cause::ReadError => self.is_unread = true,
        }
    }

    fn frame(&mut self, header: &Header, offset: u64) {
        self.proven = self.proven.max(header.proven);
        self.unproven.push_back((header.position, offset));
        while self.unproven.front().is_some_and(|(position, _)| *position < self.proven) {
            self.unproven.pop_front();
        }
    }
}

impl Recovery<'_> {
    /// Every segment, the last of them closed and a new one begun, with its keys and the end.
    fn segments(&self) -> Result<(Segments, Active, ActiveKeys, u64), Error> {
        let mut all = self.aside()?;
        let kept: Vec<(u64, u64)> =
            all.iter().filter_map(|aside| Some((aside.base, aside.aside_end?))).collect();
        let mut row = Vec::new();
        for base in segment::list(self.storage, self.dir)? {
            row.push(self.closed_segment(base, self.path(base))?);
        }
        let first = row.first().map(|(segment, _)| segment.base);
        let end = match row.last_mut() {
            Some((segment, found)) => self.close_last(segment, found)?,
            None => self.places.proven(),
        };
        // One without a record makes room for the new one, which has its name.
        row.retain(|(segment, _)| segment.base < end);
        all.extend(row.into_iter().map(|(segment, _)| segment));
        let begin = first.unwrap_or(end).min(end);
        if let Some((from, to)) = self.places.missing_below(begin, &kept, first.is_none()) {
            self.gone(from, to);
        }
        self.places.begin_at(begin, &kept);
        let format = (self.identity, self.options.write_version);
        let active = Active::create(self.storage, self.dir, format, end, self.places)?;
        all.push(Segment::new(end, Some(active.meta.marker), active.len));
        let keys = ActiveKeys { base: end, ..ActiveKeys::default() };
        Ok((Segments::new(all), active, keys, end))
    }

    /// Segments that hold what somebody has not settled are not here any more.
    fn gone(&self, from: u64, to: u64) {
        let (offset, len, is_end) = (0, 0, false);
        let (cause, why) = (Cause::Damage, "segments are gone that were still needed");
        let region = Region { from, to, offset, len, cause, is_end, why };
        if self.ledger.was_lost(&region) {
            return;
        }
        self.ledger.met(from, &region);
        if self.ledger.is_news(from, &region) {
            self.ledger.lost(from, &region, Vec::new());
        }
    }

    /// Those that stand aside.
    fn aside(&self) -> Result<Vec<Segment>, Error> {
        let dir = aside_dir_of(self.dir);
        let names = self.storage.list(&dir).map_err(Error::io("list", &dir))?;
        let mut aside = Vec::new();
        for name in names {
            let Some((base, end)) = segment::range_of(&name) else { continue };
            let (mut segment, _) = self.closed_segment(base, dir.join(&name))?;
            segment.aside_end = Some(end);
            aside.push(segment);
        }
        aside.sort_unstable_by_key(|segment| segment.base);
        Ok(aside)
    }

    /// A segment as it stands; the last of the row is not yet walked.
    fn closed_segment(&self, base: u64, path: PathBuf) -> Result<(Segment, Found), Error> {
        let file = self.storage.open_read(&path).map_err(Error::io("open", &path))?;
        let bytes = file.size().map_err(Error::io("read", &path))?;
        let found = segment::read(&*file, &path, base, Some(self.identity))?;
        if let Head::Damaged(marker) = found.head {
            let why = match marker {
                Some(_) => "the header is damaged; its records can be read",
                None => "the header is damaged, and its records cannot be told",
            };
            self.damaged(base, (base, base), (0, bytes.min(DATA_START)), why);
        }
        let mut segment = Segment::new(base, found.marker(), bytes);
        if let Some(Trailer { newest_ms, unsure, .. }) = found.trailer {
            (segment.newest_ms, segment.unsure) = (newest_ms, unsure);
        }
        Ok((segment, found))
    }

    /// Walks the last segment, makes durable what may not be, and closes it. Returns the journal's end.
    fn close_last(&self, segment: &mut Segment, found: &Found) -> Result<u64, Error> {
        let (base, path) = (segment.base, self.path(segment.base));
        let file = self.storage.open_or_create(&path).map_err(Error::io("open", &path))?;
        let mut last = self.walk(&file, segment, found);
        let proven = last.proven.max(self.places.proven());
        let end = last.end.max(proven);
        if end > last.end {
            let why = "records that were durable are gone";
            self.damaged(base, (last.end, end), (segment.bytes, 0), why);
            last.is_damaged = true;
        }
        self.prove(&file, &path, segment, &mut last)?;
        if end == base {
            // The new one takes its name. What is damaged of it is no damage of that.
            if !self.ledger.of(base).is_empty() {
                self.quarantine.copy_segment(&*file, base, end)?;
                self.ledger.gone(base, Some(self.quarantine.keep_note(base, end)?));
            }
            return Ok(end);
        }
        if found.trailer.is_none() {
            self.close(&*file, &path, segment, &last, end)?;
            segment.bytes = file.size().map_err(Error::io("read", &path))?;
            (segment.newest_ms, segment.unsure) = (last.newest_ms, last.unsure);
        }
        if last.is_unread {
            // They are looked for again, in the segment, until all of it was read.
            return Ok(end);
        }
        let keys: Vec<TimedKey> = last.keys.into_iter().map(|(_, key)| key).collect();
        keys::write_when_there_is_room(self.storage, self.dir, base, &keys)?;
        Ok(end)
    }

    /// Walks the last segment to its end.
    fn walk(&self, file: &Arc<dyn File>, segment: &Segment, found: &Found) -> Last {
        let base = segment.base;
        let mut last = Last { end: base, proven: found.proven().max(base), ..Last::default() };
        let Some(marker) = found.marker() else {
            self.unreadable(segment, found, &mut last);
            return last;
        };
        let bounds = bounds_of(segment, found);
        let mut scanner = Scanner::new(file.clone(), marker, bounds);
        loop {
            match scanner.step() {
                Step::Record(frame) => last.record(&frame.header, frame.keys(), frame.offset),
                Step::Note(frame) => {
                    self.places.learn(frame.payload());
                    last.frame(&frame.header, frame.offset);
                }
                Step::Region(region) => {
                    last.end = region.to;
                    last.met(region.cause);
                    self.met(base, region);
                }
                Step::End(Ending::Complete) => break,
                Step::End(Ending::Torn { offset, len }) => {
                    let file = self.path(base).display().to_string();
                    tracing::warn!(file, offset, len, "an incomplete last record is cut off");
                    last.torn_at = Some(offset);
                    break;
                }
                Step::End(Ending::Unreadable { offset, len, cause }) => {
                    let why = "no record can be found from here to the end of the last segment";
                    let from = last.end;
                    last.unsure = most_records(len);
                    last.end = from + last.unsure;
                    last.met(cause);
                    let (to, is_end) = (last.end, false);
                    self.met(base, Region { from, to, offset, len, cause, is_end, why });
                    break;
                }
            }
        }
        if let Some(trailer) = found.trailer {
            // All below it was durable.
            last.proven = last.proven.max(trailer.end);
            last.unproven.clear();
        }
        last
    }

    /// A last segment of which nothing can be read: as many positions as it can have held are
    /// given up, so that none is used twice.
    fn unreadable(&self, segment: &Segment, found: &Found, last: &mut Last) {
        let Some(len) = segment.bytes.checked_sub(DATA_START).filter(|len| *len > 0) else {
            return;
        };
        let cause = match found.head {
            Head::Unread(_) => Cause::ReadError,
            _ => Cause::Damage,
        };
        last.unsure = most_records(len);
        last.end = segment.base + last.unsure;
        last.met(cause);
        let (from, to, offset) = (segment.base, last.end, DATA_START);
        let why = "no record of the last segment can be read";
        let is_end = false;
        self.met(segment.base, Region { from, to, offset, len, cause, is_end, why });
    }

    /// Writes what is not proven durable again, as it is read, and syncs it. What can be read no more
    /// was never acknowledged.
    fn prove(
        &self,
        file: &Arc<dyn File>,
        path: &Path,
        segment: &Segment,
        last: &mut Last,
    ) -> Result<(), Error> {
        let Some((from, offset)) = last.unproven.front().copied() else { return Ok(()) };
        let (marker, end) = (segment.marker.unwrap_or_default(), segment.bytes);
        let bounds = Bounds { from, limit: None, offset, end, verify_from: 0 };
        let mut scanner = Scanner::new(file.clone(), marker, bounds);
        last.keys.retain(|(position, _)| *position < from);
        loop {
            match scanner.step() {
                Step::Record(frame) | Step::Note(frame) => {
                    let head = frame.header.encode(marker);
                    let mut slices = [
                        IoSlice::new(&head),
                        IoSlice::new(frame.keys().as_flattened()),
                        IoSlice::new(frame.payload()),
                    ];
                    storage::write_all(&**file, frame.offset, &mut slices)
                        .map_err(Error::io("write", path))?;
                    let Header { position, time_ms, .. } = frame.header;
                    last.keys.extend(frame.keys().iter().map(|key| (position, (*key, time_ms))));
                }
                // Told on the walk before.
                Step::Region(_) => {}
                Step::End(_) => break,
            }
        }
        file.sync_data().map_err(Error::sync(path))
    }

    /// Gives the last segment its trailer. It does without, too, where the disk is full.
    fn close(
        &self,
        file: &dyn File,
        path: &Path,
        segment: &Segment,
        last: &Last,
        end: u64,
    ) -> Result<(), Error> {
        // Of one of which nothing can be read, too: how much of it is unsure must be known later.
        let marker = segment.marker.unwrap_or_else(|| self.identity.marker(segment.base));
        if self.options.write_version == PLAIN {
            return Ok(());
        }
        // What was damaged is left as it is for whoever can make sense of it.
        let is_whole = !last.is_damaged && !last.is_unread;
        let at = last.torn_at.filter(|_| is_whole).unwrap_or(segment.bytes);
        let Last { newest_ms, unsure, .. } = *last;
        let trailer = Trailer { base: segment.base, marker, end, newest_ms, unsure };
        let written = file
            .truncate(at)
            .and_then(|()| storage::write_all(file, at, &mut [IoSlice::new(&trailer.encode())]));
        match written.map_err(Error::io("close", path)) {
            Err(error) if error.is_no_space() => file.truncate(at).map_err(Error::io("cut", path)),
            written => written.and_then(|()| file.sync_data().map_err(Error::sync(path))),
        }
    }

    fn met(&self, base: u64, region: Region) {
        match region.cause {
            Cause::Damage => self.ledger.met(base, &region),
            Cause::ReadError => drop(self.ledger.unread(base, &region, region.why)),
        }
    }

    /// Positions that cannot be read, and where in the file they should be: offset and length.
    fn damaged(
        &self,
        base: u64,
        (from, to): (u64, u64),
        (offset, len): (u64, u64),
        why: &'static str,
    ) {
        let (cause, is_end) = (Cause::Damage, false);
        self.ledger.met(base, &Region { from, to, offset, len, cause, is_end, why });
    }

    /// What is known of damage of segments that are gone is kept with them.
    fn keep_orphans(&self, segments: &Segments) -> Result<(), Error> {
        let mut orphans = BTreeMap::new();
        for damage in self.ledger.all() {
            let base = damage.base();
            if segments.locate(base).is_none_or(|located| located.base != base) {
                let end: &mut u64 = orphans.entry(base).or_default();
                *end = damage.to.0.max(*end);
            }
        }
        for (base, end) in orphans {
            self.ledger.gone(base, Some(self.quarantine.keep_note(base, end)?));
        }
        Ok(())
    }

    fn path(&self, base: u64) -> PathBuf {
        self.dir.join(segment::file_name(base))
    }
}

/// As many records as `len` bytes can hold: of those that cannot be read, no position is to be
/// given again, and none to be lost without being reported.
fn most_records(len: u64) -> u64 {
    len.div_ceil(HEADER_BYTES as u64)
}

/// All of a segment, up to where its trailer says, or to wherever it ends.
fn bounds_of(segment: &Segment, found: &Found) -> Bounds {
    Bounds {
        from: segment.base,
        limit: found.trailer.map(|trailer| trailer.end),
        offset: DATA_START,
        end: segment.bytes,
        verify_from: 0,
    }
}
