//! What the rest relies on, of any journal: on real files, of which a process that is killed leaves
//! all that it wrote, and on a disk that loses its power.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use waypost::journal::{
    AppendError, Entry, Error, Journal, Opened, Options, Position, RealDisk, Storage,
};

use crate::common::{
    journal_disk::{
        DIR, append, entry, key, payload, read_from, read_on, read_place, small, sort, sort_any,
        told,
    },
    sim_disk::SimDisk,
};

/// Where a journal lies.
trait Ground: Send {
    fn open_with(&self, options: Options) -> Opened;
    /// The process that has it open is gone, at this very moment.
    fn crash(&mut self);
    /// Flips a byte of the journal's lowest segment.
    fn damage(&self, offset: usize);

    fn open(&self) -> Journal {
        self.open_with(small()).journal
    }
}

/// Files as they are; the newest directory counts.
struct Files(Vec<tempfile::TempDir>);

impl Files {
    fn new() -> Files {
        Files(vec![tempfile::tempdir().unwrap()])
    }

    fn dir(&self) -> PathBuf {
        self.0.last().unwrap().path().join("journal")
    }
}

impl Ground for Files {
    fn open_with(&self, options: Options) -> Opened {
        Journal::open(Arc::new(RealDisk), &self.dir(), options).unwrap()
    }

    /// What is on the disk now is all that there is: who still has it open goes on elsewhere.
    fn crash(&mut self) {
        let before = self.dir();
        self.0.push(tempfile::tempdir().unwrap());
        copy(&before, &self.dir()).unwrap();
    }

