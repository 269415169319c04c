//! A disk that is full at a start is no reason for a broker that is there to wait.

use std::{fs, io::Write, path::Path, time::Instant};

use crate::common::{
    brokers::{Access, Nats},
    consume,
    daemon::{Daemon, SOURCES},
    faults::{Fault, Faults},
    ids::{assert_ids, ids},
    kept::eventually,
    operator::{Scrape, await_metrics},
    sender::{self, Webhook},
    small_disk::SmallDisk,
};

/// Brokers that each have a backlog.
const BROKERS: usize = 8;

/// Events until a disk is full at the latest.
const MOST: usize = 5000;

/// Refusals in a row that tell that a disk is full, and not just a batch too large for it.
const FULL: usize = 20;

/// So many brokers, all at one address, each with subjects of its own.
fn routes(url: &str, brokers: usize) -> String {
    let mut text = format!("{SOURCES}\nbrokers:\n");
    for n in 0..brokers {
        text += &format!("  live{n}: {{ type: nats, url: \"{url}\" }}\n");
    }
    text += "routes:\n  - name: all\n    match: { type: \"**\" }\n    to:\n";
    for n in 0..brokers {
        text += &format!("      - {{ broker: live{n}, subject: \"kept.{n}\" }}\n");
    }
    text
}

/// A broker with a stream that is down.
async fn down() -> Nats {
    let access = Access { syncs_later: true, ..Access::default() };
    let mut nats = Nats::start_with(&access).unwrap_or_else(|error| panic!("{error}"));
    consume::create_stream(nats.url(), consume::stream_of("kept")).await;
    nats.kill();
    nats
}

fn event(n: usize, padding: usize) -> Webhook {
    sender::sonzai("agent", format!("{{\"agent_id\":\"a{n}\",\"x\":\"{}\"}}", "x".repeat(padding)))
}

/// Posts until the disk is full; the ids of what was accepted.
async fn fill(daemon: &Daemon) -> Vec<String> {
    // Sizes that leave no room for the smallest at last.
    let mut chance = fastrand::Rng::with_seed(4);
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for n in 0..MOST {
        let padding = [50, 100, 200, 20_000, 40_000][chance.usize(..5)];
        let answer = sender::post(daemon.listen, &event(n, padding)).await.expect("an answer");
        if answer.status == 200 {
            (accepted, refused) = ([accepted, vec![answer.event_id.expect("an id")]].concat(), 0);
        } else {
            assert_eq!(answer.status, 503, "{answer:?}");
            refused += 1;
        }
        if refused == FULL {
            return accepted;
        }
    }
    panic!("the disk is not full after {MOST} events");
}

/// What each broker has got, in order, once all of them have as many messages as they must have.
async fn delivered(nats: &Nats, brokers: usize, each: usize) -> Vec<Vec<String>> {
    let messages = consume::read_stream(nats.url(), "kept", each * brokers).await;
    let of_broker = |n| {
        let its = messages.iter().filter(|message| message.address == format!("kept.{n}"));
        ids(&its.cloned().collect::<Vec<_>>(), "ce-id")
    };
    (0..brokers).map(of_broker).collect()
}

