//! Damage to what stands beside the segments costs no record: it is made again, or does without.

use std::path::Path;

use waypost::journal::{Error, Position, Storage};

use crate::common::{
    journal_disk::{
        DIR, append, files, key, open, quarantined, read_from, read_place, sort, sort_any, told,
        written,
    },
    sim_disk::SimDisk,
};

/// Something that befalls a place in a file.
type Harm = fn(&SimDisk, &Path, u64);

/// A byte is not what was written, or a block cannot be read.
const HARMS: [Harm; 2] = [
    |disk, file, at| disk.damage(file, |bytes| bytes[at as usize] ^= 1),
    |disk, file, at| disk.fail_reads(file, at..at + 1),
];

/// How many files go to quarantine for each of them: a read error is no damage.
const KEPT_ASIDE: [usize; 2] = [1, 0];

/// From one slot of a place's file to the other.
const DISTANCE: u64 = 128 << 10;

#[tokio::test]
async fn a_damaged_or_missing_sidecar_is_made_again_from_its_segment() {
    let removed: Harm = |disk, file, _| disk.remove(file).unwrap();
    for (harm, at) in HARMS.into_iter().chain([removed]).flat_map(|harm| [(harm, 20), (harm, 50)]) {
        let disk = written(0..8).await;
        harm(&disk, &files(&disk, ".keys")[0], at);
        let opened = open(&disk);
        assert_eq!(opened.keys, (0..8).map(|n| (key(n), n)).collect::<Vec<_>>());
        assert_eq!(opened.journal.damage(), []);
    }
}

/// Everybody has settled all, durably, and what is not needed is gone.
async fn release_all(disk: &SimDisk) {
    let journal = open(disk).journal;
    let place = journal.place("a").unwrap();
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
    drop(place);
    journal.close().await;
}

#[tokio::test]
async fn a_damaged_sidecar_of_a_released_segment_is_kept_and_costs_its_keys_alone() {
    let harms = HARMS.into_iter().zip(KEPT_ASIDE);
    for ((harm, kept), at) in harms.flat_map(|harm| [(harm, 20), (harm, 50)]) {
        let disk = written(0..9).await;
        release_all(&disk).await;
        harm(&disk, &files(&disk, ".keys")[0], at);
        for _ in 0..2 {
            let opened = open(&disk);
            assert!(!opened.keys.is_empty() && opened.keys.len() < 9);
            assert_eq!(quarantined(&disk, ".keys").len(), kept);
            opened.journal.close().await;
        }
    }
}

#[tokio::test]
async fn a_sidecar_damaged_while_in_use_is_made_again_before_its_segment_goes() {
    for (harm, at) in HARMS.into_iter().flat_map(|harm| [(harm, 20), (harm, 50)]) {
        let disk = SimDisk::new(1);
        let journal = open(&disk).journal;
        let place = journal.place("a").unwrap();
        append(&journal, 0..8).await;
        harm(&disk, &files(&disk, ".keys")[0], at);
        place.settle_all();
        place.save().unwrap();
        journal.release().await.unwrap();
        drop(place);
        journal.close().await;
        assert_eq!(open(&disk).keys, (0..8).map(|n| (key(n), n)).collect::<Vec<_>>());
    }
}

/// A journal whose place has settled five of nine, two of them above the others.
async fn with_place() -> SimDisk {
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    let place = journal.place("a").unwrap();
    append(&journal, 0..9).await;
    let records = read_from(&journal, Position::FIRST).await;
    place.settle(records[0].position());
    place.save().unwrap();
    for settled in [1, 2, 5, 7] {
        place.settle(records[settled].position());
    }
    place.save().unwrap();
    drop(place);
    journal.close().await;
    disk
}

async fn left(disk: &SimDisk) -> Vec<u64> {
    let journal = open(disk).journal;
    let place = journal.place("a").unwrap();
    let (left, damaged) = sort_any(&read_place(&place).await);
    assert!(damaged.is_empty() && told(&journal).await.is_empty());
    drop(place);
    journal.close().await;
    left
}

