//! What comes by several ways is one event, and what differs is not. Each as a sender and the lists
//! would have it, through the window and, across a restart, through the journal.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use super::*;
use crate::{
    dedupe::{self, Window},
    journal::{self, Entry, Journal, RealDisk},
    signature,
    source::{Dedupe, Provider, Request, Sonzai},
};

const LIMITS: dedupe::Limits =
    dedupe::Limits { window: Duration::from_secs(24 * 3600), max_keys: 1000 };

/// When it all begins, Unix seconds.
const START_S: u64 = 1_767_225_600;

type Known = (Event, Keys);

fn source() -> Source {
    let mut sonzai = Sonzai::default();
    sonzai.add_keys("*", vec![signature::sonzai::key("whsec_x").unwrap()]);
    Source::new("sonzai".into(), Provider::Sonzai(sonzai))
}

/// A webhook that was signed at so many seconds after the start.
fn webhook_of(source: &Source, event_type: &str, at_s: u64, body: &str) -> Known {
    let (body, now_s) = (Bytes::copy_from_slice(body.as_bytes()), START_S + at_s);
    let key = signature::sonzai::key("whsec_x").unwrap();
    let mut headers = HeaderMap::new();
    let value = signature::sonzai::sign(&key, &body, now_s);
    headers.insert(signature::sonzai::HEADER, value.parse().unwrap());
    headers.insert("content-type", CONTENT_TYPE.parse().unwrap());
    let (path_type, headers) = (Some(event_type), &headers);
    let request = Request { path_type, headers, body, now_ms: now_s * 1000 };
    let received = source.receive(request).unwrap();
    (received.event, received.known_by)
}

fn webhook(event_type: &str, at_s: u64, body: &str) -> Known {
    webhook_of(&source(), event_type, at_s, body)
}

