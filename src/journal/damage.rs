//! What of the journal cannot be read: damage, which is told once and costs no more than it touches,
//! and what the disk cannot read at present, which is no damage until an operator says so.
//!
//! Damage is written down beside its segment, in `<base>.damage`, a JSON object a line: so it is told
//! once over all starts, and the segment is not deleted but kept.
//!
//! The cast, in the order in which a region meets it:
//!
//! - [`Ledger`]: remembers what was met. *Not* needed to step over damage: that is the scan's.
//! - [`Known`]: a damaged region, whether it was lost to anybody, and whether that was told.
//! - [`Unread`]: a region that the disk cannot read, and since when.
//! - [`Damage`]: what whoever tells of it is given; [`Trouble`]: a look at all of it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::IoSlice,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Instant,
};

use tokio::sync::Notify;

use super::{
    Error, Key, Position,
    known::{self, Known, SUFFIX, file_name, notes},
    lock,
    quarantine::Quarantine,
    scan::{Cause, Region},
    segment,
    settled::Settled,
    storage::{self, Storage},
};
use crate::meter::Counter;

/// Damaged regions, and regions that cannot be read, that are remembered each. What is met beyond is
/// stepped over and counted, and told by the log alone.
const MAX_REGIONS: usize = 4096;

/// Longest file of known damage that is read.
const MAX_FILE_BYTES: usize = 1 << 20;

/// A damaged region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment, or what else is damaged.
    pub file: PathBuf,
    /// The first position that cannot be read.
    pub from: Position,
    /// One past the last; equal to `from` if no record is damaged.
    pub to: Position,
    /// Where in the file.
    pub offset: u64,
    pub len: u64,
    pub why: String,
    /// Whether somebody had not settled it.
    pub is_lost: bool,
    /// What was known by the records of its segment that are lost, and is forgotten from now on.
    pub keys: Vec<Key>,
    base: u64,
}

impl Damage {
    /// Where the segment begins.
    pub(super) fn base(&self) -> u64 {
        self.base
    }
}

/// What there is at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Damaged regions, and how many of them were lost to somebody.
    pub damaged_regions: u64,
    pub lost_regions: u64,
    /// Regions that the disk cannot read at present, since the longest of how long, and where.
    pub unread: Vec<UnreadRegion>,
}

/// A region that the disk cannot read at present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadRegion {
    pub file: PathBuf,
    pub offset: u64,
    pub len: u64,
    /// How many positions lie in it, at the most.
    pub records: u64,
    pub for_seconds: u64,
    pub error: String,
}

/// See the module.
pub(super) struct Ledger {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    state: Mutex<State>,
    /// Held while something is written down, and taken before the state, which is not held meanwhile: who
    /// only looks never waits for the disk.
    writing: Mutex<()>,
    /// Somebody has lost something.
    news: Notify,
    /// An operator has given up on what cannot be read.
    pub skipped: Notify,
    /// Regions met, damaged and not.
    pub regions: Counter,
    pub read_errors: Counter,
}

#[derive(Default)]
struct State {
    damaged: BTreeMap<u64, Vec<Known>>,
    /// By base and first position.
    unread: BTreeMap<(u64, u64), Unread>,
    /// Lost, and still to be told.
    lost: VecDeque<Damage>,
    /// Whose file is behind.
    unsaved: BTreeSet<u64>,
    /// Of segments that are in quarantine, by the file of what is known: of some of it is still to be
    /// told that it was lost.
    kept: BTreeMap<PathBuf, Vec<Known>>,
}

struct Unread {
    region: Region,
    since: Instant,
    error: String,
}

