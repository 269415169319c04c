//! What is refused, how, and what real answers have that the document does not.

use serde_json::Value;

use crate::common::{
    openapi::Document,
    raw::Raw,
    sonzai_stub::{KEY, PROJECT, SonzaiStub},
};

/// Whoever asks, and for what.
struct Refused {
    what: &'static str,
    head: String,
    body: String,
    status: u16,
}

fn refused(what: &'static str, line: &str, headers: &str, body: &str, status: u16) -> Refused {
    let head = format!("{line} HTTP/1.1\r\nhost: localhost\r\n{headers}");
    Refused { what, head, body: body.into(), status }
}

#[test]
fn what_is_wrong_is_refused_in_the_documents_own_shape() {
    let document = Document::load();
    let stub = SonzaiStub::start(&[]);
    let key = format!("authorization: Bearer {KEY}\r\n");
    let json = format!("{key}content-type: application/json\r\n");
    let text = format!("{key}content-type: text/plain\r\n");
    let put = "PUT /api/v1/webhooks/x";
    let wakeups = "POST /api/v1/agents/agent-1/wakeups";
    let project = format!("/api/v1/projects/{PROJECT}/notifications");
    for Refused { what, head, body, status } in [
        refused("no key", "GET /api/v1/agents", "", "", 401),
        refused("another key", "GET /api/v1/agents", "authorization: Bearer sk\r\n", "", 401),
        refused("no scheme", "GET /api/v1/agents", &format!("authorization: {KEY}\r\n"), "", 401),
        refused("no path", "GET /api/v1/agent", &key, "", 404),
        refused("another project", "GET /api/v1/projects/p/webhooks", &key, "", 404),
        refused("another agent", "GET /api/v1/agents/agent-4/wakeups", &key, "", 404),
        refused(
            "another message",
            "POST /api/v1/agents/agent-1/notifications/m/consume",
            &key,
            "",
            404,
        ),
        refused("no webhook to delete", "DELETE /api/v1/webhooks/x", &key, "", 404),
        refused("no webhook to rotate", "POST /api/v1/webhooks/x/rotate-secret", &key, "", 404),
        refused("a wrong method", "PATCH /api/v1/webhooks/x", &key, "", 405),
        refused("no body", put, &json, "", 400),
        refused("no JSON", put, &json, "{", 400),
        refused("no JSON type", put, &text, "{}", 415),
        refused("nothing in it", put, &json, "{}", 422),
        refused("too much in it", put, &json, r#"{"webhook_url":"u","secret":"s"}"#, 422),
        refused("no list", &format!("POST {project}/acknowledge"), &json, r#"{"ids":[]}"#, 422),
        refused("older names", wakeups, &json, r#"{"userId":"u","scheduledAt":"t"}"#, 422),
        refused("a limit", &format!("GET {project}?limit=201"), &key, "", 422),
        refused("a limit of 0", "GET /api/v1/agents/agent-1/notifications?limit=0", &key, "", 422),
        refused("a page", "GET /api/v1/agents?page_size=101", &key, "", 422),
        refused("a cursor", "GET /api/v1/agents?cursor=%21", &key, "", 422),
    ] {
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        let answer = stub.ask(&request);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        assert!(answer.header("x-request-id").is_some(), "{what}");
        let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(problem["status"], status, "{what}");
        assert_eq!(problem["errors"].is_array(), status == 422 || what == "no JSON", "{what}");
        let mut words = head.split(' ');
        let (method, target) = (words.next().expect("one"), words.next().expect("one"));
        if let Some(document) = &document {
            let checked = document.check_answer(method, target, status, &answer.body);
            checked.unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    }
}

#[test]
fn a_body_without_end_is_not_read_to_its_end() {
    let stub = SonzaiStub::start(&[]);
    let mut raw = Raw::connect(stub.address);
    let head = "PUT /api/v1/webhooks/x HTTP/1.1\r\nhost: localhost\r\n";
    raw.say(format!("{head}content-length: 1000000000\r\n\r\n"));
    // It may hang up while there is still more to say.
    while raw.try_say([b' '; 65536]).is_ok() {}
}

#[test]
fn real_answers_have_nulls_and_further_members_and_strict_ones_neither() {
    let document = Document::load();
    for (answers, is_real) in [("real", true), ("strict", false)] {
        let flags = ["--answers", answers, "--notifications", "0", "--agents", "1"];
        let stub = SonzaiStub::start(&flags);
        let project = format!("/projects/{PROJECT}");
        for (target, member) in [
            ("/webhooks".to_owned(), "webhooks"),
            (format!("{project}/webhooks"), "webhooks"),
            (format!("{project}/notifications"), "notifications"),
            ("/agents/agent-1/notifications".to_owned(), "notifications"),
            ("/agents/agent-1/notifications/history".to_owned(), "notifications"),
            ("/agents/Luna%201/wakeups?status=executed".to_owned(), "wakeups"),
            ("/webhooks/x/attempts".to_owned(), "attempts"),
            ("/agents?search=nobody".to_owned(), "items"),
        ] {
            let list = stub.json("GET", &target, "");
            assert_eq!(list[member].is_null(), is_real, "{target}: {list}");
            assert!(list["$schema"].is_string(), "{target}: {list}");
        }
        let agents = stub.call("GET", "/agents?include_count=true", "");
        assert_eq!(agents.body.contains("stand_in"), is_real, "{agents:?}");
        if let Some(document) = &document {
            let checked = document.check_answer("GET", "/api/v1/agents", 200, &agents.body);
            assert_eq!(checked.is_err(), is_real, "{checked:?}");
        }
    }
}

#[test]
fn agents_come_in_pages_and_are_counted_only_when_asked() {
    let stub = SonzaiStub::start(&["--agents", "7", "--notifications", "0"]);
    let mut target = "/agents?page_size=3".to_owned();
    let mut found = Vec::new();
    loop {
        let page = stub.json("GET", &target, "");
        assert_eq!(page["total_count"], 0, "{page}");
        let items = page["items"].as_array().expect("agents");
        found.extend(items.iter().map(|agent| agent["agent_id"].as_str().expect("id").to_owned()));
        assert_eq!(page["has_more"], page["next_cursor"].is_string(), "{page}");
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        target = format!("/agents?page_size=3&cursor={}", cursor.replace('=', "%3D"));
    }
    let expected: Vec<String> = (1..=7).map(|n| format!("agent-{n}")).collect();
    assert_eq!(found, expected);
    assert_eq!(stub.json("GET", "/agents?include_count=true&search=LUNA", "")["total_count"], 7);
}

#[test]
fn both_path_families_name_the_same_webhooks() {
    let stub = SonzaiStub::start(&[]);
    let body = r#"{"webhook_url":"http://127.0.0.1:1/a","auth_header":"Bearer a"}"#;
    let first = stub.json("PUT", "/webhooks/on_wakeup_ready", body);
    assert!(first["signing_secret"].is_string(), "{first}");
    let project = format!("/projects/{PROJECT}/webhooks");
    let body = r#"{"webhook_url":"http://127.0.0.1:1/b"}"#;
    let second = stub.json("PUT", &format!("{project}/on_wakeup_ready"), body);
    assert!(second["signing_secret"].is_null(), "the same webhook: {second}");
    let listed = stub.json("GET", "/webhooks", "");
    assert_eq!(listed["webhooks"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed["webhooks"][0]["webhook_url"], "http://127.0.0.1:1/b");
    assert!(listed["webhooks"][0]["auth_header"].is_null(), "an update replaces all: {listed}");
    let rotated = stub.json("POST", &format!("{project}/on_wakeup_ready/rotate-secret"), "");
    assert_ne!(rotated["signing_secret"], first["signing_secret"]);
    assert_eq!(stub.call("DELETE", "/webhooks/on_wakeup_ready", "").status, 204);
    assert!(stub.json("GET", &project, "")["webhooks"].is_null());
    let again = stub.json("PUT", "/webhooks/on_wakeup_ready", body);
    assert!(again["signing_secret"].is_string(), "deleted and registered again: {again}");
}
