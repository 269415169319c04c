//! An API that misbehaves costs no event, gets no flood of requests, and is worth a line in the log once.

use std::{fs, thread::sleep, time::Duration};

use serde_json::{Value, json};

use crate::common::{
    faults::{Fault, Faults},
    log_files,
    operator::Scrape,
    polling::{Polling, counts, eventually, lines, options, poll_project, status},
};

/// Requests of each kind that go wrong: more than one call tries.
const TIMES: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn however_the_api_misbehaves_nothing_is_lost_and_nothing_floods_it() {
    let faults = [
        json!({ "status": 500 }),
        json!({ "status": 503, "effect": true }),
        json!({ "hang": "30s" }),
        json!({ "malformed": true }),
        json!({ "html": true }),
        json!({ "slow": "200ms", "chunk": 1 }),
        json!({ "cut": "before" }),
        json!({ "cut": "after" }),
        json!({ "truncated": true }),
        json!({ "status": 429, "retry_after": 1 }),
        json!({ "status": 429, "retry_after": "Wed, 21 Oct 2015 07:28:00 GMT" }),
    ];
    let cases = faults.map(|fault| {
        tokio::spawn(async move {
            let polling = Polling::project(options()).await;
            tokio::task::spawn_blocking(move || outlasts(&polling, &fault)).await
        })
    });
    for case in cases {
        case.await.expect("to run").expect("a case that holds");
    }
}

