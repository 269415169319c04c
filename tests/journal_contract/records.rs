//! Records and what they are known by.

use futures_util::future::join_all;
use waypost::journal::{AppendError, Error, Item, Opened, Options, Position};

use super::{Ground, all};
use crate::common::journal_disk::{
    append, entry, key, payload, read_on, read_place, small, sort, told,
};

pub async fn an_append_answered_ok_is_there_after_every_crash(ground: &mut impl Ground) {
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

pub async fn positions_are_given_once_and_greater_is_later(ground: &mut impl Ground) {
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

pub async fn many_who_append_at_once_find_their_records_where_they_were_told(
    ground: &mut impl Ground,
) {
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
            Item::Entry(position, payload) => (position, payload),
            other => panic!("{other:?}"),
        });
        assert_eq!(read.collect::<Vec<_>>(), told);
        journal.close().await;
    }
}

pub async fn keys_outlive_their_segments(ground: &mut impl Ground) {
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
    let opened = ground.open_with(small());
    let still = known(&opened);
    assert!((1..=4).contains(&still[0]), "what is wholly older is gone: {still:?}");
    assert_eq!(still, Vec::from_iter(still[0]..12));
    opened.journal.close().await;
    let opened = ground.open_with(Options { max_keys: 5, ..small() });
    assert_eq!(known(&opened), Vec::from_iter(7..12));
}

pub async fn what_waits_is_committed_before_close_and_refused_after(ground: &mut impl Ground) {
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

pub async fn damage_is_told_once_over_all_starts(ground: &mut impl Ground) {
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
