//! Opening a journal: what the last process left, made durable before anybody relies on it.
//!
//! Only the last segment is walked; the others were closed after their last sync and are checked
//! as they are read. What the last segment holds past the highest position *proven* durable may be
//! no more than pages that a dead process left in the cache, perhaps marked clean by a sync that
//! failed. It is copied into a new file and synced there. That file is the new active segment:
//! a process writes only to segments that it has created.

use std::{
    collections::VecDeque,
    fs,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Damage, Error, Key, Options, Position, cursor,
    frame::{HEADER_BYTES, Header},
    keys::{self, Window},
    quarantine::Quarantine,
    scan::{Bounds, Ending, Region, Scanner, Step},
    segment::{self, DATA_START, Found, Meta},
    segments::Segment,
    sidecar::TimedKey,
    storage::{self, File, LockGuard, Storage},
    writer::Active,
};

/// A journal ready to be written and read.
pub(super) struct Recovered {
    pub lock: LockGuard,
    pub quarantine: Quarantine,
    pub segments: Vec<Segment>,
    pub active: Active,
    /// Position of the next record.
    pub end: u64,
    pub keys: Vec<TimedKey>,
    pub damage: Vec<Damage>,
}

/// Recovers the journal in `dir`, creating it if there is none.
pub(super) fn recover(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    options: &Options,
) -> Result<Recovered, Error> {
    let lock = prepare(&**storage, dir)?;
    let quarantine = Quarantine::new(storage.clone(), dir);
    let mut recovery =
        Recovery { storage: &**storage, dir, quarantine: &quarantine, damage: Vec::new() };
    let mut segments = recovery.closed_segments()?;
    let (active, end) = recovery.begin(&mut segments)?;
    let mut damage = recovery.damage;
    let window = Window { storage: &**storage, dir, quarantine: &quarantine, options };
    let (keys, lost) = window.load(&segments, &active)?;
    damage.extend(lost);
    segments.push(Segment::new(active.meta.base, Some(active.meta.marker), active.len));
    Ok(Recovered { lock, quarantine, segments, active, end, keys, damage })
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
    let (cursors, quarantine) = (cursor::dir_of(dir), Quarantine::dir_of(dir));
    for dir in [dir, &cursors, &quarantine] {
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
    for dir in [dir, &cursors, &quarantine] {
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
    quarantine: &'a Quarantine,
    damage: Vec<Damage>,
}

/// What a walk over the last segment found.
#[derive(Default)]
struct Last {
    /// One past the last record.
    end: u64,
    /// The highest position proven durable.
    proven: u64,
    /// Position and offset of each record not yet proven: at most one batch.
    unproven: VecDeque<(u64, u64)>,
    /// Keys with the position of their record.
    keys: Vec<(u64, TimedKey)>,
}

impl Last {
    fn record(&mut self, header: &Header, keys: &[Key], offset: u64) {
        self.end = header.position + 1;
        self.proven = self.proven.max(header.proven);
        self.unproven.push_back((header.position, offset));
        while self.unproven.front().is_some_and(|(position, _)| *position < self.proven) {
            self.unproven.pop_front();
        }
        self.keys.extend(keys.iter().map(|key| (header.position, (*key, header.time_ms))));
    }
}

impl Recovery<'_> {
    /// Every segment as it stands; the last of them is not yet walked.
    fn closed_segments(&mut self) -> Result<Vec<Segment>, Error> {
        let mut segments = Vec::new();
        for base in segment::list(self.storage, self.dir)? {
            let path = self.path(base);
            let file = self.storage.open_read(&path).map_err(Error::io("open", &path))?;
            let bytes = file.size().map_err(Error::io("read", &path))?;
            let found = segment::read(&*file, &path, base)?;
            if !matches!(found, Found::Intact(_)) {
                let why = match found {
                    Found::Unreadable => "header and first record are damaged: none can be read",
                    _ => "the header is damaged; its records can be read",
                };
                let len = bytes.min(DATA_START);
                self.report(
                    Some(&*file),
                    base,
                    Region { from: base, to: base, offset: 0, len, why },
                );
            }
            segments.push(Segment::new(base, found.marker(), bytes));
        }
        Ok(segments)
    }

    /// Begins the new active segment, with what the last one holds unproven. `segments` are those
    /// before it when this returns.
    fn begin(&mut self, segments: &mut Vec<Segment>) -> Result<(Active, u64), Error> {
        let floor = self.highest_cursor()?;
        let Some(segment) = segments.last().cloned() else {
            return self.begin_empty(floor);
        };
        let path = self.path(segment.base);
        let file = self.storage.open_read(&path).map_err(Error::io("open", &path))?;
        let mut last = self.walk(&file, &path, &segment)?;
        let end = last.end.max(last.proven).max(floor);
        if end > last.end {
            let why = "records that were durable are gone";
            let region = Region { from: last.end, to: end, offset: segment.bytes, len: 0, why };
            self.report(None, segment.base, region);
        }
        let base = last.unproven.front().map_or(end, |(position, _)| *position);
        // A gap right below the unproven records belongs to the old segment.
        let closed: Vec<TimedKey> = last
            .keys
            .extract_if(.., |(position, _)| *position < base)
            .map(|(_, key)| key)
            .collect();
        let keys = last.keys.into_iter().map(|(_, key)| key).collect();
        if base > segment.base {
            keys::write_when_there_is_room(self.storage, self.dir, segment.base, &closed)?;
        } else {
            segments.pop();
        }
        let active = self.copy_unproven(&file, &segment, &last.unproven, base, end, keys)?;
        Ok((active, end))
    }

    fn begin_empty(&mut self, floor: u64) -> Result<(Active, u64), Error> {
        if floor > 0 {
            let why = "cursors are here but no segment is";
            self.report(None, 0, Region { from: 0, to: floor, offset: 0, len: 0, why });
        }
        let meta = Meta { base: floor, marker: segment::new_marker(), proven: floor };
        let file = segment::create(self.storage, self.dir, meta, |_| Ok(()))?;
        Ok((Active { file, meta, len: DATA_START, keys: Vec::new() }, floor))
    }

    /// The highest saved cursor. Everything below it was durable, and no position below it may be
    /// given to another record: that cursor would pass it by.
    fn highest_cursor(&self) -> Result<u64, Error> {
        let dir = cursor::dir_of(self.dir);
        let mut highest = 0;
        for name in cursor::names(self.storage, &dir)? {
            if let Some(cursor::Saved::Position(position)) =
                cursor::read(self.storage, &dir, &name)?
            {
                highest = highest.max(position);
            }
        }
        Ok(highest)
    }

    /// Walks the last segment to its end.
    fn walk(
        &mut self,
        file: &Arc<dyn File>,
        path: &Path,
        segment: &Segment,
    ) -> Result<Last, Error> {
        let found = segment::read(&**file, path, segment.base)?;
        let mut last = Last { end: segment.base, proven: segment.base, ..Last::default() };
        let meta = match found {
            Found::Intact(meta) | Found::Rescued(meta) => meta,
            Found::Unreadable => {
                self.unreadable(&**file, segment, &mut last);
                return Ok(last);
            }
        };
        last.proven = meta.proven;
        let mut scanner = Scanner::new(file.clone(), meta.marker, whole(segment));
        loop {
            match scanner.step().map_err(Error::io("read", path))? {
                Step::Frame(frame) => last.record(&frame.header, frame.keys(), frame.offset),
                Step::Damage(region) => {
                    last.end = region.to;
                    self.report(Some(&**file), segment.base, region);
                }
                Step::End(Ending::Complete) => return Ok(last),
                Step::End(Ending::Torn { offset, len }) => {
                    let file = path.display();
                    tracing::warn!(%file, offset, len, "an incomplete last record is cut off");
                    return Ok(last);
                }
                Step::End(Ending::Unreadable { offset, len }) => {
                    let why = "no record can be found from here to the end of the last segment";
                    let from = last.end;
                    last.end = from + most_records(len);
                    let region = Region { from, to: last.end, offset, len, why };
                    self.report(Some(&**file), segment.base, region);
                    return Ok(last);
                }
            }
        }
    }

    /// A last segment of which nothing can be read: as many positions as it can have held are
    /// given up, so that none is used twice.
    fn unreadable(&mut self, file: &dyn File, segment: &Segment, last: &mut Last) {
        let Some(len) = segment.bytes.checked_sub(DATA_START).filter(|len| *len > 0) else {
            return;
        };
        last.end = segment.base + most_records(len);
        let why = "no record of the last segment can be read";
        let region = Region { from: segment.base, to: last.end, offset: DATA_START, len, why };
        self.report(Some(file), segment.base, region);
    }

    /// Creates the active segment with the unproven records of the last one.
    fn copy_unproven(
        &self,
        file: &Arc<dyn File>,
        segment: &Segment,
        unproven: &VecDeque<(u64, u64)>,
        base: u64,
        end: u64,
        keys: Vec<TimedKey>,
    ) -> Result<Active, Error> {
        let meta = Meta { base, marker: segment::new_marker(), proven: end };
        let mut len = DATA_START;
        let new = segment::create(self.storage, self.dir, meta, |new| {
            let Some((from, offset)) = unproven.front().copied() else { return Ok(()) };
            let bounds = Bounds { from, offset, ..whole(segment) };
            let mut scanner =
                Scanner::new(file.clone(), segment.marker.unwrap_or_default(), bounds);
            loop {
                match scanner.step()? {
                    Step::Frame(frame) => {
                        let head = Header { proven: base, ..frame.header }.encode(meta.marker);
                        let mut slices = [
                            IoSlice::new(&head),
                            IoSlice::new(frame.keys().as_flattened()),
                            IoSlice::new(frame.payload()),
                        ];
                        storage::write_all(new, len, &mut slices)?;
                        len += frame.header.frame_len();
                    }
                    // Reported on the walk before.
                    Step::Damage(_) => {}
                    Step::End(_) => return Ok(()),
                }
            }
        })?;
        Ok(Active { file: new, meta, len, keys })
    }

    fn report(&mut self, file: Option<&dyn File>, base: u64, region: Region) {
        self.quarantine.take(file, base, &region);
        let (from, to) = (Position(region.from), Position(region.to));
        self.damage.push(Damage { file: self.path(base), from, to, why: region.why.to_owned() });
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

/// All of a segment, to wherever it ends.
pub(super) fn whole(segment: &Segment) -> Bounds {
    Bounds {
        from: segment.base,
        limit: None,
        offset: DATA_START,
        end: segment.bytes,
        verify_from: 0,
    }
}
