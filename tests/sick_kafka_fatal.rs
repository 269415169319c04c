//! Kafka's producer fatal error: the client can no longer say what becomes of its messages, and
//! takes none. The daemon builds another and goes on from its cursor.
//!
//! It is provoked for real: a partition's log goes back to what it was a while ago, as after a power
//! failure without replicas, or when a replica that lagged becomes the leader. The broker then
//! expects earlier messages of this producer than the producer has left ("out of order sequence
//! number"). What Kafka confirmed and lost so, nobody brings back; everything else arrives.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use crate::common::{
    brokers::Kafka,
    scene::{SMALL_BYTES, Scene, changes},
    sinks::{Addresses, Sink, TO_ALL},
};

const TOPIC: &str = "fatal";

const SOME: usize = 120;

const PAUSE: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_of_kafkas_producer_costs_a_new_producer_and_nothing_else() {
    let mut kafka = Kafka::start();
    let brokers = Addresses { kafka: kafka.bootstrap().to_owned(), ..Addresses::shared() };
    let mut scene = Scene::create(TOPIC, brokers, &[]).await;
    scene.start_daemon();
    let kept = tempfile::tempdir().expect("a directory");

    // Nothing is in flight while Kafka is down: the producer is the same, and has nothing to
    // reconsider.
    let before = accept(&scene).await;
    kafka.kill();
    copy_partitions(&kafka.data_dir(), kept.path());
    kafka.restart();
    let forgotten = accept(&scene).await;
    kafka.kill();
    copy_partitions(kept.path(), &kafka.data_dir());
    kafka.restart();
    let after = accept(&scene).await;

    let log = scene.log_file();
    let text = fs::read_to_string(&log).expect("the log");
    let told = |line: &&str| line.contains("is in trouble") && line.contains("broker=stream");
    let reason = text.lines().find(told).expect("the trouble is told");
    assert!(reason.contains("sequence"), "{reason}");
    assert_eq!(changes(&log, Sink::Kafka).0, 1);

    let known: Vec<String> = [before, after].concat();
    let arrived = scene.sinks.read_all(Sink::Kafka, &known).await;
    let arrived: BTreeSet<&str> = arrived.iter().map(|message| &*message.id).collect();
    let gone = forgotten.iter().filter(|id| !arrived.contains(&***id)).count();
    assert_eq!(gone, forgotten.len(), "what Kafka forgot is what was confirmed meanwhile");
    assert!(scene.stop_daemon());
}

/// Sends for a while, and waits until all of it has arrived everywhere.
async fn accept(scene: &Scene) -> Vec<String> {
    let senders = scene.send(TO_ALL, SMALL_BYTES, PAUSE);
    senders.accept_more(SOME).await;
    let accepted = senders.stop().await;
    for sink in Sink::ALL {
        scene.sinks.await_events(sink, &accepted).await;
    }
    accepted
}

/// Copies the topic's partitions over those of another directory.
fn copy_partitions(from: &Path, to: &Path) {
    let partitions = fs::read_dir(from).expect("a data directory").flatten();
    for partition in partitions.map(|entry| entry.path()) {
        let name = partition.file_name().and_then(|name| name.to_str()).expect("a name");
        if !name.starts_with(&format!("{TOPIC}-")) {
            continue;
        }
        let copy = to.join(name);
        if copy.exists() {
            fs::remove_dir_all(&copy).expect("to remove a partition");
        }
        fs::create_dir(&copy).expect("a directory");
        for file in fs::read_dir(&partition).expect("a partition").flatten() {
            fs::copy(file.path(), copy.join(file.file_name())).expect("to copy a file");
        }
    }
}
