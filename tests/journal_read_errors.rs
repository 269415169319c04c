//! What the disk cannot read is no damage: nothing is skipped for it within the patience, nothing is
//! told as lost, and it comes once it can be read.

use std::{ops::Range, path::Path, time::Duration};

use waypost::journal::{Journal, Options, Place, Storage};

use crate::common::{
    journal_disk::{DIR, append, files, key, quarantined, read_place, read_some, told, written},
    journal_scene::{PLACE, Scene, open, options, sort},
    sim_disk::{SimDisk, Times},
};

const BLOCK_BYTES: u64 = 4096;

fn patient() -> Options {
    Options { read_patience: Duration::from_secs(3600), ..options() }
}

fn impatient() -> Options {
    Options { read_patience: Duration::ZERO, ..options() }
}

/// Every block of a closed segment and of the one that was being written.
fn blocks(scene: &Scene) -> Vec<(&Path, Range<u64>)> {
    let mut blocks = Vec::new();
    for segment in &scene.segments[1..] {
        let size = scene.disk().read(segment).len() as u64;
        let at = (0..size).step_by(BLOCK_BYTES as usize);
        blocks.extend(at.map(|at| (&**segment, at..at + BLOCK_BYTES)));
    }
    blocks
}

/// Time stands still but for those who wait for it; whoever appends must not.
fn stop_time() {
    tokio::time::pause();
}

/// Ends the journal, and time goes on.
async fn close(journal: Journal, place: Place) {
    drop(place);
    journal.close().await;
    tokio::time::resume();
}

async fn nothing_is_lost(journal: &Journal, what: &str) {
    assert_eq!(told(journal).await, [], "{what}");
    let trouble = journal.trouble();
    assert_eq!((trouble.damaged_regions, trouble.lost_regions), (0, 0), "{what}: {trouble:?}");
    assert_eq!(journal.behind(PLACE).1, 0, "{what}");
}

#[tokio::test]
async fn what_heals_in_time_comes_in_order_and_nothing_is_told() {
    let scene = Scene::set().await;
    for (segment, range) in blocks(&scene) {
        for (times, is_open) in [
            (Times::Once, false),
            (Times::Once, true),
            (Times::Reads(7), false),
            (Times::Reads(7), true),
        ] {
            let what = format!("{times:?} at {} of {}, {is_open}", range.start, segment.display());
            let disk = scene.disk();
            if !is_open {
                disk.refuse_reads(segment, range.clone(), times);
            }
            let opened = open(&disk, patient());
            let journal = opened.journal;
            let place = journal.place(PLACE).unwrap();
            if is_open {
                disk.refuse_reads(segment, range.clone(), times);
            }
            stop_time();
            let (delivered, damaged) = sort(&read_place(&place).await);
            assert_eq!(delivered, Vec::from_iter(1..scene.records), "{what}");
            assert_eq!(damaged, Vec::<u64>::new(), "{what}");
            nothing_is_lost(&journal, &what).await;
            assert_eq!(journal.trouble().unread, [], "{what}");
            close(journal, place).await;
            // And all of it is known.
            let opened = open(&disk, patient());
            let known: Vec<_> = opened.keys.iter().map(|(key, _)| *key).collect();
            assert!((0..scene.records).all(|number| known.contains(&key(number))), "{what}");
            nothing_is_lost(&opened.journal, &what).await;
            opened.journal.close().await;
        }
    }
}

#[tokio::test]
async fn within_the_patience_nothing_is_skipped() {
    let scene = Scene::set().await;
    for (segment, range) in blocks(&scene).into_iter().step_by(5) {
        let what = format!("{range:?} of {}", segment.display());
        let disk = scene.disk();
        let journal = open(&disk, patient()).journal;
        let place = journal.place(PLACE).unwrap();
        disk.refuse_reads(segment, range.clone(), Times::UntilHealed);
        stop_time();
        let mut reader = place.reader();
        let (mut came, damaged) = sort(&read_some(&mut reader, scene.records - 1).await);
        assert!(damaged.is_empty() && came == Vec::from_iter(1..=came.len() as u64), "{what}");
        disk.heal();
        let left = scene.records - 1 - came.len() as u64;
        came.extend(sort(&read_some(&mut reader, left).await).0);
        assert_eq!(came, Vec::from_iter(1..scene.records), "{what}");
        nothing_is_lost(&journal, &what).await;
        close(journal, place).await;
    }
}

