//! Places: how far each of those who settle records has got, durably.
//!
//! A place is what is settled: all below a cursor, and ranges above it. It has a file of its own
//! ([`slot`](super::slot)); while events come, a copy of it rides in the group commits, in a note,
//! and costs no sync of its own. The newest segment begins with a note of them all, so that opening a
//! journal finds the newest copies in it; what counts is the union of file and copies.
//!
//! The cast, in the order in which a settled record meets it:
//!
//! - [`Place`]: the handle of the one who settles. *Not* needed to read or to release.
//! - [`Member`]: one place's state: what is settled, and what of that is durable.
//! - [`Places`]: all of them: what is carried by the next commit, what may be released, the floor.
//! - [`Stamp`]: how much was settled when, so that its owner can tell what a kill would bring back.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{
    Error, Position, Reader, Shared, lock,
    quarantine::Quarantine,
    segment::{PLAIN, VERSION},
    settled::Settled,
    slot::{self, Content, MAX_RANGES, Saved, SlotFile},
    storage::{self, Storage},
};
use crate::meter::Counter;

/// A place whose settled messages no commit has carried for this long is saved by itself.
const SAVE_AFTER: Duration = Duration::from_millis(100);

/// The same where it only stepped over what is not its own: nothing would be published twice.
const STEP_SAVED_AFTER: Duration = Duration::from_secs(1);

/// About how large a note of copies may be; what does not fit rides on the next.
const NOTE_BYTES: usize = 64 << 10;

/// The kind of a note that holds copies of places: its first byte.
const COPIES: u8 = 1;

/// An encoded name leaves room for a suffix within the 255 bytes of a file name.
const MAX_NAME_BYTES: usize = 200;

/// A dot is encoded too: no place can be named like a directory or a temporary file.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// The file beside the places that holds the floor.
pub(super) const FLOOR: &str = "floor";

/// How much a place had settled at a moment: later is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(u64);

/// What of a place is durable: what was settled up to a stamp, below a position. What lies higher was
/// too much to write down: see [`MAX_RANGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    pub stamp: Stamp,
    below: Position,
}

impl Durable {
    /// Whether this position, settled at this stamp, is durably so.
    pub fn holds(&self, position: Position, stamp: Stamp) -> bool {
        stamp <= self.stamp && position < self.below
    }
}

/// How far a place is from the journal's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Records that are not settled.
    pub records: u64,
    /// About how many bytes it holds back: whole segments.
    pub bytes: u64,
}

/// The right to settle under one name; there is one at a time. Dropped, it still pins what it has
/// not settled.
pub struct Place {
    shared: Arc<Shared>,
    member: Arc<Member>,
}

impl Place {
    pub(super) fn new(shared: Arc<Shared>, member: Arc<Member>) -> Place {
        Place { shared, member }
    }

    /// Reads what is not settled, lowest first.
    pub fn reader(&self) -> Reader {
        Reader::of_place(self.shared.clone(), self.member.clone())
    }

    /// The record at this position is settled: it need not be read again.
    pub fn settle(&self, position: Position) -> Stamp {
        self.member.settle(position.0, position.0 + 1, true)
    }

    /// Positions `from` up to, not including, `to` owe nothing here.
    pub fn step_over(&self, from: Position, to: Position) {
        self.member.settle(from.0, to.0, false);
    }

    /// All that is durable at this moment is settled.
    pub fn settle_all(&self) -> Stamp {
        self.member.settle(0, self.shared.watermark.borrow().end, true)
    }

    /// What is durable: a kill brings back nothing of it.
    pub fn durable(&self) -> Durable {
        let state = lock(&self.member.state);
        Durable { stamp: Stamp(state.durable_stamp), below: Position(state.durable.end()) }
    }

    /// When it wants to be [saved](Self::save), since no commit has carried it; `None` while all is
    /// durable.
    pub fn due(&self) -> Option<Instant> {
        lock(&self.member.state).due()
    }

    /// Makes durable what is settled. Blocks.
    pub fn save(&self) -> Result<(), Error> {
        self.member.save(self.shared.watermark.borrow().end)
    }

    /// How far it is from the journal's end.
    pub fn behind(&self) -> Behind {
        self.shared.behind(&self.member)
    }

    /// Where to, not including, from the lowest on, to settle so that it holds back less than `bytes`;
    /// by whole segments, and as far as there are closed ones. `None` if it does already, or if there
    /// are none.
    pub fn excess(&self, bytes: u64) -> Option<Position> {
        let cursor = lock(&self.member.state).settled.cursor();
        self.shared.segments.excess(cursor, bytes).map(Position)
    }

