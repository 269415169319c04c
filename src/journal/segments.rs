//! The segments in force: which file holds a position, and how many bytes there are.
//!
//! They stand in a row, each up to where the next begins; the last is the active one. Some stand
//! *aside*: what lies between them and the row is gone, and they are there only because something
//! of them could not be read yet.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    lock,
    segment::{self, DATA_START},
};

/// Distance of the places in a segment that are remembered while it is written, so that a reader
/// that falls behind the tail need not walk a whole segment to find its own.
const MARK_EVERY_BYTES: u64 = 1 << 20;

/// A segment's place in the journal. A frame at or past the end of its range is superseded.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub base: u64,
    /// `None` if it is not known from anywhere.
    pub marker: Option<u64>,
    /// Length; of the active segment, what is durable of it.
    pub bytes: u64,
    /// Newest time among its records, if that is known.
    pub newest_ms: u64,
    /// So many of its highest positions may never have been given.
    pub unsure: u64,
    /// Where the range of one that stands aside ends.
    pub aside_end: Option<u64>,
    /// Known places: position and byte offset, ascending.
    marks: Vec<(u64, u64)>,
}

impl Segment {
    pub fn new(base: u64, marker: Option<u64>, bytes: u64) -> Segment {
        let (newest_ms, unsure, aside_end, marks) = Default::default();
        Segment { base, marker, bytes, newest_ms, unsure, aside_end, marks }
    }
}

/// The segment that holds a position.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub base: u64,
    pub marker: Option<u64>,
    pub bytes: u64,
    /// Where its range ends; `None` for the active segment.
    pub limit: Option<u64>,
    pub newest_ms: u64,
    pub unsure: u64,
    pub is_aside: bool,
    /// The nearest known place at or below the position asked for.
    pub near: (u64, u64),
}

impl Located {
    /// Its file, in the journal's directory `dir`.
    pub fn path(&self, dir: &Path) -> PathBuf {
        match (self.is_aside, self.limit) {
            (true, Some(end)) => aside_dir_of(dir).join(segment::file_name_of(self.base, end)),
            _ => dir.join(segment::file_name(self.base)),
        }
    }
}

/// The directory of the segments of a journal that stand aside.
pub(super) fn aside_dir_of(journal: &Path) -> PathBuf {
    journal.join("aside")
}

/// All segments, by base. There is always an active one, the last.
pub(super) struct Segments(Mutex<State>);

struct State {
    by_base: BTreeMap<u64, Segment>,
    total_bytes: u64,
}

impl State {
    /// Where the range of a segment ends; `None` for the active one.
    fn limit(&self, segment: &Segment) -> Option<u64> {
        let next = || self.by_base.range(segment.base + 1..).next().map(|(base, _)| *base);
        segment.aside_end.or_else(next)
    }

    /// The lowest in the row.
    fn first(&self) -> Option<&Segment> {
        self.by_base.values().find(|segment| segment.aside_end.is_none())
    }

    fn locate(&self, position: u64) -> Option<Located> {
        let (base, segment) = self.by_base.range(..=position).next_back()?;
        let limit = self.limit(segment);
        if limit.is_some_and(|limit| limit <= position) {
            return None;
        }
        let known = segment.marks.partition_point(|mark| mark.0 <= position);
        let near = known.checked_sub(1).map_or((*base, DATA_START), |at| segment.marks[at]);
        let Segment { base, marker, bytes, newest_ms, unsure, aside_end, .. } = *segment;
        let is_aside = aside_end.is_some();
        Some(Located { base, marker, bytes, limit, newest_ms, unsure, is_aside, near })
    }

    /// Bytes of the segments that hold `position` or come after it.
    fn bytes_from(&self, position: u64) -> u64 {
        let reach = |segment: &&Segment| self.limit(segment).is_none_or(|limit| limit > position);
        self.by_base.values().filter(reach).map(|segment| segment.bytes).sum()
    }
}

impl Segments {
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Segments {
        let by_base: BTreeMap<u64, Segment> =
            segments.into_iter().map(|segment| (segment.base, segment)).collect();
        let total_bytes = by_base.values().map(|segment| segment.bytes).sum();
        Segments(Mutex::new(State { by_base, total_bytes }))
    }

    pub fn add(&self, segment: Segment) {
        let mut state = lock(&self.0);
        state.total_bytes += segment.bytes;
        state.by_base.insert(segment.base, segment);
    }

    /// The active segment is durable up to `bytes`; the record at `position` lies at `offset`.
    pub fn grown(&self, base: u64, bytes: u64, position: u64, offset: u64) {
        let mut state = lock(&self.0);
        let Some(segment) = state.by_base.get_mut(&base) else { return };
        let grown = bytes - segment.bytes;
        segment.bytes = bytes;
        let last = segment.marks.last().map_or(DATA_START, |mark| mark.1);
        if offset >= last + MARK_EVERY_BYTES {
            segment.marks.push((position, offset));
        }
        state.total_bytes += grown;
    }

