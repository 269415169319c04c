//! Sequences of faults that a real broker shows only by bad luck, against the real journal.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize},
    },
};

use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::*;
use crate::{
    broker::{Confirmation, Error as Failure, Flow, Hold},
    event::{
        Record,
        tests::{binary, plain},
    },
    journal::{Entry, Options, RealDisk, Storage},
    routing::{self, Table, WhenFull},
};

/// Says what becomes of each message, and remembers what it confirmed.
#[derive(Default)]
struct Script {
    confirmed: Mutex<Vec<String>>,
    /// Connects, but every message brings the connection down.
    sick: AtomicBool,
    connections: AtomicUsize,
    flow: watch::Sender<Flow>,
    /// Whether the next message puts it on hold.
    holds_next: AtomicBool,
    /// Until it is opened, messages named `gated` and `lost` have no verdict.
    gate: watch::Sender<bool>,
    stuck: Mutex<Option<Stuck>>,
    /// Whether it got as far as to be stuck.
    tried: AtomicBool,
}

/// Where nothing goes on, for ever.
#[derive(Clone, Copy, PartialEq)]
enum Stuck {
    Connecting,
    HandingOver,
    OnHold,
}

impl Script {
    async fn get_stuck(&self, stuck: Stuck) {
        if *self.stuck.lock().unwrap() == Some(stuck) {
            self.tried.store(true, Relaxed);
            std::future::pending().await
        }
    }

    async fn gated(&self) {
        let mut gate = self.gate.subscribe();
        gate.wait_for(|open| *open).await.expect("the sender is in `self`");
    }

    /// Confirmations wait until a hold has ended.
    async fn held(&self) {
        let mut flow = self.flow.subscribe();
        flow.wait_for(|flow| *flow == Flow::Open).await.expect("the sender is in `self`");
    }
}

fn on_hold() -> Flow {
    Flow::OnHold("low on memory".to_owned())
}

struct Scripted(Arc<Script>);

#[async_trait::async_trait]
impl Broker for Scripted {
    async fn connect(&mut self) -> Result<(), Failure> {
        self.0.connections.fetch_add(1, Relaxed);
        if matches!(*self.0.flow.borrow(), Flow::Ended(_)) {
            self.0.flow.send_replace(Flow::Open);
        }
        self.0.get_stuck(Stuck::Connecting).await;
        if *self.0.stuck.lock().unwrap() == Some(Stuck::OnHold) {
            self.0.tried.store(true, Relaxed);
            self.0.flow.send_replace(on_hold());
        }
        Ok(())
    }

    fn hold(&self) -> Option<Hold> {
        Some(self.0.flow.subscribe())
    }

    /// Messages are named after what they do.
    async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Failure> {
        let id = publication.event.id.to_string();
        let script = self.0.clone();
        script.get_stuck(Stuck::HandingOver).await;
        if script.holds_next.swap(false, Relaxed) {
            script.flow.send_replace(on_hold());
        }
        let outcome = match id.split('-').next() {
            _ if script.sick.load(Relaxed) => Err(Failure::Down("out of sorts".to_owned())),
            Some("poison") => Err(Failure::Down("the connection was closed".to_owned())),
            Some("lost") if script.connections.load(Relaxed) == 1 => {
                Err(Failure::Down("the connection was closed".to_owned()))
            }
            _ if id == "lost-refused" => Err(Failure::Refused("never".to_owned())),
            Some("failing") => Err(Failure::Failed("not now".to_owned())),
            Some("refused") => Err(Failure::Refused("never".to_owned())),
            _ => Ok(()),
        };
        Ok(Box::pin(async move {
            script.held().await;
            if id.starts_with("gated") || id.starts_with("lost") {
                script.gated().await;
            }
            if id == "late-poison" {
                tokio::time::sleep(Duration::from_millis(10)).await;
                return Err(Failure::Down("the connection was closed".to_owned()));
            }
            if outcome.is_ok() {
                script.confirmed.lock().unwrap().push(id);
            }
            outcome
        }))
    }

    async fn close(&mut self, _: Duration) {}
}

/// A client of the type that the messages are for.
fn client(script: &Arc<Script>) -> Client {
    let broker = Box::new(Scripted(script.clone()));
    let takes = |address: &Address| matches!(address, Address::Subject(_));
    Client { kind: Some("scripted"), takes, broker }
}

