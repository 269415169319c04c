//! Which records are under way, and where the cursor stands.
//!
//! The window holds every record with messages of ours from the *saved* cursor on: those settled
//! but not yet below a saved cursor too, since a crash brings them back. Bounding the window
//! therefore bounds both what is in flight and what a crash publishes again.

use std::collections::VecDeque;

use crate::journal::Position;

/// How much may be under way at once.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub messages: usize,
    /// Of records, with their bodies.
    pub bytes: usize,
}

/// The window of one lane.
#[derive(Debug)]
pub struct Window {
    capacity: Capacity,
    /// Records with messages of ours at or above the saved cursor, in order.
    records: VecDeque<Slot>,
    /// How many of the first records are settled, and what they hold.
    settled: usize,
    settled_messages: usize,
    settled_bytes: usize,
    messages: usize,
    unsettled: usize,
    bytes: usize,
    /// The next position to read.
    next: Position,
    saved: Position,
}

#[derive(Debug)]
struct Slot {
    position: Position,
    /// When its event was received, Unix milliseconds.
    time_ms: u64,
    messages: usize,
    unsettled: usize,
    bytes: usize,
}

impl Window {
    /// An empty window that starts at a saved cursor.
    pub fn new(saved: Position, capacity: Capacity) -> Window {
        Window {
            capacity,
            records: VecDeque::new(),
            settled: 0,
            settled_messages: 0,
            settled_bytes: 0,
            messages: 0,
            unsettled: 0,
            bytes: 0,
            next: saved,
            saved,
        }
    }

    /// How many more messages may be taken in; 0 when full. One record may exceed it.
    pub fn room(&self) -> usize {
        if self.bytes >= self.capacity.bytes {
            return 0;
        }
        self.capacity.messages.saturating_sub(self.messages)
    }

    /// A record was read: when its event was received, how many messages of ours it owes, and its
    /// size. Records come in order.
    pub fn take(&mut self, position: Position, time_ms: u64, messages: usize, bytes: usize) {
        debug_assert!(position >= self.next);
        self.next = position.next();
        if messages > 0 {
            self.messages += messages;
            self.unsettled += messages;
            self.bytes += bytes;
            let unsettled = messages;
            self.records.push_back(Slot { position, time_ms, messages, unsettled, bytes });
        }
    }

    /// Positions up to, not including, `to` hold nothing for us.
    pub fn skip(&mut self, to: Position) {
        self.next = self.next.max(to);
    }

    /// One message of this record is settled.
    pub fn settle(&mut self, position: Position) {
        let Ok(at) = self.records.binary_search_by_key(&position, |slot| slot.position) else {
            debug_assert!(false, "settled a position that is not in the window");
            return;
        };
        let slot = &mut self.records[at];
        if slot.unsettled > 0 {
            slot.unsettled -= 1;
            self.unsettled -= 1;
        }
        while let Some(slot) = self.records.get(self.settled)
            && slot.unsettled == 0
        {
            self.settled += 1;
            self.settled_messages += slot.messages;
            self.settled_bytes += slot.bytes;
        }
    }

    /// How many messages are not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// When the event of the first record that is not settled was received, Unix milliseconds.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.records.get(self.settled).map(|slot| slot.time_ms)
    }

    /// The lowest position not settled.
    pub fn cursor(&self) -> Position {
        self.records.get(self.settled).map_or(self.next, |slot| slot.position)
    }

    /// The cursor as last saved.
    pub fn saved(&self) -> Position {
        self.saved
    }

    /// Everything below `cursor`, at most [`cursor`](Self::cursor), is saved as settled and leaves
    /// the window.
    pub fn save(&mut self, cursor: Position) {
        debug_assert!(cursor <= self.cursor());
        self.saved = cursor;
        while self.records.front().is_some_and(|slot| slot.position < cursor) {
            let Some(slot) = self.records.pop_front() else { break };
            // Only settled records lie below a cursor.
            self.settled -= 1;
            self.settled_messages -= slot.messages;
            self.settled_bytes -= slot.bytes;
            self.messages -= slot.messages;
            self.bytes -= slot.bytes;
        }
    }

    /// Whether saving now would free at least half of the window.
    pub fn wants_saving(&self) -> bool {
        self.settled_messages >= self.capacity.messages / 2
            || self.settled_bytes >= self.capacity.bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: Capacity = Capacity { messages: 4, bytes: 1000 };

    fn window() -> Window {
        Window::new(Position(0), CAPACITY)
    }

    #[test]
    fn the_cursor_is_the_lowest_unsettled_position() {
        let mut window = window();
        window.take(Position(0), 100, 0, 10);
        assert_eq!(window.oldest_ms(), None);
        window.take(Position(1), 101, 2, 10);
        window.take(Position(2), 102, 1, 10);
        assert_eq!((window.cursor(), window.oldest_ms()), (Position(1), Some(101)));
        window.settle(Position(2));
        window.settle(Position(1));
        assert_eq!(window.cursor(), Position(1));
        window.settle(Position(1));
        assert_eq!((window.cursor(), window.oldest_ms()), (Position(3), None));
        window.skip(Position(9));
        assert_eq!(window.cursor(), Position(9));
    }

    #[test]
    fn what_is_settled_but_not_saved_still_fills_the_window() {
        let mut window = window();
        for n in 0..4 {
            window.take(Position(n), 1, 1, 10);
        }
        assert_eq!(window.room(), 0);
        assert_eq!(window.unsettled(), 4);
        for n in 0..4 {
            window.settle(Position(n));
        }
        assert_eq!((window.room(), window.unsettled()), (0, 0));
        assert!(window.wants_saving());
        window.save(Position(3));
        assert_eq!(window.room(), 3);
        assert!(!window.wants_saving());
    }

    #[test]
    fn bytes_bound_the_window_too() {
        let mut window = window();
        window.take(Position(0), 1, 1, 1000);
        assert_eq!(window.room(), 0);
        window.settle(Position(0));
        window.save(window.cursor());
        assert_eq!(window.room(), 4);
    }

    proptest! {
        #[test]
        fn the_cursor_never_goes_back_and_never_passes_an_unsettled_message(
            steps in prop::collection::vec((0usize..4, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut window = window();
            let mut open: Vec<Position> = Vec::new();
            let (mut next, mut before) = (0, Position(0));
            for (step, pick) in steps {
                match step {
                    0 | 1 if window.room() > 0 => {
                        let messages = step * 2 % 3;
                        window.take(Position(next), 1, messages, 1);
                        open.extend(std::iter::repeat_n(Position(next), messages));
                        next += 1;
                    }
                    2 if !open.is_empty() => {
                        let settled = open.swap_remove(pick.index(open.len()));
                        window.settle(settled);
                    }
                    3 => window.save(window.cursor()),
                    _ => {}
                }
                let expected = open.iter().min().copied().unwrap_or(Position(next));
                prop_assert_eq!(window.cursor(), expected);
                prop_assert!(window.cursor() >= before);
                before = window.cursor();
            }
        }
    }
}
