//! `kill -9` at every step of the poller's cycle: nothing is lost, and nothing is taken that was not
//! durable.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use serde_json::{Value, json};

use crate::common::{
    polling::{Polling, eventually, options, poll_project},
    variable::number,
};

/// Kills at any moment by default; `WAYPOST_POLL_KILLS` raises it, `WAYPOST_POLL_SEED` varies them.
const KILLS: u64 = 8;

/// How long a daemon works at most before it is killed.
const LIFE_MS: u64 = 400;

const AGENTS: &str = "poll: { agents: all, every: 1s, mode: always }";

/// What a step of the cycle is held at.
const STEPS: [(&str, &str, bool); 5] = [
    // Listing: nothing is durable.
    ("GET", "/notifications", false),
    ("GET", "/notifications", true),
    // Durable, and not taken.
    ("POST", "acknowledge", false),
    // Taken, and nobody here knows.
    ("POST", "acknowledge", true),
    ("POST", "consume", true),
];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_of_the_cycle_nothing_is_lost() {
    for (method, path, effect) in STEPS {
        let project = poll_project("");
        let of_agents = path == "consume";
        let source = if of_agents { AGENTS } else { &project };
        let polling = Polling::of(options(), source).await;
        let emitted = emit(&polling, 5);
        polling.fault(json!({
            "match": { "method": method, "path": path }, "fault": { "hang": "60s", "effect": effect },
        }));
        let daemon = polling.start();
        eventually("it is held", || polling.requests_with(method, path) > 0);
        if method == "POST" {
            polling.await_published(1);
        }
        daemon.kill();
        polling.stub.clear_faults();
        let daemon = polling.start();
        eventually("the rest is taken", || is_drained(&polling, of_agents));
        assert_nothing_is_lost(&polling, &emitted, of_agents);
        assert!(daemon.stop().success());
        polling.assert_valid();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_is_lost_and_nothing_is_taken_that_was_not_durable() {
    let (kills, seed) = (number("WAYPOST_POLL_KILLS", KILLS), number("WAYPOST_POLL_SEED", 1));
    println!("{kills} kills, WAYPOST_POLL_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    for of_agents in [false, true] {
        let project = poll_project("");
        let source = if of_agents { AGENTS } else { &project };
        let polling = Polling::of(options(), source).await;
        let mut emitted = Vec::new();
        for _ in 0..kills / 2 {
            let daemon = polling.start();
            emitted.extend(emit(&polling, 300));
            sleep(Duration::from_millis(chance.u64(..LIFE_MS)));
            daemon.kill();
        }
        let daemon = polling.start();
        eventually("the rest is taken", || is_drained(&polling, of_agents));
        assert_nothing_is_lost(&polling, &emitted, of_agents);
        assert!(daemon.stop().success());
        polling.assert_valid();
    }
}

/// What each of these is called.
fn emit(polling: &Polling, count: usize) -> Vec<Value> {
    let emitted = polling.emit(&format!(r#"{{"type":"on_wakeup_ready","count":{count}}}"#));
    emitted["events"].as_array().expect("events").clone()
}

fn is_drained(polling: &Polling, of_agents: bool) -> bool {
    match of_agents {
        true => polling.pending_of_agents() == 0,
        false => polling.pending() == 0,
    }
}

fn assert_nothing_is_lost(polling: &Polling, emitted: &[Value], of_agents: bool) {
    let member = if of_agents { "message_id" } else { "notification_id" };
    let ids: BTreeSet<&str> = emitted.iter().filter_map(|event| event[member].as_str()).collect();
    let arrived = || -> BTreeSet<String> {
        let bodies = polling.published().into_iter();
        let bodies = bodies.map(|it| String::from_utf8(it.body).expect("text"));
        let known =
            bodies.filter_map(|body| Some(ids.iter().find(|id| body.contains(**id))?.to_string()));
        known.collect()
    };
    eventually("all has arrived", || arrived().len() == ids.len());
    let (consumed, acknowledged) = polling.taken();
    let taken = if of_agents { consumed } else { acknowledged };
    let arrived = arrived();
    assert!(taken.iter().all(|id| arrived.contains(id)), "taken, and lost");
}