    /// It pins nothing any more, and is cleared away once nothing could be owed to it.
    pub fn retire(&self) {
        lock(&self.member.state).is_retired = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.member.state).is_open = false;
    }
}

/// See the module.
pub(super) struct Member {
    name: String,
    state: Mutex<State>,
    /// `None` until it is opened.
    file: Mutex<Option<SlotFile>>,
    /// How many ranges above the cursor its file holds.
    max_ranges: usize,
    /// Records that were lost to it.
    pub lost: Counter,
}

#[derive(Default)]
struct State {
    settled: Settled,
    /// Counts what changed `settled`.
    stamp: u64,
    /// What of it is durable, wherever.
    durable: Settled,
    durable_stamp: u64,
    /// Since when something is settled, or stepped over, that is not durable.
    settled_since: Option<Instant>,
    stepped_since: Option<Instant>,
    is_open: bool,
    is_retired: bool,
    /// Whether the disk could not read its file.
    is_unread: bool,
}

impl State {
    fn due(&self) -> Option<Instant> {
        let settled = self.settled_since.map(|since| since + SAVE_AFTER);
        let stepped = self.stepped_since.map(|since| since + STEP_SAVED_AFTER);
        settled.into_iter().chain(stepped).min()
    }

    /// What was settled at `stamp` is durable.
    fn made_durable(&mut self, stamp: u64, settled: Settled) {
        if stamp > self.durable_stamp {
            (self.durable_stamp, self.durable) = (stamp, settled);
        }
        if self.durable_stamp == self.stamp {
            (self.settled_since, self.stepped_since) = (None, None);
        } else {
            // What came meanwhile waits from now on.
            let now = Instant::now();
            self.settled_since = self.settled_since.map(|_| now);
            self.stepped_since = self.stepped_since.map(|_| now);
        }
    }
}

impl Member {
    fn new(name: String, settled: Settled, version: u32) -> Member {
        let max_ranges = if version == PLAIN { 0 } else { MAX_RANGES };
        let durable = settled.with_ranges(max_ranges);
        let state = Mutex::new(State { settled, durable, ..State::default() });
        Member { name, state, file: Mutex::default(), max_ranges, lost: Counter::default() }
    }

    /// What was found while opening is durable, as far as it can be written down.
    fn learn(&self, learn: impl FnOnce(&mut Settled)) {
        let mut state = lock(&self.state);
        learn(&mut state.settled);
        state.durable = state.settled.with_ranges(self.max_ranges);
    }

    /// What is settled.
    pub fn settled(&self) -> Settled {
        lock(&self.state).settled.clone()
    }

    /// Whether it pins nothing any more.
    pub fn is_retired(&self) -> bool {
        lock(&self.state).is_retired
    }

    fn settle(&self, from: u64, to: u64, is_own: bool) -> Stamp {
        let mut state = lock(&self.state);
        if state.settled.settle(from, to) {
            state.stamp += 1;
            let since = match is_own {
                true => &mut state.settled_since,
                false => &mut state.stepped_since,
            };
            since.get_or_insert_with(Instant::now);
        }
        Stamp(state.stamp)
    }

    fn save(&self, end: u64) -> Result<(), Error> {
        let mut file = lock(&self.file);
        let (stamp, settled) = {
            let state = lock(&self.state);
            if state.stamp == state.durable_stamp {
                return Ok(());
            }
            (state.stamp, state.settled.with_ranges(self.max_ranges))
        };
        let Some(file) = &mut *file else { return Ok(()) };
        let content = Content { settled, end };
        file.save(&content)?;
        lock(&self.state).made_durable(stamp, content.settled);
        Ok(())
    }
}

/// A copy of a place on its way with a commit.
pub(super) struct Copied {
    member: Arc<Member>,
    stamp: u64,
    settled: Settled,
}

impl Copied {
    /// The commit is durable.
    pub fn carried(self) {
        lock(&self.member.state).made_durable(self.stamp, self.settled);
    }
}

/// See the module.
pub(super) struct Places {
    dir: PathBuf,
    /// The format of what is written.
    version: u32,
    members: Mutex<BTreeMap<String, Arc<Member>>>,
    floor: Mutex<Floor>,
}

#[derive(Default)]
struct Floor {
    content: Content,
    saved: Content,
    file: Option<SlotFile>,
}

/// The directory of the places of a journal.
pub(super) fn dir_of(journal: &Path) -> PathBuf {
    journal.join("cursors")
}

/// The file name of a place.
fn file_name(name: &str) -> Result<String, Error> {
    let encoded = utf8_percent_encode(name, ENCODED).to_string();
    if encoded.is_empty() || encoded.len() > MAX_NAME_BYTES {
        return Err(Error::PlaceName(name.to_owned()));
    }
    Ok(encoded)
}

