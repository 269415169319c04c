//! What a sender says comes out of every broker, byte for byte, at the right address.

use std::{collections::BTreeMap, path::Path};

use crate::common::{
    consume::{self, Consumed},
    daemon::{Daemon, SOURCES},
    sender::{self, Webhook},
    shared::Brokers,
};

/// Sonzai's documented types and miibo's, each with its type as routed and a body.
fn webhooks() -> Vec<(&'static str, Webhook)> {
    let sonzai = |kind, body: &str| (kind, sender::sonzai(kind, body.to_owned()));
    let miibo = |kind, body: &str| (kind, sender::miibo(body.to_owned()));
    vec![
        sonzai(
            "agent.message",
            r#"{ "event_type": "agent.message", "agent_id":"a1","text":"おはよう" }"#,
        ),
        sonzai("agent.mood_change", r#"{"data":{"agent_id":"a1","user_id":"u1","delta":0.50}}"#),
        sonzai("agent.memory_added", "{\n  \"agent_id\": \"a1\"\n}\n"),
        sonzai("agent.breakthrough", r#"{"agent_id":"a1","agent_id":"a1","n":1e999}"#),
        sonzai(
            "agent.wakeup",
            r#"{"wakeup":{"wakeup_id":"w1","agent_id":"a1"},"has_energy":true}"#,
        ),
        sonzai("agent.consolidation", r#"{"agent_id":"a1","project_id":"p1","empty":""}"#),
        miibo("miibo.user_utterance", r#"{"webhookType":"user_utterance","userId":"u1"}"#),
        miibo(
            "miibo.agent_response",
            r#"{"webhookType":"agent_response","userId":"u1","state":{}}"#,
        ),
        miibo("miibo.function_calling", r#"{"webhookType":"function_calling","userId":"u1"}"#),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_event_comes_out_of_every_broker_as_it_was_signed() {
    let brokers = Brokers::shared();
    let (kafka, rabbitmq, nats) =
        (brokers.kafka.bootstrap(), brokers.rabbitmq.url(), brokers.nats.url());
    brokers.make("delivery").await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(
        dir.path(),
        &format!(
            r#"{SOURCES}
brokers:
  stream: {{ type: kafka, bootstrap: "{kafka}" }}
  tasks: {{ type: rabbitmq, url: "{rabbitmq}" }}
  live: {{ type: nats, url: "{nats}" }}
routes:
  - name: all
    match: {{ type: "**" }}
    to:
      - {{ broker: stream, topic: delivery, key: "{{subject}}" }}
      - {{ broker: tasks, exchange: delivery, routing_key: "event.{{type}}.{{subject}}" }}
      - {{ broker: live, subject: "delivery.{{source}}.{{type}}.{{subject}}" }}
"#
        ),
        &[],
    );

    let mut sent = BTreeMap::new();
    for (kind, webhook) in webhooks() {
        let answer = sender::post(daemon.listen, &webhook).await.expect("an answer");
        assert_eq!(answer.status, 200, "{kind}: {answer:?}");
        assert_eq!(&answer.body[..], b"{}");
        sent.insert(answer.event_id.expect("an id"), (kind, webhook));
    }
    assert_eq!(sent.len(), 9);

    let from_kafka = consume::read_topic(kafka, "delivery", sent.len()).await;
    let from_rabbitmq = consume::read_queue(rabbitmq, "delivery", sent.len()).await;
    let from_nats = consume::read_stream(nats, "delivery", sent.len()).await;
    for (messages, prefix) in
        [(&from_kafka, "ce_"), (&from_rabbitmq, "cloudEvents_"), (&from_nats, "ce-")]
    {
        assert_eq!(messages.len(), sent.len(), "{prefix}");
        for message in messages {
            assert_event(message, prefix, &sent);
        }
    }
    for message in &from_kafka {
        let subject = message.header("ce_subject").expect("a subject");
        assert_eq!(message.key.as_deref(), Some(subject.as_bytes()));
        assert_eq!(message.address, "delivery");
    }
    for message in &from_rabbitmq {
        let kind = message.header("cloudEvents_type").expect("a type");
        let subject = message.header("cloudEvents_subject").expect("a subject");
        assert_eq!(message.address, format!("delivery/event.{kind}.{subject}"));
        let properties = &message.properties;
        let id = message.header("cloudEvents_id");
        assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), id);
        assert_eq!(properties.kind().as_ref().map(|kind| kind.as_str()), Some(kind));
        assert_eq!(properties.app_id().as_ref().map(|app| app.as_str()), Some("waypost"));
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert!(properties.timestamp().is_some());
    }
    for message in &from_nats {
        let header = |name| message.header(name).expect(name);
        let (source, kind, subject) =
            (header("ce-source"), header("ce-type"), header("ce-subject"));
        assert_eq!(message.address, format!("delivery.{source}.{kind}.{subject}"));
    }
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), "no dead letters\n");
}

fn assert_event(message: &Consumed, prefix: &str, sent: &BTreeMap<String, (&str, Webhook)>) {
    let attribute = |name: &str| message.header(&format!("{prefix}{name}"));
    let id = attribute("id").expect("an id");
    let (kind, webhook) = sent.get(id).expect("an event that was sent");
    assert_eq!(message.body.as_deref(), Some(&webhook.body[..]), "{kind}");
    assert_eq!(attribute("specversion"), Some("1.0"));
    assert_eq!(attribute("type"), Some(*kind));
    let (source, subject) =
        if kind.starts_with("miibo.") { ("miibo", "u1") } else { ("sonzai", "a1") };
    assert_eq!(attribute("source"), Some(source));
    assert_eq!(attribute("subject"), Some(subject), "{kind}");
    assert_eq!(attribute("agentid"), (source == "sonzai").then_some("a1"));
    assert_eq!(attribute("via"), (source == "sonzai").then_some("webhook"));
    assert!(attribute("time").is_some_and(|time| time.ends_with('Z')));
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
}

fn dead_letters(dir: &Path) -> String {
    crate::common::daemon::command(dir, &["dead-letters", "list"]).1
}
