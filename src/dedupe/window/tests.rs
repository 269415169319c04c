use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::dedupe::ForOne;

mod clocks;

const LIMITS: Limits = Limits { window: Duration::from_secs(10), max_keys: 3 };
const WIDE: Limits = Limits { window: Duration::from_secs(100), max_keys: 1000 };

fn key(n: u8) -> Key {
    [n; 16]
}

fn keys(n: u8) -> Keys {
    Keys::known_by(key(n))
}

fn with_body(id: u8, body: u8) -> Keys {
    let mut keys = keys(id);
    keys.also_known_by(key(body));
    keys
}

/// Registers one key and looks another one up.
fn pair(registered: u8, looked_up: u8) -> Keys {
    let mut keys = Keys::default();
    keys.register(key(registered));
    keys.look_up(key(looked_up), u32::MAX);
    keys
}

/// No test waits as long for a claim, unless it is about that.
const PATIENCE: Duration = Duration::from_secs(60);

async fn claim(window: &Arc<Window>, keys: Keys, now_ms: u64) -> Option<Claim> {
    window.claim(keys, now_ms, PATIENCE).await.expect("it is decided in time")
}

/// Both clocks go on.
async fn after(time: Duration) {
    tokio::time::advance(time).await;
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn known(window: &Arc<Window>, n: u8, now_ms: u64) -> bool {
    claim(window, keys(n), now_ms).await.is_none()
}

async fn commit(window: &Arc<Window>, keys: Keys, now_ms: u64) {
    claim(window, keys, now_ms).await.expect("an event of its own").commit(now_ms);
}

#[tokio::test(start_paused = true)]
async fn a_committed_key_is_known_until_its_window_ends() {
    let window = Window::new(LIMITS, vec![]);
    commit(&window, keys(1), 1_000).await;
    assert!(known(&window, 1, 1_000).await);
    after(s(10)).await;
    assert!(known(&window, 1, 11_000).await);
    after(s(1)).await;
    assert!(!known(&window, 1, 12_000).await);
    assert!(window.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_window_of_part_of_a_second_is_not_shorter_than_it_says() {
    let limits = Limits { window: Duration::from_millis(1500), ..LIMITS };
    let window = Window::new(limits, vec![]);
    after(Duration::from_millis(900)).await;
    commit(&window, keys(1), 900).await;
    after(Duration::from_millis(1500)).await;
    assert!(known(&window, 1, 2_400).await);
    after(Duration::from_millis(600)).await;
    assert!(!known(&window, 1, 3_000).await);
}

#[tokio::test]
async fn a_key_that_must_be_young_is_none_from_that_age_on() {
    let window = Window::new(LIMITS, vec![(key(1), 1_999)]);
    let young = |now_ms| {
        let mut keys = Keys::default();
        keys.look_up(key(1), 3);
        let window = window.clone();
        async move { claim(&window, keys, now_ms).await.is_none() }
    };
    assert!(young(3_999).await);
    assert!(!young(4_999).await);
    assert!(known(&window, 1, 4_999).await, "it is still known to others");
}

/// Known by the first, and by the second for one.
fn good_for_one(id: u8, key_of_one: u8) -> Keys {
    let mut keys = keys(id);
    keys.register_for_one(key(key_of_one));
    keys
}

/// Known by the first, and the same as one that registered the second, unless that was taken.
fn takes(id: u8, key_of_one: u8) -> Keys {
    let mut keys = keys(id);
    keys.look_up_for_one(key(key_of_one), BY_THE_FIRST);
    keys
}

const BY_THE_FIRST: ForOne = ForOne { taker: 1, giver: 0 };

/// Whether an event takes what is good for one; `None` where it is known.
async fn taken_by(window: &Arc<Window>, keys: Keys, now_ms: u64) -> Option<bool> {
    let claim = claim(window, keys, now_ms).await?;
    let is_taken = claim.is_taken();
    claim.commit(now_ms);
    Some(is_taken)
}

#[tokio::test]
async fn what_is_good_for_one_makes_one_other_event_the_same() {
    let window = Window::new(WIDE, vec![]);
    commit(&window, good_for_one(1, 100), 1_000).await;
    assert_eq!(taken_by(&window, takes(2, 100), 2_000).await, Some(true));
    assert_eq!(taken_by(&window, takes(2, 100), 2_000).await, None, "it comes again");
    assert_eq!(taken_by(&window, takes(3, 100), 2_000).await, Some(false), "and here is another");
    let mut of_another_sort = keys(7);
    of_another_sort.look_up_for_one(key(100), ForOne { taker: 2, giver: 0 });
    assert_eq!(taken_by(&window, of_another_sort, 2_000).await, Some(true));
    // One more registers it: it is good again, for one.
    commit(&window, good_for_one(4, 100), 4_000).await;
    assert_eq!(taken_by(&window, takes(5, 100), 5_000).await, Some(true));
    assert_eq!(taken_by(&window, takes(6, 100), 5_000).await, Some(false));
    assert_eq!(window.taken(), 3);
}

#[tokio::test]
async fn who_takes_what_is_good_for_one_gives_nothing_on() {
    let window = Window::new(WIDE, vec![]);
    commit(&window, good_for_one(1, 100), 0).await;
    let mut both = takes(2, 100);
    both.register_for_one(key(101));
    assert_eq!(taken_by(&window, both.clone(), 0).await, Some(true));
    assert_eq!(taken_by(&window, takes(3, 101), 0).await, Some(false));
    // What is the same by something else takes nothing.
    let window = Window::new(WIDE, vec![]);
    commit(&window, good_for_one(1, 100), 0).await;
    commit(&window, keys(9), 0).await;
    let mut known = takes(2, 100);
    known.also_known_by(key(9));
    assert_eq!(taken_by(&window, known, 0).await, None);
    assert_eq!(taken_by(&window, takes(3, 100), 0).await, Some(true));
}

#[tokio::test]
async fn who_takes_of_one_sort_takes_all_of_it_and_none_of_another() {
    let window = Window::new(WIDE, vec![]);
    for (id, of_one) in [(1, 100), (2, 101), (3, 102)] {
        commit(&window, good_for_one(id, of_one), 0).await;
    }
    let of_all = |id| {
        let mut keys = takes(id, 100);
        keys.look_up_for_one(key(101), BY_THE_FIRST);
        keys.look_up_for_one(key(102), ForOne { giver: 9, ..BY_THE_FIRST });
        keys
    };
    assert_eq!(taken_by(&window, of_all(4), 0).await, Some(true));
    assert_eq!(taken_by(&window, takes(5, 100), 0).await, Some(false));
    assert_eq!(taken_by(&window, takes(6, 101), 0).await, Some(false));
    assert_eq!(taken_by(&window, of_all(7), 0).await, Some(true), "that of the other sort");
    assert_eq!(taken_by(&window, of_all(8), 0).await, Some(false));
}

#[tokio::test]
async fn what_was_taken_stays_so_though_the_clock_was_set_back() {
    let window = Window::new(WIDE, vec![]);
    commit(&window, good_for_one(1, 100), 50_000).await;
    let claim = claim(&window, takes(2, 100), 3_000).await.unwrap();
    // What the journal keeps.
    let kept = [(key(100), 50_000)].into_iter();
    let kept = kept.chain(claim.keys().iter().map(|key| (*key, claim.time_ms(3_000)))).collect();
    claim.commit(3_000);
    for window in [window, Window::new(WIDE, kept)] {
        assert_eq!(taken_by(&window, takes(3, 100), 4_000).await, Some(false));
        assert_eq!(taken_by(&window, takes(4, 100), 60_000).await, Some(false));
    }
}

#[tokio::test]
async fn of_two_at_a_time_one_takes_what_is_good_for_one() {
    let window = Window::new(WIDE, vec![]);
    commit(&window, good_for_one(1, 100), 0).await;
    for outcome in [false, true] {
        let first = claim(&window, takes(2, 100), 0).await.unwrap();
        let other = tokio::spawn({
            let window = window.clone();
            async move { claim(&window, takes(3, 100), 0).await.map(|claim| claim.is_taken()) }
        });
        tokio::task::yield_now().await;
        assert!(!other.is_finished());
        match outcome {
            true => first.commit(0),
            false => drop(first),
        }
        // A failed one left no trace, so the other takes it (and is dropped here).
        assert_eq!(other.await.unwrap(), Some(!outcome));
    }
}

#[tokio::test]
async fn that_it_was_taken_survives_a_restart() {
    let window = Window::new(WIDE, vec![]);
    let given = claim(&window, good_for_one(1, 100), 0).await.unwrap();
    let mut kept: Vec<(Key, u64)> = given.keys().iter().map(|key| (*key, 0)).collect();
    given.commit(0);
    let claim = claim(&window, takes(2, 100), 0).await.unwrap();
    kept.extend(claim.keys().iter().map(|key| (*key, 0)));
    let window = Window::new(WIDE, kept);
    assert_eq!(taken_by(&window, takes(2, 100), 0).await, None);
    assert_eq!(taken_by(&window, takes(3, 100), 0).await, Some(false));
}

#[tokio::test]
async fn a_dropped_claim_leaves_no_trace() {
    let window = Window::new(LIMITS, vec![]);
    drop(claim(&window, with_body(1, 2), 0).await);
    assert!(!known(&window, 1, 0).await);
    assert!(window.is_empty());
    assert!(window.state().claimed.is_empty());
}

#[tokio::test]
async fn the_oldest_make_room_for_the_newest() {
    let window = Window::new(LIMITS, (1..=5).map(|n| (key(n), 0)).collect());
    assert_eq!(window.len(), 3);
    assert!(!known(&window, 2, 0).await);
    assert!(known(&window, 3, 0).await);
    assert!(known(&window, 5, 0).await);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_registered_again_counts_from_its_newest_time() {
    let window = Window::new(WIDE, vec![]);
    commit(&window, pair(1, 9), 0).await;
    after(s(60)).await;
    for _ in 0..2 {
        commit(&window, pair(1, 9), 60_000).await;
    }
    // The first time is out of the window, the second is not.
    after(s(100)).await;
    assert!(known(&window, 1, 160_000).await);
    assert_eq!(window.len(), 1);
    after(s(1)).await;
    assert!(!known(&window, 1, 161_000).await);
    assert!(window.state().ages.is_empty() && window.state().lows.is_empty());

    // So when it is pushed out by others, and when times come in another order than they are.
    let window = Window::new(LIMITS, vec![(key(1), 5_000), (key(2), 5_000), (key(1), 7_000)]);
    commit(&window, pair(1, 9), 6_000).await;
    commit(&window, keys(3), 7_000).await;
    assert!(known(&window, 1, 17_000).await);
    commit(&window, keys(4), 7_000).await;
    assert!(!known(&window, 2, 7_000).await);
    assert!(known(&window, 1, 7_000).await);
}

#[tokio::test]
async fn a_full_window_grows_no_more() {
    let limits = Limits { max_keys: 1000, ..WIDE };
    let window = Window::new(limits, (0..1000).map(|n: u16| (wide(n), 0)).collect());
    let room = |window: &Window| window.state().ages.capacity();
    let before = room(&window);
    for n in 1000..3000 {
        commit(&window, Keys::known_by(wide(n)), 0).await;
    }
    assert_eq!((window.len(), room(&window)), (1000, before));
}

fn wide(n: u16) -> Key {
    let mut key = Key::default();
    key[..2].copy_from_slice(&n.to_le_bytes());
    key
}

#[tokio::test]
async fn a_second_sender_waits_for_the_first_and_sees_its_outcome() {
    for second in [keys(1), with_body(2, 1), with_body(1, 2)] {
        for committed in [true, false] {
            let window = Window::new(LIMITS, vec![]);
            let first = claim(&window, with_body(1, 9), 0).await.unwrap();
            let other = tokio::spawn({
                let (window, second) = (window.clone(), second.clone());
                async move { claim(&window, second, 0).await.is_none() }
            });
            tokio::task::yield_now().await;
            assert!(!other.is_finished());
            if committed {
                first.commit(0);
            } else {
                drop(first);
            }
            assert_eq!(other.await.unwrap(), committed);
            assert!(window.state().claimed.is_empty());
        }
    }
}

#[tokio::test]
async fn an_event_is_known_by_any_of_its_keys() {
    let window = Window::new(WIDE, vec![]);
    commit(&window, with_body(1, 9), 0).await;
    assert_eq!(window.len(), 2);
    assert!(claim(&window, with_body(2, 9), 0).await.is_none());
    assert!(claim(&window, with_body(1, 8), 0).await.is_none());
    assert!(!known(&window, 2, 0).await, "what was refused left no trace");
    assert!(claim(&window, with_body(3, 8), 0).await.is_some());
}

#[tokio::test]
async fn what_is_registered_alone_makes_nobody_wait_and_nothing_the_same() {
    let window = Window::new(WIDE, vec![]);
    let first = claim(&window, pair(1, 2), 0).await.unwrap();
    let second = claim(&window, pair(1, 2), 0).await.unwrap();
    let waiting = tokio::spawn({
        let window = window.clone();
        async move { known(&window, 1, 0).await }
    });
    tokio::task::yield_now().await;
    // One that failed is not the end of the other.
    drop(second);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    first.commit(0);
    assert!(waiting.await.unwrap());
    assert!(window.state().claimed.is_empty());
}

#[tokio::test]
async fn who_is_dropped_while_it_waits_holds_up_nobody() {
    let window = Window::new(WIDE, vec![]);
    let first = claim(&window, keys(1), 0).await.unwrap();
    let waiting = tokio::spawn({
        let window = window.clone();
        async move { claim(&window, with_body(2, 1), 0).await.is_some() }
    });
    tokio::task::yield_now().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert!(!known(&window, 2, 0).await, "it held nothing");
    drop(first);
    assert!(!known(&window, 1, 0).await);
}

/// What an event registers and looks up, of a few keys, and whether its append succeeds.
type Asked = (Vec<u8>, Vec<(u8, Option<u32>)>, bool);

fn asked() -> impl Strategy<Value = Asked> {
    let look_up = (0..6u8, prop::option::of(0..30u32));
    (prop::collection::vec(0..6u8, 0..4), prop::collection::vec(look_up, 0..4), any::<bool>())
}

fn keys_of((registered, looked_up, _): &Asked) -> Keys {
    let mut keys = Keys::default();
    registered.iter().for_each(|n| keys.register(key(*n)));
    for (n, younger_than_s) in looked_up {
        keys.look_up(key(*n), younger_than_s.unwrap_or(u32::MAX));
    }
    keys
}

proptest! {
    /// One after the other, as a list of all that was ever registered says; reopened at any time.
    #[test]
    fn it_knows_what_a_list_of_all_keys_knows(
        events in prop::collection::vec((asked(), 0..15u64, prop::bool::weighted(0.1)), 0..40),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        // Its clock, also outside of what it runs.
        let _entered = runtime.enter();
        let limits = Limits { window: Duration::from_secs(20), max_keys: 1000 };
        let mut window = Window::new(limits, vec![]);
        // With the time at which each was registered, by the wall clock and by running time.
        let (mut all, mut now_s): (Vec<(Key, u64, u64)>, u64) = (vec![], 0);
        for (asked, later_s, reopened) in events {
            now_s += later_s;
            runtime.block_on(after(s(later_s)));
            if reopened {
                let kept = all.iter().map(|(key, wall_s, _)| (*key, wall_s * 1000)).collect();
                window = Window::new(limits, kept);
                // What has passed since the last key cannot be told from downtime.
                let down_s = all.last().map_or(0, |(_, wall_s, _)| now_s - wall_s);
                let mut run_s = now_s - down_s;
                for at in (0..all.len()).rev() {
                    run_s -= all.get(at + 1).map_or(0, |(_, later_s, _)| later_s - all[at].1);
                    all[at].2 = run_s + down_s;
                }
            }
            let expected = asked.1.iter().any(|(n, younger_than_s)| {
                all.iter().filter(|(known, ..)| *known == key(*n)).any(|(_, wall_s, run_s)| {
                    let young_s = younger_than_s.map_or(u64::MAX, u64::from);
                    now_s - run_s <= 20 && now_s - wall_s < young_s
                })
            });
            let claim = runtime.block_on(claim(&window, keys_of(&asked), now_s * 1000));
            prop_assert_eq!(claim.is_none(), expected);
            if let Some(claim) = claim.filter(|_| asked.2) {
                all.extend(claim.keys().iter().map(|key| (*key, now_s, now_s)));
                claim.commit(now_s * 1000);
            }
            prop_assert!(window.state().claimed.is_empty());
            let lowest_s = window.state().known.values().map(|time| time.wall_s).min();
            let before_s = window.holds_none_before_ms(now_s * 1000) / 1000;
            prop_assert!(before_s <= lowest_s.map_or(now_s, u64::from));
        }
    }
}

/// Many at once over few keys, on several threads: everybody gets an answer, and what got in
/// could have got in one after the other, in the order of the claims.
#[test]
fn of_those_that_exclude_each_other_one_gets_in_and_nobody_waits_for_ever() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let window = Window::new(WIDE, vec![]);
        // Each is known by two or three of few keys: circles of those who want each other's are sure.
        let events: Vec<(Vec<u8>, bool)> = (0..40)
            .map(|_| ((0..random.usize(2..4)).map(|_| random.u8(0..8)).collect(), random.bool()))
            .collect();
        let tasks: Vec<_> = events
            .iter()
            .cloned()
            .map(|(known_by, fails)| {
                let window = window.clone();
                runtime.spawn(async move {
                    let mut keys = Keys::default();
                    known_by.iter().for_each(|n| keys.also_known_by(key(*n)));
                    let claim = claim(&window, keys, 0).await?;
                    tokio::task::yield_now().await;
                    if fails {
                        return None;
                    }
                    claim.commit(0);
                    Some(())
                })
            })
            .collect();
        let outcomes = runtime.block_on(async {
            let all = async {
                let mut outcomes = Vec::new();
                for task in tasks {
                    outcomes.push(task.await.unwrap().is_some());
                }
                outcomes
            };
            tokio::time::timeout(Duration::from_secs(60), all).await.expect("nobody waits for ever")
        });
        let mut got_in: HashMap<u8, usize> = HashMap::new();
        for ((known_by, _), _) in events.iter().zip(&outcomes).filter(|(_, got_in)| **got_in) {
            let mut known_by = known_by.clone();
            known_by.sort();
            known_by.dedup();
            known_by.into_iter().for_each(|n| *got_in.entry(n).or_default() += 1);
        }
        assert!(got_in.values().all(|count| *count == 1), "{got_in:?}");
        // Who would have succeeded did not only because one of its keys is in.
        for ((known_by, fails), outcome) in events.iter().zip(&outcomes) {
            let excused = *fails || known_by.iter().any(|n| got_in.contains_key(n));
            assert!(*outcome || excused, "{known_by:?}");
        }
        assert!(window.state().claimed.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn looking_leaves_no_trace() {
    let window = Window::new(LIMITS, vec![]);
    assert!(!window.knows(&keys(1), 0));
    commit(&window, keys(1), 0).await;
    after(s(10)).await;
    assert!(window.knows(&keys(1), 10_000));
    after(s(1)).await;
    assert!(!window.knows(&keys(1), 11_000));
    let claim = claim(&window, keys(2), 11_000).await.expect("an event of its own");
    assert!(!window.knows(&keys(2), 11_000), "it is not in yet");
    drop(claim);
    assert!(!known(&window, 2, 11_000).await);
}