impl Ledger {
    /// With what is written down in a journal's directory, and in its quarantine.
    pub fn load(storage: Arc<dyn Storage>, dir: &Path) -> Result<Ledger, Error> {
        let ledger = Ledger {
            storage,
            dir: dir.to_owned(),
            state: Mutex::default(),
            writing: Mutex::default(),
            news: Notify::new(),
            skipped: Notify::new(),
            regions: Counter::default(),
            read_errors: Counter::default(),
        };
        let names = ledger.storage.list(dir).map_err(Error::io("list", dir))?;
        let mut state = lock(&ledger.state);
        for base in names.iter().filter_map(|name| segment::base_of(name, SUFFIX)) {
            let mut known = ledger.read(&dir.join(file_name(base)));
            if known.is_empty() {
                // Something of the segment is damaged, whatever that is: it is not to be deleted.
                let (why, lost, told) =
                    ("what is known of its damage cannot be read", false, false);
                let (from, to, offset, len) = (base, base, 0, 0);
                known.push(Known { from, to, offset, len, why: why.to_owned(), lost, told });
            }
            for known in known.iter().filter(|known| known.is_to_tell()) {
                state.lost.push_back(ledger.damage(base, known, Vec::new()));
            }
            state.damaged.insert(base, known);
        }
        for path in notes(&*ledger.storage, &Quarantine::dir_of(dir)) {
            let known = ledger.read(&path);
            let file = path.with_extension("seg");
            for known in known.iter().filter(|known| known.is_to_tell()) {
                state.lost.push_back(Damage {
                    file: file.clone(),
                    ..ledger.damage(0, known, Vec::new())
                });
            }
            if known.iter().any(Known::is_to_tell) {
                state.kept.insert(path, known);
            }
        }
        drop(state);
        Ok(ledger)
    }

    /// What a file of known damage says, as far as it can be read.
    fn read(&self, path: &Path) -> Vec<Known> {
        let mut bytes = Vec::new();
        let read = self.storage.open_read(path).and_then(|file| {
            bytes.resize(
                usize::try_from(file.size()?).unwrap_or(MAX_FILE_BYTES).min(MAX_FILE_BYTES),
                0,
            );
            storage::read_full(&*file, 0, &mut bytes)
        });
        if let Err(error) = read {
            tracing::warn!(file = %path.display(), %error, "cannot read what is known of damage");
            return Vec::new();
        }
        known::decode(&bytes)
    }

    /// A damaged region was met: it is told by the log once.
    pub fn met(&self, base: u64, region: &Region) {
        let mut state = lock(&self.state);
        let known = state.damaged.entry(base).or_default();
        if known.iter().any(|known| known.is(region)) {
            return;
        }
        self.regions.inc();
        let Region { from, to, offset, len, why, .. } = *region;
        let file = self.path(base).display().to_string();
        tracing::error!(file, from, to, offset, len, why, "the journal is damaged");
        if known.len() < MAX_REGIONS {
            let why = why.to_owned();
            known.push(Known { from, to, offset, len, why, lost: false, told: false });
            state.unsaved.insert(base);
        }
        drop(state);
        self.save();
    }

    /// Whether it is news that this is lost to anybody.
    pub fn is_news(&self, base: u64, region: &Region) -> bool {
        let mut state = lock(&self.state);
        let Some(known) = state.damaged.get_mut(&base) else { return false };
        if known.iter().any(|known| known.covers(region) && known.lost) {
            return false;
        }
        let known = known.iter_mut().find(|known| known.covers(region));
        known.map(|known| known.lost = true).is_some()
    }

    /// Whether this was lost to somebody, by what is known in quarantine.
    pub fn was_lost(&self, region: &Region) -> bool {
        let notes = notes(&*self.storage, &Quarantine::dir_of(&self.dir));
        let mut known = notes.iter().flat_map(|path| self.read(path));
        known.any(|known| known.lost && known.covers(region))
    }

    /// It was lost, with these keys: to be told.
    pub fn lost(&self, base: u64, region: &Region, keys: Vec<Key>) {
        let mut state = lock(&self.state);
        let mut known = state.damaged.get(&base).into_iter().flatten();
        let known = known.find(|known| known.covers(region) && known.lost);
        let Some(damage) = known.map(|known| self.damage(base, known, keys)) else { return };
        state.lost.push_back(damage);
        state.unsaved.insert(base);
        drop(state);
        self.save();
        self.news.notify_one();
    }

