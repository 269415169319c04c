//! What those who append, read, settle and release rely on, on the simulated and the real disk.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::join_all};
use waypost::journal::{
    AppendError, Entry, Error, Item, Journal, Options, Position, RealDisk, Storage, read_all,
};

use crate::common::{
    journal_disk::{
        DIR, append, entry, files, key, open, open_with, payload, read_from, read_place, small,
        sort, try_open, written,
    },
    sim_disk::SimDisk,
};

/// Everybody has settled all, durably, and what is not needed is gone.
async fn release_all(journal: &Journal) {
    let place = journal.place("all").unwrap();
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_disk_keeps_the_promise_too() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options {
            segment_bytes: 20_000,
            tail_bytes: 5_000,
            batch_bytes: 10_000,
            ..Options::default()
        };
        Journal::open(Arc::new(RealDisk), &dir.path().join("a/b"), options)
    };
    let journal = open().unwrap().journal;
    assert!(matches!(open(), Err(Error::Locked { .. })));
    let mut reader = journal.reader(Position::FIRST);
    let reading = tokio::spawn(async move {
        let mut items = Vec::new();
        while items.len() < 2000 {
            items.extend(reader.next(64, 4000).await.unwrap());
        }
        items
    });
    let appends = (0..2000).map(|n| {
        let entry = Entry { payload: vec![7; n].into(), keys: vec![key(n as u64)], time_ms: 1 };
        let journal = journal.clone();
        tokio::spawn(async move { journal.append_durable(entry).await.unwrap() })
    });
    let mut positions: Vec<Position> = join_all(appends).await.into_iter().flatten().collect();
    positions.sort_unstable();
    let read = reading.await.unwrap();
    assert_eq!(positions, read.iter().map(Item::position).collect::<Vec<_>>());
    let place = journal.place("broker").unwrap();
    for position in &positions[..1990] {
        place.settle(*position);
    }
    place.save().unwrap();
    journal.release().await.unwrap();
    let kept = journal.room().records as usize;
    assert!((10..1990).contains(&kept), "{kept}");
    drop(place);
    journal.close().await;

    let opened = open().unwrap();
    assert_eq!(opened.keys.len(), 2000);
    assert_eq!(read_place(&opened.journal.place("broker").unwrap()).await, read[1990..]);
    let from = positions[2000 - kept];
    assert_eq!(read_from(&opened.journal, from).await, read[2000 - kept..]);
    assert_eq!(opened.journal.trouble(), Default::default());
}

#[tokio::test]
async fn a_second_close_keeps_the_lock_until_the_writer_has_ended() {
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    let (go, wait) = std::sync::mpsc::channel();
    // Holds up the writer's thread.
    let held = Box::new(move |_| wait.recv().unwrap());
    journal.append(entry(0), held).await;
    let mut closing = join_all([journal.clone().close(), journal.close()]);
    // Time enough for a close that does not wait to be seen giving up the lock.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut closing).await;
    assert!(early.is_err(), "closed while the writer was held up");
    assert!(matches!(try_open(&disk).err(), Some(Error::Locked { .. })));
    go.send(()).unwrap();
    closing.await;
    open(&disk);
}

