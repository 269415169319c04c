//! Short words for tests that write to a journal on a simulated disk.

use std::{path::Path, path::PathBuf, sync::Arc};

use bytes::Bytes;
use waypost::journal::{Entry, Error, Item, Journal, Key, Opened, Options, Position, Storage};

use crate::common::sim_disk::SimDisk;

pub const DIR: &str = "/data/journal";

/// Segments of a few records each.
pub fn small() -> Options {
    Options { segment_bytes: 4096 + 300, tail_bytes: 0, ..Options::default() }
}

pub fn try_open(disk: &SimDisk) -> Result<Opened, Error> {
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), small())
}

pub fn open(disk: &SimDisk) -> Opened {
    try_open(disk).unwrap()
}

/// A payload of 40 bytes that says which it is.
pub fn payload(number: u64) -> Bytes {
    number.to_le_bytes().repeat(5).into()
}

pub fn key(number: u64) -> Key {
    (u128::from(number) + 1).to_le_bytes()
}

pub fn entry(number: u64) -> Entry {
    Entry { payload: payload(number), keys: vec![key(number)], time_ms: number }
}

/// Appends one record a number, each in a batch of its own.
pub async fn append(journal: &Journal, numbers: std::ops::Range<u64>) {
    for number in numbers {
        journal.append_durable(entry(number)).await.unwrap();
    }
}

/// A closed journal with one record a number.
pub async fn written(numbers: std::ops::Range<u64>) -> SimDisk {
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    append(&journal, numbers).await;
    journal.close().await;
    disk
}

/// All there is from a position on.
pub async fn read_from(journal: &Journal, from: Position) -> Vec<Item> {
    let mut reader = journal.reader(from);
    let mut items = Vec::new();
    while reader.position() < journal.end() {
        items.extend(reader.next(100, usize::MAX).await.unwrap());
    }
    items
}

/// The positions that were delivered, and those reported as damaged. Nothing else may be missing,
/// and a payload must be the one of its position.
pub fn sort(items: &[Item]) -> (Vec<u64>, Vec<u64>) {
    let (mut delivered, mut damaged) = (Vec::new(), Vec::new());
    let mut next = None;
    for item in items {
        match item {
            Item::Entry(position, bytes) => {
                assert_eq!(*bytes, payload(position.0), "a wrong payload at {position}");
                assert!(next.is_none_or(|next| next == *position), "{next:?} is skipped silently");
                delivered.push(position.0);
            }
            Item::Damaged { from, to, .. } => {
                assert!(next.is_none_or(|next| next == *from), "{next:?} is skipped silently");
                damaged.extend(from.0..to.0);
            }
        }
        next = Some(item.next_position());
    }
    (delivered, damaged)
}

/// Files of the journal that end so, in order.
pub fn files(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    let dir = Path::new(DIR);
    let mut names = disk.list(dir).unwrap();
    names.retain(|name| name.ends_with(suffix));
    names.sort_unstable();
    names.into_iter().map(|name| dir.join(name)).collect()
}
