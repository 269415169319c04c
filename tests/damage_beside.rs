//! The same care for what stands beside the records: places, key files, parked messages, dead letters.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::common::{
    daemon::Daemon,
    kept::eventually,
    operator::{Scrape, await_metrics},
    outage::{self, Aftermath, LIVE, Outage, Plan},
    segments, sender,
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const PLAN: Plan = Plan {
    settings: &[("WAYPOST_JOURNAL__SEGMENT_BYTES", "65536")],
    had: 30,
    waiting: 170,
    padding: 900,
    connections: 4,
};

/// All files below a directory, in order.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry"));
        let (inner, outer) = entries.map(|entry| entry.path()).partition(|path| path.is_dir());
        dirs.extend::<Vec<PathBuf>>(inner);
        files.extend::<Vec<PathBuf>>(outer);
    }
    files.sort();
    files
}

fn zero(path: &Path, range: Range<usize>) {
    let mut bytes = fs::read(path).expect("a file");
    let end = bytes.len().min(range.end);
    bytes[range.start..end].fill(0);
    fs::write(path, bytes).expect("to damage a file");
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] = !bytes[at];
    fs::write(path, bytes).expect("to damage a file");
}

/// Everything that waits is delivered.
async fn assert_nothing_is_lost(aftermath: &Aftermath<'_>, daemon: &Daemon, what: &str) {
    let waiting: BTreeSet<&str> = aftermath.outage.waiting().collect();
    let delivered = aftermath.outage.delivered_all(waiting.iter().copied()).await;
    assert!(waiting.iter().all(|id| delivered.contains(*id)), "{what}");
    let scrape = outage::await_nothing_waits(daemon, LIVE);
    assert_eq!(scrape.nonzero("waypost_broker_lost_records_total"), [], "{what}");
    assert_eq!(outage::damage_told(&aftermath.dir), [""; 0], "{what}");
}

/// Whatever remembers how far a broker has got.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_place_loses_nothing() {
    let outage = Outage::over(PLAN).await;
    let holds_places = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let is_known = name == "lock" || [".seg", ".keys"].iter().any(|end| name.ends_with(end));
        !is_known && fs::metadata(path).is_ok_and(|file| file.len() > 0)
    };
    let journal = outage.dir.path().join("data/journal");
    let mut places = files_below(&journal);
    places.retain(holds_places);
    assert!(places.len() >= 2, "one a broker: {places:?}");
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("its first block", |path| zero(path, 0..4096)),
        ("one byte", |path| flip(path, 20)),
        ("all of it", |path| zero(path, 0..usize::MAX)),
        ("the file", |path| fs::remove_file(path).expect("to remove a file")),
    ];
    for place in places.iter().map(|place| place.strip_prefix(&journal).expect("a name")) {
        for (what, harm) in harms {
            let aftermath = outage.copy().await;
            harm(&aftermath.journal().join(place));
            let daemon = aftermath.start();
            let what = format!("{} without {what}", place.display());
            assert_nothing_is_lost(&aftermath, &daemon, &what).await;
            assert!(daemon.stop().success());
        }
    }
}

/// Of segments that are still there.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_key_files_forget_no_event() {
    let outage = Outage::over(PLAN).await;
    for size in [1, 4096, usize::MAX] {
        let aftermath = outage.copy().await;
        let segments = aftermath.segments();
        let of_segments = |path: &PathBuf| segments.contains(&path.with_extension("seg"));
        let mut keys = segments::files(&aftermath.journal(), "keys");
        keys.retain(of_segments);
        assert!(!keys.is_empty());
        for path in &keys {
            zero(path, 0..size);
        }
        let daemon = aftermath.start();
        assert_nothing_is_lost(&aftermath, &daemon, "without key files").await;
        let known = |scrape: Scrape| scrape.get("waypost_duplicates_total{source=\"sonzai\"}");
        for (id, _) in &outage.events {
            assert_eq!(aftermath.post_again(&daemon, id).await, *id);
        }
        assert_eq!(known(Scrape::of(&daemon)), outage.events.len() as f64);
        assert!(daemon.stop().success());
    }
}

