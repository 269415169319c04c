//! How much there is, and how much more there may be.

use waypost::journal::{AppendError, Entry, Options, Position};

use super::{Ground, all, append_now, keeping, now_ms};
use crate::common::journal_disk::{append, entry, read_place, small, sort};

pub async fn how_far_behind_and_how_full_come_as_answers(ground: &mut impl Ground) {
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

pub async fn an_append_that_finds_it_full_leaves_no_trace(ground: &mut impl Ground) {
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

pub async fn one_record_that_fills_it_can_be_released_once_the_next_is_refused(
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

pub async fn bounds_can_change(ground: &mut impl Ground) {
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

pub async fn the_kept_past_goes_before_anything_is_refused(ground: &mut impl Ground) {
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