/// While lists, and then the taking, go wrong.
fn outlasts(polling: &Polling, fault: &Value) {
    let daemon = polling.start_with(&[("WAYPOST_SONZAI__REQUEST_TIMEOUT", "300ms")]);
    for method in ["GET", "POST"] {
        let (before, log_before) = (polling.requests(), daemon.log());
        polling.fault(json!({
            "match": { "method": method, "path": "/notifications" }, "times": TIMES, "fault": fault,
        }));
        polling.emit(r#"{"type":"on_wakeup_ready","count":3}"#);
        eventually("it is polled and taken all the same", || {
            polling.pending() == 0
                && (method == "POST" || polling.stub.state()["faults"]["rules"] == 0)
                && status(&daemon)["trouble"].is_null()
        });
        polling.stub.clear_faults();
        eventually("what is told to begin is told to end", || {
            let log = daemon.log();
            let new = &log[log_before.len()..];
            lines(new, "polling goes on") == usize::from(lines(new, "cannot poll") > 0)
        });
        let (requests, log) = (polling.requests() - before, daemon.log());
        // Those that go wrong, those that go well, and the rounds meanwhile.
        assert!(requests <= TIMES + 40, "{fault} {method}: {requests} requests");
        let new = &log[log_before.len()..];
        let told = lines(new, "cannot poll");
        assert!(told <= 2, "{fault} {method} is told {told} times:\n{new}");
    }
    eventually("all is published", || polling.published().len() == 6);
    assert!(daemon.stop().success());
    let bodies = counts(polling.published().into_iter().map(|event| event.body));
    assert!(bodies.len() == 6 && bodies.values().all(|times| *times == 1), "{fault}");
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_told_once_and_asked_about_seldom() {
    for (refusal, kind, hint) in
        [(401, "key_refused", "put a valid one there"), (403, "forbidden", "give it the scope")]
    {
        let before = poll_project(", repair: 1h");
        let mut polling = Polling::of(options(), &before).await;
        polling.fault(json!({ "match": { "path": "/api/" }, "fault": { "status": refusal } }));
        polling.emit(r#"{"type":"on_wakeup_ready"}"#);
        let daemon = polling.start();
        eventually("it is told", || status(&daemon)["trouble"]["kind"] == kind);
        sleep(Duration::from_secs(3));
        assert!(polling.requests() <= 2, "{} requests", polling.requests());
        let log = daemon.log();
        assert_eq!(lines(&log, "cannot poll"), 1, "{log}");
        assert!(log.contains(hint), "{log}");
        let (_, said) = daemon.command(&["status"]);
        assert!(said.contains("NOT POLLED") && said.contains(hint), "{said}");
        let scrape = Scrape::of(&daemon);
        assert_eq!(scrape.get(r#"waypost_poll_denied{source="sonzai"}"#), 1.0);
        assert_eq!(scrape.get(r#"waypost_poll_up{source="sonzai"}"#), 0.0);

        // What is mended in the routing table counts at once.
        polling.stub.clear_faults();
        polling.routes = polling.routes.replace(&before, &poll_project(", repair: 2h"));
        fs::write(polling.dir.path().join("routes.yaml"), &polling.routes).unwrap();
        polling.await_published(1);
        eventually("it is taken", || polling.pending() == 0);
        eventually("it repaired", || daemon.log().contains("repaired after the start"));
        assert!(daemon.stop().success());
        assert_eq!(polling.published().len(), 1);
        polling.assert_valid();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_agent_that_cannot_be_polled_holds_up_no_other() {
    let source = "poll: { agents: [agent-1, nobody, agent-2, agent-3], every: 1s, mode: always }";
    let polling = Polling::of(options(), source).await;
    let daemon = polling.start();
    for round in 1..=3 {
        for agent in 1..=3 {
            polling.emit(&format!(r#"{{"type":"on_wakeup_ready","agent_id":"agent-{agent}"}}"#));
        }
        polling.await_published(round * 3);
        eventually("all is taken", || polling.pending_of_agents() == 0);
    }
    assert!(status(&daemon)["trouble"].is_null());
    assert_eq!(status(&daemon)["lists_in_trouble"], 1);
    assert_eq!(lines(&daemon.log(), "cannot poll a list"), 1, "{}", daemon.log());
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_too_large_for_the_journal_stays_and_holds_up_none() {
    let polling = Polling::project(options()).await;
    let large = "x".repeat(33 << 20);
    polling.emit(&format!(r#"{{"type":"agent.message","payload":{{"n":"{large}"}}}}"#));
    polling.emit(r#"{"type":"on_wakeup_ready","count":3}"#);
    let daemon = polling.start_with(&[("WAYPOST_SONZAI__MAX_ANSWER_BYTES", "67108864")]);
    eventually("the others are taken", || polling.pending() == 1);
    eventually("it is counted", || status(&daemon)["too_large"] == 1);
    assert_eq!(lines(&daemon.log(), "larger than the journal takes"), 1, "{}", daemon.log());
    assert!(daemon.stop().success());
    assert_eq!(polling.published().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_larger_than_an_answer_may_be_holds_up_no_other_agents() {
    let polling = Polling::project(options()).await;
    let large = "x".repeat(200_000);
    polling.emit(&format!(
        r#"{{"type":"agent.message","agent_id":"agent-1","payload":{{"n":"{large}"}}}}"#
    ));
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-2","count":3}"#);
    let daemon = polling.start_with(&[("WAYPOST_SONZAI__MAX_ANSWER_BYTES", "100000")]);
    eventually("the others are taken", || polling.pending() == 1);
    eventually("it is told", || status(&daemon)["hidden_lists"].as_u64() > Some(0));
    assert!(status(&daemon)["trouble"].is_null());
    let log = daemon.log();
    assert!(log.contains("raise sonzai.max_answer_bytes"), "{log}");
    assert!(daemon.stop().success());
    assert_eq!(polling.published().len(), 3);
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_would_be_too_large_is_asked_for_in_parts() {
    let polling = Polling::project(options()).await;
    let padding = "x".repeat(100_000);
    for n in 0..20 {
        polling.emit(&format!(
            r#"{{"type":"agent.message","notification_id":"n-{n}","payload":{{"n":{n},"p":"{padding}"}}}}"#
        ));
    }
    let daemon = polling.start_with(&[("WAYPOST_SONZAI__MAX_ANSWER_BYTES", "1000000")]);
    polling.await_published(20);
    eventually("all is taken", || polling.pending() == 0);
    assert!(daemon.stop().success());
    assert_eq!(polling.published().len(), 20);
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_cached_upstream_brings_nothing_twice() {
    let cached = waypost::sonzai::stub::Options { cache: Duration::from_secs(2), ..options() };
    let polling = Polling::project(cached).await;
    let daemon = polling.start();
    polling.emit(r#"{"type":"on_wakeup_ready","count":450}"#);
    eventually("all is taken", || polling.pending() == 0);
    eventually("all is published", || polling.published().len() == 450);
    let acknowledged = polling.requests_with("POST", "acknowledge");
    assert!(acknowledged <= 6, "{acknowledged} times acknowledged");
    assert_eq!(status(&daemon)["duplicates"], 0);
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_nothing_more_is_taken_and_that_is_told_once() {
    const ITEMS: u64 = 300;
    let nobody_there = r#"
brokers:
  live: { type: nats, url: "nats://127.0.0.1:1" }
routes:
  - name: all
    match: { type: "**" }
    to: [{ broker: live, subject: all }]
"#;
    let polling = Polling::with(options(), &poll_project(""), nobody_there).await;
    let padding = "x".repeat(20_000);
    for n in 0..ITEMS {
        polling.emit(&format!(
            r#"{{"type":"agent.message","notification_id":"n-{n}","payload":{{"n":{n},"p":"{padding}"}}}}"#
        ));
    }
    // Less than half of them are.
    let daemon = polling.start_with(&[("WAYPOST_JOURNAL__MAX_BYTES", "2097152")]);
    eventually("there is no room", || status(&daemon)["trouble"]["kind"] == "no_room");
    sleep(Duration::from_secs(2));
    let before = polling.requests();
    sleep(Duration::from_secs(3));
    let more = polling.requests() - before;
    assert!(more <= 9, "{more} requests in three seconds");
    let (code, said) = daemon.command(&["status"]);
    assert!(said.contains("nothing is taken meanwhile"), "{code} {said}");
    let status = status(&daemon);
    let number = |name: &str| status[name].as_u64().expect("a number");
    assert_eq!(number("taken"), number("appended"), "{status}");
    assert_eq!(number("taken") + polling.pending(), ITEMS, "{status}");
    let log = daemon.log();
    assert_eq!(lines(&log, "cannot poll"), 1, "{log}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_has_not_answered_for_is_not_taken_and_is_one_event_once_it_has() {
    const ITEMS: usize = 3;
    let polling = Polling::project(options()).await;
    let dir = polling.dir.path();
    let faults = Faults::new(dir, &dir.join("data/journal"));
    let timeout = ("WAYPOST_JOURNAL__COMMIT_TIMEOUT", "1s");
    let daemon = polling.start_with(&[&faults.settings()[..], &[timeout]].concat());
    faults.arm(Fault::Hang);
    polling.emit(r#"{"type":"on_wakeup_ready","count":3}"#);
    eventually("it is told", || status(&daemon)["trouble"]["kind"] == "no_room");
    // It is tried again meanwhile, and nothing comes of it.
    sleep(Duration::from_secs(3));
    assert_eq!(polling.pending(), ITEMS as u64);
    faults.disarm(Fault::Hang);
    eventually("all are taken", || polling.pending() == 0 && status(&daemon)["trouble"].is_null());
    let scrape = Scrape::of(&daemon);
    assert_eq!(scrape.get("waypost_journal_appended_records_total"), ITEMS as f64);
    assert_eq!(log_files::wait_for(&daemon.data_dir(), ITEMS).len(), ITEMS);
    assert!(daemon.stop().success());
}