    /// The next that was lost and is still to be told, by whoever then says that [it was](Self::told).
    /// Cancel-safe.
    pub async fn next_lost(&self) -> Damage {
        loop {
            let lost = lock(&self.state).lost.pop_front();
            match lost {
                Some(damage) => return damage,
                None => self.news.notified().await,
            }
        }
    }

    /// This was told, durably.
    pub fn told(&self, damage: &Damage) {
        let mut state = lock(&self.state);
        let is = |known: &&mut Known| {
            known.is_to_tell()
                && (known.from, known.to, known.offset)
                    == (damage.from.0, damage.to.0, damage.offset)
        };
        let in_force = state.damaged.get_mut(&damage.base);
        if let Some(known) = in_force.and_then(|known| known.iter_mut().find(is)) {
            known.told = true;
            state.unsaved.insert(damage.base);
            drop(state);
            return self.save();
        }
        let kept = state.kept.iter_mut().find_map(|(path, known)| {
            known.iter_mut().find(is)?.told = true;
            Some(path.clone())
        });
        drop(state);
        if let Some(path) = kept {
            self.save_kept(&path);
        }
    }

    /// What is damaged of a segment.
    pub fn of(&self, base: u64) -> Vec<Known> {
        lock(&self.state).damaged.get(&base).cloned().unwrap_or_default()
    }

    /// The segment has left. What was known of it went to this file, if anything was: it still counts
    /// while it is kept, and is still told.
    pub fn gone(&self, base: u64, kept: Option<PathBuf>) {
        let mut state = lock(&self.state);
        let known = state.damaged.remove(&base).unwrap_or_default();
        let is_unsaved = state.unsaved.remove(&base);
        state.unread.retain(|(of, _), _| *of != base);
        let Some(path) = kept.filter(|_| is_unsaved || known.iter().any(Known::is_to_tell)) else {
            return;
        };
        state.kept.insert(path.clone(), known);
        drop(state);
        if is_unsaved {
            self.save_kept(&path);
        }
    }

    /// The disk cannot read a region: since when. Told by the log the first time.
    pub fn unread(&self, base: u64, region: &Region, error: &str) -> Instant {
        let mut state = lock(&self.state);
        if let Some(unread) = state.unread.get(&(base, region.from)) {
            return unread.since;
        }
        self.read_errors.inc();
        let since = Instant::now();
        let Region { from, to, offset, len, .. } = *region;
        let file = self.path(base).display().to_string();
        tracing::error!(
            file,
            from,
            to,
            offset,
            len,
            error,
            "the disk cannot read a part of the journal: it is tried again, and lost is nothing yet"
        );
        if state.unread.len() < MAX_REGIONS {
            let (region, error) = (region.clone(), error.to_owned());
            state.unread.insert((base, from), Unread { region, since, error });
        }
        since
    }

    /// What lies there was read after all, by whomever it could not be read before.
    pub fn readable(&self, base: u64, from: u64, to: u64) {
        let mut healed = Vec::new();
        let mut state = lock(&self.state);
        state.unread.retain(|(of, at), unread| {
            let is_healed = *of == base && *at < to && from < unread.region.to;
            if is_healed {
                healed.push((unread.region.from, unread.since.elapsed().as_secs()));
            }
            !is_healed
        });
        drop(state);
        let file = self.path(base).display().to_string();
        for (from, for_seconds) in healed {
            tracing::info!(
                file,
                from,
                for_seconds,
                "the disk can read that part of the journal again"
            );
        }
    }

    /// What cannot be read at present.
    pub fn held(&self) -> Settled {
        let mut held = Settled::default();
        for unread in lock(&self.state).unread.values() {
            held.settle(unread.region.from, unread.region.to);
        }
        held
    }

    /// Whether an operator has given up on all of this.
    pub fn is_skipped(&self, base: u64, region: &Region) -> bool {
        let state = lock(&self.state);
        let known = state.damaged.get(&base).into_iter().flatten();
        known.into_iter().any(|known| known.covers(region))
    }