const LIMITS: Limits = Limits {
    window: Capacity { messages: 8, bytes: 1 << 20 },
    retry_for: Duration::from_secs(60),
    backlog_bytes: 1 << 20,
    drain: Duration::from_secs(1),
};

/// How long what must come about may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

struct World {
    limits: Limits,
    dir: tempfile::TempDir,
    shared: Shared,
    parked: Options,
    script: Arc<Script>,
    /// Of the last dispatcher.
    stats: Mutex<Arc<Stats>>,
}

impl World {
    fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(RealDisk);
        let open = |name: &str| {
            let options = Options { segment_bytes: 256 << 10, ..Options::default() };
            Journal::open(storage.clone(), &dir.path().join(name), options).unwrap()
        };
        let shared = Shared {
            main: open("journal").journal,
            dead_letters: DeadLetters::new(open("dead-letters").journal),
            backlogs: Arc::default(),
            progress: Arc::default(),
            holds: Arc::default(),
            feed: Feed::default(),
        };
        World {
            limits: LIMITS,
            dir,
            shared,
            parked: Options::default(),
            script: Arc::default(),
            stats: Mutex::new(Arc::new(Stats::new())),
        }
    }

    async fn append(&self, ids: &[&str]) {
        self.append_with(ids, "{}").await;
    }

    async fn append_with(&self, ids: &[&str], body: &str) {
        let entries = ids.iter().map(|id| entry(id, "b", body));
        for written in join_all(entries.map(|entry| self.shared.main.append_durable(entry))).await {
            written.unwrap();
        }
    }

    /// Runs a dispatcher until `done`; time is paused, so that waiting costs none.
    async fn run_until(&self, done: impl Fn(&World) -> bool) {
        self.run_and(|world, _| done(world)).await;
    }

    /// The same for somebody who has something to tell it.
    async fn run_and(&self, done: impl Fn(&World, &Orders) -> bool) {
        let storage: Arc<dyn Storage> = Arc::new(RealDisk);
        let parked = self.parked.clone();
        let parked = Journal::open(storage, &self.dir.path().join("parked"), parked).unwrap();
        let dispatcher =
            Dispatcher::open("b".into(), self.limits, parked.journal, self.shared.clone()).unwrap();
        *self.stats.lock().unwrap() = dispatcher.stats();
        let orders = dispatcher.orders();
        let stop = CancellationToken::new();
        let running = tokio::spawn(dispatcher.run(client(&self.script), stop.clone()));
        // By the machine's clock: the disk is a real one.
        let started = std::time::Instant::now();
        while !done(self, &orders) {
            assert!(started.elapsed() < WITHIN, "not done; confirmed: {:?}", self.confirmed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    fn stats(&self) -> Arc<Stats> {
        self.stats.lock().unwrap().clone()
    }

    fn confirmed(&self) -> Vec<String> {
        self.script.confirmed.lock().unwrap().clone()
    }

    fn dead(&self) -> Vec<String> {
        dead_letter::list(Arc::new(RealDisk), self.dir.path())
            .unwrap()
            .map(|kept| kept.unwrap())
            .map(|kept| format!("{}: {}", kept.event.id, kept.reason))
            .collect()
    }

    fn cursor(&self) -> Position {
        self.shared.progress.lowest().unwrap()
    }
}

fn entry(id: &str, broker: &str, body: &str) -> Entry {
    entry_to(id, broker, body, Address::Subject("a".into()))
}

fn entry_to(id: &str, broker: &str, body: &str, address: Address) -> Entry {
    let event = plain(id, body.to_owned());
    let messages = vec![binary("r", broker, Ok(address))];
    Entry::new(Record { event, messages }.encode(), 1)
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn a_message_that_brings_the_connection_down_holds_up_nobody_for_ever() {
    holds_up_nobody("poison").await;
}

#[tokio::test(start_paused = true)]
async fn nor_does_one_that_brings_it_down_after_others_have_passed() {
    holds_up_nobody("late-poison").await;
}

async fn holds_up_nobody(poison: &str) {
    let world = World::new();
    let good = names("good", 20);
    world.append(&[poison]).await;
    world.append(&refs(&good)).await;
    world.run_until(|world| world.cursor() == Position(21)).await;
    let confirmed: HashSet<String> = world.confirmed().into_iter().collect();
    assert_eq!(confirmed, good.into_iter().collect());
    assert_eq!(world.dead(), Vec::<String>::new(), "it is parked, and may pass another day");
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_confirms_nothing_costs_no_message_however_long_it_lasts() {
    let world = World::new();
    let good = names("good", 20);
    world.append(&refs(&good)).await;
    world.script.sick.store(true, Relaxed);
    let (started, sick_for) = (Instant::now(), LIMITS.retry_for * 20);
    world
        .run_until(|world| {
            if started.elapsed() > sick_for {
                world.script.sick.store(false, Relaxed);
            }
            world.confirmed().len() >= 20
        })
        .await;
    let mut confirmed = world.confirmed();
    assert_eq!(world.dead(), Vec::<String>::new());
    // One was tried by itself and passed the others; those are in order.
    let first = confirmed.remove(0);
    assert_eq!(confirmed, good.into_iter().filter(|id| *id != first).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_whatever_the_broker_does() {
    for stuck in [Stuck::Connecting, Stuck::HandingOver, Stuck::OnHold] {
        let world = World::new();
        world.append(&refs(&names("good", 20))).await;
        *world.script.stuck.lock().unwrap() = Some(stuck);
        world.run_until(|world| world.script.tried.load(Relaxed)).await;
        assert_eq!(world.confirmed(), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_on_hold_is_left_its_messages_and_goes_on_where_it_was() {
    let world = World::new();
    let good = names("good", 20);
    world.append(&refs(&good)).await;
    world.script.flow.send_replace(on_hold());
    let started = Instant::now();
    world
        .run_until(|world| {
            if started.elapsed() > LIMITS.retry_for * 20 {
                world.script.flow.send_replace(Flow::Open);
            } else if started.elapsed() > LIMITS.retry_for {
                assert_eq!(world.shared.holds.reason("b").as_deref(), Some("low on memory"));
                assert_eq!(world.confirmed(), Vec::<String>::new());
            }
            world.confirmed().len() == 20
        })
        .await;
    assert_eq!(world.confirmed(), good);
    assert_eq!(world.shared.holds.reason("b"), None);
    assert_eq!(world.script.connections.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_on_hold_with_nothing_in_flight_is_built_anew() {
    let world = World::new();
    let good = names("good", 20);
    world.append(&refs(&good)).await;
    world.script.flow.send_replace(on_hold());
    let started = Instant::now();
    world
        .run_until(|world| {
            let is_held = world.shared.holds.reason("b").is_some();
            if is_held && started.elapsed() > LIMITS.retry_for {
                let condition = world.stats().condition();
                assert_eq!((condition.state, world.confirmed().len()), (State::Down, 0));
                world.script.flow.send_replace(Flow::Ended("killed".to_owned()));
            }
            world.confirmed().len() == 20
        })
        .await;
    assert_eq!(world.confirmed(), good);
    assert_eq!(world.script.connections.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hold_does_not_keep_the_main_journal_from_its_relief() {
    let world = World::new();
    let all = names("good", 40);
    let (in_flight, more) = all.split_at(4);
    world.append(&refs(in_flight)).await;
    world.script.holds_next.store(true, Relaxed);
    let backlog = async {
        while world.shared.holds.reason("b").is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // More than the bound, in segments that can be freed.
        world.append_with(&refs(more), &"x".repeat(64 << 10)).await;
    };
    let is_relieved = |world: &World| {
        let (main, cursor) = (&world.shared.main, world.cursor());
        main.end() == Position(40) && main.bytes_from(cursor) <= LIMITS.backlog_bytes
    };
    tokio::join!(world.run_until(is_relieved), backlog);
    assert_eq!(world.confirmed(), Vec::<String>::new());
    assert_eq!(world.script.connections.load(Relaxed), 2);
    world.script.flow.send_replace(Flow::Open);
    world.run_until(|world| world.confirmed().len() >= 40).await;
    assert_eq!(world.confirmed(), all);
}

#[tokio::test(start_paused = true)]
async fn a_failing_message_is_parked_then_given_up_on_and_the_cursor_goes_on() {
    let world = World::new();
    world.append(&["failing", "good-1", "refused", "good-2"]).await;
    world.run_until(|world| world.dead().len() == 2).await;
    assert_eq!(world.confirmed(), ["good-1", "good-2"]);
    assert_eq!(world.cursor(), Position(4));
    let dead = world.dead();
    assert_eq!(dead[0], "refused: never");
    assert!(dead[1].starts_with("failing: tried "), "{dead:?}");
    assert!(dead[1].ends_with("at last: not now"), "{dead:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_parked_survives_a_restart_and_what_is_settled_does_not_come_back() {
    let mut world = World::new();
    // Paused time runs on while the disk is slow.
    world.limits.retry_for = LIMITS.retry_for * 60;
    let good = names("good", 30);
    world.append(&["failing"]).await;
    world.append(&refs(&good)).await;
    world.run_until(|world| world.cursor() == Position(31)).await;
    assert_eq!(world.dead(), Vec::<String>::new());
    world.run_until(|world| world.dead().len() == 1).await;
    assert_eq!(world.confirmed(), good);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_messages_is_counted() {
    let world = World::new();
    world.append(&["failing", "good-1", "refused", "good-2"]).await;
    world.run_until(|world| world.dead().len() == 2).await;
    let stats = world.stats();
    let failures: Vec<u64> = stats.failures().into_iter().map(|(_, count)| count).collect();
    let [down, failed, refused] = failures[..] else { panic!("{failures:?}") };
    assert_eq!((down, refused), (0, 1));
    assert!(failed > u64::from(ATTEMPTS), "{failed}");
    assert_eq!(stats.confirmed.get(), 2);
    assert_eq!(stats.confirm_times.read().count(), 2);
    assert_eq!(stats.published.get(), 2 + refused + failed);
    assert_eq!(stats.retries.get(), failed - 1, "all but the first attempt");
    assert_eq!(stats.dead_letters.get(), 2);
    // It is parked anew after each attempt but the last.
    assert_eq!(stats.parked.get(), failed - u64::from(ATTEMPTS));
    assert_eq!((stats.in_flight.get(), stats.retrying.get()), (0, 0));
    let lanes = [&stats.main, &stats.parked_lane].map(|lane| (lane.unsettled(), lane.oldest_ms()));
    assert_eq!(lanes, [(0, None), (0, None)]);
    assert_eq!(stats.main.cursor(), Position(4));
    assert_eq!(stats.condition().state, State::Ended);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_connects_and_confirms_nothing_is_down_until_it_does() {
    let world = World::new();
    world.append(&["good-1", "good-2"]).await;
    world.script.sick.store(true, Relaxed);
    world
        .run_until(|world| {
            let stats = world.stats();
            let condition = stats.condition();
            if stats.connections.get() > 3 {
                assert_eq!(condition.state, State::Down);
                assert_eq!(condition.trouble.as_deref(), Some("out of sorts"));
                assert!(stats.main.oldest_ms().is_some() && stats.main.unsettled() == 2);
            }
            stats.connections.get() > 10
        })
        .await;
    world.script.sick.store(false, Relaxed);
    world
        .run_until(|world| {
            let condition = world.stats().condition();
            condition.state == State::Connected && world.confirmed().len() == 2
        })
        .await;
    assert_eq!(world.stats().condition().trouble, None);
}

#[tokio::test(start_paused = true)]
async fn whatever_has_its_verdict_when_the_connection_is_lost_is_not_published_again() {
    let mut world = World::new();
    // More than the runtime lets a task take in at a time.
    world.limits.window.messages = 512;
    let (lost, confirmed) = (names("lost", 3), names("gated", 300));
    world.append(&refs(&lost)).await;
    world.append(&refs(&confirmed)).await;
    world
        .run_until(|world| {
            if world.stats().in_flight.get() == 303 {
                world.script.gate.send_replace(true);
            }
            world.confirmed().len() >= 303
        })
        .await;
    let stats = world.stats();
    assert_eq!((stats.published.get(), stats.confirmed.get()), (303 + 3, 303));
    assert_eq!(stats.failures(), [("down", 1), ("failed", 0), ("refused", 0)]);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_no_more_is_read_than_shows_what_waits() {
    let world = World::new();
    *world.script.stuck.lock().unwrap() = Some(Stuck::Connecting);
    let append = async |id: &str, broker: &str| {
        world.shared.main.append_durable(entry(id, broker, "{}")).await.unwrap();
        // Time is paused: all that can be read is.
        tokio::time::sleep(TICK * 3).await;
        (world.cursor(), world.stats().main.next(), world.stats().main.unsettled())
    };
    let appends = async {
        tokio::time::sleep(TICK).await;
        assert_eq!(append("elsewhere", "c").await, (Position(1), Position(1), 0));
        assert_eq!(append("good-1", "b").await, (Position(1), Position(2), 1));
        assert_eq!(append("good-2", "b").await, (Position(1), Position(2), 1));
        world.script.tried.store(false, Relaxed);
    };
    let is_over = |world: &World| {
        let was_tried = world.script.connections.load(Relaxed) > 0;
        was_tried && !world.script.tried.load(Relaxed)
    };
    tokio::join!(world.run_until(is_over), appends);
    *world.script.stuck.lock().unwrap() = None;
    world.run_until(|world| world.cursor() == Position(3)).await;
    assert_eq!(world.confirmed(), ["good-1", "good-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_comes_to_owe_nothing_is_well_again_without_a_confirmation() {
    let world = World::new();
    world.append(&["lost-refused"]).await;
    world.script.gate.send_replace(true);
    // It is lost with the first connection; on the next it is refused.
    world
        .run_until(|world| {
            let condition = world.stats().condition();
            world.dead().len() == 1 && condition.state == State::Connected
        })
        .await;
    assert_eq!(world.stats().condition().trouble, None);
    assert_eq!(world.script.connections.load(Relaxed), 2);
    assert_eq!(world.confirmed(), Vec::<String>::new());
}

/// A routing table that says nothing, for requests to run on.
fn table() -> Arc<Table> {
    let text = "sources: {}\nbrokers: { a: { type: log } }\nroutes: []\n";
    Arc::new(routing::compile("routes.yaml", text, &|_| None).unwrap())
}

/// Whether this is the first time.
fn once(done: &AtomicBool) -> bool {
    !done.swap(true, Relaxed)
}

fn farewell(tables: &[&Arc<Table>], for_ms: u64) -> Farewell {
    Farewell {
        tables: tables.iter().map(|table| Arc::downgrade(table)).collect(),
        until: Instant::now() + Duration::from_millis(for_ms),
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
    world.run_until(|world| world.cursor() == Position(6)).await;
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
            world.cursor() == Position(4)
        })
        .await;
    assert_eq!(world.confirmed(), Vec::<String>::new());
    assert_eq!(*next.confirmed.lock().unwrap(), ids);
    assert_eq!(world.stats().condition().trouble, None);
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
            world.cursor() == Position(1)
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
        if world.stats().main.cursor() == Position(1) && once(&told) {
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
    assert_eq!(world.shared.progress.lowest(), None, "it pins nothing");
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
    assert_eq!(world.stats().main.cursor(), Position(3));
}

#[tokio::test(start_paused = true)]
async fn somebody_who_is_about_to_tell_something_keeps_a_broker_from_ending() {
    let world = World::new();
    world.append(&["good-1"]).await;
    let (step, held_for) = (AtomicUsize::new(0), AtomicUsize::new(0));
    world
        .run_and(|world, orders| {
            match step.load(Relaxed) {
                0 if world.cursor() == Position(1) => {
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
async fn another_type_takes_over_after_what_the_old_one_was_owed_and_gets_only_its_own() {
    let world = World::new();
    let request = Mutex::new(Some(table()));
    let next = Arc::<Script>::default();
    // Of both kinds, as long as requests still run on the old table; then of the new kind alone.
    let old = || Address::Subject("a".into());
    let new = || Address::Topic { topic: "t".into(), key: None };
    let append = async |id: &str, address: Address| {
        world.shared.main.append_durable(entry_to(id, "b", "{}", address)).await.unwrap();
    };
    append("good-1", old()).await;
    let told = AtomicBool::new(false);
    let run = world.run_and(|world, orders| {
        if world.cursor() == Position(1) && once(&told) {
            let request = request.lock().unwrap();
            let farewell = farewell(&[request.as_ref().unwrap()], 3_600_000);
            let successor = Client {
                kind: Some("other"),
                takes: |address| matches!(address, Address::Topic { .. }),
                broker: Box::new(Scripted(next.clone())),
            };
            orders.tell(Order { client: Some(successor), farewell });
        }
        world.cursor() == Position(5)
    });
    let mixed = async {
        while !told.load(Relaxed) {
            tokio::time::sleep(TICK).await;
        }
        append("new-1", new()).await;
        append("good-2", old()).await;
        append("new-2", new()).await;
        tokio::time::sleep(TICK * 3).await;
        request.lock().unwrap().take();
        tokio::time::sleep(TICK * 3).await;
        // Past the boundary.
        append("new-3", new()).await;
    };
    tokio::join!(run, mixed);
    assert_eq!(world.confirmed(), ["good-1", "good-2"]);
    assert_eq!(*next.confirmed.lock().unwrap(), ["new-1", "new-2", "new-3"]);
    assert_eq!(world.dead(), Vec::<String>::new());
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
        main.end() == Position(65)
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
