//! The segments in force: which file holds a position, and how many bytes there are.

use std::{collections::BTreeMap, sync::Mutex};

use super::{lock, segment::DATA_START};

/// Distance of the places in a segment that are remembered while it is written, so that a reader
/// that falls behind the tail need not walk a whole segment to find its own.
const MARK_EVERY_BYTES: u64 = 1 << 20;

/// A segment's place in the journal. Its range ends where the next one starts; a frame at or past
/// that is superseded.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub base: u64,
    /// `None` if its header and its first frame are damaged.
    pub marker: Option<u64>,
    /// Length; of the active segment, what is durable of it.
    pub bytes: u64,
    /// Known places: position and byte offset, ascending.
    marks: Vec<(u64, u64)>,
}

impl Segment {
    pub fn new(base: u64, marker: Option<u64>, bytes: u64) -> Segment {
        Segment { base, marker, bytes, marks: Vec::new() }
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
    /// The nearest known place at or below the position asked for.
    pub near: (u64, u64),
}

/// All segments, by base. There is always an active one, the last.
pub(super) struct Segments(Mutex<State>);

struct State {
    by_base: BTreeMap<u64, Segment>,
    total_bytes: u64,
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

    /// The lowest position there is a segment for.
    pub fn first(&self) -> u64 {
        lock(&self.0).by_base.keys().next().copied().unwrap_or(0)
    }

    pub fn bytes(&self) -> u64 {
        lock(&self.0).total_bytes
    }

    /// Bytes of the segments that hold `position` or come after it.
    pub fn bytes_from(&self, position: u64) -> u64 {
        let state = lock(&self.0);
        let from = state.by_base.range(..=position).next_back().map_or(0, |(base, _)| *base);
        state.by_base.range(from..).map(|(_, segment)| segment.bytes).sum()
    }

    /// The segment whose range holds `position`; `None` below the first.
    pub fn locate(&self, position: u64) -> Option<Located> {
        let state = lock(&self.0);
        let (base, segment) = state.by_base.range(..=position).next_back()?;
        let known = segment.marks.partition_point(|mark| mark.0 <= position);
        let near = known.checked_sub(1).map_or((*base, DATA_START), |at| segment.marks[at]);
        Some(Located {
            base: *base,
            marker: segment.marker,
            bytes: segment.bytes,
            limit: state.by_base.range(position + 1..).next().map(|(base, _)| *base),
            near,
        })
    }

    /// The lowest segment, if all of its range lies below `position`.
    pub fn passed(&self, position: u64) -> Option<u64> {
        let state = lock(&self.0);
        let mut bases = state.by_base.keys();
        let first = *bases.next()?;
        bases.next().filter(|next| **next <= position).map(|_| first)
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
    fn the_active_segment_is_never_passed() {
        let segments = three();
        assert_eq!(segments.passed(9), None);
        assert_eq!(segments.passed(10), Some(0));
        segments.remove(0);
        segments.remove(10);
        assert_eq!(segments.passed(1000), None);
    }

    #[test]
    fn a_reader_starts_near_its_position() {
        let segments = three();
        segments.grown(30, 4 << 20, 500, 2 << 20);
        assert_eq!(segments.locate(499).unwrap().near, (30, DATA_START));
        assert_eq!(segments.locate(501).unwrap().near, (500, 2 << 20));
    }
}
