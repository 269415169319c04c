//! What is pending at Sonzai comes into the stream, once, with the bytes it has there, and is taken.

use serde_json::json;

use crate::common::{
    polling::{self, Polling, counts, eventually, options, poll_project, status},
    raw::{self, Raw},
    sender,
};

/// A payload that would be another after a parser has written it anew.
const PAYLOAD: &str = r#"{"event_type":"agent.message",  "agent_id":"agent-1","n":1.0,"big":12345678901234567890123,"notification_id":"ID"}"#;

fn payload(id: &str) -> String {
    PAYLOAD.replace("ID", id)
}

fn emit(polling: &Polling, id: &str) {
    let payload = payload(id);
    polling.emit(&format!(
        r#"{{"type":"agent.message","notification_id":"{id}","payload":{payload}}}"#
    ));
}

#[track_caller]
fn push(daemon: &crate::common::daemon::Daemon, id: &str) {
    let webhook = sender::sonzai("agent.message", payload(id));
    assert_eq!(Raw::connect(daemon.listen).ask(raw::request(&webhook)).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pending_comes_once_byte_for_byte_and_is_taken() {
    let polling = Polling::project(options()).await;
    let ids: Vec<String> = (0..7).map(|n| format!("n-{n}")).collect();
    ids.iter().for_each(|id| emit(&polling, id));
    let daemon = polling.start();
    let published = polling.await_published(ids.len());
    eventually("all is taken", || polling.pending() == 0);
    assert_eq!(polling.taken().1, ids);
    let bodies: Vec<_> = published.iter().map(|it| String::from_utf8_lossy(&it.body)).collect();
    assert_eq!(bodies, ids.iter().map(|id| payload(id)).collect::<Vec<_>>());
    assert!(published.iter().all(|event| event.kind == "agent.message"));
    let documents = std::fs::read_to_string(polling.dir.path().join("data/log/all.jsonl")).unwrap();
    assert!(documents.lines().all(|line| line.contains(r#""via":"poll""#)), "{documents}");
    let status = status(&daemon);
    assert_eq!((&status["appended"], &status["taken"]), (&json!(7), &json!(7)), "{status}");
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn push_and_poll_bring_each_message_once_in_either_order_and_across_restarts() {
    let polling = Polling::project(options()).await;
    let daemon = polling.start();
    push(&daemon, "pushed-first");
    emit(&polling, "pushed-first");
    eventually("it is taken", || polling.pending() == 0);
    emit(&polling, "polled-first");
    eventually("it is taken", || polling.pending() == 0);
    push(&daemon, "polled-first");
    push(&daemon, "pushed-before-a-restart");
    emit(&polling, "polled-before-a-restart");
    eventually("it is taken", || polling.pending() == 0);
    assert!(daemon.stop().success());

    emit(&polling, "pushed-before-a-restart");
    let daemon = polling.start();
    push(&daemon, "polled-before-a-restart");
    eventually("it is taken", || polling.pending() == 0);
    // What came before it is there, too.
    emit(&polling, "last");
    let published = polling.await_published(5);
    eventually("it is taken", || polling.pending() == 0);
    assert!(daemon.stop().success());
    let ids = counts(polling.published().into_iter().map(|event| event.body));
    assert_eq!(ids.len(), 5, "{ids:?}");
    assert!(ids.values().all(|times| *times == 1), "{published:?}");
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_notifications_come_as_the_type_that_is_configured_and_are_consumed() {
    let source =
        "poll: { agents: [agent-1, \"Luna 2\"], every: 1s, mode: always, type: agent.note }";
    let polling = Polling::of(options(), source).await;
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-1","count":3}"#);
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-2","count":2}"#);
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-3"}"#);
    let daemon = polling.start();
    let published = polling.await_published(5);
    eventually("all is taken", || polling.pending_of_agents() == 1);
    assert!(published.iter().all(|event| event.kind == "agent.note"));
    let (mut consumed, _) = polling.taken();
    let mut arrived: Vec<String> = published
        .iter()
        .map(|event| {
            let body: serde_json::Value = serde_json::from_slice(&event.body).expect("JSON");
            body["message_id"].as_str().expect("an id").to_owned()
        })
        .collect();
    consumed.sort();
    arrived.sort();
    assert_eq!(arrived, consumed);
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_notification_and_its_webhook_are_one_in_either_order() {
    let source = "poll: { agents: [agent-1], every: 1s, mode: always }";
    let polling = Polling::of(options(), source).await;
    let daemon = polling.start();
    let body = |id: &str| format!(r#"{{"wakeup":{{"wakeup_id":"w-{id}"}},"message_id":"{id}"}}"#);
    let push = |id: &str| {
        let webhook = sender::sonzai("on_wakeup_ready", body(id));
        assert_eq!(Raw::connect(daemon.listen).ask(raw::request(&webhook)).status, 200);
    };
    let pend = |id: &str| {
        polling.emit(&format!(
            r#"{{"type":"on_wakeup_ready","message_id":"{id}","wakeup_id":"w-{id}","payload":{}}}"#,
            body(id)
        ));
        eventually("it is taken", || polling.pending_of_agents() == 0);
    };
    push("pushed-first");
    pend("pushed-first");
    pend("polled-first");
    push("polled-first");
    // A second message of the same wakeup is another one.
    polling
        .emit(r#"{"type":"on_wakeup_ready","message_id":"second","wakeup_id":"w-pushed-first"}"#);
    polling.await_published(3);
    eventually("it is taken", || polling.pending_of_agents() == 0);
    let status = status(&daemon);
    assert_eq!((&status["appended"], &status["duplicates"]), (&json!(2), &json!(1)), "{status}");
    assert!(daemon.stop().success());
    assert_eq!(polling.published().len(), 3);
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_a_filter() {
    let source = "poll: { agents: all, users: [user-7], every: 1s, mode: always }";
    let polling = Polling::of(options(), source).await;
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-3","user_id":"user-7","count":2}"#);
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-3","user_id":"user-8","count":2}"#);
    let daemon = polling.start();
    let published = polling.await_published(2);
    eventually("they are taken", || polling.pending_of_agents() == 2);
    assert!(published.iter().all(|event| event.kind == "agent.message"));
    assert!(daemon.stop().success());
    assert_eq!(polling.published().len(), 2);
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_taken_comes_once_and_stays() {
    let polling = Polling::of(options(), &poll_project(", take: false")).await;
    polling.emit(r#"{"type":"on_wakeup_ready","count":5}"#);
    let daemon = polling.start();
    polling.await_published(5);
    // Listed again and again, the same ones.
    eventually("it is listed again", || status(&daemon)["listed"].as_u64() >= Some(15));
    let status = status(&daemon);
    assert_eq!((&status["appended"], &status["duplicates"]), (&json!(5), &json!(0)), "{status}");
    assert!(daemon.stop().success());
    let daemon = polling.start();
    eventually("it is listed again", || polling::status(&daemon)["duplicates"] == 5);
    assert!(daemon.stop().success());
    assert_eq!((polling.published().len(), polling.pending()), (5, 5));
    assert_eq!(polling.requests_with("POST", "/"), 0);
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_webhook_brought_makes_polling_fast() {
    let source = format!("poll: {{ project: {}, every: 1s }}", crate::common::sonzai_stub::PROJECT);
    let polling = Polling::of(options(), &source).await;
    polling.emit(r#"{"type":"on_wakeup_ready"}"#);
    let daemon = polling.start_with(&[("WAYPOST_SONZAI__PUSH_GRACE", "0s")]);
    polling.await_published(1);
    eventually("it is said", || status(&daemon)["why"] == "not_pushed");
    assert_eq!(status(&daemon)["fast"], true);
    let (code, said) = daemon.command(&["status"]);
    assert!(code.success() && said.contains("fast, since an item came"), "{said}");
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_starts_and_ends_polling() {
    let mut polling = Polling::of(options(), "").await;
    polling.emit(r#"{"type":"on_wakeup_ready"}"#);
    let daemon = polling.start();
    assert!(status(&daemon).is_null());
    let without = polling.routes.clone();
    polling.routes = without.replace("path:", &format!("{}\n    path:", poll_project("")));
    reload(&polling, &daemon);
    polling.await_published(1);
    eventually("it is taken", || polling.pending() == 0);
    std::fs::write(polling.dir.path().join("routes.yaml"), &without).unwrap();
    eventually("polling has ended", || status(&daemon).is_null());
    let requests = polling.requests();
    polling.emit(r#"{"type":"on_wakeup_ready"}"#);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(polling.requests() <= requests + 1, "nobody asks any more");
    assert_eq!(polling.pending(), 1);
    assert!(daemon.stop().success());
}

fn reload(polling: &Polling, daemon: &crate::common::daemon::Daemon) {
    std::fs::write(polling.dir.path().join("routes.yaml"), &polling.routes).unwrap();
    let (status, said) = daemon.command(&["reload"]);
    assert!(status.success(), "{said}");
}
