//! Crashes in the middle of a write, flipped bytes, full disks and failing syncs: what they cost the
//! whole program, and that they never cost what was acknowledged.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    brokers::Nats,
    consume,
    daemon::{Daemon, SOURCES},
    faults::{Fault, Faults},
    log_files,
    sender::{self, Load, Webhook},
};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a segment's frames start, and how long the number is that each of them starts with.
const FRAMES_START: usize = 4096;
const MARKER_BYTES: usize = 8;

fn to_nats(url: &str) -> String {
    format!(
        r#"{SOURCES}
brokers:
  live: {{ type: nats, url: "{url}" }}
routes:
  - name: all
    match: {{ type: "**" }}
    to: [{{ broker: live, subject: "kept.{{type}}" }}]
"#
    )
}

fn to_files() -> String {
    format!(
        r#"{SOURCES}
brokers:
  local: {{ type: log }}
routes:
  - name: all
    match: {{ type: "**" }}
    to: [{{ broker: local, topic: all }}]
"#
    )
}

fn event(n: u64) -> Webhook {
    sender::sonzai("agent", format!("{{\"agent_id\":\"a{n}\",\"text\":\"this is event {n}.\"}}"))
}

async fn accepted(daemon: &Daemon, webhook: &Webhook) -> String {
    let answer = sender::post(daemon.listen, webhook).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.event_id.expect("an id")
}

/// A refusal that tells the sender to come again.
async fn assert_refused_for_now(daemon: &Daemon, webhook: &Webhook) {
    let answer = sender::post(daemon.listen, webhook).await.expect("an answer");
    assert_eq!(answer.status, 503, "{answer:?}");
    let seconds = answer.retry_after.as_deref().and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("a JSON body");
    assert!(body["error"].is_string(), "{body}");
}