impl Places {
    /// All places that have a file. One that is damaged goes to quarantine. One that the disk cannot
    /// read stays where it is until its place is opened, and written again. Either has what the copies
    /// say, and starts again at the floor where there is none.
    pub fn load(
        storage: &dyn Storage,
        journal: &Path,
        version: u32,
        quarantine: &Quarantine,
    ) -> Result<Places, Error> {
        let dir = dir_of(journal);
        let path = journal.join(FLOOR);
        let floor = match slot::read(storage, &path)? {
            Some(saved) => content_of(saved, &path, || set_aside(quarantine, &path, FLOOR))?,
            None => None,
        };
        let floor = floor.unwrap_or_default();
        let files = storage.list(&dir).map_err(Error::io("list", &dir))?;
        let mut members = BTreeMap::new();
        let mut end = floor.end;
        for file in files.iter().filter(|file| !file.ends_with(storage::TEMPORARY)) {
            let Ok(name) = percent_decode_str(file).decode_utf8() else { continue };
            let path = dir.join(file);
            let Some(saved) = slot::read(storage, &path)? else { continue };
            let is_unread = matches!(saved, Saved::Unread(_));
            let keep = || set_aside(quarantine, &path, &format!("cursor-{file}"));
            let content = content_of(saved, &path, keep)?.unwrap_or_else(|| floor.clone());
            end = end.max(content.end).max(content.settled.end());
            let member = Member::new(name.to_string(), content.settled, version);
            lock(&member.state).is_unread = is_unread;
            members.insert(name.into_owned(), Arc::new(member));
        }
        let saved = floor.clone();
        let content = Content { end: end.max(floor.settled.cursor()), ..floor };
        let floor = Mutex::new(Floor { content, saved, file: None });
        Ok(Places { dir, version, members: Mutex::new(members), floor })
    }

    /// One past the highest position that anything here proves durable.
    pub fn proven(&self) -> u64 {
        lock(&self.floor).content.end
    }

    /// Takes in a note that was found while opening. A copy of a place that has no file counts
    /// nothing: it was cleared away.
    pub fn learn(&self, note: &[u8]) {
        for (name, settled) in decode(note) {
            let members = lock(&self.members);
            if let Some(member) = members.get(&name) {
                member.learn(|own| own.unite(&settled));
            }
        }
    }

    /// What lies below `first`, the lowest segment, that somebody has not settled, but for `kept`: it
    /// is lost to them. Below the floor all was released. Where there is no floor, one that retired may
    /// be meant, unless all is gone.
    pub fn missing_below(
        &self,
        first: u64,
        kept: &[(u64, u64)],
        is_all: bool,
    ) -> Option<(u64, u64)> {
        let floor = {
            let floor = lock(&self.floor);
            (is_all || floor.saved != Content::default()).then(|| floor.saved.settled.cursor())?
        };
        let mut missing: Option<(u64, u64)> = None;
        for member in lock(&self.members).values() {
            let mut here = member.settled();
            here.settle(0, floor);
            for (from, to) in kept {
                here.settle(*from, *to);
            }
            member.lost.add(here.open_in(0, first));
            let mut at = here.cursor();
            while at < first {
                let end = here.next_settled(at).unwrap_or(first).min(first);
                let (from, to) = missing.unwrap_or((at, end));
                missing = Some((from.min(at), to.max(end)));
                at = here.next_open(end);
            }
        }
        missing
    }

    /// What lies below `first` is gone, and was settled, but for `kept`.
    pub fn begin_at(&self, first: u64, kept: &[(u64, u64)]) {
        for member in lock(&self.members).values() {
            member.learn(|settled| {
                let mut at = 0;
                for (from, to) in kept.iter().copied().chain([(first, first)]) {
                    settled.settle(at, from);
                    at = to;
                }
            });
        }
    }