/// A broker that was down, and may hold back so little that most of what waits for it is parked.
async fn parked() -> Outage {
    let settings = &[
        ("WAYPOST_JOURNAL__SEGMENT_BYTES", "65536"),
        ("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES", "250000"),
    ];
    let plan = Plan { settings, had: 0, waiting: 0, ..PLAN };
    let dir = tempfile::tempdir().expect("a directory");
    let (mut outage, daemon) = Outage::begin(plan, &[], dir).await;
    let started = Instant::now();
    // Less than may be parked, and more than may be held back besides.
    while outage.events.len() < 200 {
        assert!(started.elapsed() < PATIENCE, "{} are taken", outage.events.len());
        let webhook = outage::event(outage.events.len(), PLAN.padding);
        let answer = sender::post(daemon.listen, &webhook).await.expect("an answer");
        let enough = outage.events.len() >= 150;
        match answer.event_id {
            Some(id) => outage.events.push((id, webhook)),
            // The backlog is full, for a moment or until the broker is back.
            None if enough => break,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    await_metrics(&daemon, "parked messages", |scrape| {
        scrape.get(&outage::series("waypost_broker_parked_messages", LIVE)) >= 100.0
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.kill();
    outage.nats.restart();
    outage
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_among_parked_messages_costs_those_that_it_touches_and_is_told() {
    let outage = parked().await;
    for (start, len) in [(0, 8192), (4096, 1), (20_000, 512), (16_384, 16_384)] {
        let aftermath = outage.copy().await;
        let files = segments::files(&aftermath.dir.join("data/parked/live"), "seg");
        let full = |path: &&PathBuf| fs::metadata(path).expect("a file").len() > 40_000;
        let path = files.iter().find(full).unwrap_or_else(|| panic!("a large one: {files:?}"));
        let bytes = fs::read(path).expect("a file");
        let touches = |range: &Range<usize>| range.start < start + len && start < range.end;
        let found = segments::messages(&bytes).into_iter();
        let cost: BTreeSet<String> =
            found.filter(|found| touches(&found.bytes)).map(|found| found.id).collect();
        assert!(!cost.is_empty());
        zero(path, start..start + len);

        let daemon = aftermath.start();
        let others: BTreeSet<&str> = outage.waiting().filter(|id| !cost.contains(*id)).collect();
        let delivered = outage.delivered_all(others.iter().copied()).await;
        let missing = others.iter().filter(|id| !delivered.contains(**id)).count();
        assert_eq!(missing, 0, "of {}, beside {} damaged at {start}", others.len(), cost.len());
        let lost = cost.iter().filter(|id| !delivered.contains(*id)).count();
        let series = outage::series("waypost_broker_lost_records_total", LIVE);
        await_metrics(&daemon, "what is lost is counted", |scrape| {
            scrape.get(&series) == lost as f64
        });
        let (status, text) = daemon.command(&["status"]);
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.lines().any(|line| line.contains("damaged")), "{text}");
        eventually("one dead letter", || outage::damage_told(&aftermath.dir).len() == 1).await;
        for id in &cost {
            assert_eq!(aftermath.post_again(&daemon, id).await, *id);
        }
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_among_dead_letters_costs_those_that_it_touches_and_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let routes = "brokers: { local: { type: log } }\nroutes:\n  - name: some\n    match: \
                  { type: other }\n    to: [{ broker: local, topic: all }]\n";
    let daemon = Daemon::with_sources(dir.path(), routes, &[]);
    let mut ids = Vec::new();
    for n in 0..20 {
        let answer = sender::post(daemon.listen, &outage::event(n, PLAN.padding)).await;
        ids.extend(answer.expect("an answer").event_id);
    }
    let letters = || {
        let (status, output) = daemon.command(&["dead-letters", "list", "--json"]);
        (status.code(), ids.iter().filter(|id| output.contains(&**id)).count())
    };
    eventually("a dead letter each", || letters() == (Some(0), 20)).await;
    assert!(daemon.stop().success());

    let path = &segments::files(&dir.path().join("data/dead-letters"), "seg")[0];
    let found = segments::messages(&fs::read(path).expect("a file"));
    let (start, end) = (found[3].bytes.start + 10, found[5].bytes.end - 10);
    zero(path, start..end);
    let daemon = Daemon::with_sources(dir.path(), routes, &[]);
    let (status, output) = daemon.command(&["dead-letters", "list", "--json"]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("damaged"), "{output}");
    for found in &found {
        let touched = found.bytes.start < end && start < found.bytes.end;
        assert_eq!(output.contains(&found.id), !touched, "{output}");
    }
    let (status, text) = daemon.command(&["status"]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line.contains("damaged")), "{text}");
    assert!(daemon.stop().success());
}