async fn eventually(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Events that were accepted while their broker was down; the daemon was killed since.
struct Waiting {
    nats: Nats,
    dir: TempDir,
    settings: &'static [(&'static str, &'static str)],
    /// Each with its id, in order.
    events: Vec<(String, Webhook)>,
}

impl Waiting {
    async fn new(count: u64, settings: &'static [(&'static str, &'static str)]) -> Waiting {
        let mut nats = Nats::start();
        consume::create_stream(nats.url(), consume::stream_of("kept")).await;
        nats.kill();
        let dir = tempfile::tempdir().expect("a directory");
        let daemon = Daemon::start(dir.path(), &to_nats(nats.url()), settings);
        let mut events = Vec::new();
        for webhook in (0..count).map(event) {
            events.push((accepted(&daemon, &webhook).await, webhook));
        }
        daemon.kill();
        Waiting { nats, dir, settings, events }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("data/journal")
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.journal()).expect("the journal");
        let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        paths.sort();
        paths
    }

    /// The segment that holds an event, and where in it the record and the event's body begin.
    fn place(&self, event: usize) -> (PathBuf, usize, usize) {
        let body = &self.events[event].1.body;
        for path in self.segments() {
            let bytes = fs::read(&path).expect("a segment");
            let marker = &bytes[FRAMES_START..FRAMES_START + MARKER_BYTES];
            let body = bytes.windows(body.len()).position(|window| window == body);
            let Some(body) = body else { continue };
            let record = bytes[..body].windows(MARKER_BYTES).rposition(|window| window == marker);
            return (path, record.expect("a record's beginning"), body);
        }
        panic!("event {event} is in no segment");
    }

    fn start(&self) -> Daemon {
        Daemon::start(self.dir.path(), &to_nats(self.nats.url()), self.settings)
    }

    /// What the broker has got once the daemon has published so many, by id.
    async fn delivered(&self, at_least: usize) -> BTreeMap<String, Vec<u8>> {
        let messages = consume::read_stream(self.nats.url(), "kept", at_least).await;
        let id = |message: &consume::Consumed| message.header("ce-id").expect("an id").to_owned();
        messages.into_iter().map(|m| (id(&m), m.body.unwrap_or_default())).collect()
    }

    /// What must be delivered if the events at these places are not.
    fn all_but(&self, lost: &[usize]) -> BTreeMap<String, Vec<u8>> {
        let kept = self.events.iter().enumerate().filter(|(at, _)| !lost.contains(at));
        kept.map(|(_, (id, webhook))| (id.clone(), webhook.body.to_vec())).collect()
    }
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[offset] ^= 0x01;
    fs::write(path, bytes).expect("to damage a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_last_record_is_cut() {
    // In its header; in its body; its last byte.
    for cut in [|record, _, _| record + 20, |_, body, _| body + 3, |_, _, len: usize| len - 1] {
        let mut waiting = Waiting::new(4, &[]).await;
        let (path, record, body) = waiting.place(3);
        let file = fs::File::options().write(true).open(&path).expect("the segment");
        let len = file.metadata().expect("its length").len() as usize;
        file.set_len(cut(record, body, len) as u64).expect("to cut it");

        waiting.nats.restart();
        let daemon = waiting.start();
        assert!(daemon.log().contains("an incomplete last record is cut off"));
        assert!(!daemon.log().contains("the journal is damaged"));
        assert_eq!(waiting.delivered(3).await, waiting.all_but(&[3]));
        // What was not whole left no trace: its sender may send it again.
        assert_eq!(accepted(&daemon, &waiting.events[3].1).await, waiting.events[3].0);
        assert_eq!(waiting.delivered(4).await, waiting.all_but(&[]));
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_killed_within_a_write_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/journal"));
    let daemon = Daemon::start(dir.path(), &to_files(), &faults.settings());
    let address = Arc::new(Mutex::new(daemon.listen));
    let load = Load::start(4, address.clone(), event);
    load.accept_more(50).await;
    faults.arm(Fault::Torn);
    let ended = daemon.ended();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
    faults.disarm(Fault::Torn);

    let daemon = Daemon::start(dir.path(), &to_files(), &faults.settings());
    *address.lock().expect("the address") = daemon.listen;
    load.accept_more(50).await;
    let ledger = load.stop().await;
    assert_published(&daemon, &ledger);
    assert!(!daemon.log().contains("the journal is damaged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_body_costs_that_record_alone_and_is_reported() {
    let mut waiting = Waiting::new(7, &[]).await;
    let (path, _, body) = waiting.place(3);
    flip(&path, body + 5);
    assert_damage_is_reported(&mut waiting, 3, &path, "does not match its checksum").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_records_header_costs_that_record_alone_and_is_reported() {
    let mut waiting = Waiting::new(7, &[]).await;
    let (path, record, _) = waiting.place(3);
    flip(&path, record + 9);
    assert_damage_is_reported(&mut waiting, 3, &path, "header is damaged").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_an_older_segment_costs_that_record_alone_and_is_reported() {
    let mut waiting = Waiting::new(30, &[("WAYPOST_JOURNAL__SEGMENT_BYTES", "8192")]).await;
    let (path, _, body) = waiting.place(3);
    assert_ne!(Some(&path), waiting.segments().last(), "the segment is closed");
    flip(&path, body);
    assert_damage_is_reported(&mut waiting, 3, &path, "does not match its checksum").await;
}

async fn assert_damage_is_reported(waiting: &mut Waiting, lost: usize, path: &Path, why: &str) {
    let damaged = fs::read(path).expect("the segment");
    waiting.nats.restart();
    let daemon = waiting.start();
    let expected = waiting.all_but(&[lost]);
    assert_eq!(waiting.delivered(expected.len()).await, expected);

    let log = daemon.log();
    let reports: Vec<&str> = log.lines().filter(|l| l.contains("the journal is damaged")).collect();
    let [report] = reports[..] else { panic!("one report: {reports:?}") };
    let file = path.file_name().and_then(|name| name.to_str()).expect("a name");
    let positions = format!("from={lost} to={}", lost + 1);
    for part in ["ERROR", file, &positions, why] {
        assert!(report.contains(part), "{part} is missing in {report}");
    }
    // In its place until nobody needs it, then in quarantine.
    let quarantine = waiting.journal().join("quarantine");
    let kept = || {
        let moved = fs::read_dir(&quarantine).expect("the quarantine").flatten();
        let files = moved.map(|kept| kept.path()).chain([path.to_owned()]);
        files.filter_map(|file| fs::read(file).ok()).any(|bytes| bytes.starts_with(&damaged))
    };
    assert!(kept(), "the damaged segment is gone");
    assert!(daemon.stop().success());
    assert!(kept(), "the damaged segment is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_header_costs_nothing_and_is_reported() {
    let mut waiting = Waiting::new(3, &[]).await;
    flip(&waiting.segments()[0], 13);
    waiting.nats.restart();
    let daemon = waiting.start();
    assert_eq!(waiting.delivered(3).await, waiting.all_but(&[]));
    assert!(daemon.log().contains("the header is damaged; its records can be read"));
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_for_now_and_recovers() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/journal"));
    let daemon = Daemon::start(dir.path(), &to_files(), &faults.settings());
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(accepted(&daemon, &event(n)).await);
    }
    faults.arm(Fault::Full);
    let refused = event(5);
    assert_refused_for_now(&daemon, &refused).await;
    assert_refused_for_now(&daemon, &refused).await;
    // Cursors are no more durable than records now; that has to wait, and nothing else.
    eventually("no place was to be saved", || daemon.log().contains("a place waits")).await;
    assert_refused_for_now(&daemon, &event(6)).await;

    faults.disarm(Fault::Full);
    ids.push(accepted(&daemon, &refused).await);
    ids.push(accepted(&daemon, &event(7)).await);
    let published = log_files::wait_for(&daemon.data_dir(), ids.len());
    assert_eq!(published.into_iter().map(|event| event.id).collect::<Vec<_>>(), ids);
    assert!(daemon.stop().success());
}

/// The disk is full but for the reserve: where that is given up there is room, where it is made
/// again there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_started_on_a_full_disk_drains_and_takes_nothing_new() {
    let mut waiting = Waiting::new(20, &[]).await;
    let dir = waiting.dir.path().to_owned();
    let faults = Faults::new(&dir, &dir.join("data"));
    let reserve = dir.join("data/reserve");
    faults.arm_while_there_is(Fault::Full, &reserve);
    waiting.nats.restart();
    let daemon = Daemon::start(&dir, &to_nats(waiting.nats.url()), &faults.settings());
    assert_eq!(waiting.delivered(20).await, waiting.all_but(&[]));
    assert!(daemon.log().contains("what was kept for a start is used for it"));
    assert!(reserve.exists(), "it is made again at once");
    assert_refused_for_now(&daemon, &event(100)).await;

    faults.disarm(Fault::Full);
    accepted(&daemon, &event(100)).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_under_load_again_and_again_publishes_exactly_what_was_accepted() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/journal"));
    let mut settings = faults.settings();
    // So that the disk is full, too, when a segment is begun.
    settings.push(("WAYPOST_JOURNAL__SEGMENT_BYTES", "16384"));
    let daemon = Daemon::start(dir.path(), &to_files(), &settings);
    let load = Load::start(8, Arc::new(Mutex::new(daemon.listen)), event);
    for _ in 0..5 {
        load.accept_more(100).await;
        let refused = load.refused();
        faults.arm(Fault::Full);
        eventually("nothing was refused", || load.refused() > refused + 20).await;
        faults.disarm(Fault::Full);
    }
    load.accept_more(100).await;
    let mut ledger = load.stop().await;
    let published = log_files::wait_for(&daemon.data_dir(), ledger.len());
    let mut published: Vec<String> = published.into_iter().map(|event| event.id).collect();
    ledger.sort();
    published.sort();
    assert_eq!(published, ledger);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_gives_no_2xx_and_ends_the_process_with_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/journal"));
    let daemon = Daemon::start(dir.path(), &to_files(), &faults.settings());
    let listen = daemon.listen;
    let load = Load::start(4, Arc::new(Mutex::new(listen)), event);
    load.accept_more(100).await;
    faults.arm(Fault::Sync);
    // Sent after every sync fails: whatever comes back, or nothing, it is no 2xx.
    if let Ok(answer) = sender::post(listen, &event(u64::MAX)).await {
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    let log = dir.path().join("daemon.log");
    assert_eq!(daemon.ended().code(), Some(1));
    let ledger = load.stop().await;
    faults.disarm(Fault::Sync);

    let log = fs::read_to_string(log).expect("the log");
    let mut errors = log.lines().filter(|line| line.contains("ERROR"));
    let told = ["durable", "data/journal/", "Input/output error", "restart"];
    let told = errors.any(|line| told.iter().all(|part| line.contains(part)));
    assert!(told, "the log does not say what happened and what to do:\n{log}");

    let daemon = Daemon::start(dir.path(), &to_files(), &faults.settings());
    assert_published(&daemon, &ledger);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_of_what_is_parked_ends_the_process_and_loses_nothing() {
    let mut waiting = Waiting::new(0, &[]).await;
    let dir = waiting.dir.path().to_owned();
    let faults = Faults::new(&dir, &dir.join("data/parked"));
    let mut settings = faults.settings();
    settings.push(("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES", "10000"));
    let daemon = Daemon::start(&dir, &to_nats(waiting.nats.url()), &settings);
    faults.arm(Fault::Sync);
    // Until so much waits for the broker that it is to be parked, and the daemon is gone.
    for webhook in (0..).map(event) {
        let Ok(answer) = sender::post(daemon.listen, &webhook).await else { break };
        if answer.status == 200 {
            waiting.events.push((answer.event_id.expect("an id"), webhook));
        }
    }
    assert_eq!(daemon.ended().code(), Some(1));
    faults.disarm(Fault::Sync);

    waiting.nats.restart();
    let daemon = waiting.start();
    let accepted = waiting.all_but(&[]);
    let delivered = waiting.delivered(accepted.len()).await;
    assert!(accepted.iter().all(|(id, body)| delivered.get(id) == Some(body)));
    assert!(daemon.log().contains("data/parked/live/"));
    assert!(daemon.stop().success());
}

/// Waits until everything accepted is published, perhaps beside what nobody was told about.
fn assert_published(daemon: &Daemon, ledger: &[String]) {
    let started = Instant::now();
    loop {
        let published = log_files::read(&daemon.data_dir());
        let missing = ledger.iter().filter(|id| !published.iter().any(|event| event.id == **id));
        let missing = missing.count();
        if missing == 0 {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{missing} of {} are missing", ledger.len());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What fills up first: the journal as a whole, or what one broker may hold back of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_journal_refuses_for_now_and_recovers_with_the_broker() {
    for nothing_is_parked in [true, false] {
        let mut waiting = Waiting::new(0, &[]).await;
        let dir = waiting.dir.path();
        let faults = Faults::new(dir, &dir.join("data/parked"));
        let mut settings = faults.settings();
        settings.push(("WAYPOST_JOURNAL__MAX_BYTES", "100000"));
        settings.push(("WAYPOST_JOURNAL__SEGMENT_BYTES", "20000"));
        let daemon = Daemon::start(dir, &to_nats(waiting.nats.url()), &settings);
        if nothing_is_parked {
            faults.arm(Fault::Full);
        }
        let started = Instant::now();
        let mut ids = BTreeMap::new();
        let refused = loop {
            let next = event(ids.len() as u64);
            let answer = sender::post(daemon.listen, &next).await.expect("an answer");
            if answer.status != 200 {
                break next;
            }
            ids.insert(answer.event_id.expect("an id"), next.body.to_vec());
            assert!(started.elapsed() < PATIENCE, "the journal never fills up");
        };
        assert_refused_for_now(&daemon, &refused).await;

        if nothing_is_parked {
            faults.disarm(Fault::Full);
        }
        waiting.nats.restart();
        let id = loop {
            let answer = sender::post(daemon.listen, &refused).await.expect("an answer");
            if answer.status == 200 {
                break answer.event_id.expect("an id");
            }
            assert_eq!(answer.status, 503);
            assert!(started.elapsed() < PATIENCE, "the journal has no room again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        ids.insert(id, refused.body.to_vec());
        assert_eq!(waiting.delivered(ids.len()).await, ids);
        assert!(daemon.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_data_directory_ends_and_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &to_files(), &[]);
    let (status, log) = Daemon::fails(dir.path(), &to_files(), &[]);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("data/journal is in use by another process"), "{log}");

    // The first never noticed.
    let id = accepted(&daemon, &event(1)).await;
    assert_eq!(log_files::wait_for(&daemon.data_dir(), 1)[0].id, id);
    assert!(daemon.stop().success());
}
