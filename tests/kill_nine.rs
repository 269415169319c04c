//! An acknowledged event survives `kill -9`, whenever it comes.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::common::{
    daemon::{self, Daemon},
    sender::Load,
    sinks::{self, Addresses, Sink, Sinks},
    variable::number,
};

/// Kills by default; `WAYPOST_KILLS` raises it, `WAYPOST_KILL_SEED` varies their moments.
const KILLS: u64 = 24;

/// Messages under way a broker: small, so that duplicates beyond it would show.
const WINDOW: u64 = 256;

/// Connections that send at the same time; a group commit then holds several events.
const CONNECTIONS: usize = 8;

/// Agents, which are also the keys.
const AGENTS: u64 = 16;

const PADDING_BYTES: usize = 600;

/// Events accepted at least between two kills that hit a daemon at work.
const EVENTS_A_LIFE: usize = 40;

/// How long a daemon works at most before it is killed, and how long one that is killed while it
/// starts has: before, during or shortly after recovery.
const LIFE_MS: u64 = 400;
const START_MS: u64 = 150;

/// One in so many starts is killed as well.
const START_KILLED: u64 = 4;

const SETTINGS: [(&str, &str); 3] = [
    ("WAYPOST_DISPATCH__WINDOW_MESSAGES", "256"),
    // Segments end, and are released, many times in each life.
    ("WAYPOST_JOURNAL__SEGMENT_BYTES", "262144"),
    // Less than is written in a life: dispatchers that fall behind read the disk.
    ("WAYPOST_JOURNAL__TAIL_BYTES", "65536"),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_event_survives_kill_nine() {
    let (kills, seed) = (number("WAYPOST_KILLS", KILLS), number("WAYPOST_KILL_SEED", 1));
    println!("{kills} kills, WAYPOST_KILL_SEED={seed}");
    let dir = tempfile::tempdir().expect("a directory");
    let sinks = Sinks::create("kill-nine", Addresses::shared(), dir.path()).await;
    let routes = sinks.routes();

    let mut daemon = Daemon::start(dir.path(), &routes, &SETTINGS);
    let address = Arc::new(Mutex::new(daemon.listen));
    let load = Load::start(CONNECTIONS, address.clone(), |n| {
        let agent = format!("agent-{}", n % AGENTS);
        sinks::event(sinks::TO_ALL, &agent, n, PADDING_BYTES)
    });
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut killed = 0;
    while killed < kills {
        load.accept_more(EVENTS_A_LIFE).await;
        tokio::time::sleep(Duration::from_millis(chance.u64(..LIFE_MS))).await;
        daemon.kill();
        killed += 1;
        if killed < kills && chance.u64(..START_KILLED) == 0 {
            let after = Duration::from_millis(chance.u64(..START_MS));
            Daemon::killed_while_starting(dir.path(), &routes, &SETTINGS, after);
            killed += 1;
        }
        daemon = Daemon::start(dir.path(), &routes, &SETTINGS);
        *address.lock().expect("the address") = daemon.listen;
    }
    load.accept_more(EVENTS_A_LIFE).await;
    let accepted = load.stop().await;

    let duplicates = duplicates(&sinks, &accepted).await;
    println!("{killed} kills, {} accepted, duplicates {duplicates:?}", accepted.len());
    for (sink, duplicates) in duplicates {
        assert!(duplicates as u64 <= killed * WINDOW, "{sink:?}: {duplicates} came twice");
    }
    assert!(daemon.stop().success());
    assert_eq!(daemon::command(dir.path(), &["dead-letters", "list"]).1, "no dead letters\n");
    assert_segments_came_and_went(&dir.path().join("data/journal"));
}

/// Waits until everything accepted is everywhere, and counts what came more than once.
async fn duplicates(sinks: &Sinks, accepted: &[String]) -> Vec<(Sink, usize)> {
    let mut counts = Vec::new();
    for sink in Sink::ALL {
        let arrived = sinks.read_all(sink, accepted).await;
        counts.push((sink, sinks::assert_complete(sink, accepted, &arrived)));
    }
    counts
}

/// The test was worth something only if it killed while segments rolled and were released.
fn assert_segments_came_and_went(journal: &Path) {
    let names = fs::read_dir(journal).expect("the journal").flatten();
    let names: Vec<_> =
        names.map(|entry| entry.file_name().into_string().expect("a name")).collect();
    let count = |suffix| names.iter().filter(|name| name.ends_with(suffix)).count();
    let (segments, sidecars) = (count(".seg"), count(".keys"));
    assert!(sidecars > 4, "only {sidecars} segments were ever closed");
    assert!(segments < sidecars, "{segments} segments are left of {sidecars} closed ones");
}
