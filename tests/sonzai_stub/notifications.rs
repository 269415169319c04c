//! Proactive messages are pending in both places until each is taken, through caches, until they
//! expire; and wakeups that are due make them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{
    receiver::Receiver,
    sonzai_stub::{PATIENCE, PROJECT, SonzaiStub},
};

const NONE_AT_FIRST: [&str; 4] = ["--notifications", "0", "--wakeups", "0"];

fn started(more: &[&str]) -> SonzaiStub {
    SonzaiStub::start(&[&NONE_AT_FIRST[..], more].concat())
}

fn of_project(stub: &SonzaiStub, query: &str) -> Vec<Value> {
    let list = stub.json("GET", &format!("/projects/{PROJECT}/notifications{query}"), "");
    let found = list["notifications"].as_array().cloned().unwrap_or_default();
    assert_eq!(list["count"], found.len(), "{list}");
    found
}

fn of_agent(stub: &SonzaiStub, agent: &str, rest: &str) -> Vec<Value> {
    let list = stub.json("GET", &format!("/agents/{agent}/notifications{rest}"), "");
    list["notifications"].as_array().cloned().unwrap_or_default()
}

fn acknowledge(stub: &SonzaiStub, ids: &[&str]) -> u64 {
    let body = json!({ "notification_ids": ids }).to_string();
    let target = format!("/projects/{PROJECT}/notifications/acknowledge");
    stub.json("POST", &target, &body)["acknowledged"].as_u64().expect("a number")
}

fn consume(stub: &SonzaiStub, agent: &str, message: &str) -> u16 {
    stub.call("POST", &format!("/agents/{agent}/notifications/{message}/consume"), "").status
}