    /// What cannot be read now counts as damaged. How many regions that are.
    pub fn skip(&self) -> usize {
        let unread = std::mem::take(&mut lock(&self.state).unread);
        for ((base, _), Unread { region, .. }) in &unread {
            let why = "skipped on request: the disk could not read it";
            self.met(*base, &Region { cause: Cause::Damage, why, ..region.clone() });
        }
        self.skipped.notify_waiters();
        unread.len()
    }

    /// How many regions the disk cannot read at present.
    pub fn unread_regions(&self) -> u64 {
        lock(&self.state).unread.len() as u64
    }

    /// What there is; of the damage in quarantine, what is still kept there.
    pub fn look(&self, quarantine: &Quarantine) -> Trouble {
        let kept = quarantine.notes().into_iter().flat_map(|path| self.read(&path));
        let mut trouble = Trouble::default();
        let state = lock(&self.state);
        for known in state.damaged.values().flatten().cloned().chain(kept) {
            trouble.damaged_regions += 1;
            trouble.lost_regions += u64::from(known.lost);
        }
        let unread = state.unread.iter().map(|((base, _), unread)| UnreadRegion {
            file: self.path(*base),
            offset: unread.region.offset,
            len: unread.region.len,
            records: unread.region.to - unread.region.from,
            for_seconds: unread.since.elapsed().as_secs(),
            error: unread.error.clone(),
        });
        trouble.unread = unread.collect();
        trouble
    }

    /// Writes down what is not yet. What cannot be now, on a full disk for instance, is later.
    pub fn save(&self) {
        let _one_at_a_time = lock(&self.writing);
        loop {
            let mut state = lock(&self.state);
            let Some(base) = state.unsaved.pop_first() else { return };
            let Some(known) = state.damaged.get(&base).cloned() else { continue };
            drop(state);
            if let Err(error) = self.write(&self.dir, &file_name(base), &known) {
                tracing::warn!(%error, "what is known of damage cannot be written down yet");
                lock(&self.state).unsaved.insert(base);
                return;
            }
        }
    }

    /// The same in quarantine, where nothing more comes to it.
    fn save_kept(&self, path: &Path) {
        let _one_at_a_time = lock(&self.writing);
        let Some(known) = lock(&self.state).kept.get(path).cloned() else { return };
        let (dir, name) = (path.parent().unwrap_or(&self.dir), path.file_name());
        let name = name.and_then(|name| name.to_str()).unwrap_or_default();
        if let Err(error) = self.write(dir, name, &known) {
            tracing::warn!(%error, "what is known of damage cannot be written down: it may be told again");
        } else if !known.iter().any(Known::is_to_tell) {
            lock(&self.state).kept.remove(path);
        }
    }

    fn write(&self, dir: &Path, name: &str, known: &[Known]) -> Result<(), Error> {
        let mut text = Vec::new();
        for known in known {
            serde_json::to_writer(&mut text, known).expect("numbers and text");
            text.push(b'\n');
        }
        storage::publish(&*self.storage, dir, name, |file| {
            storage::write_all(file, 0, &mut [IoSlice::new(&text)])
        })?;
        Ok(())
    }

    fn damage(&self, base: u64, known: &Known, keys: Vec<Key>) -> Damage {
        Damage {
            file: self.path(base),
            from: Position(known.from),
            to: Position(known.to),
            offset: known.offset,
            len: known.len,
            why: known.why.clone(),
            is_lost: known.lost,
            keys,
            base,
        }
    }

    fn path(&self, base: u64) -> PathBuf {
        self.dir.join(segment::file_name(base))
    }

    /// All damaged regions of segments that are in force.
    pub fn all(&self) -> Vec<Damage> {
        let state = lock(&self.state);
        let regions =
            state.damaged.iter().flat_map(|(base, known)| known.iter().map(|k| (*base, k)));
        regions.map(|(base, known)| self.damage(base, known, Vec::new())).collect()
    }
}
