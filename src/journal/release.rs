//! Removes what nobody needs any more: segments that everybody has settled and that are kept no
//! longer, keys that are too old.

use std::{io, sync::atomic::Ordering::Relaxed};

use super::{
    Error, NoRoom, Position, Shared,
    keys::{self, Scanned},
    lock,
    place::Verdict,
    segment,
    segments::{Located, aside_dir_of},
    settled::Settled,
    sidecar,
};

/// What may go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// What has been kept for long enough.
    Time,
    /// As much of what is kept, too, as makes room for so many bytes of new records.
    Room(u64),
}

impl Shared {
    /// Removes segments from the lowest on, each durably before the next, so that a crash never leaves a
    /// hole among them. One of which only something that cannot be read is missing to anybody is set
    /// aside, and pins no other. A damaged one is kept in quarantine.
    pub(super) fn release(&self, need: Need) -> Result<(), Error> {
        let _owned = self.owned()?;
        self.ledger.save();
        self.remove_doomed();
        let end = self.watermark.borrow().end;
        self.places.raise_floor(&*self.storage, &self.dir, end)?;
        let held = self.ledger.held();
        for aside in self.segments.aside() {
            let Some(limit) = aside.limit else { continue };
            if self.places.judge(aside.base, limit, &Settled::default()) == Verdict::Settled {
                self.let_go(&aside)?;
            }
        }
        while let Some(lowest) = self.segments.lowest_closed() {
            let Some(limit) = lowest.limit else { break };
            match self.places.judge(lowest.base, limit, &held) {
                Verdict::Open => break,
                Verdict::Held => self.set_aside(&lowest, limit)?,
                Verdict::Settled if self.keeps(&lowest, need) => break,
                Verdict::Settled => {
                    if !self.let_go(&lowest)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a settled segment is still kept, since it is young and there is room.
    fn keeps(&self, located: &Located, need: Need) -> bool {
        if let Need::Room(bytes) = need {
            return !self.is_short_of(bytes);
        }
        let keep_ms = self.options.keep.as_millis() as u64;
        let kept_bytes = self.segments.bytes() - self.segments.bytes_from(self.places.floor());
        keep_ms > 0
            && located.newest_ms.saturating_add(keep_ms) > crate::clock::now_ms()
            && kept_bytes <= self.max_bytes() / 2
    }

    /// Whether there is less room than for so many bytes, or than two segments', or the disk is full.
    pub(super) fn is_short_of(&self, bytes: u64) -> bool {
        let least = bytes.max(2 * self.bounds.segment_bytes.load(Relaxed));
        let is_disk_full = self.stats.refuses().is_some_and(|(bound, _)| bound == NoRoom::Disk);
        self.room_bytes() < least || is_disk_full
    }

    /// Removes a segment, or moves it to quarantine where something of it is damaged. On a full disk,
    /// one whose keys have yet to be written stays for another time: `false`. One that cannot be moved
    /// stays in force, and is moved another time.
    fn let_go(&self, located: &Located) -> Result<bool, Error> {
        let base = located.base;
        let keyless = match self.keep_keys(located) {
            Err(error) if error.is_no_space() => {
                tracing::warn!(%error, "a segment is released later");
                return Ok(false);
            }
            kept => kept?,
        };
        // Some cannot be read at present.
        let Some(keyless) = keyless else { return Ok(false) };
        let path = located.path(&self.dir);
        let known = self.ledger.of(base);
        let mut kept = None;
        if known.is_empty() {
            // Out of the list first, so that no reader looks for a file that is gone.
            self.segments.remove(base);
            if let Err(error) = self.storage.remove(&path) {
                let file = path.display();
                tracing::warn!(%file, %error, "a released segment cannot be removed: it is tried again");
                self.stats.unlink_failures.inc();
                lock(&self.doomed).push(path);
                return Ok(true);
            }
            let dir = path.parent().unwrap_or(&self.dir);
            self.storage.sync_dir(dir).map_err(Error::sync(dir))?;
        } else {
            let end = located.limit.unwrap_or(base);
            kept = Some(self.quarantine.keep_segment(&path, base, end, &known)?);
            self.segments.remove(base);
        }
        self.ledger.gone(base, kept);
        if keyless {
            keys::remove_sidecar(&*self.storage, &self.dir, base)?;
        }
        Ok(true)
    }

    /// Tries again to remove what could not be.
    fn remove_doomed(&self) {
        lock(&self.doomed).retain(|path| match self.storage.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.stats.unlink_failures.inc();
                true
            }
            _ => false,
        });
    }

    fn set_aside(&self, located: &Located, end: u64) -> Result<(), Error> {
        let (base, dir) = (located.base, aside_dir_of(&self.dir));
        let (from, to) = (located.path(&self.dir), dir.join(segment::file_name_of(base, end)));
        // First for readers: they find the file under either name.
        self.storage.rename(&from, &to).map_err(Error::io("move", &from))?;
        self.segments.set_aside(base, end);
        for dir in [&dir, &self.dir] {
            self.storage.sync_dir(dir).map_err(Error::sync(dir))?;
        }
        tracing::warn!(file = %to.display(), "a segment that cannot be read in full stands aside");
        Ok(())
    }

    /// Sees to it that the keys of a closed segment are on disk; says whether there are none, or nothing
    /// where the disk cannot read some of them at present.
    fn keep_keys(&self, located: &Located) -> Result<Option<bool>, Error> {
        if let Some(sidecar) = sidecar::open(&*self.storage, &self.dir, located.base)? {
            // Read in whole: this is the last moment at which damage costs nothing.
            if let Some(keys) = sidecar.keys() {
                return Ok(Some(keys.is_empty()));
            }
        }
        let Scanned { keys, is_whole, .. } = keys::scan(&*self.storage, &self.dir, located)?;
        if !is_whole && self.ledger.of(located.base).is_empty() {
            return Ok(None);
        }
        sidecar::write(&*self.storage, &self.dir, located.base, &keys)?;
        Ok(Some(keys.is_empty()))
    }

    /// Removes sidecars that have outlived their segment and their use: they hold only keys older
    /// than `before_ms`, or newer ones hold as many as an opening returns. A damaged one stays for
    /// the next opening to report.
    pub(super) fn forget_keys(&self, before_ms: u64) -> Result<(), Error> {
        let _owned = self.owned()?;
        let (storage, dir, first) = (&*self.storage, &self.dir, self.segments.first());
        let aside = self.segments.aside();
        let mut outlived = sidecar::list(storage, dir)?;
        outlived.retain(|base| *base < first && aside.iter().all(|aside| aside.base != *base));
        outlived.sort_unstable();
        let mut newer_keys = 0;
        for base in outlived.into_iter().rev() {
            let Some(sidecar) = sidecar::open(storage, dir, base)? else { continue };
            if sidecar.newest_ms < before_ms || newer_keys >= self.options.max_keys as u64 {
                keys::remove_sidecar(storage, dir, base)?;
            } else {
                newer_keys += sidecar.count;
            }
        }
        Ok(())
    }

    /// Where to, not including, a reader that finds nothing at `position` goes on: what lies between is
    /// gone.
    pub(super) fn after_gap(&self, position: Position) -> Position {
        let aside = self.segments.aside().into_iter().map(|aside| aside.base);
        let next = aside.chain([self.segments.first()]).filter(|base| *base > position.0).min();
        Position(next.unwrap_or(position.0 + 1))
    }
}