#[tokio::test]
async fn past_the_patience_what_is_behind_comes_and_the_hole_comes_once_it_heals() {
    let scene = Scene::set().await;
    for (at, (segment, range)) in blocks(&scene).into_iter().enumerate() {
        let what = format!("{range:?} of {}", segment.display());
        let disk = scene.disk();
        // Before the opening, or while it runs.
        let is_before = at % 2 == 0;
        if is_before {
            disk.refuse_reads(segment, range.clone(), Times::UntilHealed);
        }
        let journal = open(&disk, impatient()).journal;
        let place = journal.place(PLACE).unwrap();
        disk.refuse_reads(segment, range.clone(), Times::UntilHealed);
        let next = journal.fence().ordinal();
        assert!(next >= scene.records, "{what}: no position is given twice");
        stop_time();
        let mut reader = place.reader();
        let (mut came, damaged) = sort(&read_some(&mut reader, scene.records - 1).await);
        assert!(damaged.is_empty() && came.is_sorted(), "{what}: {damaged:?}");
        let touched = scene.lies(segment).into_iter().filter(|lies| {
            (lies.bytes.start as u64) < range.end && range.start < lies.bytes.end as u64
        });
        let held: Vec<u64> = touched.map(|lies| lies.number).filter(|n| *n > 0).collect();
        let expected: Vec<u64> = (1..scene.records).filter(|n| !held.contains(n)).collect();
        assert_eq!(came, expected, "{what}");
        nothing_is_lost(&journal, &what).await;
        assert_eq!(journal.trouble().unread.is_empty(), held.is_empty(), "{what}");
        // Somebody settles what came, and is gone.
        if at % 3 == 0 {
            let journal_positions = all_positions(&place).await;
            for position in journal_positions {
                place.settle(position);
            }
            place.save().unwrap();
            close(journal, place).await;
            disk.heal();
            let journal = open(&disk, impatient()).journal;
            let place = journal.place(PLACE).unwrap();
            stop_time();
            let came = sort(&read_place(&place).await);
            assert_eq!(came, (held, vec![]), "{what}, after a start");
            nothing_is_lost(&journal, &what).await;
            close(journal, place).await;
            continue;
        }
        disk.heal();
        let left = place.behind().records - came.len() as u64;
        came.extend(sort(&read_some(&mut reader, left).await).0);
        let mut all = came.clone();
        all.sort_unstable();
        assert_eq!(all, Vec::from_iter(1..scene.records), "{what}");
        let mut last = came[came.len() - held.len()..].to_vec();
        last.sort_unstable();
        assert_eq!(last, held, "{what}: what heals comes last");
        nothing_is_lost(&journal, &what).await;
        assert_eq!(journal.trouble().unread, [], "{what}");
        close(journal, place).await;
    }
}

/// Of all that can be read now.
async fn all_positions(place: &Place) -> Vec<waypost::journal::Position> {
    let items = read_place(place).await;
    items.iter().map(waypost::journal::Item::position).collect()
}

#[tokio::test]
async fn a_segment_of_which_nothing_can_be_read_comes_whole_once_it_heals() {
    let scene = Scene::set().await;
    for segment in &scene.segments {
        let disk = scene.disk();
        disk.refuse_reads(segment, 0..u64::MAX, Times::UntilHealed);
        let journal = open(&disk, impatient()).journal;
        let place = journal.place(PLACE).unwrap();
        stop_time();
        let (came, damaged) = sort(&read_place(&place).await);
        assert!(damaged.is_empty());
        let what = segment.display().to_string();
        nothing_is_lost(&journal, &what).await;
        close(journal, place).await;
        disk.heal();
        let journal = open(&disk, impatient()).journal;
        let place = journal.place(PLACE).unwrap();
        stop_time();
        let (all, damaged) = sort(&read_place(&place).await);
        assert_eq!((all, damaged), (Vec::from_iter(1..scene.records), vec![]), "{what}");
        assert!(came.len() < scene.records as usize - 1);
        nothing_is_lost(&journal, &what).await;
        close(journal, place).await;
    }
}

/// Everything that can be read is settled, and released.
async fn settle_what_can_be_read(scene: &Scene, disk: &SimDisk, journal: &Journal) -> Place {
    disk.refuse_reads(&scene.segments[0], 100_000..104_096, Times::UntilHealed);
    let place = journal.place(PLACE).unwrap();
    stop_time();
    for position in all_positions(&place).await {
        place.settle(position);
    }
    place.save().unwrap();
    journal.release().await.unwrap();
    place
}

