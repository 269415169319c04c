//! A full journal, a full disk, a sync that fails: nothing is answered that is not durable, and it goes
//! on by itself.

use std::{path::Path, sync::Arc};

use waypost::journal::{AppendError, Error, Position, Reserve};

use crate::common::{
    journal_disk::{DIR, append, entry, open, read_from, sort, try_open, written},
    sim_disk::SimDisk,
};

/// Where frames start in a segment file.
const DATA_START: usize = 4096;

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_by_itself() {
    // Every amount of room, over a roll: the refusal comes at every step of writing.
    for room in (0..DATA_START as u64 + 2000).step_by(37) {
        let disk = SimDisk::new(room);
        let journal = open(&disk).journal;
        disk.set_room(Some(room));
        let mut taken = 0;
        let refused = loop {
            match journal.append_durable(entry(taken)).await {
                Ok(position) => assert_eq!(position.ordinal(), taken),
                Err(error) => break error,
            }
            taken += 1;
        };
        assert!(matches!(refused, AppendError::NoSpace), "{refused}");
        disk.set_room(None);
        append(&journal, taken..taken + 5).await;
        journal.close().await;
        let journal = open(&disk).journal;
        let (delivered, damaged) = sort(&read_from(&journal, Position::FIRST).await);
        assert_eq!((delivered, damaged), ((0..taken + 5).collect(), vec![]), "{room} bytes");
        journal.close().await;
    }
}

#[tokio::test]
async fn opening_on_a_full_disk_says_so_and_loses_nothing() {
    let image = written(0..5).await.image();
    let mut opened = 0;
    for room in (0..3 * DATA_START as u64).step_by(41) {
        let disk = SimDisk::holding(image.clone(), room);
        disk.set_room(Some(room));
        match try_open(&disk) {
            Ok(journal) => {
                opened += 1;
                journal.journal.close().await;
            }
            Err(error) => assert!(error.is_no_space(), "{error}"),
        }
        disk.set_room(None);
        let image = disk.image().power_lost(&mut fastrand::Rng::with_seed(room));
        let again = open(&SimDisk::holding(image, room));
        let items = read_from(&again.journal, Position::FIRST).await;
        assert_eq!(sort(&items), (Vec::from_iter(0..5), vec![]), "{room} bytes");
        assert_eq!(again.keys.len(), 5, "{room} bytes");
        again.journal.close().await;
    }
    assert!(opened > 0);
}

#[tokio::test]
async fn a_reserve_is_what_an_opening_on_a_full_disk_needs_and_is_kept_from_others() {
    const RESERVE_BYTES: u64 = 256 << 10;
    let disk = written(0..5).await;
    let path = Path::new("/data/reserve").to_owned();
    let reserve = Reserve::new(Arc::new(disk.clone()), path.clone(), RESERVE_BYTES);
    reserve.fill().unwrap();
    assert_eq!(disk.read(&path).len() as u64, RESERVE_BYTES);
    disk.set_room(Some(0));
    assert!(try_open(&disk).is_err_and(|error| error.is_no_space()));
    let opened = reserve.open(|| try_open(&disk), Error::is_no_space).unwrap();
    assert_eq!(sort(&read_from(&opened.journal, Position::FIRST).await).0, Vec::from_iter(0..5));
    drop(opened.journal.place("a").unwrap());

    // As much of it as there is goes back, and nobody else gets it.
    reserve.fill().unwrap();
    let kept = disk.read(&path).len() as u64;
    assert!((1..RESERVE_BYTES).contains(&kept), "{kept}");
    // Nor while it is looked after again: at no moment does it hold less than it did.
    disk.record();
    reserve.fill().unwrap();
    for (moment, image) in disk.images().into_iter().enumerate() {
        let held = SimDisk::holding(image, 1).read(&path).len() as u64;
        assert!(held >= kept, "{held} of {kept} bytes before operation {moment}");
    }
    let refused = opened.journal.append_durable(entry(5)).await;
    assert!(matches!(refused, Err(AppendError::NoSpace)), "{refused:?}");
    disk.set_room(None);
    reserve.fill().unwrap();
    assert_eq!(disk.read(&path).len() as u64, RESERVE_BYTES);
    opened.journal.close().await;
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let journal = open(&disk).journal;
        append(&journal, 0..2).await;
        disk.fail_syncs(1);
        for number in 2..4 {
            let result = journal.append_durable(entry(number)).await;
            assert!(matches!(result, Err(AppendError::Failed(_))), "{result:?}");
        }
        assert!(matches!(*journal.failed().await, Error::Sync { .. }));
        journal.close().await;

        // What the cache still holds is made durable by opening, before it is delivered.
        let journal = open(&disk).journal;
        let (seen, _) = sort(&read_from(&journal, Position::FIRST).await);
        assert_eq!(seen, [0, 1, 2]);
        journal.close().await;
        let image = disk.image().power_lost(&mut fastrand::Rng::with_seed(seed));
        let journal = open(&SimDisk::holding(image, seed)).journal;
        assert_eq!(sort(&read_from(&journal, Position::FIRST).await), (seen, vec![]));
    }
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let disk = SimDisk::new(1);
    let first = open(&disk).journal;
    let error = try_open(&disk).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }) && error.to_string().contains(DIR), "{error}");
    first.close().await;
    open(&disk);
}

#[tokio::test]
async fn a_full_disk_is_emptied() {
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    let place = journal.place("a").unwrap();
    append(&journal, 0..20).await;
    disk.set_room(Some(0));
    let refused = journal.append_durable(entry(20)).await;
    assert!(matches!(refused, Err(AppendError::NoSpace)), "{refused:?}");
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
    assert!(journal.room().records < 20);
    append(&journal, 20..22).await;
    let (delivered, damaged) = sort(&read_from(&journal, journal.fence()).await);
    assert_eq!((delivered, damaged), (vec![], vec![]));
    assert_eq!(place.behind().records, 2);
}
