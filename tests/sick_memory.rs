//! What waits for a dead broker waits on disk: memory does not grow with it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use crate::common::{
    brokers::Nats,
    consume,
    daemon::{Daemon, SOURCES},
    kept,
    sender::Load,
    sinks,
    ward::MEMORY_BYTES,
};

/// Events that wait, by which time everything that is bounded is full, and then many more.
const FEW: usize = 4_000;
const MANY: usize = 54_000;

/// Accepted before patience begins anew.
const STEP: usize = 5_000;

const PADDING_BYTES: usize = 900;

/// How much more memory so many more may take: a small part of the 70 MB that they are on disk, most
/// of it the keys by which they are known.
const GROWTH_BYTES: u64 = 24 << 20;

const CONNECTIONS: usize = 64;

fn routes(url: &str) -> String {
    format!(
        r#"{SOURCES}
brokers:
  live: {{ type: nats, url: "{url}" }}
  local: {{ type: log }}
routes:
  - name: all
    match: {{ type: "**" }}
    to: [{{ broker: live, subject: "waiting.{{type}}" }}, {{ broker: local, topic: all }}]
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_what_waits_for_a_dead_broker() {
    let mut nats = Nats::start();
    let stream = async_nats::jetstream::stream::Config {
        name: "waiting".to_owned(),
        subjects: vec!["waiting.>".to_owned()],
        ..Default::default()
    };
    consume::create_stream(nats.url(), stream).await;
    nats.kill();
    let dir = tempfile::tempdir().expect("a directory");
    // The tail and the window would take a while to fill up.
    let settings =
        [("WAYPOST_JOURNAL__TAIL_BYTES", "1048576"), ("WAYPOST_DISPATCH__WINDOW_MESSAGES", "512")];
    let daemon = Daemon::start(dir.path(), &routes(nats.url()), &settings);
    let load = Load::start(CONNECTIONS, Arc::new(Mutex::new(daemon.listen)), |n| {
        sinks::event(sinks::TO_ALL, &format!("agent-{}", n % 16), n, PADDING_BYTES)
    });

    load.accept_more(FEW).await;
    let few = daemon.peak_memory_bytes();
    for _ in 0..(MANY - FEW) / STEP {
        load.accept_more(STEP).await;
    }
    assert_eq!(load.refused(), 0);
    let accepted = load.stop().await;
    kept::wait_for_logged(dir.path(), "all", accepted.len()).await;
    let many = daemon.peak_memory_bytes();

    nats.restart();
    let wanted: BTreeSet<String> = accepted.iter().cloned().collect();
    let arrived = consume::read_stream(nats.url(), "waiting", &wanted).await;
    let arrived: BTreeSet<&str> = arrived.iter().filter_map(|m| m.event_id()).collect();
    let missing = wanted.iter().filter(|id| !arrived.contains(&***id)).count();
    assert_eq!(missing, 0, "of {}", wanted.len());
    let drained = daemon.peak_memory_bytes();
    println!(
        "memory with {FEW} waiting {} MiB, with {MANY} {} MiB, drained {} MiB",
        few >> 20,
        many >> 20,
        drained >> 20
    );
    assert!(many <= few + GROWTH_BYTES, "{many} bytes, and {few} with few");
    assert!(drained <= MEMORY_BYTES, "{drained} bytes");
    assert!(daemon.stop().success());
}
