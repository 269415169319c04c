//! What an outage lost comes back, once; what cannot be had is said. And wakeups, from the command line.

use std::process::ExitStatus;

use serde_json::Value;

use crate::common::{
    daemon::Daemon,
    polling::{Polling, eventually, options, poll_project},
    raw::{self, Raw},
    sender,
    sonzai_stub::request,
};

/// Repairs, and says what came of it.
fn repair(daemon: &Daemon, further: &[&str]) -> (ExitStatus, Value) {
    let arguments = [&["sonzai", "repair", "--since", "1h", "--json"], further].concat();
    let (status, said) = daemon.command(&arguments);
    let summary =
        said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{said}"));
    (status, serde_json::from_str(summary).expect("a summary"))
}

#[track_caller]
fn assert_counts(counts: &Value, [found, new, known, out_of_reach]: [u64; 4]) {
    let numbers =
        ["found", "new", "known", "out_of_reach"].map(|name| counts[name].as_u64().unwrap());
    assert_eq!(numbers, [found, new, known, out_of_reach], "{counts}");
}

/// Registers a webhook that nobody answers.
fn register_dead(polling: &Polling, event_type: &str) {
    let body = format!(r#"{{"webhook_url":"http://127.0.0.1:1/hooks/sonzai/{event_type}"}}"#);
    let target = format!("/api/v1/webhooks/{event_type}");
    let answer = Raw::connect(polling.stub.address()).ask(request("PUT", &target, &body));
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_history_comes_back_once() {
    let polling = Polling::of(options(), "").await;
    let daemon = polling.start();
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-1","count":3}"#);
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-3","count":2}"#);
    let (status, summary) = repair(&daemon, &["--dry-run"]);
    assert!(status.success(), "{summary}");
    assert_counts(&summary["notifications"], [5, 5, 0, 0]);
    assert_eq!(polling.published().len(), 0, "nothing was appended");
    let (status, summary) = repair(&daemon, &["--agent", "agent-1"]);
    assert!(status.success(), "{summary}");
    assert_counts(&summary["notifications"], [3, 3, 0, 0]);
    let (status, summary) = repair(&daemon, &[]);
    assert!(status.success(), "{summary}");
    assert_counts(&summary["notifications"], [5, 2, 3, 0]);
    let (status, summary) = repair(&daemon, &["--dry-run"]);
    assert!(status.success(), "{summary}");
    assert_counts(&summary["notifications"], [5, 0, 5, 0]);
    polling.await_published(5);
    let documents = std::fs::read_to_string(polling.dir.path().join("data/log/all.jsonl")).unwrap();
    assert!(documents.lines().all(|line| line.contains(r#""via":"repair""#)), "{documents}");
    assert!(daemon.stop().success());
    assert_eq!(polling.published().len(), 5);
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_an_agents_history_is_out_of_reach() {
    let polling = Polling::of(options(), "").await;
    let daemon = polling.start();
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-2","count":510}"#);
    let (status, summary) = repair(&daemon, &[]);
    assert_eq!(status.code(), Some(3), "{summary}");
    assert_counts(&summary["notifications"], [500, 500, 0, 1]);
    assert!(summary["reasons"][0].as_str().unwrap().contains("agent-2"), "{summary}");
    // An agent that is named, and is not there, is a mistake.
    let (status, summary) = repair(&daemon, &["--agent", "nobody"]);
    assert_eq!(status.code(), Some(1), "{summary}");
    assert!(summary["trouble"][0].as_str().unwrap().contains("agent nobody"), "{summary}");
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_attempts_come_back_once_an_event() {
    let polling = Polling::of(options(), "").await;
    register_dead(&polling, "agent.mood_change");
    let daemon = polling.start();
    for n in 0..3 {
        polling.emit(&format!(
            r#"{{"type":"agent.mood_change","payload":{{"agent_id":"agent-{n}","n":1.0}}}}"#
        ));
    }
    eventually("all attempts have failed", || polling.stub.state()["attempts_made"] == 12);
    // One of them came in by another way.
    let webhook = sender::sonzai("agent.mood_change", r#"{"agent_id":"agent-1","n":1.0}"#);
    assert_eq!(Raw::connect(daemon.listen).ask(raw::request(&webhook)).status, 200);
    let (status, summary) = repair(&daemon, &["--dry-run"]);
    assert!(status.success(), "{summary}");
    assert_counts(&summary["failed_attempts"], [3, 2, 1, 0]);
    let (_, summary) = repair(&daemon, &["--agent", "agent-2"]);
    assert_counts(&summary["failed_attempts"], [1, 1, 0, 0]);
    let (status, summary) = repair(&daemon, &[]);
    assert!(status.success(), "{summary}");
    assert_counts(&summary["failed_attempts"], [3, 1, 2, 0]);
    polling.await_published(3);
    assert!(daemon.stop().success());
    let published = polling.published();
    assert!(published.len() == 3 && published.iter().all(|it| it.kind == "agent.mood_change"));
    assert!(published.iter().all(|it| it.body.ends_with(br#""n":1.0}"#)));
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_repairs_once_by_itself() {
    let polling = Polling::of(options(), &poll_project(", repair: 2h")).await;
    register_dead(&polling, "agent.mood_change");
    polling.emit(r#"{"type":"agent.mood_change","payload":{"n":1}}"#);
    eventually("all attempts have failed", || polling.stub.state()["attempts_made"] == 4);
    let daemon = polling.start();
    polling.await_published(1);
    eventually("it says so", || daemon.log().contains("repaired after the start"));
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_cannot_be_complete_says_so() {
    let polling = Polling::of(options(), "").await;
    let daemon = polling.start();
    polling
        .fault(serde_json::json!({ "match": { "path": "/history" }, "fault": { "status": 500 } }));
    polling.emit(r#"{"type":"on_wakeup_ready"}"#);
    let (status, summary) = repair(&daemon, &[]);
    assert_eq!(status.code(), Some(1), "{summary}");
    assert!(!summary["trouble"].as_array().unwrap().is_empty(), "{summary}");
    let (status, said) = daemon.command(&["sonzai", "repair", "--since", "0s"]);
    assert!(!status.success() && said.contains("more than nothing"), "{said}");
    let (status, said) =
        daemon.command(&["sonzai", "repair", "--since", "1h", "--source", "other"]);
    assert!(!status.success() && said.contains("no source `other`"), "{said}");
    polling.stub.clear_faults();
    let (status, said) = daemon.command(&["sonzai", "repair", "--since", "1h"]);
    assert!(status.success() && said.contains("notifications           1        1"), "{said}");
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn wakeups_are_scheduled_and_listed_without_a_daemon() {
    let polling = Polling::of(options(), "").await;
    std::fs::write(polling.dir.path().join("routes.yaml"), &polling.routes).unwrap();
    let run = |arguments: &[&str]| crate::common::daemon::command(polling.dir.path(), arguments);
    let schedule = ["sonzai", "wakeups", "schedule", "--agent", "Luna 2", "--user", "user-1"];
    let (status, said) =
        run(&[&schedule[..], &["--in", "2h", "--intent", "ask how it went", "--json"]].concat());
    assert!(status.success(), "{said}");
    let scheduled: Value = serde_json::from_str(&said).expect("JSON");
    let at =
        ["--at", "2036-12-24T18:00:00+01:00", "--intent", "wish well", "--occasion", "christmas"];
    let (status, said) = run(&[&schedule[..], &at].concat());
    assert!(status.success() && said.starts_with("scheduled: wakeup "), "{said}");
    let list = ["sonzai", "wakeups", "list", "--agent", "agent-2"];
    let (status, said) = run(&[&list[..], &["--json"]].concat());
    assert!(status.success(), "{said}");
    let listed: Value = serde_json::from_str(&said).expect("JSON");
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|it| it["wakeup_id"] == scheduled["wakeup_id"]), "{listed:?}");
    let (status, said) = run(&[&list[..], &["--status", "pending"]].concat());
    assert!(status.success() && said.contains("ask how it went"), "{said}");
    for (further, words) in [
        (&["--intent", "x"][..], "--at"),
        (&["--intent", "x", "--at", "tomorrow"], "write it like"),
        (&["--intent", "x", "--in", "1h", "--at", "2036-12-24T18:00:00Z"], "cannot be used with"),
    ] {
        let (status, said) = run(&[&schedule[..], further].concat());
        assert!(!status.success() && said.contains(words), "{said}");
    }
    let nobody = ["sonzai", "wakeups", "list", "--agent", "nobody"];
    let (status, said) = run(&nobody);
    assert!(!status.success() && said.contains("404"), "{said}");
    polling.assert_valid();
}