#[tokio::test]
async fn a_segment_that_holds_nothing_else_stands_aside_and_pins_no_other() {
    let scene = Scene::set().await;
    let disk = scene.disk();
    let journal = open(&disk, impatient()).journal;
    let place = settle_what_can_be_read(&scene, &disk, &journal).await;
    assert_eq!(files(&disk, ".seg").len(), 1, "the active one");
    let held = place.behind().records;
    assert!(held > 0 && journal.trouble().damaged_regions == 0);
    // It outlasts a start, and comes once it heals; then it goes.
    close(journal, place).await;
    for is_healed in [false, true] {
        let journal = open(&disk, impatient()).journal;
        let place = journal.place(PLACE).unwrap();
        let new = journal.place("new").unwrap();
        assert_eq!(new.behind().records, 0, "nothing of it is owed to a new one");
        drop(new);
        if is_healed {
            disk.heal();
        }
        stop_time();
        let (came, damaged) = sort(&read_place(&place).await);
        assert_eq!((came.len() as u64, damaged.len()), (if is_healed { held } else { 0 }, 0));
        nothing_is_lost(&journal, "aside").await;
        place.step_over(waypost::journal::Position::FIRST, journal.fence());
        if is_healed {
            place.save().unwrap();
            journal.release().await.unwrap();
            let aside = waypost::journal::Storage::list(&disk, &Path::new(DIR).join("aside"));
            assert_eq!(aside.unwrap(), Vec::<String>::new());
            close(journal, place).await;
        } else {
            // Gone, without what it settled.
            drop(place);
            tokio::time::resume();
            drop(journal);
            break_free(&disk).await;
        }
    }
}