    /// Opens a place; a new one starts at the floor, or at `first` where that is higher. From now on
    /// nothing is released that it has not settled. Blocks.
    pub fn open(
        &self,
        storage: &dyn Storage,
        name: &str,
        first: u64,
        end: u64,
    ) -> Result<Arc<Member>, Error> {
        let file_name = file_name(name)?;
        let from = self.floor().max(first);
        let member = {
            let mut members = lock(&self.members);
            let new = || Arc::new(Member::new(name.to_owned(), Settled::below(from), self.version));
            members.entry(name.to_owned()).or_insert_with(new).clone()
        };
        let mut file = lock(&member.file);
        let was_unread = std::mem::take(&mut lock(&member.state).is_unread);
        if was_unread
            && let Ok(Some(Saved::Content(found))) = slot::read(storage, &self.dir.join(&file_name))
        {
            member.learn(|own| own.unite(&found.settled));
        }
        let settled = {
            let mut state = lock(&member.state);
            if state.is_open {
                return Err(Error::PlaceInUse(name.to_owned()));
            }
            if std::mem::take(&mut state.is_retired) {
                // What was released meanwhile was owed to nobody.
                state.settled.settle(0, from);
            }
            state.is_open = true;
            state.settled.clone()
        };
        let content = Content { settled: settled.with_ranges(member.max_ranges), end };
        match SlotFile::open(storage, &self.dir, &file_name, self.version, &content) {
            Ok(opened) => {
                *file = Some(opened);
                lock(&member.state).durable = content.settled;
            }
            Err(error) => {
                lock(&member.state).is_open = false;
                return Err(error);
            }
        }
        drop(file);
        Ok(member)
    }

