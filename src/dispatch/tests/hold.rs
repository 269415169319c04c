//! What a dispatcher does while its broker is connected and takes nothing.

use super::*;

/// Messages for a broker that is on hold from the first.
async fn held_back() -> (World, Vec<String>) {
    let world = World::new();
    let good = names("good", 20);
    world.append(&refs(&good)).await;
    world.script.flow.send_replace(on_hold());
    (world, good)
}

#[tokio::test(start_paused = true)]
async fn a_broker_on_hold_is_left_its_messages_and_goes_on_where_it_was() {
    let (world, good) = held_back().await;
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
    let (world, good) = held_back().await;
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
        let main = &world.shared.main;
        main.fence().ordinal() == 40 && main.behind("b").0.bytes <= LIMITS.backlog_bytes
    };
    tokio::join!(world.run_until(is_relieved), backlog);
    assert_eq!(world.confirmed(), Vec::<String>::new());
    assert_eq!(world.script.connections.load(Relaxed), 2);
    world.script.flow.send_replace(Flow::Open);
    world.run_until(|world| world.confirmed().len() >= 40).await;
    assert_eq!(world.confirmed(), all);
}
