//! A `kill -9` under load publishes again what was in flight and what was settled since the last
//! commit, and no more: with a broker that confirms at once, some thirty events.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    daemon::{ALL_TO_FILES, Daemon, SOURCES},
    kept::{eventually, logged},
    operator::Scrape,
    outage::await_nothing_waits,
    sender::{self, Load},
    variable::number,
};

/// Kills by default; `WAYPOST_REPUBLISH_KILLS` raises it, `WAYPOST_KILL_SEED` varies their moments.
const KILLS: u64 = 10;

/// What is published again after a kill, at most on average.
const PUBLISHED_AGAIN: u64 = 30;

/// Senders and the pause of each after an answer: about 200 events a second.
const CONNECTIONS: usize = 4;
const PAUSE: Duration = Duration::from_millis(15);

/// How long a daemon works at least, and at most, before it is killed.
const LIFE_MS: std::ops::Range<u64> = 1000..2000;

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_under_load_publishes_again_what_was_settled_since_the_last_commit_alone() {
    let (kills, seed) = (number("WAYPOST_REPUBLISH_KILLS", KILLS), number("WAYPOST_KILL_SEED", 1));
    println!("{kills} kills, WAYPOST_KILL_SEED={seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let routes = format!("{SOURCES}{ALL_TO_FILES}");
    let start = || Daemon::start(dir.path(), &routes, &[]);
    let mut daemon = start();
    let window = Scrape::of(&daemon).get("waypost_broker_window_limit");
    let address = Arc::new(Mutex::new(daemon.listen));
    let load = Load::start_paced(CONNECTIONS, address.clone(), PAUSE, |n| {
        sender::sonzai("agent", format!("{{\"agent_id\":\"a{n}\"}}"))
    });

    let mut chance = fastrand::Rng::with_seed(seed);
    let (mut twice, mut again) = (0, Vec::new());
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(chance.u64(LIFE_MS))).await;
        daemon.kill();
        // Whatever the start before made of the kill before is there.
        again.push(published_again(dir.path(), &mut twice));
        daemon = start();
        *address.lock().expect("the address") = daemon.listen;
    }
    load.accept_more(CONNECTIONS).await;
    let accepted: BTreeSet<String> = load.stop().await.into_iter().collect();
    await_nothing_waits(&daemon, "local");
    again.push(published_again(dir.path(), &mut twice));
    // Nobody was killed before the first of them.
    assert_eq!(again.remove(0), 0);

    let all: u64 = again.iter().sum();
    let (average, count) = (all as f64 / kills as f64, accepted.len());
    println!("{count} accepted; published again after each kill, {average} on average: {again:?}");
    eventually("nothing is lost", || {
        let published: BTreeSet<String> = logged(dir.path(), "all").into_iter().collect();
        accepted.is_subset(&published)
    })
    .await;
    assert!(again.iter().all(|again| *again as f64 <= window), "more than the window of {window}");
    assert!(all <= kills * PUBLISHED_AGAIN, "{average} on average");
    assert!(daemon.stop().success());
}

/// How many lines of the topic are not an event's first, since the last time.
fn published_again(dir: &std::path::Path, twice: &mut u64) -> u64 {
    let lines = logged(dir, "all");
    let events: BTreeSet<&String> = lines.iter().collect();
    let before = std::mem::replace(twice, (lines.len() - events.len()) as u64);
    *twice - before
}