#[tokio::test]
async fn a_completion_is_called_once_or_dropped_with_its_append() {
    let disk = SimDisk::new(1);
    let journal = open_with(&disk, Options { queue: 1, ..small() }).journal;
    let (called, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let mut queued = 0;
    for number in 0..500 {
        let (called, claim) = (called.clone(), alive.clone());
        let done = Box::new(move |_| {
            drop(claim);
            called.fetch_add(1, Ordering::SeqCst);
        });
        // Polled once and dropped: queued if there was room.
        queued += usize::from(journal.append(entry(number), done).now_or_never().is_some());
    }
    let other = journal.clone();
    journal.close().await;
    assert_eq!(called.load(Ordering::SeqCst), queued);
    assert_eq!(other.room().records, queued as u64);
    assert_eq!(Arc::strong_count(&alive), 1, "every claim was given back");
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_refused_at_once() {
    let options = Options { max_record_bytes: 48 + 16 + 39, ..small() };
    let journal = open_with(&SimDisk::new(1), options).journal;
    let result = journal.append_durable(entry(0)).await;
    assert!(matches!(result, Err(AppendError::TooLarge)), "{result:?}");
}

#[tokio::test]
async fn a_reader_that_is_dropped_while_reading_loses_nothing() {
    let disk = written(0..30).await;
    let journal = open(&disk).journal;
    let mut reader = journal.reader(Position::FIRST);
    let mut items = Vec::new();
    while items.len() < 30 {
        // Given up at the first point where it waits.
        assert!(reader.next(4, 1000).now_or_never().is_none_or(|read| read.is_ok()));
        let position = reader.position();
        if let Some(read) = journal.reader(position).next(2, 1000).now_or_never() {
            read.unwrap();
        }
        reader = journal.reader(items.last().map_or(Position::FIRST, Item::next_position));
        items.extend(reader.next(4, 1000).await.unwrap());
    }
    assert_eq!(sort(&items).0, Vec::from_iter(0..30));
}

#[tokio::test]
async fn a_reader_waits_for_what_is_durable() {
    let journal = open_with(&SimDisk::new(1), Options::default()).journal;
    let mut reader = journal.reader(Position::FIRST);
    assert!(reader.next(1, 1).now_or_never().is_none());
    append(&journal, 0..1).await;
    // From memory: without a visit to the disk there is nothing to wait for.
    let items = reader.next(1, 1).now_or_never().unwrap().unwrap();
    assert_eq!(items, [Item::Entry(Position::FIRST, payload(0))]);
}

#[tokio::test]
async fn only_whole_segments_below_are_released_and_never_the_active_one() {
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    let place = journal.place("a").unwrap();
    append(&journal, 0..10).await;
    let full = journal.room();
    let first = read_from(&journal, Position::FIRST).await[0].position();
    place.settle(first);
    place.save().unwrap();
    journal.release().await.unwrap();
    assert_eq!(journal.room(), full);
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
    let left = journal.room();
    assert!(left.bytes < full.bytes && (1..10).contains(&left.records), "{left:?}");
    assert_eq!(files(&disk, ".seg").len(), 1);
    let (delivered, gone) = sort(&read_from(&journal, Position::FIRST).await);
    assert_eq!(gone, Vec::from_iter(0..10 - left.records));
    assert_eq!(delivered, Vec::from_iter(10 - left.records..10));
}

#[tokio::test]
async fn keys_outlive_their_segment_until_they_are_too_old() {
    let disk = written(0..12).await;
    let journal = open(&disk).journal;
    release_all(&journal).await;
    journal.close().await;
    let times = |options: Options| {
        let opened = open_with(&SimDisk::holding(disk.image(), 1), options);
        opened.keys.iter().map(|(_, time_ms)| *time_ms).collect::<Vec<_>>()
    };
    assert_eq!(times(small()), Vec::from_iter(0..12));
    assert_eq!(times(Options { max_keys: 5, ..small() }), Vec::from_iter(7..12));

    let journal = open(&disk).journal;
    let sidecars = files(&disk, ".keys").len();
    journal.forget_keys(4).await.unwrap();
    assert!(files(&disk, ".keys").len() < sidecars);
    journal.forget_keys(u64::MAX).await.unwrap();
    journal.close().await;
    let bases: Vec<_> =
        files(&disk, ".keys").iter().map(|file| file.with_extension("seg")).collect();
    let segments = files(&disk, ".seg");
    assert!(bases.iter().all(|base| segments.contains(base)), "only beside their segments");
}

#[tokio::test]
async fn keys_that_no_opening_would_return_go_with_their_segment() {
    let disk = written(0..12).await;
    let options = || Options { max_keys: 4, ..small() };
    let journal = open_with(&disk, options()).journal;
    append(&journal, 12..24).await;
    let sidecars = files(&disk, ".keys").len();
    journal.forget_keys(0).await.unwrap();
    assert_eq!(files(&disk, ".keys").len(), sidecars, "their segments are still here");
    release_all(&journal).await;
    journal.forget_keys(0).await.unwrap();
    assert!(files(&disk, ".keys").len() < sidecars);
    journal.close().await;
    let keys = open_with(&disk, options()).keys;
    assert_eq!(keys, (20..24).map(|n| (key(n), n)).collect::<Vec<_>>());
}

#[tokio::test]
async fn another_process_can_read_while_the_journal_is_open() {
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    append(&journal, 0..10).await;
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let items: Result<Vec<Item>, Error> =
        read_all(storage.clone(), Path::new(DIR)).unwrap().collect();
    assert_eq!(sort(&items.unwrap()), ((0..10).collect(), vec![]));

    disk.damage(&files(&disk, ".seg")[1], |bytes| bytes[4096 + 100] ^= 1);
    let items: Result<Vec<Item>, Error> = read_all(storage, Path::new(DIR)).unwrap().collect();
    let (delivered, damaged) = sort(&items.unwrap());
    assert_eq!((delivered.len(), damaged.len()), (9, 1));
}

#[tokio::test]
async fn a_completion_that_panics_ends_the_journal_and_says_so() {
    let journal = open(&SimDisk::new(1)).journal;
    journal.append(entry(0), Box::new(|_| panic!("on purpose"))).await;
    assert!(matches!(*journal.failed().await, Error::Panicked));
    let late = journal.append_durable(entry(1)).await;
    assert!(matches!(late, Err(AppendError::Failed(_) | AppendError::Closed)), "{late:?}");
    journal.close().await;
}

#[tokio::test]
async fn a_reader_follows_segments_that_grow_and_roll_under_it() {
    let journal = open(&SimDisk::new(3)).journal;
    let mut reader = journal.reader(Position::FIRST);
    let mut items = Vec::new();
    for number in 0..40 {
        append(&journal, number..number + 1).await;
        // Every third time only, so that it is sometimes in the middle and sometimes at the end.
        while number % 3 == 0 && reader.position() < journal.fence() {
            items.extend(reader.next(2, usize::MAX).await.unwrap());
        }
    }
    assert_eq!(sort(&items), ((0..40).collect(), vec![]));
}