    /// The names of all places.
    pub fn names(&self) -> Vec<String> {
        lock(&self.members).keys().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Member>> {
        lock(&self.members).get(name).cloned()
    }

    /// Removes a place that is not open.
    pub fn forget(&self, storage: &dyn Storage, name: &str) -> Result<(), Error> {
        let path = self.dir.join(file_name(name)?);
        lock(&self.members).remove(name);
        match storage.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// What the next commit carries: those with something that is not durable. `None` if there is
    /// nothing.
    pub fn copies(&self) -> Option<(Bytes, Vec<Copied>)> {
        if self.version < VERSION {
            return None;
        }
        let now = Instant::now();
        let waits = |state: &State| {
            let long = |since: Instant| now.duration_since(since) >= STEP_SAVED_AFTER / 2;
            state.settled_since.is_some() || state.stepped_since.is_some_and(long)
        };
        self.note(waits, NOTE_BYTES)
    }

    /// A note of all places, for the beginning of a segment; `None` if there is none.
    pub fn all(&self) -> Option<(Bytes, Vec<Copied>)> {
        if self.version < VERSION {
            return None;
        }
        self.note(|_| true, usize::MAX)
    }

    fn note(&self, wanted: impl Fn(&State) -> bool, most: usize) -> Option<(Bytes, Vec<Copied>)> {
        let (mut out, mut copied) = (BytesMut::new(), Vec::new());
        for member in lock(&self.members).values() {
            let state = lock(&member.state);
            if state.is_retired || !wanted(&state) || out.len() > most {
                continue;
            }
            let settled = state.settled.with_ranges(MAX_RANGES);
            if out.is_empty() {
                out.put_u8(COPIES);
            }
            put_copy(&mut out, &member.name, &settled);
            copied.push(Copied { member: member.clone(), stamp: state.stamp, settled });
        }
        (!copied.is_empty()).then(|| (out.freeze(), copied))
    }

    /// Whether everybody has durably settled all from `from` up to `to`; and how much of it is open to
    /// anybody, beyond `held`: ranges that cannot be read at present. Nothing is settled where there is
    /// no place, or none that has not retired.
    pub fn judge(&self, from: u64, to: u64, held: &Settled) -> Verdict {
        let members = lock(&self.members);
        let (mut verdict, mut is_anybody) = (Verdict::Settled, false);
        for member in members.values() {
            let state = lock(&member.state);
            is_anybody |= !state.is_retired;
            if state.is_retired || state.durable.covers(from, to) {
                continue;
            }
            let mut with_held = state.durable.clone();
            with_held.unite(held);
            if !with_held.covers(from, to) {
                return Verdict::Open;
            }
            verdict = Verdict::Held;
        }
        if is_anybody { verdict } else { Verdict::Open }
    }

    /// Moves the floor to the lowest position that anybody has not settled, and saves it; clears away
    /// who has retired and could be owed nothing from there on. Blocks.
    pub fn raise_floor(
        &self,
        storage: &dyn Storage,
        journal: &Path,
        end: u64,
    ) -> Result<(), Error> {
        let lowest = {
            let members = lock(&self.members);
            let cursors = members.values().filter_map(|member| {
                let state = lock(&member.state);
                (!state.is_retired).then(|| state.durable.cursor())
            });
            cursors.min()
        };
        let mut floor = lock(&self.floor);
        if let Some(lowest) = lowest {
            floor.content.settled.settle(0, lowest);
        }
        floor.content.end = floor.content.end.max(end);
        let content = floor.content.clone();
        if content != floor.saved {
            match &mut floor.file {
                Some(file) => file.save(&content)?,
                None => match SlotFile::open(storage, journal, FLOOR, self.version, &content) {
                    Ok(opened) => floor.file = Some(opened),
                    // What is released makes room; until then a new place begins at what there is.
                    Err(error) if error.is_no_space() => {
                        tracing::warn!(%error, "the floor is written down later");
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                },
            }
            floor.saved = content.clone();
        }
        drop(floor);
        for name in self.useless(content.settled.cursor()) {
            self.forget(storage, &name)?;
        }
        Ok(())
    }

    /// Who has retired, and would begin no lower if it came again.
    fn useless(&self, floor: u64) -> Vec<String> {
        let members = lock(&self.members);
        let is_useless = |member: &&Arc<Member>| {
            let state = lock(&member.state);
            state.is_retired && !state.is_open && state.settled.cursor() <= floor
        };
        members.values().filter(is_useless).map(|member| member.name.clone()).collect()
    }

    /// The floor.
    pub fn floor(&self) -> u64 {
        lock(&self.floor).content.settled.cursor()
    }
}

/// What may become of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Somebody has not settled all of it.
    Open,
    /// Nobody waits for anything of it but what cannot be read at present.
    Held,
    /// Everybody has.
    Settled,
}

/// What a file says, if it says anything; a damaged one is set aside.
fn content_of(
    saved: Saved,
    path: &Path,
    set_aside: impl FnOnce() -> Result<(), Error>,
) -> Result<Option<Content>, Error> {
    match saved {
        Saved::Content(content) => return Ok(Some(content)),
        Saved::Damaged => set_aside()?,
        Saved::Unread(error) => {
            let file = path.display();
            tracing::error!(%file, %error, "the disk cannot read a place: what was settled there may be published again");
        }
    }
    Ok(None)
}

fn set_aside(quarantine: &Quarantine, path: &Path, name: &str) -> Result<(), Error> {
    let kept = quarantine.keep_file(path, name).map_err(Error::io("move", path))?;
    tracing::error!(kept = %kept.display(), "a place is damaged: what was settled there may be published again");
    Ok(())
}

/// ```text
/// u16  length of the name, and the name in UTF-8
/// u64  cursor
/// u16  count of ranges, and each: u64 from, u64 to
/// ```
fn put_copy(out: &mut BytesMut, name: &str, settled: &Settled) {
    out.put_u16_le(name.len() as u16);
    out.put_slice(name.as_bytes());
    out.put_u64_le(settled.cursor());
    out.put_u16_le(settled.above().len() as u16);
    for (from, to) in settled.above() {
        out.put_u64_le(from);
        out.put_u64_le(to);
    }
}

/// The copies in a note, as far as it holds any.
fn decode(mut note: &[u8]) -> Vec<(String, Settled)> {
    let mut copies = Vec::new();
    if note.try_get_u8() != Ok(COPIES) {
        return copies;
    }
    while let Some((name, settled)) = get_copy(&mut note) {
        copies.push((name, settled));
    }
    copies
}

fn get_copy(note: &mut &[u8]) -> Option<(String, Settled)> {
    let len = usize::from(note.try_get_u16_le().ok()?);
    let name = std::str::from_utf8(note.get(..len)?).ok()?.to_owned();
    note.advance(len);
    let mut settled = Settled::below(note.try_get_u64_le().ok()?);
    for _ in 0..note.try_get_u16_le().ok()? {
        let (from, to) = (note.try_get_u64_le().ok()?, note.try_get_u64_le().ok()?);
        settled.settle(from, to);
    }
    Some((name, settled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_come_back_as_they_were_put() {
        let mut settled = Settled::below(4);
        settled.settle(7, 9);
        let mut out = BytesMut::new();
        out.put_u8(COPIES);
        put_copy(&mut out, "a/é", &settled);
        put_copy(&mut out, "b", &Settled::below(1));
        let copies = [("a/é".to_owned(), settled), ("b".to_owned(), Settled::below(1))];
        assert_eq!(decode(&out), copies);
        for len in 0..out.len() {
            assert!(decode(&out[..len]).len() < 2, "{len} bytes");
        }
        out[0] = 9;
        assert!(decode(&out).is_empty());
    }

    #[test]
    fn any_name_makes_a_file_name() {
        for name in ["plain", "../up", ".", "a.tmp", "name with é/%"] {
            let file = file_name(name).unwrap();
            assert_eq!(percent_decode_str(&file).decode_utf8().unwrap(), name);
            assert!(!file.contains(['/', '.']), "{file}");
        }
        assert!(matches!(file_name(""), Err(Error::PlaceName(_))));
        assert!(matches!(file_name(&"x".repeat(201)), Err(Error::PlaceName(_))));
    }
}
