//! Damage costs what it touches, is always reported, and never becomes a wrong payload.

use std::{path::Path, sync::Arc};

use waypost::journal::{AppendError, Entry, Error, Journal, Options, Position, Reserve, Storage};

use crate::common::{
    journal_disk::{
        DIR, append, entry, files, key, open, payload, read_from, small, sort, try_open, written,
    },
    sim_disk::SimDisk,
};

/// Where frames start in a segment file.
const DATA_START: usize = 4096;
/// A frame of these tests: header, one key, payload.
const FRAME_BYTES: usize = 48 + 16 + 40;

/// A journal of two records in one segment, the file of which is the last.
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
        assert!(opened.damage.is_empty(), "{len} bytes: {:?}", opened.damage);
        assert_eq!(opened.keys, [(key(0), 0)], "{len} bytes");
        append(&opened.journal, 1..2).await;
        let items = read_from(&opened.journal, Position(0)).await;
        assert_eq!(sort(&items), (vec![0, 1], vec![]), "{len} bytes");
        opened.journal.close().await;
    }
}

#[tokio::test]
async fn zeros_after_the_last_record_are_cut() {
    let disk = one_segment().await;
    disk.damage(&files(&disk, ".seg")[0], |bytes| bytes.resize(bytes.len() + 5000, 0));
    let opened = open(&disk);
    assert!(opened.damage.is_empty(), "{:?}", opened.damage);
    assert_eq!(opened.journal.end(), Position(2));
}

#[tokio::test]
async fn a_flipped_byte_costs_its_record_and_is_reported() {
    let image = written(0..8).await.image();
    let segments = files(&SimDisk::holding(image.clone(), 1), ".seg");
    assert!(segments.len() > 1);
    let mut first = 0;
    for file in &segments {
        let len = SimDisk::holding(image.clone(), 1).read(file).len();
        for offset in (0..64).chain((64..DATA_START).step_by(1000)).chain(DATA_START..len) {
            let disk = SimDisk::holding(image.clone(), 1);
            disk.damage(file, |bytes| bytes[offset] ^= 0x10);
            let record =
                (offset >= DATA_START).then(|| first + (offset - DATA_START) / FRAME_BYTES);
            check_flipped(&disk, record.map(|record| record as u64), &format!("{file:?} {offset}"))
                .await;
        }
        first += (len - DATA_START) / FRAME_BYTES;
    }
}

