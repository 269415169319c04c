//! The keys of what was appended, as far back as anybody asks: those of segments there are, and
//! those of segments that are gone.

use std::{collections::BTreeSet, io, path::Path};

use super::{
    Damage, Error, Options, Position,
    quarantine::Quarantine,
    recovery::whole,
    scan::{Bounds, Scanner, Step},
    segment,
    segments::Segment,
    sidecar::{self, TimedKey},
    storage::Storage,
    writer::Active,
};

/// The keys to return when a journal is opened.
pub(super) struct Window<'a> {
    pub storage: &'a dyn Storage,
    pub dir: &'a Path,
    pub quarantine: &'a Quarantine,
    pub options: &'a Options,
}

impl Window<'_> {
    /// The newest keys of all segments there are or were, oldest first, and what of them is lost.
    /// Sidecars that have outlived their segment and their use are removed.
    pub fn load(
        &self,
        segments: &[Segment],
        active: &Active,
    ) -> Result<(Vec<TimedKey>, Vec<Damage>), Error> {
        let mut bases: BTreeSet<u64> = sidecar::list(self.storage, self.dir)?.into_iter().collect();
        bases.extend(segments.iter().map(|segment| segment.base));
        bases.remove(&active.meta.base);
        let (mut newest, mut damage) = (vec![active.keys.clone()], Vec::new());
        let mut room = self.options.max_keys.saturating_sub(active.keys.len());
        let (mut limit, mut closed) = (active.meta.base, segments.iter().rev().peekable());
        for base in bases.into_iter().rev() {
            let segment = closed.next_if(|segment| segment.base == base);
            let keys = if room == 0 {
                Vec::new()
            } else {
                self.keys_of(base, segment, limit, &mut damage)?
            };
            match segment {
                Some(_) => limit = base,
                None if keys.is_empty() => remove_sidecar(self.storage, self.dir, base)?,
                None => {}
            }
            room = room.saturating_sub(keys.len());
            newest.push(keys);
        }
        let mut keys: Vec<TimedKey> = newest.into_iter().rev().flatten().collect();
        keys.retain(|(_, time_ms)| *time_ms >= self.options.keys_since_ms);
        keys.drain(..keys.len().saturating_sub(self.options.max_keys));
        Ok((keys, damage))
    }

    /// The keys of one closed segment, from its sidecar or, failing that, from itself; none if all
    /// of them are too old.
    fn keys_of(
        &self,
        base: u64,
        segment: Option<&Segment>,
        limit: u64,
        damage: &mut Vec<Damage>,
    ) -> Result<Vec<TimedKey>, Error> {
        let path = self.dir.join(sidecar::file_name(base));
        if let Some(sidecar) = sidecar::open(self.storage, self.dir, base)? {
            if sidecar.newest_ms < self.options.keys_since_ms || sidecar.count == 0 {
                return Ok(Vec::new());
            }
            if let Some(keys) = sidecar.keys() {
                return Ok(keys);
            }
        }
        let Some(segment) = segment else {
            damage.push(self.lost(base, &path)?);
            return Ok(Vec::new());
        };
        let keys = scan(self.storage, self.dir, segment, limit)?;
        write_when_there_is_room(self.storage, self.dir, base, &keys)?;
        Ok(keys)
    }

    /// A sidecar that is damaged and whose segment is gone.
    fn lost(&self, base: u64, path: &Path) -> Result<Damage, Error> {
        let kept = self.quarantine.keep_file(path, &sidecar::file_name(base));
        let kept = kept.map_err(Error::io("move", path))?;
        let why = "the keys of a released segment are damaged: its duplicates are not recognised";
        tracing::error!(kept = %kept.display(), "{why}");
        let position = Position(base);
        Ok(Damage { file: kept, from: position, to: position, why: why.to_owned() })
    }
}

/// The keys in the readable records of a closed segment whose range ends at `limit`.
pub(super) fn scan(
    storage: &dyn Storage,
    dir: &Path,
    segment: &Segment,
    limit: u64,
) -> Result<Vec<TimedKey>, Error> {
    let Some(marker) = segment.marker else { return Ok(Vec::new()) };
    let path = dir.join(segment::file_name(segment.base));
    let file = storage.open_read(&path).map_err(Error::io("open", &path))?;
    let bounds = Bounds { limit: Some(limit), ..whole(segment) };
    let mut scanner = Scanner::new(file, marker, bounds);
    let mut keys = Vec::new();
    loop {
        match scanner.step().map_err(Error::io("read", &path))? {
            Step::Frame(frame) => {
                keys.extend(frame.keys().iter().map(|key| (*key, frame.header.time_ms)));
            }
            // Reported when the segment is read.
            Step::Damage(_) => {}
            Step::End(_) => return Ok(keys),
        }
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
