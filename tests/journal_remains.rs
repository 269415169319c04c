//! What a crash, or a disk, leaves of a segment's end, or of a segment: what was durable is there or
//! told, and no position is given twice.

use waypost::journal::{Entry, Position, Storage};

use crate::common::{
    journal_disk::{append, files, key, open, read_from, read_place, sort, told, written},
    sim_disk::SimDisk,
};

/// Where frames start in a segment file.
const DATA_START: usize = 4096;
/// A frame of these tests: header, one key, payload.
const FRAME_BYTES: usize = 48 + 16 + 40;
/// What a closed segment ends with.
const TRAILER_BYTES: usize = 44;

/// A journal of two records in one segment.
async fn one_segment() -> SimDisk {
    let disk = written(0..2).await;
    assert_eq!(files(&disk, ".seg").len(), 1);
    disk
}

#[tokio::test]
async fn a_torn_last_record_is_cut_at_every_length() {
    let image = one_segment().await.image();
    for len in 0..FRAME_BYTES {
        let disk = SimDisk::holding(image.clone(), 1);
        let file = &files(&disk, ".seg")[0];
        disk.damage(file, |bytes| bytes.truncate(DATA_START + FRAME_BYTES + len));
        let opened = open(&disk);
        assert!(opened.journal.damage().is_empty(), "{len} bytes: {:?}", opened.journal.damage());
        assert_eq!(opened.keys, [(key(0), 0)], "{len} bytes");
        append(&opened.journal, 1..2).await;
        let items = read_from(&opened.journal, Position::FIRST).await;
        assert_eq!(sort(&items), (vec![0, 1], vec![]), "{len} bytes");
        opened.journal.close().await;
    }
}

#[tokio::test]
async fn zeros_after_the_last_record_are_cut() {
    let disk = one_segment().await;
    disk.damage(&files(&disk, ".seg")[0], |bytes| {
        bytes.truncate(DATA_START + 2 * FRAME_BYTES);
        bytes.resize(bytes.len() + 5000, 0);
    });
    let opened = open(&disk);
    assert!(opened.journal.damage().is_empty(), "{:?}", opened.journal.damage());
    assert_eq!(opened.journal.fence().ordinal(), 2);
}

#[tokio::test]
async fn a_flipped_byte_costs_its_record_and_is_reported() {
    let image = written(0..8).await.image();
    let segments = files(&SimDisk::holding(image.clone(), 1), ".seg");
    assert!(segments.len() > 1);
    let mut first = 0;
    for file in &segments {
        let len = SimDisk::holding(image.clone(), 1).read(file).len();
        let end = len - TRAILER_BYTES;
        for offset in (0..64).chain((64..DATA_START).step_by(1000)).chain(DATA_START..len) {
            let disk = SimDisk::holding(image.clone(), 1);
            disk.damage(file, |bytes| bytes[offset] ^= 0x10);
            let record = (DATA_START..end).contains(&offset);
            let record = record.then(|| first + (offset - DATA_START) / FRAME_BYTES);
            check_flipped(&disk, record.map(|record| record as u64), &format!("{file:?} {offset}"))
                .await;
        }
        first += (end - DATA_START) / FRAME_BYTES;
    }
}

/// All records but the damaged one are there, now and after opening once more.
async fn check_flipped(disk: &SimDisk, record: Option<u64>, at: &str) {
    let mut expected: Vec<u64> = (0..8).filter(|position| Some(*position) != record).collect();
    let mut lost = Vec::from_iter(record);
    for opening in 0..2 {
        let opened = open(disk);
        let journal = opened.journal;
        let next = journal.fence().ordinal();
        if opening == 0 && next > 8 {
            // Behind a last header that cannot be read there may have been more than one record.
            let most = FRAME_BYTES.div_ceil(48) as u64;
            assert!(record == Some(7) && next <= 7 + most, "{at}: goes on at {next}");
            lost = Vec::from_iter(7..next);
        }
        let keys: Vec<u64> = opened.keys.iter().map(|(_, time_ms)| *time_ms).collect();
        assert!(expected.iter().all(|number| keys.contains(number)), "{at}");
        append(&journal, next..next + 1).await;
        expected.push(next);
        let (delivered, damaged) = sort(&read_from(&journal, Position::FIRST).await);
        assert_eq!((&delivered, &damaged), (&expected, &lost), "{at}");
        journal.close().await;
    }
}

#[tokio::test]
async fn an_unreadable_tail_counts_as_many_records_as_it_can_hold() {
    let disk = one_segment().await;
    let lost = 5000;
    disk.damage(&files(&disk, ".seg")[0], |bytes| bytes.resize(bytes.len() + lost * 48, 0xaa));
    let opened = open(&disk);
    let [damage] = &opened.journal.damage()[..] else { panic!("one region") };
    // The trailer of the segment lies before it.
    let most = (lost * 48 + 44usize).div_ceil(48) as u64;
    assert_eq!((damage.from.ordinal(), damage.to.ordinal()), (2, 2 + most));
    assert_eq!(opened.journal.fence(), damage.to);
}