/// All records but the damaged one are there, now and after opening once more.
async fn check_flipped(disk: &SimDisk, record: Option<u64>, at: &str) {
    let mut expected: Vec<u64> = (0..8).filter(|position| Some(*position) != record).collect();
    let mut lost = Vec::from_iter(record);
    for opening in 0..2 {
        let opened = open(disk);
        let journal = opened.journal;
        let next = journal.end().0;
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
        let (delivered, damaged) = sort(&read_from(&journal, Position(0)).await);
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
    let [damage] = &opened.damage[..] else { panic!("{:?}", opened.damage) };
    assert_eq!((damage.from, damage.to), (Position(2), Position(2 + lost as u64)));
    assert_eq!(opened.journal.end(), damage.to);
}

#[tokio::test]
async fn an_unreadable_block_costs_what_it_touches_and_is_reported() {
    const BLOCK_BYTES: u64 = 4096;
    let options = || Options { tail_bytes: 0, ..Options::default() };
    let open =
        |disk: &SimDisk| Journal::open(Arc::new(disk.clone()), Path::new(DIR), options()).unwrap();
    let disk = SimDisk::new(1);
    let journal = open(&disk).journal;
    append(&journal, 0..200).await;
    let file = &files(&disk, ".seg")[0];
    let blocks = (disk.read(file).len() as u64).div_ceil(BLOCK_BYTES);
    let image = disk.image();
    assert_eq!(blocks, 7);
    for block in 0..blocks {
        let range = block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
        let touched = |position: &u64| {
            let at = DATA_START as u64 + position * FRAME_BYTES as u64;
            at < range.end && range.start < at + FRAME_BYTES as u64
        };
        let (lost, kept): (Vec<u64>, Vec<u64>) = (0..200).partition(touched);

        let disk = SimDisk::holding(image.clone(), 1);
        disk.fail_reads(file, range.clone());
        let opened = open(&disk);
        assert!(!opened.damage.is_empty(), "block {block}");
        let next = opened.journal.end().0;
        append(&opened.journal, next..next + 1).await;
        let (delivered, damaged) = sort(&read_from(&opened.journal, Position(0)).await);
        let (delivered, new) = delivered.split_at(delivered.len() - 1);
        assert_eq!((delivered, new), (&kept[..], &[next][..]), "block {block}");
        // Past a tail that cannot be read there may have been more.
        assert_eq!(damaged[..lost.len()], lost, "block {block}");
        assert!(next == 200 || block == blocks - 1, "block {block}");
        opened.journal.close().await;
    }
    // While it runs, too.
    disk.fail_reads(file, 2 * BLOCK_BYTES..2 * BLOCK_BYTES + 1);
    let (delivered, damaged) = sort(&read_from(&journal, Position(0)).await);
    assert_eq!((delivered.len() + damaged.len(), delivered.last()), (200, Some(&199)));
    assert!(damaged.contains(&39));
    let kept = disk.list(&Path::new(DIR).join("quarantine")).unwrap();
    assert!(!kept.is_empty(), "what can be read of it");
    journal.close().await;
}

#[tokio::test]
async fn a_disk_that_reads_nothing_at_all_is_not_taken_for_damage() {
    let disk = one_segment().await;
    let journal = open(&disk).journal;
    let file = &files(&disk, ".seg")[0];
    disk.fail_reads(file, 0..u64::MAX);
    let mut reader = journal.reader(Position(0));
    let read = reader.next(10, usize::MAX).await;
    assert!(matches!(read, Err(Error::Io { .. })), "{read:?}");
    journal.close().await;
    assert!(matches!(try_open(&disk).err(), Some(Error::Io { .. })));
}

#[tokio::test]
async fn damaged_bytes_are_kept_in_quarantine() {
    let disk = written(0..8).await;
    let file = &files(&disk, ".seg")[0];
    disk.damage(file, |bytes| bytes[DATA_START] ^= 1);
    let damaged = disk.read(file)[DATA_START..DATA_START + FRAME_BYTES].to_vec();
    let opened = open(&disk);
    read_from(&opened.journal, Position(0)).await;
    let quarantine = Path::new(DIR).join("quarantine");
    let kept = disk.list(&quarantine).unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(disk.read(&quarantine.join(&kept[0])), damaged);
}

#[tokio::test]
async fn a_lost_segment_is_reported_and_the_rest_is_read() {
    let disk = written(0..12).await;
    disk.remove(&files(&disk, ".seg")[1]).unwrap();
    let opened = open(&disk);
    let (delivered, damaged) = sort(&read_from(&opened.journal, Position(0)).await);
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
        assert!(!opened.damage.is_empty());
        append(&opened.journal, opened.journal.end().0..opened.journal.end().0 + 1).await;
        let (delivered, damaged) = sort(&read_from(&opened.journal, Position(0)).await);
        assert!((0..9).all(|position| delivered.contains(&position) ^ damaged.contains(&position)));
        assert!(delivered.len() >= 7, "{delivered:?}");
    }
}