    fn damage(&self, offset: usize) {
        let path = lowest(&RealDisk, &self.dir());
        let mut bytes = fs::read(&path).unwrap();
        bytes[offset] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// A disk that keeps what was synced, and any part of the rest.
struct Power(SimDisk, fastrand::Rng);

impl Power {
    fn new() -> Power {
        Power(SimDisk::new(7), fastrand::Rng::with_seed(7))
    }
}

impl Ground for Power {
    fn open_with(&self, options: Options) -> Opened {
        Journal::open(Arc::new(self.0.clone()), Path::new(DIR), options).unwrap()
    }

    fn crash(&mut self) {
        let left = self.0.image().power_lost(&mut self.1);
        self.0 = SimDisk::holding(left, self.1.u64(..));
    }

    fn damage(&self, offset: usize) {
        self.0.damage(&lowest(&self.0, Path::new(DIR)), |bytes| bytes[offset] ^= 1);
    }
}

fn lowest(storage: &dyn Storage, dir: &Path) -> PathBuf {
    let names = storage.list(dir).unwrap();
    dir.join(names.iter().filter(|name| name.ends_with(".seg")).min().unwrap())
}

macro_rules! promises {
    ($($promise:ident),* $(,)?) => {
        mod on_files {
            $(#[tokio::test] async fn $promise() { super::$promise(&mut super::Files::new()).await; })*
        }
        mod on_a_disk_that_loses_power {
            $(#[tokio::test] async fn $promise() { super::$promise(&mut super::Power::new()).await; })*
        }
    };
}

promises!(
    an_append_answered_ok_is_there_after_every_crash,
    positions_are_given_once_and_greater_is_later,
    many_who_append_at_once_find_their_records_where_they_were_told,
    a_place_reads_in_order_what_it_has_not_settled,
    nothing_is_released_that_a_place_has_not_settled,
    a_new_place_begins_at_the_floor_and_not_at_what_is_kept_below_it,
    a_place_that_comes_back_within_the_kept_past_gets_nothing_twice,
    a_retired_place_pins_nothing_and_is_cleared_away,
    how_far_behind_and_how_full_come_as_answers,
    records_are_settled_in_any_order,
    of_more_than_256_ranges_the_highest_count_as_open,
    what_was_saved_or_carried_never_comes_back,
    there_is_one_place_of_a_name_at_a_time,
    keys_outlive_their_segments,
    an_append_that_finds_it_full_leaves_no_trace,
    one_record_that_fills_it_can_be_released_once_the_next_is_refused,
    bounds_can_change,
    what_waits_is_committed_before_close_and_refused_after,
    damage_is_told_once_over_all_starts,
    the_kept_past_goes_before_anything_is_refused,
    the_floor_never_goes_back,
);

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Records that are young.
async fn append_now(journal: &Journal, numbers: Range<u64>) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in numbers {
        let entry = Entry { time_ms: now_ms(), ..entry(number) };
        positions.push(journal.append_durable(entry).await.unwrap());
    }
    positions
}

fn keeping() -> Options {
    Options { keep: Duration::from_secs(3600), ..small() }
}

async fn all(journal: &Journal) -> Vec<u64> {
    let (delivered, damaged) = sort(&read_from(journal, Position::FIRST).await);
    assert_eq!(damaged, Vec::<u64>::new());
    delivered
}

async fn an_append_answered_ok_is_there_after_every_crash(ground: &mut impl Ground) {
    for crash in 0..6 {
        let opened = ground.open_with(small());
        let known: Vec<u64> = opened.keys.iter().map(|(_, time_ms)| *time_ms).collect();
        assert_eq!(known, Vec::from_iter(0..crash * 7));
        assert_eq!(all(&opened.journal).await, known);
        append(&opened.journal, crash * 7..crash * 7 + 7).await;
        assert_eq!(all(&opened.journal).await, Vec::from_iter(0..crash * 7 + 7));
        ground.crash();
    }
}

async fn positions_are_given_once_and_greater_is_later(ground: &mut impl Ground) {
    let mut last = None;
    for start in 0..5 {
        let journal = ground.open();
        for number in 0..5 {
            let fence = journal.fence();
            let position = journal.append_durable(entry(number)).await.unwrap();
            assert!(position >= fence && journal.fence() > position && Some(position) > last);
            last = Some(position);
        }
        match start % 2 {
            0 => ground.crash(),
            _ => journal.close().await,
        }
    }
}

async fn many_who_append_at_once_find_their_records_where_they_were_told(ground: &mut impl Ground) {
    for tail_bytes in [0, 5_000] {
        let options = Options { segment_bytes: 20_000, tail_bytes, queue: 7, ..small() };
        let journal = ground.open_with(options).journal;
        let mut reader = journal.reader(journal.fence());
        let appends = (0..300).map(|number| journal.append_durable(entry(number)));
        let positions = join_all(appends).await.into_iter().map(Result::unwrap);
        let mut told: Vec<_> = positions.zip((0..300).map(payload)).collect();
        told.sort_unstable();
        let items = read_on(&journal, &mut reader).await;
        let read = items.into_iter().map(|item| match item {
            waypost::journal::Item::Entry(position, payload) => (position, payload),
            other => panic!("{other:?}"),
        });
        assert_eq!(read.collect::<Vec<_>>(), told);
        journal.close().await;
    }
}

async fn a_place_reads_in_order_what_it_has_not_settled(ground: &mut impl Ground) {
    let left = [0, 1, 3, 7, 8, 10, 11];
    {
        let journal = ground.open();
        let place = journal.place("a").unwrap();
        let positions = append_now(&journal, 0..12).await;
        for settled in [2, 4, 5, 6, 9] {
            place.settle(positions[settled]);
        }
        assert_eq!(sort_any(&read_place(&place).await).0, left);
        place.save().unwrap();
        ground.crash();
    }
    for start in 0..2 {
        let journal = ground.open();
        let place = journal.place("a").unwrap();
        assert_eq!(sort_any(&read_place(&place).await).0, left, "start {start}");
        drop(place);
        journal.close().await;
    }
    let journal = ground.open();
    let place = journal.place("a").unwrap();
    place.settle_all();
    let mut reader = place.reader();
    append(&journal, 12..14).await;
    assert_eq!(sort(&read_on(&journal, &mut reader).await).0, [12, 13]);
}

async fn nothing_is_released_that_a_place_has_not_settled(ground: &mut impl Ground) {
    let journal = ground.open();
    let (a, b) = (journal.place("a").unwrap(), journal.place("b").unwrap());
    let positions = append_now(&journal, 0..20).await;
    let full = journal.room();
    assert_eq!(full.records, 20);
    a.settle_all();
    a.save().unwrap();
    for position in &positions[..9] {
        b.settle(*position);
    }
    journal.release().await.unwrap();
    assert_eq!(journal.room(), full, "what is not durably settled is not settled");
    b.save().unwrap();
    journal.release().await.unwrap();
    let some = journal.room();
    assert!(some.bytes < full.bytes && (11..20).contains(&some.records), "{some:?}");
    assert_eq!(sort(&read_place(&b).await), (Vec::from_iter(9..20), vec![]));
    drop((a, b));
    ground.crash();

    // Nor of those that are not open.
    let journal = ground.open();
    journal.release().await.unwrap();
    let b = journal.place("b").unwrap();
    assert_eq!(sort(&read_place(&b).await), (Vec::from_iter(9..20), vec![]));
    b.settle_all();
    b.save().unwrap();
    journal.release().await.unwrap();
    assert!(journal.room().bytes < some.bytes);
    assert_eq!(journal.room().records, 0);
}

async fn a_new_place_begins_at_the_floor_and_not_at_what_is_kept_below_it(
    ground: &mut impl Ground,
) {
    {
        let journal = ground.open_with(keeping()).journal;
        let a = journal.place("a").unwrap();
        append_now(&journal, 0..15).await;
        a.settle_all();
        a.save().unwrap();
        journal.release().await.unwrap();
        assert_eq!(all(&journal).await, Vec::from_iter(0..15), "it is all kept");
        append_now(&journal, 15..17).await;
        // What is owed to anybody is given to the new one, too.
        let b = journal.place("b").unwrap();
        assert_eq!(sort(&read_place(&b).await).0, [15, 16]);
        a.settle_all();
        b.settle_all();
        a.save().unwrap();
        b.save().unwrap();
        journal.release().await.unwrap();
        ground.crash();
    }
    for name in ["c", "d"] {
        let journal = ground.open_with(keeping()).journal;
        let place = journal.place(name).unwrap();
        assert_eq!(place.behind().records, 0, "{name}");
        drop(place);
        for name in journal.place_names() {
            journal.forget_place(&name).await.unwrap();
        }
        assert_eq!(journal.place_names().len(), 0);
        assert_eq!(journal.place("e").unwrap().behind().records, 0);
        journal.forget_place("e").await.unwrap();
        assert_eq!(all(&journal).await, Vec::from_iter(0..17), "it is still kept");
        ground.crash();
    }
}

async fn a_place_that_comes_back_within_the_kept_past_gets_nothing_twice(ground: &mut impl Ground) {
    let journal = ground.open_with(keeping()).journal;
    let (a, b) = (journal.place("a").unwrap(), journal.place("b").unwrap());
    let positions = append_now(&journal, 0..10).await;
    for position in &positions[..6] {
        a.settle(*position);
    }
    a.settle(positions[8]);
    a.retire();
    drop(a);
    // The floor has not passed it: it goes on where it was.
    let a = journal.place("a").unwrap();
    assert_eq!(sort_any(&read_place(&a).await).0, [6, 7, 9]);
    a.retire();
    b.settle_all();
    b.save().unwrap();
    journal.release().await.unwrap();
    // Cleared away or not: what lies below the floor was given up when it retired.
    drop(a);
    assert_eq!(journal.place("a").unwrap().behind().records, 0);
    append_now(&journal, 10..12).await;
    assert_eq!(sort(&read_place(&journal.place("a").unwrap()).await).0, [10, 11]);
    assert_eq!(all(&journal).await.len(), 12);
}

async fn a_retired_place_pins_nothing_and_is_cleared_away(ground: &mut impl Ground) {
    let journal = ground.open();
    let (a, b) = (journal.place("a").unwrap(), journal.place("b").unwrap());
    append(&journal, 0..15).await;
    let full = journal.room().bytes;
    b.settle_all();
    b.save().unwrap();
    journal.release().await.unwrap();
    assert_eq!(journal.room().bytes, full);
    a.retire();
    journal.release().await.unwrap();
    assert!(journal.room().bytes < full);
    drop(a);
    journal.release().await.unwrap();
    assert_eq!(journal.place_names(), ["b"]);
    ground.crash();
    assert_eq!(ground.open().place_names(), ["b"]);
}

async fn how_far_behind_and_how_full_come_as_answers(ground: &mut impl Ground) {
    let journal = ground.open();
    assert_eq!(journal.behind("a"), Default::default());
    let place = journal.place("a").unwrap();
    let empty = journal.room();
    assert_eq!((empty.records, place.behind().records, place.behind().bytes), (0, 0, 0));
    assert_eq!(empty.left_bytes(), empty.max_bytes - empty.bytes);
    assert_eq!(place.excess(1), None);
    let positions = append_now(&journal, 0..20).await;
    let full = journal.room();
    assert_eq!((full.records, place.behind().records), (20, 20));
    assert_eq!(place.behind().bytes, full.bytes);
    assert_eq!(journal.behind("a"), (place.behind(), 0));
    place.settle(positions[7]);
    assert_eq!(place.behind().records, 19);

    let bound = full.bytes / 2;
    let to = place.excess(bound).unwrap();
    place.step_over(Position::FIRST, to);
    let behind = place.behind();
    assert!(behind.bytes < bound && behind.records > 0, "{behind:?}");
    assert_eq!(place.excess(bound), None);
    assert_eq!(sort(&read_place(&place).await).0, Vec::from_iter(to.ordinal()..20));
    // Never past what is closed.
    let all = place.excess(1).unwrap();
    assert!(all <= journal.fence());
    place.step_over(Position::FIRST, all);
    assert_eq!(place.excess(1), None);
    place.settle_all();
    assert_eq!(place.behind(), Default::default());
}

async fn records_are_settled_in_any_order(ground: &mut impl Ground) {
    let journal = ground.open();
    let place = journal.place("a").unwrap();
    let mut positions = append_now(&journal, 0..40).await;
    fastrand::Rng::with_seed(3).shuffle(&mut positions);
    let mut last = place.durable();
    for (at, position) in positions.iter().enumerate() {
        let stamp = place.settle(*position);
        assert!(stamp > last);
        assert_eq!(place.settle(*position), stamp, "a second time is none");
        assert_eq!(place.behind().records, 39 - at as u64);
        last = stamp;
        if at % 10 == 5 {
            assert!(place.due().is_some());
            place.save().unwrap();
            assert_eq!((place.durable(), place.due()), (stamp, None));
        }
    }
    place.save().unwrap();
    ground.crash();
    assert_eq!(ground.open().place("a").unwrap().behind().records, 0);
}

async fn of_more_than_256_ranges_the_highest_count_as_open(ground: &mut impl Ground) {
    let (open, settled): (Vec<u64>, Vec<u64>) = (0..700).partition(|number| number % 2 == 0);
    {
        let options = Options { segment_bytes: 20_000, ..small() };
        let journal = ground.open_with(options).journal;
        let place = journal.place("a").unwrap();
        let positions = append_now(&journal, 0..700).await;
        for number in &settled {
            place.settle(positions[*number as usize]);
        }
        assert_eq!(place.behind().records, 350);
        place.save().unwrap();
        journal.release().await.unwrap();
        ground.crash();
    }
    let journal = ground.open();
    let place = journal.place("a").unwrap();
    let came = sort_any(&read_place(&place).await).0;
    assert!(came.is_sorted() && open.iter().all(|number| came.contains(number)));
    let again: Vec<u64> = came.into_iter().filter(|number| number % 2 == 1).collect();
    assert_eq!(again, settled[256..]);
}

async fn what_was_saved_or_carried_never_comes_back(ground: &mut impl Ground) {
    let (mut next, mut left) = (0, Vec::new());
    for round in 0..8 {
        let journal = ground.open();
        let place = journal.place("a").unwrap();
        assert_eq!(sort_any(&read_place(&place).await).0, left, "round {round}");
        let positions = append_now(&journal, next..next + 10).await;
        left.extend((next..next + 10).filter(|number| number % 3 == 0));
        let settled = (next..next + 10).zip(&positions).filter(|(number, _)| number % 3 > 0);
        let stamp = settled.map(|(_, position)| place.settle(*position)).last().unwrap();
        next += 10;
        if round % 2 == 0 {
            place.save().unwrap();
        }
        // Soon one of them carries it.
        while place.durable() < stamp {
            append(&journal, next..next + 1).await;
            left.push(next);
            next += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ground.crash();
    }
}

async fn there_is_one_place_of_a_name_at_a_time(ground: &mut impl Ground) {
    let journal = ground.open();
    let first = journal.place("a/b").unwrap();
    assert!(matches!(journal.place("a/b").err(), Some(Error::PlaceInUse(_))));
    drop(first);
    drop(journal.place("a/b").unwrap());
    assert!(matches!(journal.place("").err(), Some(Error::PlaceName(_))));
    drop(journal.place("..").unwrap());
    assert_eq!(journal.place_names(), ["..", "a/b"]);
    ground.crash();
    assert_eq!(ground.open().place_names(), ["..", "a/b"]);
}

async fn keys_outlive_their_segments(ground: &mut impl Ground) {
    let known = |opened: &Opened| opened.keys.iter().map(|(_, ms)| *ms).collect::<Vec<_>>();
    {
        let journal = ground.open();
        let place = journal.place("a").unwrap();
        append(&journal, 0..12).await;
        place.settle_all();
        place.save().unwrap();
        journal.release().await.unwrap();
        assert!(journal.room().records < 12);
        ground.crash();
    }
    let opened = ground.open_with(small());
    assert_eq!(opened.keys, (0..12).map(|n| (key(n), n)).collect::<Vec<_>>());
    opened.journal.release().await.unwrap();
    opened.journal.forget_keys(4).await.unwrap();
    opened.journal.close().await;
    let opened = ground.open_with(Options { keys_since_ms: 4, ..small() });
    assert_eq!(known(&opened), Vec::from_iter(4..12));
    opened.journal.close().await;
    let opened = ground.open_with(Options { max_keys: 5, ..small() });
    assert_eq!(known(&opened), Vec::from_iter(7..12));
}

async fn an_append_that_finds_it_full_leaves_no_trace(ground: &mut impl Ground) {
    let options = || Options { max_bytes: 25_000, ..small() };
    let mut next = 0;
    for _ in 0..3 {
        let journal = ground.open_with(options()).journal;
        let place = journal.place("a").unwrap();
        assert_eq!(sort(&read_place(&place).await), (vec![], vec![]));
        let first = next;
        let refused = loop {
            match journal.append_durable(entry(next)).await {
                Ok(_) => next += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, AppendError::Full), "{refused}");
        assert!(next > first);
        drop(place);
        ground.crash();
        let opened = ground.open_with(options());
        assert!(opened.keys.iter().all(|(_, ms)| *ms < next));
        let (journal, place) = (opened.journal.clone(), opened.journal.place("a").unwrap());
        assert_eq!(sort(&read_place(&place).await), (Vec::from_iter(first..next), vec![]));
        place.settle_all();
        place.save().unwrap();
        journal.release().await.unwrap();
        append(&journal, next..next + 1).await;
        next += 1;
        place.settle_all();
        drop(place);
        journal.close().await;
        let journal = ground.open_with(options()).journal;
        let place = journal.place("a").unwrap();
        place.settle_all();
        place.save().unwrap();
        drop(place);
        journal.close().await;
    }
}

async fn one_record_that_fills_it_can_be_released_once_the_next_is_refused(
    ground: &mut impl Ground,
) {
    let options = Options { segment_bytes: 5_000, max_bytes: 20_000, ..Options::default() };
    let journal = ground.open_with(options).journal;
    let place = journal.place("a").unwrap();
    let large = || Entry::new(vec![7; 12_000].into(), 1);
    journal.append_durable(large()).await.unwrap();
    let refused = journal.append_durable(large()).await;
    assert!(matches!(refused, Err(AppendError::Full)), "{refused:?}");
    place.settle_all();
    place.save().unwrap();
    journal.release().await.unwrap();
    journal.append_durable(large()).await.unwrap();
}

async fn bounds_can_change(ground: &mut impl Ground) {
    let journal = ground.open();
    append(&journal, 0..20).await;
    let used = journal.room().bytes;
    journal.set_bounds(4096 + 300, used);
    assert_eq!(journal.room().left_bytes(), 0);
    let refused = journal.append_durable(entry(20)).await;
    assert!(matches!(refused, Err(AppendError::Full)), "{refused:?}");
    journal.set_bounds(1 << 20, 8 << 20);
    append(&journal, 20..60).await;
    assert_eq!(journal.room().max_bytes, 8 << 20);
    assert!(journal.room().bytes < used + 3 * 4096 + 40 * 200, "no more small segments");
    assert_eq!(all(&journal).await, Vec::from_iter(0..60));
}

async fn what_waits_is_committed_before_close_and_refused_after(ground: &mut impl Ground) {
    let journal = ground.open();
    let (tell, told) = std::sync::mpsc::channel();
    for number in 0..20 {
        let tell = tell.clone();
        journal.append(entry(number), Box::new(move |result| tell.send(result).unwrap())).await;
    }
    let (other, mut reader) = (journal.clone(), journal.reader(Position::FIRST));
    journal.close().await;
    assert_eq!(told.try_iter().filter(Result::is_ok).count(), 20);
    let late = other.append_durable(entry(20)).await;
    assert!(matches!(late, Err(AppendError::Closed)), "{late:?}");
    assert!(matches!(other.release().await, Err(Error::Closed)));
    assert_eq!(read_on(&other, &mut reader).await.len(), 20, "what is there can still be read");
    assert!(matches!(reader.next(1, 1).await, Err(Error::Closed)));
    assert_eq!(all(&ground.open()).await, Vec::from_iter(0..20));
}

async fn damage_is_told_once_over_all_starts(ground: &mut impl Ground) {
    {
        let journal = ground.open();
        drop(journal.place("a").unwrap());
        append(&journal, 0..12).await;
        ground.crash();
    }
    // Within the first record, whatever stands before it.
    ground.damage(4096 + 100);
    let mut lost = Vec::new();
    for start in 0..4 {
        let journal = ground.open();
        let place = journal.place("a").unwrap();
        let (delivered, damaged) = sort(&read_place(&place).await);
        assert_eq!(delivered.len() + damaged.len(), 12, "start {start}");
        if start == 1 {
            lost = told(&journal).await;
            assert_eq!(lost.len(), 1);
            assert_eq!(damaged, Vec::from_iter(lost[0].from.ordinal()..lost[0].to.ordinal()));
            let keys: Vec<_> = damaged.iter().map(|number| key(*number)).collect();
            assert!(lost[0].is_lost && lost[0].keys.iter().all(|key| keys.contains(key)));
        } else if start > 1 {
            assert_eq!(told(&journal).await, [], "start {start}");
        }
        // At the first start nobody told of it.
        ground.crash();
    }
    assert!(!lost.is_empty());

    // Nor is it forgotten untold where its segment is released.
    ground.damage(4096 + 300);
    {
        let journal = ground.open();
        let place = journal.place("a").unwrap();
        read_place(&place).await;
        place.settle_all();
        place.save().unwrap();
        journal.release().await.unwrap();
        ground.crash();
    }
    for expected in [1, 0] {
        let journal = ground.open();
        assert_eq!(told(&journal).await.len(), expected);
        assert_eq!(journal.quarantine().files, 2, "the segment, and what is known of it");
        assert!(journal.trouble().lost_regions >= 2);
        ground.crash();
    }
}

async fn the_kept_past_goes_before_anything_is_refused(ground: &mut impl Ground) {
    let max_bytes = 80_000;
    let options = Options { max_bytes, ..keeping() };
    let journal = ground.open_with(options).journal;
    let place = journal.place("a").unwrap();
    for round in 0..40 {
        append_now(&journal, round * 20..round * 20 + 20).await;
        place.settle_all();
        place.save().unwrap();
        if round % 3 == 0 {
            journal.release().await.unwrap();
            let kept = journal.room().bytes - place.behind().bytes;
            assert!(kept <= max_bytes / 2 + 2 * 5_000, "{kept} bytes are kept");
        }
    }
    assert!(journal.room().records > 20, "some of it is kept");
    // One that needs more room than is left at any time.
    let large = Entry::new(vec![7; 50_000].into(), now_ms());
    append_now(&journal, 800..830).await;
    place.settle_all();
    place.save().unwrap();
    journal.append_durable(large).await.unwrap();
}

async fn the_floor_never_goes_back(ground: &mut impl Ground) {
    {
        let journal = ground.open_with(keeping()).journal;
        let a = journal.place("a").unwrap();
        append_now(&journal, 0..10).await;
        a.settle_all();
        a.save().unwrap();
        journal.release().await.unwrap();
        drop(a);
        journal.forget_place("a").await.unwrap();
        ground.crash();
    }
    let journal = ground.open_with(keeping()).journal;
    append_now(&journal, 10..12).await;
    journal.release().await.unwrap();
    assert_eq!(sort(&read_place(&journal.place("a").unwrap()).await).0, [10, 11]);
    assert_eq!(all(&journal).await, Vec::from_iter(0..12));
}
