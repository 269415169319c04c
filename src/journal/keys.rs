//! The keys of what was appended, as far back as anybody asks: those of segments there are, and
//! those of segments that are gone.

use std::{collections::BTreeSet, io, path::Path};

use rustc_hash::FxHashSet;

use super::{
    Damage, Error, Key, Options, Shared, lock,
    quarantine::Quarantine,
    scan::{Bounds, Cause, Region, Scanner, Step},
    segment::DATA_START,
    segments::Located,
    settled::Settled,
    sidecar::{self, TimedKey},
    storage::Storage,
};

/// The keys to return when a journal is opened.
pub(super) struct Window<'a> {
    pub storage: &'a dyn Storage,
    pub dir: &'a Path,
    pub quarantine: &'a Quarantine,
    pub options: &'a Options,
}

impl Window<'_> {
    /// The newest keys of all segments there are or were, oldest first; `active` are those of the
    /// newest segment. Sidecars that have outlived their segment and their use are removed.
    pub fn load(
        &self,
        segments: &[Located],
        active_base: u64,
        active: Vec<TimedKey>,
    ) -> Result<Vec<TimedKey>, Error> {
        let mut bases: BTreeSet<u64> = sidecar::list(self.storage, self.dir)?.into_iter().collect();
        bases.extend(segments.iter().map(|segment| segment.base));
        bases.remove(&active_base);
        let mut room = self.options.max_keys.saturating_sub(active.len());
        let mut newest = vec![active];
        for base in bases.into_iter().rev() {
            let segment = segments.iter().find(|segment| segment.base == base);
            let keys = if room == 0 { Some(Vec::new()) } else { self.keys_of(base, segment)? };
            let Some(keys) = keys else { continue };
            if segment.is_none() && keys.is_empty() {
                remove_sidecar(self.storage, self.dir, base)?;
            }
            room = room.saturating_sub(keys.len());
            newest.push(keys);
        }
        let mut keys: Vec<TimedKey> = newest.into_iter().rev().flatten().collect();
        keys.drain(..keys.len().saturating_sub(self.options.max_keys));
        Ok(keys)
    }

    /// The keys of one closed segment, from its sidecar or, failing that, from itself; `None` where the
    /// disk can read neither.
    fn keys_of(
        &self,
        base: u64,
        segment: Option<&Located>,
    ) -> Result<Option<Vec<TimedKey>>, Error> {
        if let Some(sidecar) = sidecar::open(self.storage, self.dir, base)?
            && let Some(keys) = sidecar.keys()
        {
            return Ok(Some(keys));
        }
        let Some(segment) = segment else {
            if !sidecar::is_readable(self.storage, self.dir, base) {
                // It is no damage: another opening may have them.
                return Ok(None);
            }
            self.lost(base)?;
            return Ok(Some(Vec::new()));
        };
        let Scanned { keys, is_whole, .. } = scan(self.storage, self.dir, segment)?;
        if is_whole {
            write_when_there_is_room(self.storage, self.dir, base, &keys)?;
        }
        Ok(Some(keys))
    }

    /// A sidecar that is damaged and whose segment is gone.
    fn lost(&self, base: u64) -> Result<(), Error> {
        let (name, path) = (sidecar::file_name(base), self.dir.join(sidecar::file_name(base)));
        let kept = self.quarantine.keep_file(&path, &name).map_err(Error::io("move", &path))?;
        tracing::error!(
            kept = %kept.display(),
            "the keys of a released segment are damaged: its duplicates are not recognised"
        );
        Ok(())
    }
}

/// What a segment's records are known by.
#[derive(Default)]
pub(super) struct Scanned {
    pub keys: Vec<TimedKey>,
    /// Whether the disk could read all of it.
    pub is_whole: bool,
    /// Positions of which the disk says something else than was written.
    pub damaged: Settled,
}

/// The keys in the readable records of a segment.
pub(super) fn scan(storage: &dyn Storage, dir: &Path, segment: &Located) -> Result<Scanned, Error> {
    let Some(marker) = segment.marker else { return Ok(Scanned::default()) };
    let path = segment.path(dir);
    let file = storage.open_read(&path).map_err(Error::io("open", &path))?;
    let Located { base: from, limit, bytes: end, .. } = *segment;
    let bounds = Bounds { from, limit, offset: DATA_START, end, verify_from: 0 };
    let mut scanner = Scanner::new(file, marker, bounds);
    let (mut keys, mut is_whole, mut damaged) = (Vec::new(), true, Settled::default());
    loop {
        match scanner.step() {
            Step::Record(frame) => {
                keys.extend(frame.keys().iter().map(|key| (*key, frame.header.time_ms)));
            }
            // Reported when the segment is read.
            Step::Region(region) => match region.cause {
                Cause::Damage => drop(damaged.settle(region.from, region.to)),
                Cause::ReadError => is_whole = false,
            },
            Step::Note(_) => {}
            Step::End(_) => return Ok(Scanned { keys, is_whole, damaged }),
        }
    }
}

