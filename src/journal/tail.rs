//! The newest records, in memory, for readers that keep up.

use std::{collections::VecDeque, sync::Mutex};

use bytes::Bytes;

use super::{Item, Position, lock};

/// What a record costs here beside its payload.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// A window over the end of the journal, bounded in bytes. Positions in it have no gaps.
pub(super) struct Tail {
    max_bytes: usize,
    inner: Mutex<Inner>,
}

struct Inner {
    first: u64,
    bytes: usize,
    records: VecDeque<Bytes>,
}

impl Tail {
    /// An empty tail whose first record will be at `first`.
    pub fn new(first: u64, max_bytes: usize) -> Tail {
        Tail { max_bytes, inner: Mutex::new(Inner { first, bytes: 0, records: VecDeque::new() }) }
    }

    /// Adds records at the end and lets the oldest go.
    pub fn push(&self, payloads: impl Iterator<Item = Bytes>) {
        let mut inner = lock(&self.inner);
        for payload in payloads {
            inner.bytes += payload.len() + RECORD_OVERHEAD_BYTES;
            inner.records.push_back(payload);
        }
        while inner.bytes > self.max_bytes {
            let Some(oldest) = inner.records.pop_front() else { break };
            inner.bytes -= oldest.len() + RECORD_OVERHEAD_BYTES;
            inner.first += 1;
        }
    }

    /// Records from `from`, which is below `end`; at least one, then as many as fit the bounds.
    /// `None` if `from` has left the tail.
    pub fn read(
        &self,
        from: u64,
        end: u64,
        max_entries: usize,
        max_bytes: usize,
    ) -> Option<Vec<Item>> {
        let inner = lock(&self.inner);
        let skip = usize::try_from(from.checked_sub(inner.first)?).ok()?;
        let want = usize::try_from(end - from).unwrap_or(usize::MAX).min(max_entries.max(1));
        let mut room = max_bytes;
        let mut items = Vec::with_capacity(want.min(inner.records.len().saturating_sub(skip)));
        for (position, payload) in
            (from..).zip(inner.records.range(skip.min(inner.records.len())..).take(want))
        {
            if !items.is_empty() && payload.len() > room {
                break;
            }
            room = room.saturating_sub(payload.len());
            items.push(Item::Entry(Position(position), payload.clone()));
        }
        (!items.is_empty()).then_some(items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(max_bytes: usize, payloads: &[&'static [u8]]) -> Tail {
        let tail = Tail::new(10, max_bytes);
        tail.push(payloads.iter().map(|bytes| Bytes::from_static(bytes)));
        tail
    }

    fn positions(items: Option<Vec<Item>>) -> Option<Vec<u64>> {
        let position = |item: &Item| match item {
            Item::Entry(position, _) => position.0,
            other => panic!("nothing is damaged in memory: {other:?}"),
        };
        items.map(|items| items.iter().map(position).collect())
    }

    #[test]
    fn records_are_read_from_a_position_within_bounds() {
        let tail = tail(1000, &[b"aa", b"bb", b"cc"]);
        assert_eq!(positions(tail.read(10, 13, 9, 9)), Some(vec![10, 11, 12]));
        assert_eq!(positions(tail.read(11, 12, 9, 9)), Some(vec![11]));
        assert_eq!(positions(tail.read(10, 13, 2, 9)), Some(vec![10, 11]));
        assert_eq!(positions(tail.read(10, 13, 9, 3)), Some(vec![10]));
        assert_eq!(positions(tail.read(10, 13, 0, 0)), Some(vec![10]));
    }

    #[test]
    fn what_does_not_fit_leaves_oldest_first() {
        let tail = tail(2 * (RECORD_OVERHEAD_BYTES + 2), &[b"aa", b"bb", b"cc"]);
        assert_eq!(positions(tail.read(10, 13, 9, 9)), None);
        assert_eq!(positions(tail.read(11, 13, 9, 9)), Some(vec![11, 12]));
    }

    #[test]
    fn a_position_not_yet_here_is_not_read() {
        assert_eq!(positions(tail(1000, &[]).read(10, 11, 9, 9)), None);
        assert_eq!(positions(tail(1000, &[b"aa"]).read(12, 13, 9, 9)), None);
    }
}