#[tokio::test]
async fn a_lost_segment_is_reported_and_the_rest_is_read() {
    let disk = written(0..12).await;
    disk.remove(&files(&disk, ".seg")[1]).unwrap();
    let opened = open(&disk);
    let (delivered, damaged) = sort(&read_from(&opened.journal, Position::FIRST).await);
    assert!(!damaged.is_empty() && delivered.len() + damaged.len() == 12);
    assert_eq!(delivered.last(), Some(&11));
}

#[tokio::test]
async fn a_segment_without_any_readable_start_is_reported_and_the_rest_is_read() {
    for which in 0..3 {
        let disk = written(0..9).await;
        let segments = files(&disk, ".seg");
        assert_eq!(segments.len(), 3);
        disk.damage(&segments[which], |bytes| bytes[..DATA_START + 48].fill(0xaa));
        let opened = open(&disk);
        assert!(!opened.journal.damage().is_empty());
        append(
            &opened.journal,
            opened.journal.fence().ordinal()..opened.journal.fence().ordinal() + 1,
        )
        .await;
        let (delivered, damaged) = sort(&read_from(&opened.journal, Position::FIRST).await);
        assert!((0..9).all(|position| delivered.contains(&position) ^ damaged.contains(&position)));
        assert!(delivered.len() >= 7, "{delivered:?}");
    }
}

#[tokio::test]
async fn a_frame_inside_a_payload_is_not_taken_for_a_record() {
    let other = written(0..3).await;
    let forged = other.read(&files(&other, ".seg")[0])[DATA_START..].to_vec();
    let disk = SimDisk::new(2);
    let journal = open(&disk).journal;
    let entry = Entry { payload: forged.into(), ..Entry::default() };
    journal.append_durable(entry).await.unwrap();
    append(&journal, 1..2).await;
    journal.close().await;
    disk.damage(&files(&disk, ".seg")[0], |bytes| bytes[DATA_START + 20] ^= 1);
    let journal = open(&disk).journal;
    assert_eq!(sort(&read_from(&journal, Position::FIRST).await), (vec![1], vec![0]));
}

#[tokio::test]
async fn a_trailer_inside_a_payload_is_not_taken_for_the_segments() {
    let other = written(0..1).await;
    let bytes = other.read(&files(&other, ".seg")[0]);
    // Of another journal's segment, with the same base, and an end before what is appended here.
    let forged = bytes[bytes.len() - 44..].to_vec();
    let disk = SimDisk::new(2);
    let journal = open(&disk).journal;
    append(&journal, 0..1).await;
    let entry = Entry { payload: forged.into(), ..Entry::default() };
    journal.append_durable(entry).await.unwrap();
    let journal = open(&SimDisk::holding(disk.image(), 1)).journal;
    assert_eq!((journal.fence().ordinal(), journal.damage()), (2, vec![]));
    assert_eq!(read_from(&journal, Position::FIRST).await.len(), 2);
}

#[tokio::test]
async fn where_all_segments_are_gone_what_was_not_settled_is_told_and_no_position_is_given_again() {
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    let place = journal.place("a").unwrap();
    append(&journal, 0..9).await;
    let second = read_from(&journal, Position::FIRST).await[1].next_position();
    place.step_over(Position::FIRST, second);
    place.save().unwrap();
    drop(place);
    journal.close().await;
    for file in files(&disk, ".seg") {
        disk.remove(&file).unwrap();
    }
    for start in 0..2 {
        let journal = open(&disk).journal;
        assert_eq!(journal.fence().ordinal(), 9);
        let lost = told(&journal).await;
        let ranges: Vec<_> =
            lost.iter().map(|lost| (lost.from.ordinal(), lost.to.ordinal())).collect();
        assert_eq!(ranges, if start == 0 { vec![(2, 9)] } else { vec![] });
        assert_eq!(journal.behind("a").0.records, 0);
        journal.close().await;
    }
}

#[tokio::test]
async fn a_damaged_segment_without_a_record_is_no_damage_of_the_one_that_takes_its_name() {
    let disk = written(0..0).await;
    let file = files(&disk, ".seg").remove(0);
    disk.flip(&file, 0..64);
    let journal = open(&disk).journal;
    assert_eq!(journal.damage(), []);
    assert_eq!(journal.trouble().damaged_regions, 1, "it is kept");
    append(&journal, 0..2).await;
    assert_eq!(sort(&read_from(&journal, Position::FIRST).await), (vec![0, 1], vec![]));
    journal.close().await;
    let journal = open(&disk).journal;
    assert_eq!((journal.damage(), journal.trouble().damaged_regions), (vec![], 1));
    assert_eq!(sort(&read_place(&journal.place("a").unwrap()).await).0, [0, 1]);
}