impl Shared {
    /// A damaged region that nobody will come to read.
    pub(super) fn lost_unread(&self, damage: &Damage) {
        let (from, to, offset) = (damage.from.0, damage.to.0, damage.offset);
        let (len, cause, is_end, why) = (damage.len, Cause::Damage, false, "");
        if from < to {
            self.lost(damage.base(), &Region { from, to, offset, len, cause, is_end, why });
        }
    }

    /// A damaged region of the segment at `base` is lost to somebody: it is told, once.
    pub(super) fn lost(&self, base: u64, region: &Region) {
        if !self.ledger.is_news(base, region) {
            return;
        }
        let keys = self.forget_lost_keys(base, region).unwrap_or_else(|error| {
            tracing::warn!(%error, "what is lost stays known: its senders' next tries are duplicates");
            Vec::new()
        });
        self.ledger.lost(base, region, keys);
    }

    /// A region of the segment at `base` is lost: what no readable record of that holds is known no
    /// more, so that a sender who comes again gets in. Returns those keys, the first time: the segment is
    /// read in whole, and once is enough for all that is damaged of it.
    fn forget_lost_keys(&self, base: u64, region: &Region) -> Result<Vec<Key>, Error> {
        let (storage, dir) = (&*self.storage, &self.dir);
        let was_seen =
            |(of, damaged): &(u64, Settled)| *of == base && damaged.covers(region.from, region.to);
        if lock(&self.forgotten).as_ref().is_some_and(was_seen) {
            return Ok(Vec::new());
        }
        let active = {
            let active = lock(&self.active_keys);
            (active.base == base).then(|| active.keys.clone())
        };
        let is_active = active.is_some();
        // Before the segment is looked at: what is committed meanwhile is not among them.
        let known = match active {
            Some(keys) => keys,
            None => match sidecar::open(storage, dir, base)?.and_then(|sidecar| sidecar.keys()) {
                Some(keys) => keys,
                None => return Ok(Vec::new()),
            },
        };
        let Some(located) = self.segments.locate(base) else { return Ok(Vec::new()) };
        // What the disk cannot read at present is forgotten with what is lost: the two cannot be told
        // apart here, and a retry that comes twice costs less than one that is refused.
        let Scanned { keys, damaged, .. } = scan(storage, dir, &located)?;
        let readable: FxHashSet<Key> = keys.into_iter().map(|(key, _)| key).collect();
        let (kept, lost): (Vec<TimedKey>, Vec<TimedKey>) =
            known.into_iter().partition(|(key, _)| readable.contains(key));
        let lost: Vec<Key> = lost.into_iter().map(|(key, _)| key).collect();
        if is_active {
            let sought: FxHashSet<Key> = lost.iter().copied().collect();
            let mut active = lock(&self.active_keys);
            if active.base == base {
                active.keys.retain(|(key, _)| !sought.contains(key));
            }
        } else if !lost.is_empty() {
            write_when_there_is_room(storage, dir, base, &kept)?;
        }
        *lock(&self.forgotten) = Some((base, damaged));
        Ok(lost)
    }
}

/// Writes a sidecar; a full disk only postpones it.
pub(super) fn write_when_there_is_room(
    storage: &dyn Storage,
    dir: &Path,
    base: u64,
    keys: &[TimedKey],
) -> Result<(), Error> {
    match sidecar::write(storage, dir, base, keys) {
        Err(error) if error.is_no_space() => {
            tracing::warn!(%error, "keys are written when the segment is released");
            Ok(())
        }
        other => other,
    }
}

/// Removes a sidecar, if it is there.
pub(super) fn remove_sidecar(storage: &dyn Storage, dir: &Path, base: u64) -> Result<(), Error> {
    let path = dir.join(sidecar::file_name(base));
    match storage.remove(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { doing: "remove", path, source: error })
        }
        _ => Ok(()),
    }
}
