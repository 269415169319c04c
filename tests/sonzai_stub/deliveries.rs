//! Events go to their webhook: signed, with the platform's retries, each attempt on record.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use waypost::signature::sonzai;

use crate::common::{
    receiver::{Delivery, Receiver},
    sender::now_s,
    sonzai_stub::SonzaiStub,
};

const TYPE: &str = "on_wakeup_ready";

/// Registers a webhook: its secret.
fn register(stub: &SonzaiStub, url: &str) -> String {
    let body = json!({ "webhook_url": url, "auth_header": "Bearer verbatim" }).to_string();
    let answer = stub.json("PUT", &format!("/webhooks/{TYPE}"), &body);
    answer["signing_secret"].as_str().expect("a secret").to_owned()
}

fn rotate(stub: &SonzaiStub) -> String {
    let answer = stub.json("POST", &format!("/webhooks/{TYPE}/rotate-secret"), "");
    answer["signing_secret"].as_str().expect("a secret").to_owned()
}

fn is_signed_with(delivery: &Delivery, secret: &str) -> bool {
    let keys = [sonzai::key(secret).expect("a key")];
    sonzai::verify(&keys, &delivery.headers, &delivery.body, now_s()).is_ok()
}

fn signature(delivery: &Delivery) -> &str {
    delivery.headers[sonzai::HEADER].to_str().expect("text")
}

fn made(attempts: u64) -> impl Fn(&Value) -> bool {
    move |state| state["attempts_made"] == attempts && state["deliveries_under_way"] == 0
}

