use super::*;
use crate::{
    broker::material::Material,
    event::{Address, Event, Message, tests::plain},
    routing,
};

const BASE: &str = r#"
sources:
  sonzai: { type: sonzai, path: "/hooks/sonzai/{type}", secrets: { "*": "${S}" } }
  chat: { type: miibo, path: /hooks/miibo, secret: ["${S}", "older"] }
brokers:
  stream: { type: kafka, bootstrap: "localhost:9092" }
  tasks: { type: rabbitmq, url: "amqp://u:p@localhost:5672/%2f" }
  live: { type: nats, url: "nats://localhost:4222" }
  local: { type: log }
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "S" => Some("whsec_s".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

fn compile(routes: &str) -> Table {
    routing::compile("routes.yaml", &format!("{BASE}{routes}"), &env).unwrap()
}

fn event(source: &str, kind: &str, body: &str) -> Event {
    Event {
        source: source.into(),
        kind: kind.into(),
        extensions: vec![("agentid".into(), "a1".into())],
        ..plain("e1", body.to_owned())
    }
}

fn owed(table: &Table, event: &Event) -> Vec<String> {
    let show = |message: Message| match message.address {
        Ok(Address::Topic { topic, key }) => {
            format!("{} {topic} {}", message.broker, key.as_deref().unwrap_or("-"))
        }
        Ok(address) => format!("{} {address}", message.broker),
        Err(reason) => format!("{} ! {reason}", message.broker),
    };
    table.resolve(event).into_iter().map(show).collect()
}

const ROUTES: &str = r#"
routes:
  - name: messages
    match: { source: sonzai, type: agent.message }
    to:
      - { broker: stream, topic: agent.message, key: "{data.agent_id}" }
      - { broker: tasks, exchange: agents, routing_key: "message.{data.user_id}" }
  - name: everything of an agent
    match: { type: ["agent.*", "on_*"] }
    to:
      - { broker: live, subject: "agents.{agentid}.{type}" }
      - { broker: stream, topic: agent.message, key: "{data.agent_id}" }
  - name: everything else
    match: { otherwise: true }
    to: [{ broker: local, topic: other }]
"#;

#[test]
fn every_matching_route_applies_and_equal_messages_merge() {
    let table = compile(ROUTES);
    for (source, kind, body, expected) in [
        (
            "sonzai",
            "agent.message",
            r#"{"agent_id":"a","user_id":"u"}"#,
            vec![
                "stream agent.message a",
                "tasks agents/message.u",
                "live agents.a1.agent.message",
            ],
        ),
        (
            "chat",
            "agent.message",
            r#"{"agent_id":"a"}"#,
            vec!["live agents.a1.agent.message", "stream agent.message a"],
        ),
        ("chat", "agent.message.created", "{}", vec!["local other -"]),
        ("chat", "miibo.unknown", "not json", vec!["local other -"]),
    ] {
        assert_eq!(owed(&table, &event(source, kind, body)), expected, "{kind}");
    }
}

#[test]
fn what_cannot_be_rendered_is_recorded_beside_what_can() {
    let owed = owed(&compile(ROUTES), &event("sonzai", "agent.message", "no json"));
    assert_eq!(owed.len(), 4);
    assert!(owed[0].starts_with("stream ! {data.agent_id} cannot be filled: the body is not JSON"));
    assert!(owed[1].starts_with("tasks ! {data.user_id} cannot be filled"));
    assert_eq!(owed[2], "live agents.a1.agent.message");
}

#[test]
fn an_event_no_route_takes_is_owed_to_unrouted() {
    let table = compile(
        "routes:\n  - { name: a, match: { type: x }, to: [{ broker: local, topic: t }] }\n",
    );
    let owed = owed(&table, &event("chat", "y", "{}"));
    assert_eq!(owed, [r#"unrouted ! no route takes type "y" from source "chat""#]);
}

#[test]
fn a_request_path_finds_its_source_and_type() {
    let table = compile(ROUTES);
    let found = |path| table.source(path).map(|(source, kind)| (source.name.to_string(), kind));
    assert_eq!(found("/hooks/miibo"), Some(("chat".to_owned(), None)));
    assert_eq!(found("/hooks/sonzai/a.b"), Some(("sonzai".to_owned(), Some("a.b"))));
    assert_eq!(found("/hooks/miibo/"), None);
}

/// A file whose brokers are `brokers`, one line each from line 6.
fn with_brokers(brokers: &str) -> String {
    let (sources, _) = BASE.split_once("  stream:").expect("the brokers");
    let route = "routes:\n  - { name: a, match: { type: x }, to: [{ broker: local, topic: t }] }\n";
    format!("{sources}{brokers}  local: {{ type: log }}\n{route}")
}

#[test]
fn what_protects_a_broker_is_taken_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(dir.path().join("c.pem"), cert.pem()).unwrap();
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    std::fs::write(dir.path().join("nkey"), seed).unwrap();
    let secrets = |name: &str| match name {
        "KEY" => Some(key.serialize_pem()),
        name => env(name),
    };
    let table = with_brokers(
        &r#"  a: { type: kafka, bootstrap: "k", tls: { ca: DIR/c.pem, cert: DIR/c.pem, key: "${KEY}" }, sasl: { mechanism: scram-sha-512, user: u, password: "${S}" } }
  b: { type: rabbitmq, url: "amqps://r/%2f", tls: { ca: DIR/c.pem }, user: u, password: "${S}" }
  c: { type: nats, url: "tls://n", tls_first: true, nkey: DIR/nkey }
  d: { type: nats, url: "nats://n", tls: true, token: "${S}" }
"#
        .replace("DIR", &dir.path().display().to_string()),
    );
    let table = routing::compile("routes.yaml", &table, &secrets).unwrap();
    let kinds: Vec<_> = table.brokers().iter().map(|broker| &broker.kind).collect();
    let [
        BrokerKind::Kafka(a),
        BrokerKind::RabbitMq(b),
        BrokerKind::Nats(c),
        BrokerKind::Nats(d),
        _,
    ] = kinds[..]
    else {
        panic!("{kinds:?}")
    };
    let shown = format!("{:?} {:?}", a.tls, b.tls);
    assert!(shown.contains("/c.pem)") && shown.contains("Material(the given text)"));
    assert!(a.sasl.is_some() && b.login.is_some() && c.tls_first && d.tls.is_some());
    assert!(matches!(c.login, Some(nats::Login::Nkey(Material::File { .. }))), "{c:?}");
    assert!(matches!(d.login, Some(nats::Login::Token(_))), "{d:?}");
    assert!(!format!("{kinds:?}").contains("whsec_s"));
}

#[test]
fn how_patient_we_are_is_read_with_each_broker_and_route() {
    let table = |broker: &str, route: &str| {
        let text = format!(
            "sources: {{ chat: {{ type: miibo, path: /m, secret: s }} }}\n\
             brokers: {{ local: {{ type: log{broker} }} }}\n\
             routes: [{{ name: a, match: {{ type: '*' }}{route}, to: [{{ broker: local, topic: t \
             }}] }}]\n"
        );
        routing::compile("routes.yaml", &text, &env).map_err(|invalid| invalid.to_string())
    };
    let given = table(
        ", retry: { for: 10m }, drain: { for: 90s }, backlog: { max_bytes: 512MiB }, \
         when_full: dead_letter_oldest",
        ", retry: { for: 1h }",
    );
    let given = given.unwrap();
    let seconds = |s| Some(Duration::from_secs(s));
    let expected = BrokerPolicy {
        retry_for: seconds(600),
        drain_for: seconds(90),
        backlog_bytes: Some(512 << 20),
        when_full: WhenFull::DeadLetterOldest,
    };
    assert_eq!(given.brokers()[0].policy, expected);
    let retries: Vec<_> = given.route_retries().collect();
    assert_eq!(retries, [(&"a".into(), Duration::from_secs(3600))]);
    assert_eq!(table("", "").unwrap().brokers()[0].policy, BrokerPolicy::default());
    let bytes = table(", backlog: { max_bytes: 1048576 }", "").unwrap();
    assert_eq!(bytes.brokers()[0].policy.backlog_bytes, Some(1 << 20));
}
