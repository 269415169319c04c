//! It goes wrong as it is told to, so often, and with the effect or without it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{
    raw::{Answer, Raw},
    sonzai_stub::{SonzaiStub, request},
};

const PUT: &str = r#"{"webhook_url":"http://127.0.0.1:1/"}"#;

/// Registers a webhook while something goes wrong: the whole of what comes back, byte for byte, and
/// whether it is registered.
fn register(stub: &SonzaiStub, fault: Value) -> (String, bool) {
    stub.control("DELETE", "faults", &Value::Null);
    stub.call("DELETE", "/webhooks/x", "");
    let rule =
        json!({ "match": { "method": "PUT", "path": "/webhooks/" }, "times": 1, "fault": fault });
    stub.control("POST", "faults", &rule);
    let request = request("PUT", "/api/v1/webhooks/x", PUT);
    let mut raw = Raw::connect(stub.address);
    raw.say(request.replace("host: localhost", "host: localhost\r\nconnection: close"));
    let said = raw.everything();
    let webhooks = stub.json("GET", "/webhooks", "")["webhooks"].as_array().map_or(0, Vec::len);
    (said, webhooks == 1)
}

#[test]
fn an_answer_goes_wrong_in_the_way_that_was_asked_for() {
    let stub = SonzaiStub::start(&[]);
    for (fault, begins, holds, has_effect) in [
        (json!({ "status": 500 }), "HTTP/1.1 500", "problem+json", false),
        (json!({ "status": 500, "effect": true }), "HTTP/1.1 500", "problem+json", true),
        (json!({ "status": 503, "retry_after": 2 }), "HTTP/1.1 503", "retry-after: 2\r\n", false),
        (json!({ "status": 401 }), "HTTP/1.1 401", "problem+json", false),
        (json!({ "redirect": "/elsewhere" }), "HTTP/1.1 307", "location: /elsewhere\r\n", false),
        (json!({ "html": true }), "HTTP/1.1 200", "<title>", false),
        (json!({ "malformed": true }), "HTTP/1.1 200", "{\"$schema\":", true),
        (json!({ "truncated": true }), "HTTP/1.1 200", "{\"$schema\":", true),
        (json!({ "slow": "1ms", "chunk": 20 }), "HTTP/1.1 200", "signing_secret", true),
        (json!({ "delay": "10ms" }), "HTTP/1.1 200", "signing_secret", true),
        (json!({ "huge": 100_000 }), "HTTP/1.1 200", "xxxxxxxx", false),
        (json!({ "cut": "before" }), "", "", false),
        (json!({ "cut": "after" }), "", "", true),
        (json!({ "hang": "10ms" }), "", "", false),
    ] {
        let (said, is_registered) = register(&stub, fault.clone());
        assert!(said.starts_with(begins) && said.contains(holds), "{fault}: {said}");
        assert_eq!(said.is_empty(), begins.is_empty(), "{fault}: {said}");
        assert_eq!(is_registered, has_effect, "{fault}");
    }
    for (fault, is_whole) in
        [(json!({ "malformed": true }), true), (json!({ "truncated": true }), false)]
    {
        let (said, _) = register(&stub, fault.clone());
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        assert!(serde_json::from_str::<Value>(body).is_err(), "{fault}: {body}");
        let promised = format!("content-length: {}", body.len());
        assert_eq!(head.contains(&promised), is_whole, "{fault}: {said}");
    }
}

#[test]
fn a_fault_ends_and_is_counted() {
    let stub = SonzaiStub::start(&[]);
    let rule = |after: u64| json!({ "match": { "path": "/agents" }, "times": 2, "after": after, "fault": { "status": 500 } });
    stub.control("POST", "faults", &json!([rule(1)]));
    let statuses: Vec<u16> = (0..5).map(|_| stub.call("GET", "/agents", "").status).collect();
    assert_eq!(statuses, [200, 500, 500, 200, 200]);
    assert_eq!(stub.call("GET", "/webhooks", "").status, 200);
    let state = stub.control("GET", "state", &Value::Null);
    assert_eq!(state["faults"], json!({ "rules": 0, "struck": 2 }));
    let wrong = request("POST", "/-/faults", r#"{"fault":{"status":200}}"#);
    assert_eq!(stub.ask(&wrong).status, 422);
}

#[test]
fn an_answer_that_is_withheld_holds_up_nobody_else() {
    let stub = SonzaiStub::start(&[]);
    let rule = json!({ "match": { "path": "/agents" }, "times": 1, "fault": { "hang": "5m" } });
    stub.control("POST", "faults", &rule);
    let mut hanging = Raw::connect(stub.address);
    hanging.say(request("GET", "/api/v1/agents", ""));
    stub.await_state("the fault", |state| state["faults"]["struck"] == 1);
    stub.json("GET", "/agents", "");
    let requests = stub.control("GET", "requests", &Value::Null);
    assert_eq!(requests["requests"][0]["status"], Value::Null, "{requests:#}");
    assert_eq!(requests["most_under_way"], 2, "{requests:#}");
}

#[test]
fn beyond_the_rate_a_request_is_refused_with_both_forms_of_retry_after() {
    let stub = SonzaiStub::start(&["--rate", "1"]);
    let started = Instant::now();
    let mut refused: Vec<Answer> = Vec::new();
    while refused.len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "it is not refused");
        let answer = stub.call("GET", "/agents", "");
        refused.extend((answer.status == 429).then_some(answer));
    }
    let forms: Vec<&str> =
        refused.iter().map(|answer| answer.header("retry-after").expect("a time")).collect();
    assert_eq!(forms[0], "1");
    assert!(forms[1].ends_with(" GMT"), "{forms:?}");
}