#[test]
fn an_event_comes_signed_byte_for_byte_with_the_authorization_that_was_given() {
    let stub = SonzaiStub::start(&[]);
    let receiver = Receiver::start(&[200]);
    let secret = register(&stub, &receiver.url());
    // As it stands in the request: spaces, 1.0 and big numbers stay.
    let payload = r#"{"wakeup": {"wakeup_id":"w"}, "score":1.0, "n":123456789012345678901234}"#;
    let body = format!(r#"{{"type":"{TYPE}","payload":{payload}}}"#);
    let request = crate::common::sonzai_stub::request("POST", "/-/emit", &body);
    assert_eq!(stub.ask(&request).status, 200);
    let delivery = receiver.next();
    assert_eq!(delivery.path, "/hooks");
    assert_eq!(delivery.body, payload.as_bytes());
    assert_eq!(delivery.headers["content-type"], "application/json");
    assert_eq!(delivery.headers["authorization"], "Bearer verbatim");
    assert!(is_signed_with(&delivery, &secret), "{delivery:?}");
    let state = stub.await_state("the attempt", made(1));
    assert_eq!(state["attempts"][0]["status"], "success", "{state:#}");
    let listed =
        stub.call("GET", "/projects/11111111-1111-4111-8111-111111111111/notifications", "");
    assert!(listed.body.contains(payload), "{listed:?}");
}

#[test]
fn four_attempts_on_5xx_and_failed_connections_and_one_otherwise() {
    for (statuses, attempts, last) in [
        (&[500, 502, 503, 500, 200][..], 4, "failed"),
        (&[503, 200], 2, "success"),
        (&[401], 1, "failed"),
        (&[404], 1, "failed"),
        (&[429], 1, "failed"),
        (&[302], 1, "failed"),
        (&[202], 1, "success"),
    ] {
        let stub = SonzaiStub::start(&["--retry-delay", "5ms"]);
        let receiver = Receiver::start(statuses);
        register(&stub, &receiver.url());
        stub.emit(json!({ "type": TYPE }));
        let state = stub.await_state("all attempts", made(attempts));
        assert_eq!(state["attempts"][0]["status"], last, "{statuses:?}: {state:#}");
        assert_eq!(receiver.rest().len() as u64, attempts, "{statuses:?}");
    }
    let stub = SonzaiStub::start(&["--retry-delay", "5ms", "--delivery-timeout", "20ms"]);
    // A port that nobody listens on, and one where nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let silent = format!("http://{}/", silent.local_addr().expect("its address"));
    register(&stub, "http://127.0.0.1:1/");
    stub.emit(json!({ "type": TYPE, "payload": { "lost": true } }));
    let state = stub.await_state("all attempts", made(4));
    assert_eq!(state["attempts"][0]["response_code"], 0, "{state:#}");
    let body = json!({ "webhook_url": silent }).to_string();
    stub.json("PUT", &format!("/webhooks/{TYPE}"), &body);
    stub.emit(json!({ "type": TYPE }));
    stub.await_state("all attempts", made(8));
}

#[test]
fn attempts_come_in_pages_newest_first_with_what_was_lost() {
    let stub = SonzaiStub::start(&["--retry-delay", "5ms"]);
    register(&stub, "http://127.0.0.1:1/");
    stub.emit(json!({ "type": TYPE, "payload_text": "cut off, no JS" }));
    stub.await_state("all attempts", made(4));
    let target = format!("/webhooks/{TYPE}/attempts?page_size=3");
    let first = stub.json("GET", &target, "");
    assert_eq!(first["has_more"], true, "{first}");
    let cursor = first["next_cursor"].as_str().expect("a cursor").replace('=', "%3D");
    let second = stub.json("GET", &format!("{target}&cursor={cursor}"), "");
    assert_eq!(second["has_more"], false, "{second}");
    let attempts = [&first, &second].map(|page| page["attempts"].as_array().expect("a list"));
    let attempts = attempts.into_iter().flatten();
    let numbers: Vec<_> = attempts.clone().map(|a| a["attempt_number"].as_u64()).collect();
    assert_eq!(numbers, [4, 3, 2, 1].map(Some));
    for attempt in attempts {
        assert_eq!(attempt["status"], "failed", "{attempt}");
        let body = attempt["request_body"].as_str().expect("base64");
        assert_eq!(BASE64_STANDARD.decode(body).expect("base64"), b"cut off, no JS");
    }
}

#[test]
fn a_retry_is_signed_anew_or_repeats_the_first_signature() {
    for (resign, is_same) in [("true", false), ("false", true)] {
        // Longer than a second, which is what the signed time counts.
        let stub = SonzaiStub::start(&["--resign", resign, "--retry-delay", "1100ms"]);
        let receiver = Receiver::start(&[500, 200]);
        let secret = register(&stub, &receiver.url());
        stub.emit(json!({ "type": TYPE }));
        let (first, second) = (receiver.next(), receiver.next());
        assert!(is_signed_with(&first, &secret) && is_signed_with(&second, &secret));
        assert_eq!(signature(&first) == signature(&second), is_same, "{resign}");
        assert_eq!(first.body, second.body);
    }
}

#[test]
fn a_rotation_invalidates_the_old_secret_at_once() {
    let stub = SonzaiStub::start(&["--retry-delay", "500ms"]);
    let receiver = Receiver::start(&[500, 200]);
    let old = register(&stub, &receiver.url());
    stub.emit(json!({ "type": TYPE }));
    assert!(is_signed_with(&receiver.next(), &old));
    let new = rotate(&stub);
    let retried = receiver.next();
    assert!(is_signed_with(&retried, &new) && !is_signed_with(&retried, &old));
}

#[test]
fn other_machines_get_nothing() {
    let stub = SonzaiStub::start(&["--retry-delay", "5ms"]);
    register(&stub, "https://hooks.example.com/sonzai");
    stub.emit(json!({ "type": TYPE }));
    let state = stub.await_state("the attempt", made(1));
    let error = state["attempts"][0]["error_message"].as_str().expect("words");
    assert!(error.contains("loopback only"), "{error}");
}

#[test]
fn a_webhook_over_tls_is_delivered_to_who_shows_a_certificate_of_the_given_authority() {
    use crate::common::certificates::{Authority, LOOPBACK};
    let authority = Authority::new();
    let pair = authority.issue(&LOOPBACK);
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("to write");
        path.display().to_string()
    };
    let (cert, key) = (file("cert.pem", &pair.cert), file("key.pem", &pair.key));
    let daemon = crate::common::daemon::Daemon::with_sources(
        dir.path(),
        crate::common::daemon::ALL_TO_FILES,
        &[("WAYPOST_INGRESS__TLS__CERT", &cert), ("WAYPOST_INGRESS__TLS__KEY", &key)],
    );
    let stub = SonzaiStub::start(&["--cacert", &file("ca.pem", &authority.pem())]);
    // Another secret than the daemon's: that it says so shows that it was reached.
    register(&stub, &format!("https://{}/hooks/sonzai/{TYPE}", daemon.listen));
    stub.emit(json!({ "type": TYPE }));
    let state = stub.await_state("the attempt", made(1));
    assert_eq!(state["attempts"][0]["response_code"], 401, "{state:#}");
}
