//! What time does to keys and to those who wait for them.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_outcome_that_does_not_come_is_told_so_and_holds_nothing() {
    let window = Window::new(WIDE, vec![]);
    let first = claim(&window, keys(1), 0).await.unwrap();
    let started = Instant::now();
    for (patience, waited) in [(s(5), s(5)), (s(0), s(5))] {
        assert!(matches!(window.claim(with_body(2, 1), 0, patience).await, Err(Undecided)));
        assert_eq!(started.elapsed(), waited);
    }
    assert!(claim(&window, keys(2), 0).await.is_some(), "who gave up holds none of its keys");
    // However long it takes: it is known then, and not before.
    after(s(1000)).await;
    assert!(matches!(window.claim(keys(1), 0, s(1)).await, Err(Undecided)));
    first.commit(0);
    assert!(known(&window, 1, 0).await);
    assert!(window.state().claimed.is_empty());
}

/// A clock that is set while the daemon runs, or while it is down.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forgets_nothing_early_and_makes_nothing_young_for_long() {
    const HOUR_S: u64 = 3600;
    const DAY_S: u64 = 24 * HOUR_S;
    const NOW_S: u64 = 1_000 * DAY_S;
    let limits = Limits { window: s(DAY_S), max_keys: 1000 };
    // What passes by running time, by how much the wall clock is set besides (in hours), and whether
    // there is a start then; what is known of a key then, and whether it is young.
    let step = |runs_s: u64, set_h: i64, starts: bool| (runs_s, set_h, starts);
    let cases = [
        ("nothing is set", vec![step(HOUR_S - 1, 0, false)], true, true),
        ("nothing is set", vec![step(HOUR_S, 0, false)], true, false),
        ("nothing is set", vec![step(DAY_S, 0, false)], true, false),
        ("nothing is set", vec![step(DAY_S + 1, 0, false)], false, false),
        ("forward", vec![step(60, 72, false)], true, false),
        ("forward", vec![step(60, 72, false), step(60, -72, false)], true, true),
        ("forward", vec![step(DAY_S + 1, 72, false)], false, false),
        ("back", vec![step(60, -72, false)], true, true),
        ("back", vec![step(HOUR_S, -72, false)], true, false),
        ("back", vec![step(DAY_S + 1, -72, false)], false, false),
        ("down for long, or set forward at a start", vec![step(60, 72, true)], true, false),
        ("and once more", vec![step(60, 72, true), step(60, 72, true)], true, false),
        // A gap of which nothing is known any more counts an hour.
        ("and back again", vec![step(60, 72, true), step(60, -72, true)], true, false),
        ("set back at a start", vec![step(60, -72, true)], true, true),
        ("set back at a start", vec![step(60, -72, true), step(HOUR_S, 0, false)], true, false),
        ("a start, and a day", vec![step(60, 72, true), step(DAY_S + 1, 0, false)], false, false),
    ];
    for (what, steps, is_known, is_young) in cases {
        let (mut kept, mut wall_s) = (vec![(key(1), NOW_S * 1000)], NOW_S);
        let mut window = Window::new(limits, kept.clone());
        for (runs_s, set_h, starts) in &steps {
            after(s(*runs_s)).await;
            wall_s = (wall_s + runs_s).checked_add_signed(set_h * HOUR_S as i64).unwrap();
            if *starts {
                window = Window::new(limits, kept.clone());
            }
            // Something comes at each of these times.
            commit(&window, pair(2, 9), wall_s * 1000).await;
            kept.push((key(2), wall_s * 1000));
        }
        let knows = |younger_than_s| {
            let mut keys = Keys::default();
            keys.look_up(key(1), younger_than_s);
            window.knows(&keys, wall_s * 1000)
        };
        assert_eq!(knows(u32::MAX), is_known, "{what}: {steps:?}");
        assert_eq!(knows(HOUR_S as u32), is_young, "{what}: {steps:?}");
        let before_ms = window.holds_none_before_ms(wall_s * 1000);
        assert!(!is_known || before_ms <= NOW_S * 1000, "its file stays: {what}: {steps:?}");
    }
}