/// Waits until it is so.
#[track_caller]
fn eventually(what: &str, come: impl Fn() -> bool) {
    let started = Instant::now();
    while !come() {
        assert!(started.elapsed() < PATIENCE, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_message_is_pending_in_both_places_until_it_is_taken_in_each() {
    let stub = started(&[]);
    let ids = &stub.emit(json!({ "type": "on_wakeup_ready", "agent_id": "Luna 2" }))["events"][0];
    let [notification] = &of_project(&stub, "")[..] else { panic!("one notification") };
    for id in ["message_id", "notification_id"] {
        assert_eq!(notification["payload"][id], ids[id], "{notification}");
    }
    assert_eq!(notification["payload"]["wakeup"]["wakeup_id"], ids["wakeup_id"]);
    assert_eq!(notification["notification_id"], ids["notification_id"]);
    let [message] = &of_agent(&stub, "agent-2", "")[..] else { panic!("one message") };
    assert_eq!(message["message_id"], ids["message_id"]);
    assert_eq!(message["wakeup_id"], ids["wakeup_id"]);
    assert!(of_agent(&stub, "agent-1", "").is_empty());

    let (message_id, notification_id) =
        (ids["message_id"].as_str().expect("id"), ids["notification_id"].as_str().expect("id"));
    assert_eq!(acknowledge(&stub, &[notification_id, "nowhere"]), 1);
    assert_eq!(acknowledge(&stub, &[notification_id]), 0);
    assert!(of_project(&stub, "").is_empty());
    assert_eq!(of_agent(&stub, "agent-2", "").len(), 1, "it is another place");
    assert_eq!(consume(&stub, "agent-1", message_id), 404, "it is another agent's");
    assert_eq!(consume(&stub, "agent-2", message_id), 200);
    assert_eq!(consume(&stub, "agent-2", message_id), 409);
    assert!(of_agent(&stub, "agent-2", "").is_empty());
    assert_eq!(of_agent(&stub, "agent-2", "/history")[0]["status"], "consumed");
    assert_eq!(of_agent(&stub, "agent-2", "?status=consumed").len(), 1);
    let state = stub.control("GET", "state", &Value::Null);
    assert_eq!(
        state["taken"],
        json!({ "consumed": [message_id], "acknowledged": [notification_id] })
    );
}

#[test]
fn lists_are_filtered_and_limited_and_what_is_not_proactive_is_not_in_them() {
    let stub = started(&[]);
    stub.emit(json!({ "type": "agent.message", "agent_id": "agent-1", "count": 60 }));
    stub.emit(json!({ "type": "on_wakeup_ready", "agent_id": "agent-2", "user_id": "user-9" }));
    stub.emit(json!({ "type": "on_diary_generated" }));
    stub.emit(json!({ "type": "agent.message", "proactive": false }));
    assert_eq!(of_project(&stub, "").len(), 50);
    assert_eq!(of_project(&stub, "?limit=200").len(), 61);
    assert_eq!(of_project(&stub, "?limit=200&agent_id=agent-2").len(), 1);
    assert_eq!(of_project(&stub, "?event_type=on_wakeup_ready").len(), 1);
    assert_eq!(of_project(&stub, "?agent_id=nobody").len(), 0);
    assert_eq!(of_agent(&stub, "agent-1", "?limit=500").len(), 60);
    assert_eq!(of_agent(&stub, "agent-2", "?user_id=user-9").len(), 1);
    assert_eq!(of_agent(&stub, "agent-2", "?user_id=user-1").len(), 0);
    stub.emit(json!({ "type": "on_diary_generated", "proactive": true }));
    assert_eq!(of_project(&stub, "?event_type=on_diary_generated").len(), 1);
    let target = format!("/projects/{PROJECT}/notifications/acknowledge-all?agent_id=agent-1");
    assert_eq!(stub.json("POST", &target, "")["acknowledged"], 61);
}

#[test]
fn the_ids_in_a_body_are_those_that_were_asked_for() {
    let stub = started(&[]);
    for (ids, message, notification, wakeup) in [
        (json!([]), false, false, false),
        (json!(["wakeup"]), false, false, true),
        (json!(["message", "notification"]), true, true, false),
    ] {
        stub.emit(json!({ "type": "on_wakeup_ready", "ids": ids }));
        let listed = of_project(&stub, "");
        let payload = &listed.last().expect("one")["payload"];
        assert_eq!(payload["message_id"].is_string(), message, "{payload}");
        assert_eq!(payload["notification_id"].is_string(), notification, "{payload}");
        assert_eq!(payload["wakeup"]["wakeup_id"].is_string(), wakeup, "{payload}");
    }
}

#[test]
fn a_cached_list_forgets_what_was_consumed_but_not_what_was_acknowledged() {
    let stub = started(&["--cache", "1h"]);
    stub.emit(json!({ "type": "agent.message" }));
    let notification = of_project(&stub, "").remove(0);
    let message = of_agent(&stub, "agent-1", "").remove(0);
    let id = notification["notification_id"].as_str().expect("id");
    assert_eq!(acknowledge(&stub, &[id]), 1);
    assert_eq!(of_project(&stub, ""), [notification], "it is listed again");
    assert!(of_project(&stub, "?limit=7").is_empty(), "a list that nobody had asked for");
    assert_eq!(consume(&stub, "agent-1", message["message_id"].as_str().expect("id")), 200);
    assert!(of_agent(&stub, "agent-1", "").is_empty());
}

#[test]
fn a_cache_ends() {
    let stub = started(&["--cache", "200ms"]);
    stub.emit(json!({ "type": "agent.message" }));
    let listed = of_project(&stub, "");
    acknowledge(&stub, &[listed[0]["notification_id"].as_str().expect("id")]);
    eventually("the end of a cache", || of_project(&stub, "").is_empty());
}

#[test]
fn what_nobody_takes_in_time_expires_as_a_projects_notification() {
    let stub = started(&["--expire", "300ms"]);
    stub.emit(json!({ "type": "agent.message" }));
    eventually("the end of a notification", || of_project(&stub, "").is_empty());
    assert_eq!(of_agent(&stub, "agent-1", "").len(), 1);
}

#[test]
fn what_cannot_be_taken_stays_and_a_batch_with_it_is_refused() {
    let stub = started(&[]);
    let events = stub.emit(json!({ "type": "agent.message", "count": 3 }));
    let id = |index: usize, name: &str| events["events"][index][name].as_str().expect("id");
    let bad = id(1, "notification_id");
    stub.control("POST", "fail-take", &json!({ "ids": [bad], "status": 500 }));
    let body = json!({ "notification_ids": [id(0, "notification_id"), bad] }).to_string();
    let target = format!("/projects/{PROJECT}/notifications/acknowledge");
    assert_eq!(stub.call("POST", &target, &body).status, 500);
    assert_eq!(of_project(&stub, "").len(), 3);
    assert_eq!(consume(&stub, "agent-1", id(1, "message_id")), 500);
    assert_eq!(consume(&stub, "agent-1", id(2, "message_id")), 200);
    // Without a status, it is just not taken.
    stub.control("POST", "fail-take", &json!({ "ids": [bad] }));
    assert_eq!(acknowledge(&stub, &[id(0, "notification_id"), bad, id(2, "notification_id")]), 2);
    assert_eq!(of_project(&stub, "").len(), 1);
    stub.control("POST", "fail-take", &json!({ "agents": ["agent-1"] }));
    assert_eq!(acknowledge(&stub, &[bad]), 0);
    stub.control("DELETE", "fail-take", &Value::Null);
    assert_eq!(acknowledge(&stub, &[bad]), 1);
}

#[test]
fn a_due_wakeup_is_executed_once_and_makes_its_message() {
    let stub = started(&["--tick", "20ms"]);
    let receiver = Receiver::start(&[200]);
    let webhook = json!({ "webhook_url": receiver.url() }).to_string();
    stub.json("PUT", "/webhooks/on_wakeup_ready", &webhook);
    let schedule = |at: &str| {
        let wakeup = json!({
            "user_id": "user-3", "check_type": "birthday", "intent": "wish", "delay_hours": 5,
            "scheduled_at": at,
        });
        stub.json("POST", "/agents/agent-1/wakeups", &wakeup.to_string())
    };
    let due = schedule("2026-01-01T02:00:00+02:00");
    assert_eq!(due["scheduled_at"], "2026-01-01T00:00:00.000Z");
    let later = schedule("2096-01-01T00:00:00Z");
    let body: Value = serde_json::from_slice(&receiver.next().body).expect("JSON");
    assert_eq!(body["wakeup"]["wakeup_id"], due["wakeup_id"], "{body}");
    assert_eq!(body["wakeup"]["user_id"], "user-3", "{body}");
    let statuses = |status: &str| {
        let target = format!("/agents/agent-1/wakeups?status={status}");
        let list = stub.json("GET", &target, "");
        list["wakeups"].as_array().into_iter().flatten().map(|w| w["wakeup_id"].clone()).collect()
    };
    let (executed, pending): (Vec<Value>, Vec<Value>) = (statuses("executed"), statuses("pending"));
    assert_eq!(
        (executed, pending),
        (vec![due["wakeup_id"].clone()], vec![later["wakeup_id"].clone()])
    );
    assert_eq!(of_agent(&stub, "agent-1", "?user_id=user-3")[0]["wakeup_id"], due["wakeup_id"]);
    assert_eq!(of_project(&stub, "").len(), 1);
}
