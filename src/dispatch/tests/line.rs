//! What a dispatcher does when its broker becomes one of another type, also before the last one had its
//! turn.

use super::{
    change::{farewell, once, table},
    *,
};

fn of_type(kind: broker::Kind, script: &Arc<Script>) -> Client {
    Client { kind: Some(kind), ..client(script) }
}

fn subject() -> Address {
    Address::Subject("a".into())
}

fn log_topic() -> Address {
    Address::LogTopic("t".into())
}

async fn append_to(world: &World, id: &str, address: Address) {
    append_in_the_end(&world.shared.main, entry_to(id, "b", "{}", address)).await;
}

/// Waits until a broker that leaves has looked whether requests still run on an older table.
async fn some_ticks() {
    tokio::time::sleep(TICK * 3).await;
}

#[tokio::test(start_paused = true)]
async fn another_type_takes_over_after_what_the_old_one_was_owed_and_gets_only_its_own() {
    let kafka_topic = || Address::Topic { topic: "t".into(), key: None };
    let [kafka, nats, log] = [broker::Kind::Kafka, broker::Kind::Nats, broker::Kind::Log];
    for (of_old, old, of_next, new) in [
        (nats, subject(), log, log_topic()),
        (kafka, kafka_topic(), log, log_topic()),
        (log, log_topic(), kafka, kafka_topic()),
    ] {
        let world = World::new();
        let request = Mutex::new(Some(table()));
        let next = Arc::<Script>::default();
        append_to(&world, "good-1", old.clone()).await;
        let told = AtomicBool::new(false);
        let run = world.run_with(of_type(of_old, &world.script), |world, orders| {
            if world.settled() == 1 && once(&told) {
                let farewell = farewell(&[request.lock().unwrap().as_ref().unwrap()], 3_600_000);
                orders.tell(Order { client: Some(of_type(of_next, &next)), farewell });
            }
            world.settled() == 5
        });
        // Of both types, as long as requests still run on the old table; then of the new one alone.
        let mixed = async {
            while !told.load(Relaxed) {
                tokio::time::sleep(TICK).await;
            }
            append_to(&world, "new-1", new.clone()).await;
            append_to(&world, "good-2", old.clone()).await;
            append_to(&world, "new-2", new.clone()).await;
            some_ticks().await;
            assert_eq!(world.stats().condition().kind, Some(of_old), "as yet");
            request.lock().unwrap().take();
            some_ticks().await;
            append_to(&world, "new-3", new.clone()).await;
        };
        tokio::join!(run, mixed);
        assert_eq!(world.confirmed(), ["good-1", "good-2"]);
        assert_eq!(*next.confirmed.lock().unwrap(), ["new-1", "new-2", "new-3"]);
        assert_eq!(world.dead(), Vec::<String>::new());
        assert_eq!(world.stats().condition().kind, Some(of_next));
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_of_before_those_of_log_were_told_apart_goes_where_it_was_owed() {
    let world = World::new();
    let next = Arc::<Script>::default();
    let topic = || Address::Topic { topic: "t".into(), key: None };
    append_to(&world, "gated-1", topic()).await;
    let told = AtomicBool::new(false);
    let log = of_type(broker::Kind::Log, &world.script);
    let run = world.run_with(log, |world, orders| {
        if world.stats().condition().kind.is_some() && once(&told) {
            let kafka = of_type(broker::Kind::Kafka, &next);
            orders.tell(Order { client: Some(kafka), farewell: farewell(&[], 3_600_000) });
        }
        world.settled() == 2
    });
    let later = async {
        some_ticks().await;
        append_to(&world, "new-1", topic()).await;
        some_ticks().await;
        world.script.gate.send_replace(true);
    };
    tokio::join!(run, later);
    assert_eq!(world.confirmed(), ["gated-1"]);
    assert_eq!(*next.confirmed.lock().unwrap(), ["new-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_over_fills_the_window_and_the_old_client_still_gets_its_own_once_each() {
    let mut world = World::new();
    world.limits.retry_for = Duration::ZERO;
    let request = Mutex::new(Some(table()));
    let next = Arc::<Script>::default();
    let new = names("new", LIMITS.window.messages * 3);
    append_to(&world, "good-1", subject()).await;
    let told = AtomicBool::new(false);
    let run = world.run_and(|world, orders| {
        if world.settled() == 1 && once(&told) {
            let farewell = farewell(&[request.lock().unwrap().as_ref().unwrap()], 3_600_000);
            let log = of_type(broker::Kind::Log, &next);
            orders.tell(Order { client: Some(log), farewell });
        }
        world.settled() == new.len() as u64 + 3
    });
    let slow = async {
        while !told.load(Relaxed) {
            tokio::time::sleep(TICK).await;
        }
        for (n, id) in new.iter().enumerate() {
            append_to(&world, id, log_topic()).await;
            if n == LIMITS.window.messages + 1 {
                append_to(&world, "good-2", subject()).await;
            }
        }
        // The slowest request on the old table comes last.
        append_to(&world, "failing", subject()).await;
        some_ticks().await;
        request.lock().unwrap().take();
    };
    tokio::join!(run, slow);
    assert_eq!(world.confirmed(), ["good-1", "good-2"]);
    assert_eq!(*next.confirmed.lock().unwrap(), new);
    assert_eq!(world.dead().len(), 1, "after its time, with the old client's own word");
    assert!(world.dead()[0].contains("not now"), "{:?}", world.dead());
}

/// What a broker is told, and what is accepted under it.
type Word<'w> = (Option<Client>, Option<(&'w str, Address)>);

/// Tells a broker one thing after the other, before the first has come to pass: each word with the
/// event that is accepted under it, while the present client's first message is not confirmed. Then
/// lets go.
async fn one_after_the_other(world: &World, words: Vec<Word<'_>>, done: impl Fn(&World) -> bool) {
    append_to(world, "gated-1", subject()).await;
    let told = Mutex::new(None);
    let run = world.run_and(|world, orders| {
        if world.stats().in_flight.get() == 1 {
            told.lock().unwrap().get_or_insert(orders.clone());
        }
        done(world)
    });
    let tell = async {
        let orders = loop {
            if let Some(orders) = told.lock().unwrap().clone() {
                break orders;
            }
            tokio::time::sleep(TICK).await;
        };
        for (client, accepted) in words {
            orders.tell(Order { client, farewell: farewell(&[], 3_600_000) });
            some_ticks().await;
            if let Some((id, address)) = accepted {
                append_to(world, id, address).await;
                some_ticks().await;
            }
        }
        world.script.gate.send_replace(true);
    };
    tokio::join!(run, tell);
}

#[tokio::test(start_paused = true)]
async fn a_successor_that_is_removed_before_its_turn_still_gets_what_it_is_owed() {
    let world = World::new();
    let next = Arc::<Script>::default();
    let log = of_type(broker::Kind::Log, &next);
    let words = vec![(Some(log), Some(("new-1", log_topic()))), (None, None)];
    one_after_the_other(&world, words, |world| world.stats().condition().state == State::Ended)
        .await;
    assert_eq!(world.confirmed(), ["gated-1"]);
    assert_eq!(*next.confirmed.lock().unwrap(), ["new-1"]);
    assert_eq!(world.dead(), Vec::<String>::new());
    assert_eq!(world.settled(), 2);
}

#[tokio::test(start_paused = true)]
async fn of_three_types_each_gets_what_was_accepted_for_it() {
    let world = World::new();
    let [second, third] = [(); 2].map(|()| Arc::<Script>::default());
    let topic = Address::Topic { topic: "t".into(), key: None };
    let words = vec![
        (Some(of_type(broker::Kind::Log, &second)), Some(("new-1", log_topic()))),
        (Some(of_type(broker::Kind::Kafka, &third)), Some(("newer-1", topic))),
    ];
    one_after_the_other(&world, words, |world| world.settled() == 3).await;
    assert_eq!(world.confirmed(), ["gated-1"]);
    assert_eq!(*second.confirmed.lock().unwrap(), ["new-1"]);
    assert_eq!(*third.confirmed.lock().unwrap(), ["newer-1"]);
    assert_eq!(world.dead(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn back_at_its_first_type_a_broker_still_gives_the_other_what_was_accepted_for_it() {
    let world = World::new();
    let [second, third] = [(); 2].map(|()| Arc::<Script>::default());
    let words = vec![
        (Some(of_type(broker::Kind::Log, &second)), Some(("new-1", log_topic()))),
        (Some(client(&third)), Some(("back-1", subject()))),
    ];
    one_after_the_other(&world, words, |world| world.settled() == 3).await;
    assert_eq!(world.confirmed(), ["gated-1"]);
    assert_eq!(*second.confirmed.lock().unwrap(), ["new-1"]);
    assert_eq!(*third.confirmed.lock().unwrap(), ["back-1"], "not through the first one's client");
    assert_eq!(world.dead(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_brokers_successors_cannot_deliver_says_why() {
    let world = World::new();
    // It goes down with every message.
    let next = Arc::<Script>::default();
    next.sick.store(true, Relaxed);
    let log = of_type(broker::Kind::Log, &next);
    let words = vec![(Some(log), Some(("new-1", log_topic()))), (None, None)];
    one_after_the_other(&world, words, |world| world.stats().condition().state == State::Ended)
        .await;
    assert!(next.connections.load(Relaxed) > 1, "its time begins only once it takes over");
    assert_eq!(world.dead(), ["new-1: it was removed"]);
    assert_eq!(world.confirmed(), ["gated-1"]);
}

#[tokio::test(start_paused = true)]
async fn two_words_at_once_are_both_heard() {
    let world = World::new();
    let next = Arc::<Script>::default();
    append_to(&world, "good-1", subject()).await;
    append_to(&world, "new-1", log_topic()).await;
    let told = AtomicBool::new(false);
    world
        .run_and(|world, orders| {
            if once(&told) {
                let farewell = || farewell(&[], 3_600_000);
                let log = of_type(broker::Kind::Log, &next);
                orders.tell(Order { client: Some(log), farewell: farewell() });
                orders.tell(Order { client: None, farewell: farewell() });
            }
            world.stats().condition().state == State::Ended
        })
        .await;
    assert_eq!(world.confirmed(), ["good-1"]);
    assert_eq!(*next.confirmed.lock().unwrap(), ["new-1"]);
}