/// The process that had it open has ended.
async fn break_free(disk: &SimDisk) {
    for _ in 0..500 {
        match crate::common::journal_disk::try_open(disk) {
            Ok(opened) => return opened.journal.close().await,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    panic!("the journal stays open");
}

#[tokio::test]
async fn what_is_skipped_on_request_is_damage() {
    let scene = Scene::set().await;
    for is_before in [true, false] {
        let disk = scene.disk();
        let journal = open(&disk, if is_before { patient() } else { impatient() }).journal;
        let segment = &scene.segments[1];
        disk.refuse_reads(segment, 100_000..104_096, Times::UntilHealed);
        let place = journal.place(PLACE).unwrap();
        stop_time();
        let mut reader = place.reader();
        let left = scene.records - 1;
        let mut items = read_some(&mut reader, left).await;
        assert_eq!(told(&journal).await, []);
        // What comes behind it is met only then.
        while let regions @ 1.. = journal.skip_unread() {
            assert!(regions <= 2);
            items.extend(read_some(&mut reader, left - items.len() as u64).await);
        }
        let (came, mut damaged) = sort(&items);
        assert_eq!(came.len() + damaged.len(), left as usize);
        let lost = told(&journal).await;
        let told_of: Vec<u64> =
            lost.iter().flat_map(|lost| lost.from.ordinal()..lost.to.ordinal()).collect();
        assert_eq!(told_of, damaged);
        damaged.sort_unstable();
        assert!(!damaged.is_empty());
        assert_eq!(journal.trouble().lost_regions, lost.len() as u64);
        assert_eq!(journal.behind(PLACE).1, damaged.len() as u64);
        let mut keys: Vec<_> = lost.iter().flat_map(|lost| lost.keys.clone()).collect();
        keys.sort_unstable();
        assert_eq!(keys, damaged.iter().map(|number| key(*number)).collect::<Vec<_>>());
        close(journal, place).await;
        // It stays so, whatever the disk says then.
        let journal = open(&disk, patient()).journal;
        let place = journal.place(PLACE).unwrap();
        stop_time();
        assert_eq!(sort(&read_place(&place).await).1, damaged);
        assert_eq!(told(&journal).await, []);
        close(journal, place).await;
    }
}

#[tokio::test]
async fn a_hole_gives_nothing_that_was_settled() {
    let scene = Scene::set().await;
    let segment = &scene.segments[1];
    let lies = scene.lies(segment);
    let disk = scene.disk();
    let journal = open(&disk, impatient()).journal;
    let place = journal.place(PLACE).unwrap();
    let items = read_place(&place).await;
    let position = |number: u64| items[number as usize - 1].position();
    let inside = lies[lies.len() / 2].number;
    place.settle(position(inside));
    let range = lies[lies.len() / 2 - 1].bytes.start..lies[lies.len() / 2 + 1].bytes.end;
    disk.refuse_reads(segment, range.start as u64..range.end as u64, Times::UntilHealed);
    stop_time();
    let mut reader = place.reader();
    let left = scene.records - 2;
    let mut came = sort(&read_some(&mut reader, left).await).0;
    assert!(came.len() < left as usize);
    disk.heal();
    came.extend(sort(&read_some(&mut reader, left - came.len() as u64).await).0);
    came.sort_unstable();
    let expected: Vec<u64> = (1..scene.records).filter(|number| *number != inside).collect();
    assert_eq!(came, expected);
    close(journal, place).await;
}

#[tokio::test]
async fn a_hole_that_heals_in_part_gives_that_part() {
    let scene = Scene::set().await;
    let segment = &scene.segments[0];
    let lies = scene.lies(segment);
    // A block that lies within a record, of which the beginning and what follows can be read.
    let (at, block) = lies
        .iter()
        .enumerate()
        .filter(|(at, _)| (1..lies.len() - 3).contains(at))
        .find_map(|(at, lies)| {
            let first = (lies.bytes.start + 48).next_multiple_of(4096);
            (first + 4096 <= lies.bytes.end).then_some((at, first as u64))
        })
        .unwrap();
    let disk = scene.disk();
    let journal = open(&disk, impatient()).journal;
    let place = journal.place(PLACE).unwrap();
    let range = lies[at].bytes.start as u64..lies[at + 2].bytes.start as u64 + 48;
    disk.refuse_reads(segment, range, Times::UntilHealed);
    stop_time();
    let mut reader = place.reader();
    let left = scene.records - 1;
    let mut came = sort(&read_some(&mut reader, left).await).0;
    assert!([0, 1, 2].iter().all(|more| !came.contains(&lies[at + more].number)));
    disk.heal();
    disk.refuse_reads(segment, block..block + 4096, Times::UntilHealed);
    came.extend(sort(&read_some(&mut reader, left - came.len() as u64).await).0);
    let missing: Vec<u64> = (1..scene.records).filter(|number| !came.contains(number)).collect();
    assert_eq!(missing, [lies[at].number]);
    disk.heal();
    assert_eq!(sort(&read_some(&mut reader, 1).await).0, missing);
    nothing_is_lost(&journal, "in part").await;
    close(journal, place).await;
}

#[tokio::test]
async fn a_place_that_the_disk_cannot_read_is_no_damage() {
    let disk = written(0..10).await;
    let journal = open(&disk, options()).journal;
    let place = journal.place(PLACE).unwrap();
    place.settle_all();
    place.save().unwrap();
    drop(place);
    journal.close().await;
    for is_healed in [true, false] {
        let disk = SimDisk::holding(disk.image(), 1);
        let file = Path::new(DIR).join("cursors").join(PLACE);
        disk.refuse_reads(&file, 0..1 << 20, Times::UntilHealed);
        let journal = open(&disk, options()).journal;
        assert_eq!(quarantined(&disk, ""), Vec::<std::path::PathBuf>::new());
        if is_healed {
            disk.heal();
        }
        // What is not known to be settled comes again; nothing else than the file says is known.
        let left = if is_healed { 0 } else { 10 };
        let place = journal.place(PLACE).unwrap();
        assert_eq!(place.behind().records, left, "{is_healed}");
        assert_eq!(read_place(&place).await.len() as u64, left);
        place.settle_all();
        place.save().unwrap();
        drop(place);
        journal.close().await;
        let again = open(&disk, options()).journal;
        assert_eq!(again.behind(PLACE).0.records, 0);
    }
}

#[tokio::test]
async fn keys_that_the_disk_cannot_read_are_no_damage() {
    let disk = written(0..30).await;
    let small = crate::common::journal_disk::small;
    let journal = open(&disk, small()).journal;
    let place = journal.place(PLACE).unwrap();
    append(&journal, 30..31).await;
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
    drop(place);
    journal.close().await;
    let sidecar = files(&disk, ".keys").remove(0);
    assert!(!files(&disk, ".seg").contains(&sidecar.with_extension("seg")));
    disk.refuse_reads(&sidecar, 0..1 << 20, Times::UntilHealed);
    let opened = open(&disk, small());
    assert!(opened.keys.len() < 31);
    opened.journal.close().await;
    assert_eq!(quarantined(&disk, ""), Vec::<std::path::PathBuf>::new());
    disk.heal();
    assert_eq!(open(&disk, small()).keys.len(), 31);
}

#[tokio::test]
async fn a_segment_that_somebody_moved_away_is_waited_for() {
    let scene = Scene::set().await;
    let (disk, segment) = (scene.disk(), &scene.segments[1]);
    let journal = open(&disk, patient()).journal;
    let place = journal.place(PLACE).unwrap();
    let elsewhere = Path::new(DIR).join("elsewhere");
    disk.rename(segment, &elsewhere).unwrap();
    stop_time();
    let mut reader = place.reader();
    let came = read_some(&mut reader, scene.records - 1).await;
    assert!((came.len() as u64) < scene.records - 1);
    assert_eq!(journal.trouble().unread.len(), 1, "{:?}", journal.trouble());
    disk.rename(&elsewhere, segment).unwrap();
    let left = scene.records - 1 - came.len() as u64;
    let (delivered, damaged) = sort(&[came, read_some(&mut reader, left).await].concat());
    assert_eq!((delivered, damaged), (Vec::from_iter(1..scene.records), vec![]));
    nothing_is_lost(&journal, "moved").await;
    close(journal, place).await;
}
