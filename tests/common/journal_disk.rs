//! Short words for tests that write to a journal, on a simulated disk above all.

use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use waypost::journal::{
    Damage, Entry, Error, Item, Journal, Key, Opened, Options, Place, Position, Reader, Storage,
};

use crate::common::sim_disk::SimDisk;

pub const DIR: &str = "/data/journal";

/// Longer than anything here takes, so that what takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(10);

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

pub fn open_with(disk: &SimDisk, options: Options) -> Opened {
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap()
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

/// All that a reader gives from where it is, up to what is durable now.
pub async fn read_on(journal: &Journal, reader: &mut Reader) -> Vec<Item> {
    let mut items = Vec::new();
    while reader.position() < journal.fence() {
        items.extend(reader.next(100, usize::MAX).await.unwrap());
    }
    items
}

/// All there is from a position on.
pub async fn read_from(journal: &Journal, from: Position) -> Vec<Item> {
    read_on(journal, &mut journal.reader(from)).await
}

/// All that a place has not settled; what cannot be read for long is waited for in vain.
pub async fn read_place(place: &Place) -> Vec<Item> {
    let left = place.behind().records;
    read_some(&mut place.reader(), left).await
}

/// So many positions.
pub async fn read_some(reader: &mut Reader, mut left: u64) -> Vec<Item> {
    let mut items = Vec::new();
    while left > 0 {
        let next = reader.next(100, usize::MAX);
        let Ok(read) = tokio::time::timeout(PATIENCE, next).await else { break };
        for item in read.unwrap() {
            left = left.saturating_sub(item.next_position().ordinal() - item.position().ordinal());
            items.push(item);
        }
    }
    items
}

/// The positions that were delivered, and those told as damaged, in the order in which they came.
/// Nothing in between may be missing, and a payload must be the one of its position.
pub fn sort(items: &[Item]) -> (Vec<u64>, Vec<u64>) {
    for (item, next) in items.iter().zip(items.iter().skip(1)) {
        assert_eq!(item.next_position(), next.position(), "skipped silently");
    }
    sort_any(items)
}

/// The same where something was settled in between.
pub fn sort_any(items: &[Item]) -> (Vec<u64>, Vec<u64>) {
    let (mut delivered, mut damaged) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Entry(position, bytes) => {
                let number = position.ordinal();
                assert_eq!(*bytes, payload(number), "a wrong payload at {position}");
                delivered.push(number);
            }
            Item::Damaged { from, to, .. } => damaged.extend(from.ordinal()..to.ordinal()),
            Item::Void { .. } => {}
        }
    }
    (delivered, damaged)
}

/// What was lost and is told now, each said to be told.
pub async fn told(journal: &Journal) -> Vec<Damage> {
    let mut told = Vec::new();
    while let Some(damage) = journal.next_lost().now_or_never() {
        journal.told(&damage);
        told.push(damage);
    }
    told
}

/// Files of the journal that end so, in order.
pub fn files(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    files_in(disk, Path::new(DIR), suffix)
}

/// The same in quarantine.
pub fn quarantined(disk: &SimDisk, suffix: &str) -> Vec<PathBuf> {
    files_in(disk, &Path::new(DIR).join("quarantine"), suffix)
}

fn files_in(disk: &SimDisk, dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut names = disk.list(dir).unwrap();
    names.retain(|name| name.ends_with(suffix));
    names.sort_unstable();
    names.into_iter().map(|name| dir.join(name)).collect()
}
