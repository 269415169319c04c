//! A target says how an event is written down, and every broker writes it so.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::common::{
    consume::{self, Consumed},
    daemon::Daemon,
    kept,
    sender::{self, Webhook},
    shared::Brokers,
};

const BODY: &str =
    r#"{"webhookType":"user_utterance","userId":"u1","delta": 0.50,"text":"おはよう"}"#;

fn webhook() -> Webhook {
    let mut webhook = sender::miibo(BODY);
    webhook.headers.push(("traceparent".to_owned(), TRACEPARENT.to_owned()));
    webhook
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The three targets of a broker, each at an address that ends with its format.
fn targets(broker: &str, address: impl Fn(&str) -> String) -> String {
    let target = |format: &str| {
        format!(
            "      - {{ broker: {broker}, {}, format: {format}, headers: {{ x-format: {format} }} }}\n",
            address(format)
        )
    };
    ["binary", "structured", "raw"].map(target).concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broker_writes_each_format_as_its_target_says() {
    let brokers = Brokers::shared();
    let (kafka, rabbitmq, nats) =
        (brokers.kafka.bootstrap(), brokers.rabbitmq.url(), brokers.nats.url());
    brokers.make("formats").await;
    let dir = tempfile::tempdir().expect("a directory");
    let to_kafka = targets("stream", |_| "topic: formats".to_owned());
    let to_rabbitmq = targets("tasks", |format| {
        format!("exchange: formats, routing_key: \"{{source}}.{format}\"")
    });
    // All three go to one subject: the stream must not take one for another's duplicate.
    let to_nats = targets("live", |_| "subject: \"formats.{data.userId}\"".to_owned());
    let daemon = Daemon::with_sources(
        dir.path(),
        &format!(
            r#"
brokers:
  stream: {{ type: kafka, bootstrap: "{kafka}" }}
  tasks: {{ type: rabbitmq, url: "{rabbitmq}" }}
  live: {{ type: nats, url: "{nats}" }}
routes:
  - name: all
    match: {{ type: "**" }}
    when: data.delta > 0.3
    to:
{to_kafka}{to_rabbitmq}{to_nats}"#
        ),
        &[],
    );
    let answer = sender::post(daemon.listen, &webhook()).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.event_id.expect("an id");

    let from_kafka = consume::read_topic(kafka, "formats", 3).await;
    let from_rabbitmq = consume::read_queue(rabbitmq, "formats", 3).await;
    let from_nats = consume::read_stream(nats, "formats", 3).await;
    for (messages, prefix) in
        [(&from_kafka, "ce_"), (&from_rabbitmq, "cloudEvents_"), (&from_nats, "ce-")]
    {
        assert_eq!(messages.len(), 3, "{prefix}: {messages:?}");
        let by_format: BTreeMap<&str, &Consumed> =
            messages.iter().map(|message| (message.header("x-format").unwrap(), message)).collect();
        assert_bare(by_format["binary"]);
        assert_eq!(by_format["binary"].header(&format!("{prefix}id")), Some(&*id));
        assert_bare(by_format["raw"]);
        for format in ["structured", "raw"] {
            let mut names = by_format[format].headers.keys();
            assert!(!names.any(|name| name.starts_with(prefix)), "{format}: {messages:?}");
        }
        assert_document(by_format["structured"], &id);
    }
    for message in &from_rabbitmq {
        assert_eq!(message.properties.message_id().as_ref().map(|id| id.as_str()), Some(&*id));
    }
    assert!(daemon.stop().success());
    assert_eq!(kept::dead_letters(dir.path()), []);
}

/// The body is as it was signed.
#[track_caller]
fn assert_bare(message: &Consumed) {
    assert_eq!(message.body.as_deref(), Some(BODY.as_bytes()));
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert_eq!(message.header("traceparent"), Some(TRACEPARENT));
}

/// The body is in a document with its attributes.
#[track_caller]
fn assert_document(message: &Consumed, id: &str) {
    let content_type = message.content_type.as_deref();
    assert_eq!(content_type, Some("application/cloudevents+json; charset=utf-8"));
    assert_eq!(message.header("traceparent"), Some(TRACEPARENT));
    let body = message.body.as_deref().expect("a document");
    let document: Value = serde_json::from_slice(body).expect("JSON");
    assert_eq!(document["id"], id);
    assert_eq!(document["type"], "miibo.user_utterance");
    assert_eq!(document["subject"], "u1");
    let text = std::str::from_utf8(body).expect("UTF-8");
    let within = document
        .get("data_base64")
        .map(|data| BASE64_STANDARD.decode(data.as_str().expect("a text")).expect("base64"));
    match within {
        Some(data) => assert_eq!(data, BODY.as_bytes()),
        None => assert!(text.contains(&format!(",\"data\":{BODY}}}")), "{text}"),
    }
}
