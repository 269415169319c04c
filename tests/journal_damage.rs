//! Damage of any size, anywhere in a segment, costs what it touches, is told once, and never becomes a
//! wrong payload.

use std::{collections::BTreeSet, path::Path};

use waypost::journal::{Damage, Options, Position};

use crate::common::{
    journal_disk::{DIR, files, key, quarantined, read_from, read_place, told},
    journal_scene::{PLACE, Scene, open, options, sort},
    sim_disk::SimDisk,
};

/// What befalls a range of a file.
type Harm = fn(&SimDisk, &Path, std::ops::Range<u64>);

const HARMS: [(&str, Harm); 2] = [
    ("zeros", |disk, file, range| disk.lose(file, range)),
    ("flips", |disk, file, range| {
        disk.flip(file, range);
    }),
];

macro_rules! of_a_unit {
    ($($name:ident: $bytes:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            everywhere($bytes).await;
        })*
    };
}

of_a_unit! {
    damage_of_a_byte_costs_what_it_touches: 1;
    damage_of_a_sector_costs_what_it_touches: 512;
    damage_of_a_block_costs_what_it_touches: 4 << 10;
    damage_of_two_blocks_costs_what_it_touches: 8 << 10;
    damage_of_64_kib_costs_what_it_touches: 64 << 10;
}

/// At every 4 KiB of a closed segment, and of the one that was being written.
async fn everywhere(bytes: u64) {
    let scene = Scene::set().await;
    for segment in &scene.segments[1..] {
        let size = scene.disk().read(segment).len() as u64;
        for at in (0..size).step_by(4096) {
            for (name, harm) in HARMS {
                let disk = scene.disk();
                harm(&disk, segment, at..(at + bytes).min(size));
                let what = format!("{name}, {bytes} bytes at {at} of {}", segment.display());
                costs_what_it_touches(&scene, &disk, segment, &what).await;
            }
        }
    }
}

async fn costs_what_it_touches(scene: &Scene, disk: &SimDisk, segment: &Path, what: &str) {
    let harmed = scene.harmed(disk, segment);
    let kept: Vec<u64> = (1..scene.records).filter(|number| !harmed.contains(number)).collect();

    let opened = open(disk, options());
    let place = opened.journal.place(PLACE).unwrap();
    let (delivered, damaged) = sort(&read_place(&place).await);
    assert_eq!(delivered, kept, "{what}");
    assert!(harmed.iter().all(|number| damaged.contains(number)), "{what}: {damaged:?}");
    assert!(damaged.iter().all(|number| !kept.contains(number)), "{what}: {damaged:?}");

    // Told once, and counted.
    let lost = told(&opened.journal).await;
    let regions: Vec<u64> = lost.iter().flat_map(numbers).collect();
    assert_eq!(regions, damaged, "{what}");
    // Of an end that cannot be read nobody knows how many there were: it counts as one.
    let (counted, most) = (opened.journal.behind(PLACE).1, damaged.len() as u64);
    let is_known = damaged.iter().all(|number| *number < scene.records);
    assert!(if is_known { counted == most } else { (1..=most).contains(&counted) }, "{what}");
    let trouble = opened.journal.trouble();
    assert_eq!(trouble.lost_regions, lost.len() as u64, "{what}");
    assert!(trouble.damaged_regions >= trouble.lost_regions && trouble.unread.is_empty(), "{what}");

    // What is lost is forgotten, and nothing else is.
    let known: BTreeSet<_> = opened.keys.iter().map(|(key, _)| *key).collect();
    let forgotten: BTreeSet<_> = lost.iter().flat_map(|damage| damage.keys.clone()).collect();
    for number in 0..scene.records {
        let is_known = known.contains(&key(number)) && !forgotten.contains(&key(number));
        assert_eq!(is_known, !harmed.contains(&number), "{what}: the key of {number}");
    }
    drop(place);
    opened.journal.close().await;

    let opened = open(disk, options());
    let place = opened.journal.place(PLACE).unwrap();
    let known: Vec<_> = opened.keys.iter().map(|(key, _)| *key).collect();
    assert!((0..scene.records).all(|n| known.contains(&key(n)) != harmed.contains(&n)), "{what}");
    assert_eq!(sort(&read_place(&place).await), (delivered, damaged), "{what}, once more");
    assert_eq!(told(&opened.journal).await, [], "{what}, once more");
    let again = opened.journal.trouble();
    assert_eq!(again.lost_regions, trouble.lost_regions, "{what}, once more");
}