#[tokio::test]
async fn positions_that_a_cursor_has_passed_are_never_given_again() {
    let disk = one_segment().await;
    let journal = open(&disk).journal;
    journal.cursor("a").unwrap().save(Position(2)).unwrap();
    journal.close().await;
    for file in files(&disk, ".seg") {
        disk.remove(&file).unwrap();
    }
    let opened = open(&disk);
    assert_eq!(opened.damage.len(), 1);
    assert_eq!(opened.journal.end(), Position(2));
    assert_eq!(opened.journal.cursor("a").unwrap().position(), Position(2));
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
    assert_eq!(sort(&read_from(&journal, Position(0)).await), (vec![1], vec![0]));
}

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
                Ok(position) => assert_eq!(position.0, taken),
                Err(error) => break error,
            }
            taken += 1;
        };
        assert!(matches!(refused, AppendError::NoSpace), "{refused}");
        disk.set_room(None);
        append(&journal, taken..taken + 5).await;
        journal.close().await;
        let journal = open(&disk).journal;
        let (delivered, damaged) = sort(&read_from(&journal, Position(0)).await);
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
        let items = read_from(&again.journal, Position(0)).await;
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
    assert_eq!(sort(&read_from(&opened.journal, Position(0)).await).0, Vec::from_iter(0..5));
    opened.journal.cursor("a").unwrap();

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
async fn a_full_journal_refuses_until_it_is_released() {
    let disk = SimDisk::new(1);
    // The second has room for no more than a segment should have.
    for max_bytes in [3 * 4096 + 1200, 30_000] {
        let options = Options { max_bytes, segment_bytes: max_bytes, ..small() };
        let dir = Path::new(DIR).join(max_bytes.to_string());
        let journal = Journal::open(Arc::new(disk.clone()), &dir, options).unwrap().journal;
        let mut next = 0;
        for _ in 0..3 {
            let refused = loop {
                match journal.append_durable(entry(next)).await {
                    Ok(_) => next += 1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(refused, AppendError::Full), "{refused}");
            journal.release(journal.end()).await.unwrap();
            journal.append_durable(entry(next)).await.unwrap();
            next += 1;
        }
    }
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
        let (seen, _) = sort(&read_from(&journal, Position(0)).await);
        assert_eq!(seen, [0, 1, 2]);
        journal.close().await;
        let image = disk.image().power_lost(&mut fastrand::Rng::with_seed(seed));
        let journal = open(&SimDisk::holding(image, seed)).journal;
        assert_eq!(sort(&read_from(&journal, Position(0)).await), (seen, vec![]));
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
async fn a_damaged_cursor_starts_again_and_is_kept_aside() {
    for harm in HARMS {
        let disk = written(0..5).await;
        let journal = open(&disk).journal;
        journal.cursor("a").unwrap().save(Position(3)).unwrap();
        journal.close().await;
        let file = Path::new(DIR).join("cursors/a");
        harm(&disk, &file, 4096 + 20);
        let journal = open(&disk).journal;
        let position = journal.cursor("a").unwrap().position();
        assert!(position == Position(3) || position == journal.first(), "the other slot counts");
        journal.close().await;

        harm(&disk, &file, 20);
        harm(&disk, &file, 4096 + 20);
        let journal = open(&disk).journal;
        assert_eq!(journal.cursor("a").unwrap().position(), journal.first());
        let kept = disk.list(&Path::new(DIR).join("quarantine")).unwrap();
        assert_eq!(kept, ["cursor-a"]);
        assert_eq!(journal.cursor_names().unwrap(), ["a"]);
    }
}

#[tokio::test]
async fn a_damaged_or_missing_sidecar_is_made_again_from_its_segment() {
    let removed: Harm = |disk, file, _| disk.remove(file).unwrap();
    for (harm, at) in HARMS.into_iter().chain([removed]).flat_map(|harm| [(harm, 20), (harm, 50)]) {
        let disk = written(0..8).await;
        harm(&disk, &files(&disk, ".keys")[0], at);
        let opened = open(&disk);
        assert_eq!(opened.keys, (0..8).map(|n| (key(n), n)).collect::<Vec<_>>());
        assert!(opened.damage.is_empty());
    }
}

#[tokio::test]
async fn a_damaged_sidecar_of_a_released_segment_is_reported() {
    for (harm, at) in HARMS.into_iter().flat_map(|harm| [(harm, 20), (harm, 50)]) {
        let disk = written(0..9).await;
        let journal = open(&disk).journal;
        journal.release(journal.end()).await.unwrap();
        journal.close().await;
        harm(&disk, &files(&disk, ".keys")[0], at);
        let opened = open(&disk);
        assert_eq!(opened.damage.len(), 1);
        assert!(!opened.keys.is_empty() && opened.keys.len() < 9);
        opened.journal.close().await;
        assert!(open(&disk).damage.is_empty(), "reported once");
    }
}

#[tokio::test]
async fn a_file_of_an_unknown_version_is_refused() {
    for suffix in [".seg", ".keys"] {
        let disk = written(0..9).await;
        let crc_at = if suffix == ".seg" { 36 } else { 40 };
        disk.damage(&files(&disk, suffix)[0], |bytes| {
            bytes[8] = 2;
            let crc = crc32c::crc32c(&bytes[..crc_at]);
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        });
        let error = try_open(&disk).err().unwrap();
        assert!(matches!(error, Error::UnknownVersion { version: 2, .. }), "{error}");
    }
    assert_eq!(payload(1).len(), FRAME_BYTES - 64);
}

#[tokio::test]
async fn a_sidecar_damaged_while_in_use_is_made_again_before_its_segment_goes() {
    for (harm, at) in HARMS.into_iter().flat_map(|harm| [(harm, 20), (harm, 50)]) {
        let disk = SimDisk::new(1);
        let journal = open(&disk).journal;
        append(&journal, 0..8).await;
        harm(&disk, &files(&disk, ".keys")[0], at);
        journal.release(journal.end()).await.unwrap();
        journal.close().await;
        assert_eq!(open(&disk).keys, (0..8).map(|n| (key(n), n)).collect::<Vec<_>>());
    }
}

/// Something that befalls a place in a file.
type Harm = fn(&SimDisk, &Path, u64);

/// A byte is not what was written, or a block cannot be read.
const HARMS: [Harm; 2] = [
    |disk, file, at| disk.damage(file, |bytes| bytes[at as usize] ^= 1),
    |disk, file, at| disk.fail_reads(file, at..at + 1),
];
