//! A disk that does not answer: nobody is told that an event is stored, nobody waits for ever, and what
//! was under way is one event once the disk answers again.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::common::{
    daemon::{ALL_TO_FILES, Daemon},
    faults::{Fault, Faults},
    kept, log_files,
    operator::{await_metrics, json},
    sender::{self, Answer, Webhook},
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a commit may take here: enough for a disk that is only busy.
const COMMIT_TIMEOUT: (&str, &str) = ("WAYPOST_JOURNAL__COMMIT_TIMEOUT", "2s");

const HANGS: &str = r#"waypost_journal_commit_hangs_seconds{journal="main"}"#;
const DEAD_LETTERS_HANG: &str = r#"waypost_journal_commit_hangs_seconds{journal="dead_letters"}"#;

fn event(n: u64) -> Webhook {
    sender::sonzai("agent.message", format!(r#"{{"agent_id":"a{n}","n":{n}}}"#))
}

async fn post(daemon: &Daemon, webhook: &Webhook) -> Answer {
    sender::post(daemon.listen, webhook).await.expect("an answer")
}

async fn accepted(daemon: &Daemon, webhook: &Webhook) -> String {
    let answer = post(daemon, webhook).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.event_id.expect("an id")
}

/// A refusal that tells the sender to come again.
#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    let seconds = answer.retry_after.as_deref().and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
}

fn await_ready(daemon: &Daemon, ready: bool) -> serde_json::Value {
    let started = Instant::now();
    loop {
        let (_, answer) = json(daemon, "/readyz");
        if answer["ready"] == ready {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(dir: &Path, routes: &str, faults: &Faults, further: &[(&str, &str)]) -> Daemon {
    let settings = [&faults.settings()[..], &[COMMIT_TIMEOUT], further].concat();
    Daemon::with_sources(dir, routes, &settings)
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_hangs_senders_get_503_and_what_was_under_way_becomes_one_event() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/journal"));
    let daemon = start(dir.path(), ALL_TO_FILES, &faults, &[]);
    let durable = event(0);
    let before = accepted(&daemon, &durable).await;
    faults.arm(Fault::Hang);
    // The first is written and waits; its sender's next try waits for it, not for a copy of its own.
    let (hung, other) = (event(1), event(2));
    let (first, retry) = tokio::join!(post(&daemon, &hung), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        post(&daemon, &hung).await
    });
    assert_refused(&first);
    assert_refused(&retry);
    let answer = await_ready(&daemon, false);
    assert_eq!(answer["reasons"], serde_json::json!(["disk_hangs"]));
    // What comes meanwhile waits for nothing; what is known is known.
    for webhook in [&hung, &other, &hung, &other] {
        assert_refused(&post(&daemon, webhook).await);
    }
    assert_eq!(accepted(&daemon, &durable).await, before);
    let (status, said) = daemon.command(&["status"]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("NOT READY") && said.contains("the disk does not answer"), "{said}");
    assert!(said.contains("THE DISK DOES NOT ANSWER: main"), "{said}");
    let scrape = await_metrics(&daemon, "it is counted", |scrape| scrape.get(HANGS) > 2.0);
    scrape.assert(&[("waypost_ready", 0.0), ("waypost_journal_commit_limit_seconds", 2.0)]);
    let refused = r#"waypost_journal_refused_appends_total{reason="disk_hung"}"#;
    assert!(scrape.get(refused) >= 2.0);

    faults.disarm(Fault::Hang);
    // Also without an event that shows it.
    await_ready(&daemon, true);
    let hung = accepted(&daemon, &hung).await;
    let other = accepted(&daemon, &other).await;
    let published = log_files::wait_for(&daemon.data_dir(), 3);
    let published: Vec<String> = published.into_iter().map(|event| event.id).collect();
    assert_eq!(published, [before, hung, other]);
    let duplicates = r#"waypost_duplicates_total{source="sonzai"}"#;
    await_metrics(&daemon, "the next try was a duplicate", |scrape| {
        scrape.get(HANGS) == 0.0 && scrape.get(duplicates) == 2.0
    })
    .assert(&[("waypost_journal_appended_records_total", 3.0)]);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_to_end_while_its_disk_hangs_ends_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data"));
    let routes = ALL_TO_FILES.replace("type: log", "type: log, dir: elsewhere");
    let daemon = start(dir.path(), &routes, &faults, &[("WAYPOST_SHUTDOWN__DEADLINE", "1s")]);
    let (durable, refused) = (event(0), event(1));
    let kept_id = accepted(&daemon, &durable).await;
    faults.arm(Fault::Hang);
    assert_refused(&post(&daemon, &refused).await);
    daemon.terminate();
    let log = dir.path().join("daemon.log");
    assert_eq!(daemon.ended().code(), Some(1));
    faults.disarm(Fault::Hang);
    let log = std::fs::read_to_string(log).expect("the log");
    let told = log.lines().any(|line| line.contains("ERROR") && line.contains("did not answer"));
    assert!(told, "{log}");

    // What was acknowledged is there; what was not may be sent again.
    let daemon = start(dir.path(), &routes, &faults, &[]);
    assert_eq!(accepted(&daemon, &durable).await, kept_id);
    let id = accepted(&daemon, &refused).await;
    let ids = || kept::logged_in(&dir.path().join("elsewhere"), "all");
    kept::eventually("both", || [&kept_id, &id].iter().all(|id| ids().contains(id))).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_a_dead_letter_while_their_disk_hangs_becomes_one_once() {
    const EVENTS: u64 = 5;
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/dead-letters"));
    // No event fills the topic.
    let routes = ALL_TO_FILES.replace("topic: all", "topic: \"{data.missing}\"");
    let daemon = start(dir.path(), &routes, &faults, &[]);
    faults.arm(Fault::Hang);
    for n in 0..EVENTS {
        accepted(&daemon, &event(n)).await;
    }
    // Events are taken all the same.
    await_metrics(&daemon, "it is told", |scrape| scrape.get(DEAD_LETTERS_HANG) > 2.0)
        .assert(&[("waypost_ready", 1.0), (HANGS, 0.0)]);
    let (status, said) = daemon.command(&["status"]);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("THE DISK DOES NOT ANSWER: dead letters"), "{said}");
    accepted(&daemon, &event(EVENTS)).await;
    faults.disarm(Fault::Hang);
    let kept = "waypost_dead_letters_kept";
    await_metrics(&daemon, "all are kept", |scrape| {
        scrape.get(kept) == (EVENTS + 1) as f64
            && scrape.get(r#"waypost_broker_lag_records{broker="local"}"#) == 0.0
    });
    assert!(daemon.stop().success());
    let daemon = start(dir.path(), &routes, &faults, &[]);
    assert_eq!(kept::dead_letters(dir.path()).len() as u64, EVENTS + 1);
    assert!(daemon.stop().success());
}