fn numbers(damage: &Damage) -> std::ops::Range<u64> {
    damage.from.ordinal()..damage.to.ordinal()
}

#[tokio::test]
async fn damage_while_it_runs_goes_the_same_way() {
    let scene = Scene::set().await;
    for segment in &scene.segments {
        let disk = scene.disk();
        let journal = open(&disk, options()).journal;
        disk.lose(segment, 100_000..120_000);
        let harmed = scene.harmed(&disk, segment);
        let place = journal.place(PLACE).unwrap();
        let (delivered, damaged) = sort(&read_place(&place).await);
        assert_eq!((delivered.len() + damaged.len()) as u64, scene.records - 1);
        assert_eq!(damaged, harmed);
        let lost = told(&journal).await;
        assert_eq!(lost.iter().flat_map(numbers).collect::<Vec<_>>(), harmed);
        let keys: Vec<_> = lost.iter().flat_map(|damage| damage.keys.clone()).collect();
        assert_eq!(keys, harmed.iter().map(|number| key(*number)).collect::<Vec<_>>());
        // Another reader meets the same damage: that is no news.
        assert_eq!(sort(&read_place(&place).await).1, harmed);
        assert_eq!(told(&journal).await, []);
    }
}

#[tokio::test]
async fn damage_to_what_everybody_has_settled_is_known_and_lost_to_nobody() {
    let scene = Scene::set().await;
    let disk = scene.disk();
    let journal = open(&disk, options()).journal;
    let place = journal.place(PLACE).unwrap();
    place.settle_all();
    place.save().unwrap();
    drop((place, journal));
    let disk = SimDisk::holding(disk.image(), 1);
    disk.flip(&scene.segments[0], 0..64 << 10);
    let journal = open(&disk, options()).journal;
    // Who looks at the past meets it, too.
    read_from(&journal, Position::FIRST).await;
    assert_eq!(told(&journal).await, []);
    let trouble = journal.trouble();
    assert!(trouble.damaged_regions > 0 && trouble.lost_regions == 0, "{trouble:?}");
    let kept = disk.read(&scene.segments[0]);
    journal.release().await.unwrap();
    let [file] = &quarantined(&disk, ".seg")[..] else { panic!("{:?}", quarantined(&disk, "")) };
    assert!(disk.read(file) == kept, "whole, and as it was");
    assert_eq!(journal.trouble(), trouble, "it still counts while it is kept");
}

/// Reads, tells, settles and releases all.
async fn pass_over(disk: &SimDisk, options: Options) -> Vec<Damage> {
    let journal = open(disk, options).journal;
    let place = journal.place(PLACE).unwrap();
    read_place(&place).await;
    let lost = told(&journal).await;
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
    assert_eq!(journal.quarantine().files as usize, quarantined(disk, "").len());
    drop(place);
    journal.close().await;
    lost
}