#[tokio::test]
async fn of_a_place_with_one_damaged_slot_the_other_counts() {
    for (harm, at) in HARMS.into_iter().flat_map(|harm| [(harm, 20), (harm, DISTANCE + 20)]) {
        let disk = with_place().await;
        harm(&disk, &Path::new(DIR).join("cursors/a"), at);
        let came = left(&disk).await;
        assert!(came == [3, 4, 6, 8] || came == Vec::from_iter(1..9), "{came:?}");
        assert!(quarantined(&disk, "").is_empty());
    }
}

#[tokio::test]
async fn a_place_with_both_slots_damaged_has_what_was_copied_and_is_kept() {
    for (harm, kept) in HARMS.into_iter().zip(KEPT_ASIDE) {
        let disk = with_place().await;
        // A start makes a segment with a copy of every place.
        open(&disk).journal.close().await;
        let file = Path::new(DIR).join("cursors/a");
        harm(&disk, &file, 20);
        harm(&disk, &file, DISTANCE + 20);
        assert_eq!(left(&disk).await, [3, 4, 6, 8]);
        assert_eq!(quarantined(&disk, "cursor-a").len(), kept);
    }
}

#[tokio::test]
async fn without_file_and_copies_a_place_begins_again_at_the_floor() {
    let disk = with_place().await;
    disk.flip(&Path::new(DIR).join("cursors/a"), 0..u64::MAX);
    for segment in files(&disk, ".seg") {
        // Its notes stand before the first record.
        disk.flip(&segment, 4096..4096 + 60);
    }
    let journal = open(&disk).journal;
    let came = read_place(&journal.place("a").unwrap()).await;
    let (delivered, damaged) = sort(&came);
    assert_eq!(delivered.len() + damaged.len(), 9, "nothing is passed over");
    assert!(delivered.len() > 4, "more comes than without the damage: {delivered:?}");
}

#[tokio::test]
async fn a_damaged_floor_identity_or_what_is_known_of_damage_loses_nothing() {
    for name in ["floor", "identity"] {
        let disk = with_place().await;
        let journal = open(&disk).journal;
        journal.release().await.unwrap();
        journal.close().await;
        disk.flip(&Path::new(DIR).join(name), 0..u64::MAX);
        assert_eq!(left(&disk).await, [3, 4, 6, 8], "{name}");
        assert_eq!(quarantined(&disk, name).len(), 1);
        assert_eq!(left(&disk).await, [3, 4, 6, 8], "{name}");
        let journal = open(&disk).journal;
        append(&journal, 9..12).await;
        journal.close().await;
        assert_eq!(left(&disk).await, [3, 4, 6, 8, 9, 10, 11], "{name}");
    }
    for harm in [|bytes: &mut Vec<u8>| bytes.fill(0), |bytes: &mut Vec<u8>| bytes.truncate(9)] {
        let disk = with_place().await;
        let last = files(&disk, ".seg").remove(1);
        disk.damage(&last, |bytes| bytes[4096 + 200] ^= 1);
        let read = async || {
            let journal = open(&disk).journal;
            let place = journal.place("a").unwrap();
            let read = sort_any(&read_place(&place).await);
            let lost = told(&journal).await.len();
            drop(place);
            journal.close().await;
            (read, lost)
        };
        let (first, lost) = read().await;
        assert_eq!(first.0.len() + first.1.len(), 4);
        assert_eq!(lost, first.1.len());
        for known in files(&disk, ".damage") {
            disk.damage(&known, harm);
        }
        // It may be told again: who told of it is not known.
        assert_eq!(read().await, (first.clone(), lost));
        assert_eq!(read().await, (first, 0));
    }
}

#[tokio::test]
async fn a_file_of_an_unknown_version_is_refused() {
    for suffix in [".seg", ".keys"] {
        let disk = written(0..9).await;
        let crc_at = if suffix == ".seg" { 36 } else { 40 };
        disk.damage(&files(&disk, suffix)[0], |bytes| {
            bytes[8] = 9;
            let crc = crc32c::crc32c(&bytes[..crc_at]);
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        });
        let error = crate::common::journal_disk::try_open(&disk).err().unwrap();
        assert!(matches!(error, Error::UnknownVersion { version: 9, .. }), "{error}");
    }
}
