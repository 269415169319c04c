//! The stand-in for Sonzai's API is what the OpenAPI document and the SDKs take for Sonzai, and does
//! what it is told to do, and to do wrong.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use waypost::sonzai::stub::{Options, Stub, emit::Emit};

use crate::common::{
    command::{assert_fails, waypost},
    raw::Raw,
    sonzai_stub::{KEY, PATIENCE, SonzaiStub},
};

mod calls;
mod deliveries;
mod misbehaviour;
mod notifications;
mod recorded;

#[test]
fn it_listens_on_this_machine_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    for address in ["0.0.0.0:0", "192.0.2.1:9900", "[::]:0"] {
        let outcome = waypost(dir.path(), &["sonzai", "stub", "--listen", address], &[]);
        assert_fails(&outcome, &[address, "loopback"]);
    }
}

#[test]
fn the_ingress_s_address_is_not_its_own_and_it_ends_when_told_to() {
    let dir = tempfile::tempdir().expect("a directory");
    // Were this variable heard, it would be refused.
    let env = [("WAYPOST_LISTEN", "0.0.0.0:8080")];
    let arguments = ["sonzai", "stub", "--agents", "100001"];
    let outcome = waypost(dir.path(), &arguments, &env);
    assert_fails(&outcome, &["100001 agents are too many"]);
    assert!(!outcome.err.contains("loopback"), "{outcome:?}");
    assert_eq!(SonzaiStub::start(&[]).stop().code(), Some(0));
}

#[test]
fn what_it_was_asked_is_kept_without_the_key_and_counted_on() {
    let stub = SonzaiStub::start(&[]);
    stub.json("GET", "/agents", "");
    stub.call("PUT", "/webhooks/x", r#"{"webhook_url":"http://127.0.0.1:1/"}"#);
    let requests = stub.control("GET", "requests", &Value::Null);
    assert_eq!(requests["count"], 2, "{requests:#}");
    let second = &requests["requests"][1];
    assert_eq!(second["target"], "/api/v1/webhooks/x");
    assert_eq!(second["body"], r#"{"webhook_url":"http://127.0.0.1:1/"}"#);
    assert_eq!(second["status"], 200);
    assert!(!requests.to_string().contains(KEY), "{requests:#}");
    stub.control("DELETE", "requests", &Value::Null);
    stub.json("GET", "/agents", "");
    let requests = stub.control("GET", "requests", &Value::Null);
    assert_eq!(requests["count"], 3, "the count goes on");
    assert_eq!(requests["requests"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_page_of_somebody_elses_name_cannot_control_it() {
    let stub = SonzaiStub::start(&[]);
    let json = "content-type: application/json\r\n";
    for (host, kind, status) in [
        ("localhost:9900", json, 200),
        ("127.0.0.1", json, 200),
        ("evil.example", json, 421),
        ("localhost", "", 415),
        ("localhost", "content-type: text/plain\r\n", 415),
    ] {
        let body = json!({ "type": "agent.message" }).to_string();
        let len = body.len();
        let head = format!("POST /-/emit HTTP/1.1\r\nhost: {host}\r\n{kind}content-length: {len}");
        let answer = stub.ask(&format!("{head}\r\n\r\n{body}"));
        assert_eq!(answer.status, status, "{host} {kind}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_runs_within_a_test_as_well_and_ends_with_its_value() {
    let listen = ([127, 0, 0, 1], 0).into();
    let options = Options { listen, agents: 1, notifications: 0, ..Options::default() };
    let stub = Stub::start(options).await.expect("a stand-in");
    let rule = json!({ "times": 1, "fault": { "status": 500 } });
    assert!(stub.fault(serde_json::from_value(rule).expect("a rule")));
    let emitted = stub.emit(Emit::of("agent.message")).expect("an event");
    let get = "GET /api/v1/agents/agent-1/notifications HTTP/1.1\r\nhost: localhost\r\n";
    let get = format!("{get}authorization: Bearer sk_stub\r\n\r\n");
    assert_eq!(Raw::connect(stub.address()).ask(&get).status, 500);
    let answer = Raw::connect(stub.address()).ask(&get);
    assert!(answer.body.contains(&emitted.events[0].message_id), "{answer:?}");
    assert_eq!(stub.requests()["count"], 2);
    assert_eq!(stub.state()["pending"]["project"], 1);
    let address = stub.address();
    drop(stub);
    let started = Instant::now();
    while Raw::try_connect(address).is_ok() {
        assert!(started.elapsed() < PATIENCE, "it still listens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
