//! Removes what nobody needs any more: segments that every cursor has passed, keys that are too old.

use super::{Error, Position, Shared, keys, segment, segments::Segment, sidecar};

impl Shared {
    /// Removes the segments that lie wholly below a position, lowest first and each durably before
    /// the next, so that a crash never leaves a hole among them. On a full disk, those whose keys
    /// have yet to be written stay for another time.
    pub(super) fn release(&self, below: Position) -> Result<(), Error> {
        while let Some(base) = self.segments.passed(below.0) {
            let keyless = match self.keep_keys(base) {
                Err(error) if error.is_no_space() => {
                    tracing::warn!(%error, "a segment is released later");
                    return Ok(());
                }
                kept => kept?,
            };
            let path = self.dir.join(segment::file_name(base));
            // Out of the list first, so that no reader looks for a file that is gone.
            self.segments.remove(base);
            self.storage.remove(&path).map_err(Error::io("remove", &path))?;
            self.storage.sync_dir(&self.dir).map_err(Error::sync(&self.dir))?;
            if keyless {
                keys::remove_sidecar(&*self.storage, &self.dir, base)?;
            }
        }
        Ok(())
    }

    /// Sees to it that the keys of a closed segment are on disk; says whether there are none.
    fn keep_keys(&self, base: u64) -> Result<bool, Error> {
        if let Some(sidecar) = sidecar::open(&*self.storage, &self.dir, base)? {
            // Read in whole: this is the last moment at which damage costs nothing.
            if let Some(keys) = sidecar.keys() {
                return Ok(keys.is_empty());
            }
        }
        let Some(located) = self.segments.locate(base) else { return Ok(false) };
        let segment = Segment::new(base, located.marker, located.bytes);
        let limit = located.limit.unwrap_or(base);
        let keys = keys::scan(&*self.storage, &self.dir, &segment, limit)?;
        sidecar::write(&*self.storage, &self.dir, base, &keys)?;
        Ok(keys.is_empty())
    }

    /// Removes sidecars that have outlived their segment and their use: they hold only keys older
    /// than `before_ms`, or newer ones hold as many as an opening returns. A damaged one stays for
    /// the next opening to report.
    pub(super) fn forget_keys(&self, before_ms: u64) -> Result<(), Error> {
        let (storage, dir, first) = (&*self.storage, &self.dir, self.segments.first());
        let mut outlived = sidecar::list(storage, dir)?;
        outlived.retain(|base| *base < first);
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
}