#[tokio::test]
async fn a_damaged_segment_is_kept_whole_and_others_are_not() {
    let scene = Scene::set().await;
    for segment in &scene.segments {
        let disk = scene.disk();
        disk.lose(segment, 50_000..58_192);
        let damaged = disk.read(segment);
        let lost = pass_over(&disk, options()).await;
        assert!(!lost.is_empty() && lost.iter().all(|lost| lost.file == *segment));
        let [file] = &quarantined(&disk, ".seg")[..] else { panic!("one segment") };
        assert!(disk.read(file).starts_with(&damaged));
        let known = String::from_utf8(disk.read(&file.with_extension("damage"))).unwrap();
        assert!(known.contains(&format!("\"from\":{}", lost[0].from)), "{known}");
        assert!(files(&disk, ".damage").is_empty());
        assert_eq!(files(&disk, ".seg").len(), 1);
        // And it is left there.
        assert_eq!(pass_over(&disk, options()).await, []);
        assert_eq!(quarantined(&disk, "").len(), 2);
    }
}

#[tokio::test]
async fn past_the_quarantines_bound_damaged_parts_are_kept_with_a_block_around_them() {
    let scene = Scene::set().await;
    let disk = scene.disk();
    disk.lose(&scene.segments[1], 50_000..58_192);
    let damaged = disk.read(&scene.segments[1]);
    let bound = Options { quarantine_bytes: 100_000, ..options() };
    let lost = pass_over(&disk, bound).await;
    assert!(quarantined(&disk, ".seg").is_empty());
    let parts = quarantined(&disk, ".part");
    assert_eq!(parts.len(), lost.len());
    for (part, lost) in parts.iter().zip(lost) {
        let (from, to) = (lost.offset as usize, (lost.offset + lost.len) as usize);
        assert!(disk.read(part) == damaged[from - 4096..to + 4096]);
    }
    assert_eq!(quarantined(&disk, ".damage").len(), 1);
}

#[tokio::test]
async fn on_a_full_disk_a_damaged_segment_is_kept_whole_past_the_bound_and_others_go() {
    let scene = Scene::set().await;
    let disk = scene.disk();
    // The lowest: nothing was removed before it that would make room.
    disk.lose(&scene.segments[0], 50_000..58_192);
    let journal = open(&disk, Options { quarantine_bytes: 100_000, ..options() }).journal;
    let place = journal.place(PLACE).unwrap();
    read_place(&place).await;
    place.settle_all();
    place.save().unwrap();
    disk.set_room(Some(0));
    journal.release().await.unwrap();
    assert_eq!(quarantined(&disk, ".seg").len(), 1);
    assert_eq!(files(&disk, ".seg").len(), 1, "the active one");
}

/// Takes what a closed segment is read by from it, and from beside it.
async fn without_head(scene: &Scene, without_trailer: bool) -> (Vec<u64>, Vec<u64>) {
    let disk = scene.disk();
    disk.lose(&scene.segments[0], 0..64 << 10);
    disk.lose(&Path::new(DIR).join("identity"), 0..1 << 10);
    if without_trailer {
        disk.damage(&scene.segments[0], |bytes| bytes.truncate(bytes.len() - 44));
    }
    let journal = open(&disk, options()).journal;
    let place = journal.place(PLACE).unwrap();
    let read = sort(&read_place(&place).await);
    // Whether it could be read or not, it was told.
    let told = told(&journal).await;
    // A region is told whole, what was settled of it included.
    assert_eq!(told.iter().flat_map(numbers).filter(|n| *n > 0).collect::<Vec<_>>(), read.1);
    read
}

#[tokio::test]
async fn the_trailer_is_what_a_segment_without_head_and_identity_is_read_by() {
    let scene = Scene::set().await;
    let of_segment: Vec<u64> =
        scene.lies(&scene.segments[0]).iter().map(|lies| lies.number).collect();
    let (delivered, damaged) = without_head(&scene, false).await;
    assert!(damaged.len() < of_segment.len() / 2, "{damaged:?}");
    assert_eq!((delivered.len() + damaged.len()) as u64, scene.records - 1);
    let (delivered, damaged) = without_head(&scene, true).await;
    assert_eq!(damaged, of_segment[1..], "nothing of it can be told any more");
    assert_eq!((delivered.len() + damaged.len()) as u64, scene.records - 1);
}
