//! Which records are under way: read and not settled, or settled and not durably so.
//!
//! What is settled and not yet durable counts too, since a crash brings it back. Bounding the window
//! therefore bounds both what is in flight and what a crash publishes again.

use std::collections::{BTreeMap, VecDeque};

use crate::journal::{Durable, Position, Stamp};

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
    /// Records with messages of ours that are not settled.
    records: BTreeMap<Position, Slot>,
    /// What was settled and is not known to be durable, in the order in which it was.
    settled: VecDeque<(Stamp, Position, Held)>,
    /// Messages of ours that are not settled.
    unsettled: usize,
    /// All that is under way, and of that what is settled.
    held: Held,
    held_settled: Held,
}

#[derive(Debug)]
struct Slot {
    /// When its event was received, Unix milliseconds.
    time_ms: u64,
    unsettled: usize,
    held: Held,
}

/// How much of the window something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    messages: usize,
    bytes: usize,
}

impl Held {
    fn add(&mut self, other: Held) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }

    fn take(&mut self, other: Held) {
        self.messages -= other.messages;
        self.bytes -= other.bytes;
    }
}

impl Window {
    /// An empty window.
    pub fn new(capacity: Capacity) -> Window {
        Window {
            capacity,
            records: BTreeMap::new(),
            settled: VecDeque::new(),
            unsettled: 0,
            held: Held::default(),
            held_settled: Held::default(),
        }
    }

    /// How many more messages may be taken in; 0 when full. One record may exceed it.
    pub fn room(&self) -> usize {
        if self.held.bytes >= self.capacity.bytes {
            return 0;
        }
        self.capacity.messages.saturating_sub(self.held.messages)
    }

    /// A record was read: when its event was received, how many messages of ours it owes, at least
    /// one, and its size.
    pub fn take(&mut self, position: Position, time_ms: u64, messages: usize, bytes: usize) {
        debug_assert!(messages > 0);
        let held = Held { messages, bytes };
        self.held.add(held);
        self.unsettled += messages;
        self.records.insert(position, Slot { time_ms, unsettled: messages, held });
    }

    /// One message of this record is settled. Whether that was its last: then its place is to be told,
    /// and the window [when](Self::settled).
    pub fn settle(&mut self, position: Position) -> bool {
        let Some(slot) = self.records.get_mut(&position) else {
            debug_assert!(false, "settled a position that is not in the window");
            return false;
        };
        slot.unsettled -= 1;
        self.unsettled -= 1;
        slot.unsettled == 0
    }

    /// A record whose messages are all settled is so at this stamp; without one, at once.
    pub fn settled(&mut self, position: Position, stamp: Option<Stamp>) {
        let Some(Slot { held, .. }) = self.records.remove(&position) else { return };
        match stamp {
            Some(stamp) => {
                self.held_settled.add(held);
                self.settled.push_back((stamp, position, held));
            }
            None => self.held.take(held),
        }
    }

    /// What is durable leaves the window.
    pub fn durable(&mut self, durable: Durable) {
        let reached = self.settled.partition_point(|(stamp, ..)| *stamp <= durable.stamp);
        let mut stays = Vec::new();
        for settled in self.settled.drain(..reached) {
            let (stamp, position, held) = settled;
            if durable.holds(position, stamp) {
                self.held_settled.take(held);
                self.held.take(held);
            } else {
                stays.push(settled);
            }
        }
        stays.into_iter().rev().for_each(|settled| self.settled.push_front(settled));
    }

    /// How many messages are not settled.
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// When the event of the first record that is not settled was received, Unix milliseconds.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.records.first_key_value().map(|(_, slot)| slot.time_ms)
    }

    /// Whether making durable what is settled would free at least half of the window.
    pub fn wants_saving(&self) -> bool {
        self.held_settled.messages >= self.capacity.messages / 2
            || self.held_settled.bytes >= self.capacity.bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::journal::{Entry, Journal, Options, Place, RealDisk};

    const CAPACITY: Capacity = Capacity { messages: 4, bytes: 1000 };

    /// A journal of so many records, and somebody's place in it.
    async fn place(records: u64) -> (tempfile::TempDir, Place, Vec<Position>) {
        let dir = tempfile::tempdir().unwrap();
        let opened = Journal::open(Arc::new(RealDisk), dir.path(), Options::default()).unwrap();
        let place = opened.journal.place("a").unwrap();
        let mut positions = Vec::new();
        for _ in 0..records {
            positions.push(opened.journal.append_durable(Entry::default()).await.unwrap());
        }
        (dir, place, positions)
    }

    fn finish(window: &mut Window, place: &Place, position: Position) {
        if window.settle(position) {
            window.settled(position, Some(place.settle(position)));
        }
    }

    #[tokio::test]
    async fn a_record_is_settled_with_its_last_message() {
        let (_dir, place, at) = place(3).await;
        let mut window = Window::new(CAPACITY);
        window.take(at[1], 101, 2, 10);
        window.take(at[2], 102, 1, 10);
        assert_eq!((window.unsettled(), window.oldest_ms()), (3, Some(101)));
        finish(&mut window, &place, at[2]);
        finish(&mut window, &place, at[1]);
        assert_eq!((window.unsettled(), window.oldest_ms()), (1, Some(101)));
        assert_eq!(place.behind().records, 2);
        finish(&mut window, &place, at[1]);
        assert_eq!((window.unsettled(), window.oldest_ms()), (0, None));
    }

    #[tokio::test]
    async fn what_is_settled_and_not_durable_still_fills_the_window() {
        let (_dir, place, at) = place(4).await;
        let mut window = Window::new(CAPACITY);
        at.iter().for_each(|position| window.take(*position, 1, 1, 10));
        assert_eq!((window.room(), window.unsettled()), (0, 4));
        at.iter().rev().for_each(|position| finish(&mut window, &place, *position));
        window.durable(place.durable());
        assert_eq!((window.room(), window.unsettled(), window.wants_saving()), (0, 0, true));
        place.save().unwrap();
        window.durable(place.durable());
        assert_eq!((window.room(), window.wants_saving()), (4, false));
    }

    #[tokio::test]
    async fn what_a_place_cannot_write_down_stays_in_the_window() {
        let (_dir, place, at) = place(600).await;
        let mut window = Window::new(Capacity { messages: 600, bytes: 1 << 20 });
        at.iter().for_each(|position| window.take(*position, 1, 1, 10));
        at.iter().skip(1).step_by(2).for_each(|position| finish(&mut window, &place, *position));
        place.save().unwrap();
        window.durable(place.durable());
        assert_eq!((window.room(), window.unsettled(), place.due()), (256, 300, None));
        at.iter().step_by(2).for_each(|position| finish(&mut window, &place, *position));
        place.save().unwrap();
        window.durable(place.durable());
        assert_eq!(window.room(), 600);
    }

    #[tokio::test]
    async fn bytes_bound_the_window_too() {
        let (_dir, place, at) = place(2).await;
        let mut window = Window::new(CAPACITY);
        window.take(at[0], 1, 1, 1000);
        assert_eq!(window.room(), 0);
        finish(&mut window, &place, at[0]);
        place.save().unwrap();
        window.durable(place.durable());
        assert_eq!(window.room(), 4);
        // Without a place to be told, at once.
        window.take(at[1], 1, 1, 1000);
        assert!(window.settle(at[1]));
        window.settled(at[1], None);
        assert_eq!(window.room(), 4);
    }
}
