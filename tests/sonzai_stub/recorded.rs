//! Every request that Sonzai's SDKs were recorded to send is answered as Sonzai would, and the answers
//! have the document's shapes.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::common::{
    openapi::Document,
    prism::Prism,
    raw::{Answer, Raw},
    sonzai_stub::SonzaiStub,
};

const RECORDED: &str = include_str!("../vectors/sonzai-sdk-requests.json");

#[derive(Deserialize)]
struct Recorded {
    client: String,
    call: String,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Recorded {
    fn all() -> Vec<Recorded> {
        let all: Vec<Recorded> = serde_json::from_str(RECORDED).expect("JSON");
        assert_eq!(all.len(), 104);
        all
    }

    /// As it was sent, with another host.
    fn text(&self, target: &str) -> String {
        let mut text = format!("{} {target} HTTP/1.1\r\n", self.method);
        for (name, value) in &self.headers {
            let value = if name.eq_ignore_ascii_case("host") { "localhost" } else { value };
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n" + &self.body
    }

    /// How it is answered where the one before it of the same client has had its effect, by what it
    /// was recorded to show.
    fn expected(&self) -> u16 {
        match (self.method.as_str(), self.call.as_str()) {
            (_, call) if call.contains("../agents") => 405,
            (_, call) if call.starts_with("odd:") => 404,
            (_, call) if call.contains("absent") => 404,
            (_, call) if call.contains("limit=501") => 422,
            ("DELETE", _) => 204,
            _ => 200,
        }
    }

    /// Whether its answer has a secret; `None` where it is not about one.
    fn expects_secret(&self) -> Option<bool> {
        let call = self.call.to_lowercase();
        match () {
            () if self.expected() != 200 => None,
            () if call.contains("rotate") => Some(true),
            () if call.contains("register") && call.contains("update") => Some(false),
            () if call.contains("register") => Some(true),
            () => None,
        }
    }
}

/// What the requests were recorded against.
fn prepared(answers: &str) -> SonzaiStub {
    let stub = SonzaiStub::start(&["--answers", answers]);
    for n in 0..2 {
        let ids = (format!("msg-{n}"), format!("n-{n}"));
        stub.emit(
            json!({ "type": "agent.message", "message_id": ids.0, "notification_id": ids.1 }),
        );
    }
    stub
}

fn replay(answers: &str, mut look: impl FnMut(&Recorded, &Answer)) {
    let mut current = None;
    for recorded in Recorded::all() {
        // Each client found things as they are at the start.
        let is_new = current.as_ref().is_none_or(|(client, _)| *client != recorded.client);
        if is_new {
            current = Some((recorded.client.clone(), prepared(answers)));
        }
        let (_, stub) = current.as_ref().expect("a stand-in");
        let answer = stub.ask(&recorded.text(&recorded.target));
        let what = format!("{} {}: {answer:?}", recorded.client, recorded.call);
        assert_eq!(answer.status, recorded.expected(), "{what}");
        assert!(answer.header("x-request-id").is_some(), "{what}");
        if let Some(expected) = recorded.expects_secret() {
            let body: Value = serde_json::from_str(&answer.body).expect("JSON");
            let secret = body["signing_secret"].as_str();
            assert_eq!(
                secret.is_some_and(|secret| secret.starts_with("whsec_")),
                expected,
                "{what}"
            );
        }
        look(&recorded, &answer);
    }
}

#[test]
fn every_recorded_request_is_answered_as_it_should_be() {
    replay("real", |_, _| {});
}

#[test]
fn every_answer_has_the_shape_that_the_document_says() {
    let Some(document) = Document::load() else { return };
    replay("strict", |recorded, answer| {
        let Recorded { method, target, .. } = recorded;
        let checked = document.check_answer(method, target, answer.status, &answer.body);
        checked.unwrap_or_else(|error| panic!("{}: {error}", recorded.call));
    });
}

#[test]
fn what_the_document_allows_the_mock_server_takes_and_what_it_forbids_it_refuses() {
    let Some(document) = Document::load() else { return };
    let Some(prism) = Prism::start(&document) else { return };
    let (mut allowed, mut forbidden) = (0, 0);
    for recorded in Recorded::all() {
        let Recorded { method, target, body, .. } = &recorded;
        let is_allowed = document.check_request(method, target, body);
        let answer = Raw::connect(prism.address).ask(recorded.text(target));
        let what = format!("{}: {is_allowed:?} {answer:?}", recorded.call);
        match &is_allowed {
            Ok(()) => {
                allowed += 1;
                assert!((200..300).contains(&answer.status), "{what}");
            }
            // It passes over members of a query, and bodies, that the document does not name.
            Err(error) if error.contains("no query") || error.contains("no body") => {}
            Err(_) => {
                forbidden += 1;
                assert!((400..500).contains(&answer.status), "{what}");
            }
        }
    }
    assert!(allowed > 80 && forbidden > 3, "{allowed} allowed, {forbidden} forbidden");
}