/// Once what waited is out, there is room again by itself.
async fn assert_takes_events_again(daemon: &Daemon) {
    let started = Instant::now();
    loop {
        let answer = sender::post(daemon.listen, &event(MOST, 100)).await.expect("an answer");
        if answer.status == 200 {
            return;
        }
        assert!(started.elapsed().as_secs() < 60, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_serves_eight_brokers_with_a_backlog_each() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nats = down().await;
    let routes = routes(nats.url(), BROKERS);
    let daemon = Daemon::start(dir.path(), &routes, &[]);
    let mut accepted = Vec::new();
    for n in 0..50 {
        let answer = sender::post(daemon.listen, &event(n, 500)).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        accepted.push(answer.event_id.expect("an id"));
    }
    daemon.kill();

    // The disk is full but for the reserve: where that is given up there is room.
    let faults = Faults::new(dir.path(), &dir.path().join("data"));
    let reserve = dir.path().join("data/reserve");
    faults.arm_while_there_is(Fault::Full, &reserve);
    nats.restart();
    let daemon = Daemon::start(dir.path(), &routes, &faults.settings());
    assert_eq!(delivered(&nats, BROKERS, accepted.len()).await, vec![accepted; BROKERS]);
    assert!(reserve.exists(), "it is made again at once");
    let answer = sender::post(daemon.listen, &event(100, 500)).await.expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");

    faults.disarm(Fault::Full);
    assert_takes_events_again(&daemon).await;
    assert!(daemon.stop().success());
}

/// What a small disk's daemon is started with.
const SETTINGS: [(&str, &str); 2] =
    [("WAYPOST_JOURNAL__SEGMENT_BYTES", "65536"), ("WAYPOST_JOURNAL__RESERVE_BYTES", "400000")];

/// Much of each backlog was parked just before a kill, and the rest of the disk is somebody
/// else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_real_full_disk_serves_eight_brokers_with_a_backlog_each() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let Some(_disk) = SmallDisk::mount(&data, 6_000_000) else { return };
    let mut nats = down().await;
    let routes = routes(nats.url(), BROKERS);
    let daemon = Daemon::start(dir.path(), &routes, &SETTINGS);
    let mut accepted = Vec::new();
    for n in 0..8 {
        let answer = sender::post(daemon.listen, &event(n, 60_000)).await.expect("an answer");
        accepted.push(answer.event_id.expect("an id"));
    }
    daemon.kill();
    let settings = [&SETTINGS[..], &[("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES", "300000")]].concat();
    let daemon = Daemon::start(dir.path(), &routes, &settings);
    await_metrics(&daemon, "parked messages of each broker", |scrape| {
        scrape.nonzero("waypost_broker_parked_messages").len() == BROKERS
    });
    daemon.kill();
    let ballast = data.join("ballast");
    fill_up(&ballast);

    nats.restart();
    let daemon = Daemon::start(dir.path(), &routes, &settings);
    // What was parked and what was not may overtake each other here.
    for its in delivered(&nats, BROKERS, accepted.len()).await {
        assert_ids(its, accepted.clone());
    }
    fs::remove_file(ballast).expect("to make room");
    assert_takes_events_again(&daemon).await;
    assert!(daemon.stop().success());
}

/// Leaves no room on a disk.
fn fill_up(ballast: &Path) {
    let mut file = fs::File::create(ballast).expect("a file");
    for size in [65536, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

/// What an alert about a full disk may make an operator do: the journal is larger than it may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_bound_that_is_lowered_on_a_full_disk_holds_up_no_broker() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(_disk) = SmallDisk::mount(&dir.path().join("data"), 5_000_000) else { return };
    let mut nats = down().await;
    let routes = routes(nats.url(), 1);
    let daemon = Daemon::start(dir.path(), &routes, &SETTINGS);
    let accepted = fill(&daemon).await;
    assert!(daemon.stop().success());

    nats.restart();
    let lowered = [&SETTINGS[..], &[("WAYPOST_JOURNAL__MAX_BYTES", "2000000")]].concat();
    let daemon = Daemon::start(dir.path(), &routes, &lowered);
    assert_eq!(delivered(&nats, 1, accepted.len()).await, [accepted]);
    assert_takes_events_again(&daemon).await;
    eventually("the journal is within its bound", || {
        Scrape::of(&daemon).get("waypost_journal_bytes") <= 2_000_000.0
    })
    .await;
    assert_no_letters(dir.path());
    assert!(daemon.stop().success());
}

fn assert_no_letters(dir: &Path) {
    assert_eq!(
        crate::common::daemon::command(dir, &["dead-letters", "list"]).1,
        "no dead letters\n"
    );
}
