//! A read that fails says nothing about what is on disk: nothing is passed over for it, whatever else
//! goes on, and it is told.

use std::{collections::BTreeSet, fs, ops::Range, path::Path, time::Duration};

use crate::common::{
    daemon::Daemon,
    faults::{self, Faults},
    kept::{eventually, logged},
    operator::{Scrape, await_metrics},
    outage::{self, LIVE, LOCAL, Outage, Plan},
    segments, sender,
};

/// Many small segments, none of which a dispatcher that falls behind finds in memory.
const PLAN: Plan = Plan {
    settings: &[
        ("WAYPOST_JOURNAL__SEGMENT_BYTES", "65536"),
        ("WAYPOST_JOURNAL__TAIL_BYTES", "1000"),
        faults::READS,
    ],
    had: 5,
    waiting: 300,
    padding: 900,
    connections: 1,
};

/// Longer than any device's own patience, and far below the daemon's.
const SOME_SECONDS: Duration = Duration::from_secs(6);

/// One block, in the middle of one of those segments.
const BLOCK: Range<usize> = 12288..16384;

const UNREADABLE: &str = "waypost_journal_unreadable_regions";

/// A daemon whose disk can be told not to read, in a directory of its own, and a broker that is down.
async fn begin(further: &[(&str, &str)]) -> (Faults, Outage, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data"));
    let settings = [faults.settings(), further.to_vec()].concat();
    let (outage, daemon) = Outage::begin(PLAN, &settings, dir).await;
    (faults, outage, daemon)
}

/// The first part of the name of the segment with the block, by which it is also told once it was put
/// elsewhere; and the ids of the events that the block holds any of.
fn block(dir: &Path) -> (String, BTreeSet<String>) {
    let path = &segments::files(&dir.join("data/journal"), "seg")[2];
    let records = segments::records(&fs::read(path).expect("a segment")).into_iter();
    let touched = records.filter(|its| its.bytes.start < BLOCK.end && BLOCK.start < its.bytes.end);
    let base = path.file_stem().and_then(|base| base.to_str()).expect("a name");
    (base.to_owned(), touched.map(|found| found.id).collect())
}

fn make_unreadable(faults: &Faults, segment: &str) {
    faults.make_unreadable(&[(segment, BLOCK.start as u64..BLOCK.end as u64)]);
}

/// One more event; its id.
async fn accepted(daemon: &Daemon, n: usize) -> String {
    let webhook = outage::event(PLAN.had + PLAN.waiting + n, PLAN.padding);
    let answer = sender::post(daemon.listen, &webhook).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.event_id.expect("an id")
}

/// `waypost status` says that something cannot be read.
#[track_caller]
fn assert_told(daemon: &Daemon) {
    let (_, text) = daemon.command(&["status"]);
    let tells = |line: &str| line.contains("cannot be read") || line.contains("unreadable");
    assert!(text.lines().any(tells), "{text}");
}

/// Nobody took it for damage.
#[track_caller]
fn assert_nothing_was_given_up(daemon: &Daemon, dir: &Path) {
    let scrape = Scrape::of(daemon);
    for family in ["waypost_journal_damaged_regions_total", "waypost_broker_lost_records_total"] {
        assert_eq!(scrape.nonzero(family), []);
    }
    assert_eq!(outage::damage_told(dir), [""; 0]);
    assert!(!daemon.log().contains("the journal is damaged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_error_of_some_seconds_loses_nothing_and_holds_up_nobody_else() {
    let (faults, mut outage, daemon) = begin(&[]).await;
    let dir = outage.dir.path().to_owned();
    let (segment, _) = block(&dir);
    make_unreadable(&faults, &segment);
    outage.nats.restart();
    await_metrics(&daemon, "a region that cannot be read", |scrape| scrape.get(UNREADABLE) > 0.0);

    assert_told(&daemon);
    let mut ids: Vec<String> = outage.events.iter().map(|(id, _)| id.clone()).collect();
    ids.push(accepted(&daemon, 0).await);
    let others = || logged(&dir, "all") == ids;
    eventually("what comes meanwhile goes to the broker that is past it", others).await;
    assert!(daemon.command(&["status"]).0.code().is_some());
    tokio::time::sleep(SOME_SECONDS).await;
    assert!(Scrape::of(&daemon).get(UNREADABLE) > 0.0);

    faults.make_readable();
    outage::await_nothing_waits(&daemon, LIVE);
    assert_eq!(outage.delivered(ids.len()).await, ids, "every event, in order");
    await_metrics(&daemon, "no region that cannot be read", |scrape| scrape.get(UNREADABLE) == 0.0);
    assert_nothing_was_given_up(&daemon, &dir);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lasting_read_error_costs_a_delay_of_what_it_touches_alone() {
    let patience = [("WAYPOST_JOURNAL__READ_PATIENCE", "2s")];
    let (faults, mut outage, daemon) = begin(&patience).await;
    let dir = outage.dir.path().to_owned();
    let (segment, hole) = block(&dir);
    make_unreadable(&faults, &segment);
    outage.nats.restart();

    let behind = outage.events.iter().map(|(id, _)| &**id).filter(|id| !hole.contains(*id));
    let delivered = outage.delivered_all(behind.clone()).await;
    assert!(behind.clone().all(|id| delivered.contains(id)), "what is behind it is delivered");
    let meanwhile = accepted(&daemon, 0).await;
    assert!(outage.delivered_all([&*meanwhile].into_iter()).await.contains(&meanwhile));
    assert!(Scrape::of(&daemon).get(UNREADABLE) > 0.0);
    assert_told(&daemon);
    let freed = || {
        // The one that is written, and perhaps the one before it.
        let left = segments::files(&dir.join("data/journal"), "seg");
        let name = |path: &&std::path::PathBuf| !path.ends_with(format!("{segment}.seg"));
        left.iter().filter(name).count() <= 2
    };
    eventually("the hole pins its own segment alone", freed).await;

    // A start meanwhile knows of the hole, and of nothing else.
    daemon.kill();
    let settings = [PLAN.settings, &faults.settings(), &patience].concat();
    let daemon = Daemon::start(&dir, &outage.routes(), &settings);
    await_metrics(&daemon, "the region that cannot be read", |scrape| scrape.get(UNREADABLE) > 0.0);
    assert_told(&daemon);
    let after = accepted(&daemon, 1).await;
    assert!(outage.delivered_all([&*after].into_iter()).await.contains(&after));

    faults.make_readable();
    let all = outage.events.iter().map(|(id, _)| &**id);
    let delivered = outage.delivered_all(all.clone()).await;
    assert!(all.clone().all(|id| delivered.contains(id)), "what the hole held is delivered");
    await_metrics(&daemon, "no region that cannot be read", |scrape| scrape.get(UNREADABLE) == 0.0);
    outage::await_nothing_waits(&daemon, LIVE);
    outage::await_nothing_waits(&daemon, LOCAL);
    assert_nothing_was_given_up(&daemon, &dir);
    assert!(daemon.stop().success());
}