fn item(id: &str, event_type: &str, payload: &str) -> ProjectItem {
    ProjectItem {
        notification_id: id.into(),
        event_type: event_type.into(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        agent_id: None,
        user_id: None,
        project_id: None,
    }
}

fn project(id: &str, event_type: &str, payload: &str) -> Known {
    project_notification(&source(), item(id, event_type, payload), START_S * 1000, Via::Poll)
}

fn agent_item(message: &str, wakeup: Option<&str>) -> AgentItem {
    AgentItem {
        message_id: message.into(),
        entry: format!(r#"{{"message_id":"{message}","agent_id":"a1"}}"#).into(),
        agent_id: None,
        user_id: None,
        wakeup_id: wakeup.map(Into::into),
    }
}

fn agent(message: &str, wakeup: Option<&str>, kind: &str) -> Known {
    let item = agent_item(message, wakeup);
    agent_notification(&source(), item, &kind.into(), START_S * 1000, Via::Poll)
}

fn attempt(event_type: &str, body: &str) -> Known {
    failed_attempt(&source(), event_type, Bytes::copy_from_slice(body.as_bytes()), START_S * 1000)
}

async fn is_new(window: &Arc<Window>, (_, keys): Known, at_s: u64) -> bool {
    let at_ms = (START_S + at_s) * 1000;
    let Some(claim) = window.claim(keys, at_ms, Duration::ZERO).await.unwrap() else {
        return false;
    };
    let is_new = !claim.is_taken();
    claim.commit(at_ms);
    is_new
}

/// What came, in order, each so many seconds after the start, with whether it is an event.
async fn assert_new(came: Vec<(u64, Known, bool)>) {
    let (window, mut now_s) = (Window::new(LIMITS, vec![]), 0);
    for (n, (at_s, known, expected)) in came.into_iter().enumerate() {
        tokio::time::advance(Duration::from_secs(at_s - now_s)).await;
        now_s = at_s;
        assert_eq!(is_new(&window, known, at_s).await, expected, "the one at place {n}");
    }
}

const WAKEUP: &str = r#"{"wakeup":{"wakeup_id":"w1","agent_id":"a1"},"generated_message":"Hi"}"#;
const NOTIFICATION: &str = r#"{"notification_id":"n1","data":{"message_id":"m1"}}"#;
const MESSAGE: &str = r#"{"event_type":"agent.message","data":{"message_id":"m1"}}"#;

#[tokio::test(start_paused = true)]
async fn a_notification_whose_webhook_came_before_is_no_event() {
    assert_new(vec![
        (0, webhook("on_wakeup_ready", 0, WAKEUP), true),
        (90, project("n1", "on_wakeup_ready", WAKEUP), false),
        (90, agent("m1", Some("w1"), "agent.message"), false),
        (99, webhook("on_diary_generated", 99, NOTIFICATION), true),
        (100, project("n1", "on_diary_generated", "{}"), false),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_webhook_whose_notification_came_before_is_no_event() {
    for first in [
        project("n1", "on_wakeup_ready", WAKEUP),
        agent("m1", Some("w1"), "agent.message"),
        agent("m1", Some("w1"), "agent.notified"),
    ] {
        assert_new(vec![(0, first, true), (9, webhook("on_wakeup_ready", 9, WAKEUP), false)]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn webhook_and_agents_notification_of_a_message_are_one() {
    for kind in ["agent.message", "on_wakeup_ready", "agent.notified"] {
        let (pushed, polled) =
            (|| webhook("agent.message", 0, MESSAGE), || agent("m1", None, kind));
        assert_new(vec![(0, pushed(), true), (9, polled(), false)]).await;
        assert_new(vec![(0, polled(), true), (9, pushed(), false)]).await;
    }
    // Under another type it is one only where the notification has that type, too.
    let pushed = || webhook("agent.notified", 0, r#"{"message_id":"m1"}"#);
    assert_new(vec![(0, pushed(), true), (9, agent("m1", None, "agent.notified"), false)]).await;
    assert_new(vec![(0, pushed(), true), (9, agent("m1", None, "agent.message"), true)]).await;
}

#[tokio::test(start_paused = true)]
async fn both_lists_of_one_message_bring_one_event() {
    let project = || project("n1", "agent.message", r#"{"message_id":"m1"}"#);
    let agent = || agent("m1", None, "agent.message");
    assert_new(vec![(0, project(), true), (9, agent(), false), (10, project(), false)]).await;
    assert_new(vec![(0, agent(), true), (9, project(), false), (10, agent(), false)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_message_of_the_same_wakeup_is_an_event() {
    let of = |message: &str| format!(r#"{{"message_id":"{message}","wakeup_id":"w1"}}"#);
    assert_new(vec![
        (0, webhook("agent.message", 0, &of("m1")), true),
        (5, agent("m2", Some("w1"), "agent.message"), true),
        (9, agent("m1", Some("w1"), "agent.message"), false),
        (10, project("n1", "agent.message", &of("m3")), true),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_second_message_of_a_wakeup_that_was_pushed_without_messages_is_an_event() {
    let wakeup = r#"{"wakeup_id":"w1"}"#;
    assert_new(vec![
        (0, webhook("on_wakeup_ready", 0, wakeup), true),
        (5, agent("m1", Some("w1"), "agent.message"), false),
        (6, agent("m2", Some("w1"), "agent.message"), true),
        (7, agent("m1", Some("w1"), "agent.message"), false),
        (8, agent("m2", Some("w1"), "agent.message"), false),
        // And the other way round.
        (10, agent("m3", Some("w3"), "agent.message"), true),
        (11, webhook("on_wakeup_ready", 11, r#"{"wakeup_id":"w3"}"#), false),
        (12, webhook("on_wakeup_ready", 12, r#"{"wakeup_id":"w3","again":1}"#), true),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_equal_notification_with_another_message_is_two_events() {
    let payload = |message: &str| format!(r#"{{"notification_id":"n1","message_id":"{message}"}}"#);
    assert_new(vec![
        (0, webhook("agent.message", 0, &payload("m1")), true),
        (9, project("n1", "agent.message", &payload("m2")), true),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_same_ids_under_another_type_are_another_event() {
    assert_new(vec![
        (0, webhook("on_wakeup_ready", 0, WAKEUP), true),
        (9, project("n1", "on_diary_generated", WAKEUP), true),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_signed_anew_is_known_for_an_hour_by_the_id_in_its_body() {
    assert_new(vec![
        (0, webhook("on_wakeup_ready", 0, WAKEUP), true),
        (3599, webhook("on_wakeup_ready", 3599, WAKEUP), false),
        // A recurring event may say the same: at an hour it is another one, and counts from then.
        (3600, webhook("on_wakeup_ready", 3600, WAKEUP), true),
        (7199, webhook("on_wakeup_ready", 7199, WAKEUP), false),
        (7300, webhook("agent.message", 7300, WAKEUP), true),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_equal_body_without_an_id_is_another_event_unless_the_time_is_the_same() {
    let body = r#"{"event_type":"on_recurring_event_due","data":{"agent_id":"a1"}}"#;
    assert_new(vec![
        (0, webhook("on_recurring_event_due", 0, body), true),
        (60, webhook("on_recurring_event_due", 0, body), false),
        (61, webhook("on_recurring_event_due", 61, body), true),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn where_the_source_says_so_an_equal_body_is_known_for_the_whole_window() {
    let source = Source { dedupe: Dedupe::Body, ..source() };
    let pushed = |at_s| webhook_of(&source, "on_diary_generated", at_s, "{}");
    let polled =
        project_notification(&source, item("n1", "on_diary_generated", "{}"), 0, Via::Poll);
    assert_new(vec![
        (0, pushed(0), true),
        (9, polled, false),
        (80_000, pushed(80_000), false),
        (90_000, pushed(90_000), true),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_repaired_attempt_whose_body_came_before_is_no_event() {
    assert_new(vec![
        (0, webhook("on_diary_generated", 0, "{}"), true),
        (80_000, attempt("on_diary_generated", "{}"), false),
        (80_000, attempt("on_mood_updated", "{}"), true),
        (80_001, attempt("on_mood_updated", "{}"), false),
        (80_002, project("n1", "on_wakeup_ready", WAKEUP), true),
        (80_003, attempt("on_wakeup_ready", WAKEUP), false),
    ])
    .await;
    // A webhook that comes after is a retry where its body has an id.
    assert_new(vec![
        (0, attempt("on_wakeup_ready", WAKEUP), true),
        (9, webhook("on_wakeup_ready", 9, WAKEUP), false),
        (10, attempt("on_diary_generated", "{}"), true),
        (11, webhook("on_diary_generated", 11, "{}"), true),
    ])
    .await;
}

#[tokio::test]
async fn what_came_before_a_restart_is_known_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let options = journal::Options::default();
        Journal::open(Arc::new(RealDisk), dir.path(), options).unwrap()
    };
    let opened = open();
    let (journal, window) = (opened.journal, Window::new(LIMITS, opened.keys));
    for (at_s, (event, keys)) in [
        (0, webhook("on_wakeup_ready", 0, WAKEUP)),
        (9, project("n2", "agent.message", r#"{"message_id":"m2"}"#)),
        (9, agent("m3", Some("w3"), "agent.notified")),
    ] {
        let time_ms = (START_S + at_s) * 1000;
        let claim = window.claim(keys, time_ms, Duration::ZERO).await.unwrap().unwrap();
        let entry = Entry { payload: event.body, keys: claim.keys().to_vec(), time_ms };
        journal.append_durable(entry).await.unwrap();
        claim.commit(time_ms);
    }
    journal.close().await;

    let opened = open();
    let window = Window::new(LIMITS, opened.keys);
    for (at_s, known, expected) in [
        (60, project("n1", "on_wakeup_ready", WAKEUP), false),
        (60, webhook("agent.message", 60, r#"{"message_id":"m2"}"#), false),
        (60, agent("m2", None, "agent.message"), false),
        (60, webhook("on_wakeup_ready", 60, r#"{"wakeup_id":"w3"}"#), false),
        (60, project("n4", "agent.notified", r#"{"wakeup_id":"w3"}"#), false),
        // Times are from the journal, too.
        (3599, webhook("on_wakeup_ready", 3599, WAKEUP), false),
        (3600, webhook("on_wakeup_ready", 3600, WAKEUP), true),
        (3601, agent("m2", None, "agent.message"), false),
        (3601, project("n2", "agent.message", "{}"), false),
        (3601, agent("m5", None, "agent.message"), true),
    ] {
        let shown = format!("{} at {at_s}", known.0.kind);
        assert_eq!(is_new(&window, known, at_s).await, expected, "{shown}");
    }
    opened.journal.close().await;
}

fn extensions_of(event: &Event) -> Vec<(&str, &str)> {
    event.extensions.iter().map(|(name, value)| (&**name, &**value)).collect()
}

#[test]
fn a_projects_notification_is_the_event_that_its_webhook_is() {
    let body = r#"{ "event_type":"on_mood_updated","agent_id":"a1","big":1.0e400 }"#;
    let (pushed, _) = webhook("on_mood_updated", 0, body);
    let given = ProjectItem {
        agent_id: Some("other".into()),
        user_id: Some("u1".into()),
        project_id: Some("p\n1".into()),
        ..item("n1", "on_wakeup_ready", body)
    };
    let (polled, _) = project_notification(&source(), given.clone(), 7, Via::Poll);
    assert_eq!((&polled.kind, &polled.subject), (&pushed.kind, &pushed.subject));
    assert_eq!((&polled.body, &polled.content_type), (&pushed.body, &pushed.content_type));
    assert_eq!((&*polled.source, polled.time_ms), ("sonzai", 7));
    let expected = [("agentid", "a1"), ("userid", "u1"), ("via", "poll")];
    assert_eq!(extensions_of(&polled), expected, "the payload's before the item's");
    assert_eq!(extensions_of(&pushed), [("agentid", "a1"), ("via", "webhook")]);

    // How it came makes no other event of it; another notification is one.
    let (repaired, keys) = project_notification(&source(), given.clone(), 8, Via::Repair);
    assert_eq!((&repaired.id, repaired.extension("via").unwrap()), (&polled.id, &"repair".into()));
    let again = project_notification(&source(), given, 7, Via::Poll);
    assert_eq!(again.1, keys);
    assert_ne!(project("n2", "on_mood_updated", body).0.id, polled.id);
}

#[test]
fn a_notification_takes_its_type_from_its_payload_then_from_its_item() {
    for (event_type, payload, kind) in [
        ("a", r#"{"event_type":"b"}"#, "b"),
        ("a", "{}", "a"),
        ("a", "null", "a"),
        ("a\n", "{}", "unparsed"),
        ("", "{}", "unparsed"),
    ] {
        assert_eq!(project("n1", event_type, payload).0.kind, kind, "{event_type:?} {payload}");
        assert_eq!(attempt(event_type, payload).0.kind, kind, "{event_type:?} {payload}");
    }
}

#[test]
fn an_agents_notification_is_its_entry_under_the_type_that_was_asked_for() {
    let entry = r#"{"id":"m1","user_id":"u1","type":"x","content":"Hi"}"#;
    let given = AgentItem {
        message_id: "m1".into(),
        entry: entry.into(),
        agent_id: Some("a1".into()),
        user_id: Some("other".into()),
        wakeup_id: None,
    };
    let (event, _) = agent_notification(&source(), given, &"agent.message".into(), 7, Via::Repair);
    assert_eq!((&*event.kind, &*event.body), ("agent.message", entry.as_bytes()));
    assert_eq!((event.subject.as_deref(), event.time_ms), (Some("a1"), 7));
    assert_eq!(event.content_type.as_deref(), Some("application/json"));
    let expected = [("agentid", "a1"), ("userid", "u1"), ("via", "repair")];
    assert_eq!(extensions_of(&event), expected);
    assert_eq!((event.traceparent, event.headers), (None, vec![]));
}

#[test]
fn a_repaired_attempt_is_the_event_that_its_webhook_is() {
    let (pushed, _) = webhook("on_wakeup_ready", 0, WAKEUP);
    let (repaired, _) = attempt("on_wakeup_ready", WAKEUP);
    assert_eq!((&repaired.kind, &repaired.subject), (&pushed.kind, &pushed.subject));
    assert_eq!((&repaired.body, &repaired.content_type), (&pushed.body, &pushed.content_type));
    assert_eq!(extensions_of(&repaired), [("agentid", "a1"), ("via", "repair")]);
}
