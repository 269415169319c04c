//! Who settles, and the floor.

use std::time::Duration;

use waypost::journal::{Error, Options};

use super::{Ground, all, append_now, keeping};
use crate::common::journal_disk::{append, read_on, read_place, small, sort, sort_any};

pub async fn a_place_reads_in_order_what_it_has_not_settled(ground: &mut impl Ground) {
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

pub async fn nothing_is_released_that_a_place_has_not_settled(ground: &mut impl Ground) {
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

pub async fn a_new_place_begins_at_the_floor_and_not_at_what_is_kept_below_it(
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

pub async fn a_place_that_comes_back_within_the_kept_past_gets_nothing_twice(
    ground: &mut impl Ground,
) {
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

pub async fn a_retired_place_pins_nothing_and_is_cleared_away(ground: &mut impl Ground) {
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

pub async fn where_all_places_have_retired_nothing_is_settled(ground: &mut impl Ground) {
    let journal = ground.open();
    let a = journal.place("a").unwrap();
    append(&journal, 0..15).await;
    let full = journal.room().bytes;
    a.retire();
    drop(a);
    journal.release().await.unwrap();
    assert_eq!(journal.room().bytes, full);
    assert_eq!(all(&journal).await, Vec::from_iter(0..15));
}

pub async fn what_the_version_before_cannot_write_down_is_not_durable(ground: &mut impl Ground) {
    let journal = ground.open();
    let place = journal.place("a").unwrap();
    let positions = append_now(&journal, 0..15).await;
    let stamp = (1..15).fold(None, |_, at| Some(place.settle(positions[at]))).unwrap();
    place.save().unwrap();
    assert!(positions.iter().all(|position| !place.durable().holds(*position, stamp)));
    let stamp = place.settle(positions[0]);
    place.save().unwrap();
    assert!(positions.iter().all(|position| place.durable().holds(*position, stamp)));
    ground.crash();
    assert_eq!(ground.open().place("a").unwrap().behind().records, 0);
}

pub async fn records_are_settled_in_any_order(ground: &mut impl Ground) {
    let journal = ground.open();
    let place = journal.place("a").unwrap();
    let mut positions = append_now(&journal, 0..40).await;
    fastrand::Rng::with_seed(3).shuffle(&mut positions);
    let mut last = place.durable().stamp;
    for (at, position) in positions.iter().enumerate() {
        let stamp = place.settle(*position);
        assert!(stamp > last);
        assert_eq!(place.settle(*position), stamp, "a second time is none");
        assert_eq!(place.behind().records, 39 - at as u64);
        last = stamp;
        if at % 10 == 5 {
            assert!(place.due().is_some());
            place.save().unwrap();
            assert_eq!((place.durable().stamp, place.due()), (stamp, None));
            assert!(place.durable().holds(*position, stamp));
        }
    }
    place.save().unwrap();
    ground.crash();
    assert_eq!(ground.open().place("a").unwrap().behind().records, 0);
}

pub async fn of_more_than_256_ranges_the_highest_count_as_open(ground: &mut impl Ground) {
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
        let (stamp, durable) = (place.settle(positions[1]), place.durable());
        let not_durable = |number: &&u64| !durable.holds(positions[**number as usize], stamp);
        assert!(settled.iter().filter(not_durable).eq(&settled[256..]));
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

pub async fn what_was_saved_or_carried_never_comes_back(ground: &mut impl Ground) {
    let (mut next, mut left) = (0, Vec::new());
    for round in 0..8 {
        // In one segment: the copies that a new one begins with are none of these.
        let options = Options { segment_bytes: 1 << 20, max_bytes: 4 << 20, ..small() };
        let journal = ground.open_with(options).journal;
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
        for _ in 0..50 {
            if place.durable().stamp >= stamp {
                break;
            }
            append(&journal, next..next + 1).await;
            left.push(next);
            next += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(place.durable().stamp >= stamp, "no commit carries it");
        ground.crash();
    }
}

pub async fn there_is_one_place_of_a_name_at_a_time(ground: &mut impl Ground) {
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

pub async fn the_floor_never_goes_back(ground: &mut impl Ground) {
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
