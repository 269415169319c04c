//! What a dispatcher does when it is told to change: its client, its patience, or to leave.

use super::*;
use crate::routing::{self, BrokerKind, Table, WhenFull};

/// A routing table that says nothing, for requests to run on.
pub(super) fn table() -> Arc<Table> {
    let text = "sources: {}\nbrokers: { a: { type: log } }\nroutes: []\n";
    Arc::new(routing::compile("routes.yaml", text, &|_| None).unwrap())
}

/// Whether this is the first time.
pub(super) fn once(done: &AtomicBool) -> bool {
    !done.swap(true, Relaxed)
}

pub(super) fn farewell(tables: &[&Arc<Table>], for_ms: u64) -> Farewell {
    Farewell {
        tables: tables.iter().map(|table| Arc::downgrade(table)).collect(),
        time: Duration::from_millis(for_ms),
        reason: "it was removed".into(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_is_finished_on_the_old_client_before_the_new_one_goes_on() {
    let world = World::new();
    let (gated, good) = (names("gated", 3), names("good", 3));
    world.append(&refs(&gated)).await;
    let next = Arc::<Script>::default();
    let told = AtomicBool::new(false);
    world
        .run_and(|world, orders| {
            if world.stats().in_flight.get() == 3 && once(&told) {
                orders.tell(Order { client: Some(client(&next)), farewell: farewell(&[], 0) });
                world.script.gate.send_replace(true);
            }
            next.connections.load(Relaxed) == 1
        })
        .await;
    let mut confirmed = world.confirmed();
    confirmed.sort();
    assert_eq!(confirmed, gated, "in whatever order");
    assert_eq!(*next.confirmed.lock().unwrap(), Vec::<String>::new());
    world.append(&refs(&good)).await;
    world.run_until(|world| world.settled() == 6).await;
    assert_eq!(world.confirmed()[3..], good);
}

#[tokio::test(start_paused = true)]
async fn what_the_old_client_does_not_finish_goes_through_the_new_one_in_order() {
    let world = World::new();
    let ids = names("gated", 4);
    world.append(&refs(&ids)).await;
    let next = Arc::<Script>::default();
    next.gate.send_replace(true);
    let told = AtomicBool::new(false);
    world
        .run_and(|world, orders| {
            if world.stats().in_flight.get() == 4 && once(&told) {
                orders.tell(Order { client: Some(client(&next)), farewell: farewell(&[], 0) });
            }
            world.settled() == 4
        })
        .await;
    assert_eq!(world.confirmed(), Vec::<String>::new());
    assert_eq!(*next.confirmed.lock().unwrap(), ids);
    assert_eq!(world.stats().condition().trouble, None);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_back_as_it_was_goes_on_with_what_it_has_in_flight() {
    let world = World::new();
    let ids = names("gated", 4);
    world.append(&refs(&ids)).await;
    let settings = Arc::new(BrokerKind::Log { dir: None, rotate_bytes: None, keep: None });
    let as_it_was =
        |script: &Arc<Script>| Client { settings: Some(settings.clone()), ..client(script) };
    let needless = Arc::<Script>::default();
    let (told, started) = (AtomicBool::new(false), Instant::now());
    world
        .run_with(as_it_was(&world.script), |world, orders| {
            if world.stats().in_flight.get() == 4 && once(&told) {
                let farewell = || farewell(&[], 3_600_000);
                orders.tell(Order { client: None, farewell: farewell() });
                orders.tell(Order { client: Some(as_it_was(&needless)), farewell: farewell() });
            }
            // Longer than a client that is left has for what is in flight.
            if told.load(Relaxed) && started.elapsed() > Duration::from_secs(10) {
                world.script.gate.send_replace(true);
            }
            world.settled() == 4
        })
        .await;
    let mut confirmed = world.confirmed();
    confirmed.sort();
    assert_eq!(confirmed, ids, "each once");
    assert_eq!(world.script.connections.load(Relaxed), 1);
    assert_eq!(needless.connections.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_in_connecting_is_given_up_for_the_next() {
    let world = World::new();
    world.append(&["good-1"]).await;
    *world.script.stuck.lock().unwrap() = Some(Stuck::Connecting);
    let next = Arc::<Script>::default();
    let told = AtomicBool::new(false);
    world
        .run_and(|world, orders| {
            if world.script.tried.load(Relaxed) && once(&told) {
                orders.tell(Order { client: Some(client(&next)), farewell: farewell(&[], 0) });
            }
            world.settled() == 1
        })
        .await;
    assert_eq!(*next.confirmed.lock().unwrap(), ["good-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_removed_broker_does_not_end_while_a_request_runs_on_a_table_that_named_it() {
    let world = World::new();
    let request = Mutex::new(Some(table()));
    let ticks = AtomicUsize::new(0);
    let appended = AtomicBool::new(false);
    world.append(&["good-1"]).await;
    let late = async {
        while ticks.load(Relaxed) < 5 {
            tokio::time::sleep(TICK).await;
        }
        assert_ne!(world.stats().condition().state, State::Ended);
        world.append(&["good-2"]).await;
        appended.store(true, Relaxed);
        request.lock().unwrap().take();
    };
    let told = AtomicBool::new(false);
    let run = world.run_and(|world, orders| {
        if world.settled() == 1 && once(&told) {
            let request = request.lock().unwrap();
            let tables = [request.as_ref().unwrap()];
            orders.tell(Order { client: None, farewell: farewell(&tables, 3_600_000) });
        }
        ticks.fetch_add(told.load(Relaxed) as usize, Relaxed);
        world.stats().condition().state == State::Ended
    });
    tokio::join!(run, late);
    assert!(appended.load(Relaxed));
    assert_eq!(world.confirmed(), ["good-1", "good-2"]);
    assert_eq!(world.dead(), Vec::<String>::new());
    world.append(&["nobody's"]).await;
    assert_eq!(world.shared.main.behind("b").0.bytes, 0, "it pins nothing");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_end_of_the_time_becomes_dead_letters_and_the_broker_ends() {
    let mut world = World::new();
    world.limits.retry_for = LIMITS.retry_for * 60;
    // In flight for ever, failing and waiting for its time, and parked.
    world.append(&["gated-1", "failing", "gated-2"]).await;
    let told = AtomicBool::new(false);
    world
        .run_and(|world, orders| {
            let stats = world.stats();
            let is_parked = stats.parked.get() > 0;
            if is_parked && once(&told) {
                orders.tell(Order { client: None, farewell: farewell(&[], 2_000) });
            }
            stats.condition().state == State::Ended
        })
        .await;
    assert_eq!(world.confirmed(), Vec::<String>::new());
    let mut dead = world.dead();
    dead.sort();
    let expected = ["failing", "gated-1", "gated-2"].map(|id| format!("{id}: it was removed"));
    assert_eq!(dead, expected);
    assert_eq!(world.settled(), 3);
}

#[tokio::test(start_paused = true)]
async fn somebody_who_is_about_to_tell_something_keeps_a_broker_from_ending() {
    let world = World::new();
    world.append(&["good-1"]).await;
    let (step, held_for) = (AtomicUsize::new(0), AtomicUsize::new(0));
    world
        .run_and(|world, orders| {
            match step.load(Relaxed) {
                0 if world.settled() == 1 => {
                    orders.tell(Order { client: None, farewell: farewell(&[], 3_600_000) });
                    assert!(orders.hold());
                    step.store(1, Relaxed);
                }
                1 => {
                    assert_ne!(world.stats().condition().state, State::Ended);
                    if held_for.fetch_add(1, Relaxed) == 20 {
                        orders.let_go();
                        step.store(2, Relaxed);
                    }
                }
                _ => {}
            }
            world.stats().condition().state == State::Ended && !orders.hold()
        })
        .await;
    assert_eq!(step.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_routes_own_time_comes_before_its_brokers() {
    for (route, given_up) in [("r", true), ("another", false)] {
        let world = World::new();
        world.append(&["failing", "good"]).await;
        let policy = Policy {
            retry_for: Duration::from_secs(3600),
            route_retries: Arc::new([(route.into(), Duration::ZERO)].into_iter().collect()),
            ..Policy::of(&LIMITS)
        };
        world
            .run_and(|world, orders| {
                orders.set_policy(policy.clone());
                world.dead().len() == 1 || world.stats().parked.get() > 3
            })
            .await;
        assert_eq!(world.dead().len() == 1, given_up, "{route}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_parked_messages_make_room_and_the_others_arrive() {
    const BACKLOG: u64 = 512 << 10;
    let mut world = World::new();
    world.parked = Options { segment_bytes: BACKLOG / 8, ..Options::default() };
    let all = names("good", 64);
    world.append(&["good-first"]).await;
    *world.script.stuck.lock().unwrap() = Some(Stuck::OnHold);
    let policy = Policy {
        held_bytes: 1 << 20,
        backlog_bytes: BACKLOG,
        when_full: WhenFull::DeadLetterOldest,
        ..Policy::of(&LIMITS)
    };
    let backlog = async {
        while world.shared.holds.reason("b").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.append_with(&refs(&all), &"x".repeat(64 << 10)).await;
    };
    let is_relieved = |world: &World, orders: &Orders| {
        orders.set_policy(policy.clone());
        let (main, stats) = (&world.shared.main, world.stats());
        main.fence().ordinal() == 65
            && stats.parked.get() > 40
            && world.dead().len() > 20
            && !world.shared.backlogs.is_full(&"b".into())
    };
    tokio::join!(world.run_and(is_relieved), backlog);
    *world.script.stuck.lock().unwrap() = None;
    world.script.flow.send_replace(Flow::Open);
    // With the usual bound there is room for all that is left.
    world.run_until(|world| world.confirmed().len() + world.dead().len() == 65).await;
    let dead: Vec<String> =
        world.dead().iter().map(|letter| letter.split(':').next().unwrap().to_owned()).collect();
    let all = [vec!["good-first".to_owned()], all].concat();
    let (oldest, others) = all.split_at(dead.len());
    assert_eq!(dead, oldest);
    let [confirmed, others] = [world.confirmed(), others.to_vec()].map(HashSet::<_>::from_iter);
    assert_eq!(confirmed, others, "each is one or the other");
}
