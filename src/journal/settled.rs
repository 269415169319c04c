//! Which positions are settled: all below a cursor, and ranges above it.

use std::collections::BTreeMap;

/// A set of positions that only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    cursor: u64,
    /// Start to end of each range: disjoint, not touching, above the cursor.
    above: BTreeMap<u64, u64>,
}

impl Settled {
    /// All below `cursor`.
    pub fn below(cursor: u64) -> Settled {
        Settled { cursor, above: BTreeMap::new() }
    }

    /// The lowest position that is not settled.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The ranges above the cursor, lowest first.
    pub fn above(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.above.iter().map(|(from, to)| (*from, *to))
    }

    /// One past the highest position that is settled.
    pub fn end(&self) -> u64 {
        self.above.last_key_value().map_or(self.cursor, |(_, to)| *to)
    }

    /// Positions `from` up to, not including, `to` are settled. Whether that is news.
    pub fn settle(&mut self, from: u64, to: u64) -> bool {
        if from.max(self.cursor) >= to {
            return false;
        }
        if from <= self.cursor {
            self.cursor = to;
        } else {
            let (mut from, mut to) = (from, to);
            if let Some((start, end)) = self.range_at(from, true) {
                if end >= to {
                    return false;
                }
                from = start;
            }
            while let Some((start, end)) = self.above.range(from..=to).next().map(pair) {
                self.above.remove(&start);
                to = to.max(end);
            }
            self.above.insert(from, to);
        }
        while let Some(entry) = self.above.first_entry()
            && *entry.key() <= self.cursor
        {
            self.cursor = self.cursor.max(entry.remove());
        }
        true
    }

    /// The range that holds `position`, or with `touching` ends at it.
    fn range_at(&self, position: u64, touching: bool) -> Option<(u64, u64)> {
        let range = self.above.range(..=position).next_back().map(pair)?;
        (range.1 > position || touching && range.1 == position).then_some(range)
    }

    /// The first position from `from` on that is not settled.
    pub fn next_open(&self, from: u64) -> u64 {
        let from = from.max(self.cursor);
        self.range_at(from, false).map_or(from, |(_, to)| to)
    }

    /// Where the first settled range from `from` on begins, if there is one.
    pub fn next_settled(&self, from: u64) -> Option<u64> {
        if from < self.cursor || self.range_at(from, false).is_some() {
            return Some(from);
        }
        self.above.range(from..).next().map(|(start, _)| *start)
    }

    /// Whether all of `from` up to `to` is settled.
    pub fn covers(&self, from: u64, to: u64) -> bool {
        self.next_open(from) >= to
    }

    /// How many of `from` up to `to` are not settled.
    pub fn open_in(&self, from: u64, to: u64) -> u64 {
        let (mut open, mut at) = (0, self.next_open(from));
        while at < to {
            let end = self.next_settled(at).unwrap_or(to).min(to);
            open += end - at;
            at = self.next_open(end);
        }
        open
    }

    /// All that either says.
    pub fn unite(&mut self, other: &Settled) {
        self.settle(0, other.cursor);
        for (from, to) in other.above() {
            self.settle(from, to);
        }
    }

    /// The same with at most so many ranges: the highest are left out, and count as not settled.
    pub fn with_ranges(&self, most: usize) -> Settled {
        let above = self.above.iter().take(most).map(|(from, to)| (*from, *to)).collect();
        Settled { cursor: self.cursor, above }
    }
}

fn pair((from, to): (&u64, &u64)) -> (u64, u64) {
    (*from, *to)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_cursor_passes_what_is_settled_above_it() {
        let mut settled = Settled::below(5);
        assert!(settled.settle(7, 8) && settled.settle(9, 12));
        assert_eq!((settled.cursor(), settled.end()), (5, 12));
        assert!(!settled.settle(0, 3) && !settled.settle(10, 11));
        assert!(settled.settle(8, 9));
        assert_eq!(settled.above().collect::<Vec<_>>(), [(7, 12)]);
        assert!(settled.settle(5, 7));
        assert_eq!((settled.cursor(), settled.above().len()), (12, 0));
    }

    #[test]
    fn what_is_beyond_the_most_ranges_counts_as_open() {
        let mut settled = Settled::below(0);
        for at in [2, 4, 6] {
            settled.settle(at, at + 1);
        }
        let cut = settled.with_ranges(2);
        assert_eq!((cut.covers(4, 5), cut.covers(6, 7), cut.cursor()), (true, false, 0));
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_set_holds(
            ranges in prop::collection::vec((0_u64..60, 0_u64..12), 0..40), split in 0_usize..40,
        ) {
            let (mut set, mut plain) = (Settled::default(), BTreeSet::new());
            let mut halves = [Settled::default(), Settled::default()];
            for (at, (from, len)) in ranges.into_iter().enumerate() {
                let news = (from..from + len).any(|position| !plain.contains(&position));
                prop_assert_eq!(set.settle(from, from + len), news);
                halves[usize::from(at < split)].settle(from, from + len);
                plain.extend(from..from + len);
            }
            let [mut united, other] = halves;
            united.unite(&other);
            prop_assert_eq!(&united, &set);
            let open = |from: u64| (from..).find(|position| !plain.contains(position)).unwrap();
            prop_assert_eq!(set.cursor(), open(0));
            for from in 0..80 {
                prop_assert_eq!(set.next_open(from), open(from));
                let settled = plain.range(from..).next().copied();
                prop_assert_eq!(set.next_settled(from), settled);
                let count = (from..80).filter(|position| !plain.contains(position)).count();
                prop_assert_eq!(set.open_in(from, 80), count as u64);
                prop_assert_eq!(set.covers(from, from + 3), open(from) >= from + 3);
            }
            prop_assert!(set.above().all(|(from, to)| set.cursor() < from && from < to));
        }
    }
}