    /// The active segment is about to be closed, at this length.
    pub fn closes(&self, base: u64, bytes: u64, newest_ms: u64) {
        let mut state = lock(&self.0);
        let Some(segment) = state.by_base.get_mut(&base) else { return };
        let grown = bytes - segment.bytes;
        (segment.bytes, segment.newest_ms) = (bytes, newest_ms);
        state.total_bytes += grown;
    }

    /// The lowest position in the row.
    pub fn first(&self) -> u64 {
        lock(&self.0).first().map_or(0, |segment| segment.base)
    }

    pub fn bytes(&self) -> u64 {
        lock(&self.0).total_bytes
    }

    /// Bytes of the segments that hold `position` or come after it.
    pub fn bytes_from(&self, position: u64) -> u64 {
        lock(&self.0).bytes_from(position)
    }

    /// The segment whose range holds `position`; `None` if it is gone.
    pub fn locate(&self, position: u64) -> Option<Located> {
        lock(&self.0).locate(position)
    }

    /// The lowest closed segment in the row.
    pub fn lowest_closed(&self) -> Option<Located> {
        let state = lock(&self.0);
        let base = state.first()?.base;
        state.locate(base).filter(|located| located.limit.is_some())
    }

    /// All but the active one.
    pub fn closed(&self) -> Vec<Located> {
        let state = lock(&self.0);
        let located = state.by_base.keys().filter_map(|base| state.locate(*base));
        located.filter(|located| located.limit.is_some()).collect()
    }

    /// Those that stand aside.
    pub fn aside(&self) -> Vec<Located> {
        let state = lock(&self.0);
        let aside = state.by_base.values().filter(|segment| segment.aside_end.is_some());
        aside.filter_map(|segment| state.locate(segment.base)).collect()
    }

    /// Where to go on from `cursor`, by whole segments, so that less than `bytes` are left from there
    /// on, as far as there are closed ones; `None` if it is so already.
    pub fn excess(&self, cursor: u64, bytes: u64) -> Option<u64> {
        let state = lock(&self.0);
        if state.bytes_from(cursor) < bytes {
            return None;
        }
        let mut at = None;
        while state.bytes_from(at.unwrap_or(cursor)) >= bytes
            && let Some(end) = state.locate(at.unwrap_or(cursor)).and_then(|located| located.limit)
        {
            at = Some(end);
        }
        at
    }

    /// A segment leaves the row and stands aside, up to `end`.
    pub fn set_aside(&self, base: u64, end: u64) {
        if let Some(segment) = lock(&self.0).by_base.get_mut(&base) {
            segment.aside_end = Some(end);
        }
    }

    pub fn remove(&self, base: u64) {
        let mut state = lock(&self.0);
        if let Some(segment) = state.by_base.remove(&base) {
            state.total_bytes -= segment.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Segments {
        Segments::new([(0, 100), (10, 200), (30, 50)].map(|(b, n)| Segment::new(b, Some(1), n)))
    }

    #[test]
    fn a_position_is_in_the_segment_that_starts_at_or_below_it() {
        let segments = three();
        for (position, base, limit) in [(0, 0, Some(10)), (29, 10, Some(30)), (99, 30, None)] {
            let located = segments.locate(position).unwrap();
            assert_eq!((located.base, located.limit), (base, limit), "{position}");
        }
        segments.remove(0);
        assert!(segments.locate(9).is_none());
        assert_eq!(segments.first(), 10);
    }

    #[test]
    fn bytes_are_counted_by_segment() {
        let segments = three();
        assert_eq!(segments.bytes(), 350);
        assert_eq!(segments.bytes_from(12), 250);
        segments.grown(30, 70, 31, 4096);
        assert_eq!((segments.bytes(), segments.bytes_from(40)), (370, 70));
    }

    #[test]
    fn the_active_segment_is_never_a_closed_one() {
        let segments = three();
        assert_eq!(segments.lowest_closed().map(|lowest| lowest.base), Some(0));
        segments.remove(0);
        segments.remove(10);
        assert!(segments.lowest_closed().is_none());
    }

    #[test]
    fn one_that_stands_aside_keeps_its_range_and_counts() {
        let segments = three();
        segments.set_aside(0, 10);
        segments.remove(10);
        assert_eq!((segments.first(), segments.bytes()), (30, 150));
        assert_eq!(segments.locate(9).unwrap().limit, Some(10));
        assert!(segments.locate(10).is_none());
        assert_eq!((segments.bytes_from(4), segments.bytes_from(10)), (150, 50));
        assert_eq!(segments.aside().len(), 1);
    }

    #[test]
    fn what_is_too_much_ends_with_a_segment() {
        let segments = three();
        assert_eq!(segments.excess(0, 351), None);
        assert_eq!(segments.excess(0, 350), Some(10));
        assert_eq!(segments.excess(3, 250), Some(30));
        assert_eq!(segments.excess(30, 50), None);
    }

    #[test]
    fn a_reader_starts_near_its_position() {
        let segments = three();
        segments.grown(30, 4 << 20, 500, 2 << 20);
        assert_eq!(segments.locate(499).unwrap().near, (30, DATA_START));
        assert_eq!(segments.locate(501).unwrap().near, (500, 2 << 20));
    }
}
