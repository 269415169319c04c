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
        Address, Record,
        tests::{binary, plain},
    },
    journal::{Entry, Options, RealDisk, Storage},
};

mod change;
mod hold;
mod line;

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
    Client { kind: Some(broker::Kind::Nats), settings: None, broker }
}

const LIMITS: Limits = Limits {
    window: Capacity { messages: 8, bytes: 1 << 20 },
    retry_for: Duration::from_secs(60),
    backlog_bytes: 1 << 20,
    drain: Duration::from_secs(1),
};

/// How long what must come about may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Appends, and waits however long that takes: the tests' clock is paused and runs ahead of the disk, so
/// that an append with a bound would be late.
async fn append_in_the_end(journal: &Journal, entry: Entry) {
    let (tell, told) = tokio::sync::oneshot::channel();
    journal.append(entry, Box::new(|outcome| drop(tell.send(outcome)))).await;
    told.await.unwrap().unwrap();
}

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
            holds: Arc::default(),
            feed: crate::feed::Feed::default(),
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
        join_all(entries.map(|entry| append_in_the_end(&self.shared.main, entry))).await;
    }

    /// Runs a dispatcher until `done`; time is paused, so that waiting costs none.
    async fn run_until(&self, done: impl Fn(&World) -> bool) {
        self.run_and(|world, _| done(world)).await;
    }

    /// The same for somebody who has something to tell it.
    async fn run_and(&self, done: impl Fn(&World, &Orders) -> bool) {
        self.run_with(client(&self.script), done).await;
    }

    /// The same for one that begins with this client.
    async fn run_with(&self, client: Client, done: impl Fn(&World, &Orders) -> bool) {
        let storage: Arc<dyn Storage> = Arc::new(RealDisk);
        let parked = self.parked.clone();
        let parked = Journal::open(storage, &self.dir.path().join("parked"), parked).unwrap();
        let dispatcher =
            Dispatcher::open("b".into(), self.limits, parked.journal, self.shared.clone()).unwrap();
        *self.stats.lock().unwrap() = dispatcher.stats();
        let orders = dispatcher.orders();
        let stop = CancellationToken::new();
        let running = tokio::spawn(dispatcher.run(client, stop.clone()));
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

    /// How many records of the main journal are settled.
    fn settled(&self) -> u64 {
        // What is committed between the two looks counts as not settled yet.
        let fence = self.shared.main.fence().ordinal();
        fence.saturating_sub(self.shared.main.behind("b").0.records)
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
    world.run_until(|world| world.settled() == 21).await;
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
async fn a_failing_message_is_parked_then_given_up_on_and_the_cursor_goes_on() {
    let world = World::new();
    world.append(&["failing", "good-1", "refused", "good-2"]).await;
    world.run_until(|world| world.dead().len() == 2).await;
    assert_eq!(world.confirmed(), ["good-1", "good-2"]);
    assert_eq!(world.settled(), 4);
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
    world.run_until(|world| world.settled() == 31).await;
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
    assert_eq!(world.settled(), 4);
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
        append_in_the_end(&world.shared.main, entry(id, broker, "{}")).await;
        // Time is paused: all that can be read is.
        tokio::time::sleep(TICK * 3).await;
        (world.settled(), world.stats().main.unsettled())
    };
    let appends = async {
        tokio::time::sleep(TICK).await;
        assert_eq!(append("elsewhere", "c").await, (1, 0));
        assert_eq!(append("good-1", "b").await, (1, 1));
        assert_eq!(append("good-2", "b").await, (1, 1));
        world.script.tried.store(false, Relaxed);
    };
    let is_over = |world: &World| {
        let was_tried = world.script.connections.load(Relaxed) > 0;
        was_tried && !world.script.tried.load(Relaxed)
    };
    tokio::join!(world.run_until(is_over), appends);
    *world.script.stuck.lock().unwrap() = None;
    world.run_until(|world| world.settled() == 3).await;
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
