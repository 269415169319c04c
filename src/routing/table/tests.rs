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

#[test]
fn one_mistake_gives_one_message_in_its_place() {
    let source =
        "routes:\n  - { name: a, match: { type: x }, to: [{ broker: local, topic: t }] }\n";
    let route = |route: &str| format!("{BASE}routes:\n  - {route}\n");
    let target =
        |target: &str| route(&format!("{{ name: a, match: {{ type: x }}, to: [{{ {target} }}] }}"));
    let base = |from: &str, to: &str| format!("{}{source}", BASE.replace(from, to));
    let standard = |secret: &str| {
        let shop = format!("  shop: {{ type: standard, path: /shop, {secret} }}\nbrokers:\n");
        base("brokers:\n", &shop)
    };
    for (text, place, message) in [
        (String::new(), "1:1", "empty"),
        ("a: [".to_owned(), "", ""),
        (target("broker: nope, topic: t"), "11:", "no broker is named `nope`"),
        (target("broker: local, topic: t, color: red"), "11:", "unknown field `color`"),
        (target("broker: local"), "11:", "needs `topic:`"),
        (target("broker: local, topic: x/y"), "11:", "only letters"),
        (target("broker: local, topic: .x"), "11:", "begin with a dot"),
        (target("broker: stream, topic: 'a b'"), "11:", "only letters"),
        (target("broker: live, subject: 'a.*'"), "11:", "`*`"),
        (target("broker: live, topic: a"), "11:", "`topic:` is no setting of type nats"),
        (target("broker: local, topic: a, key: b"), "11:", "`key:` is no setting of type log"),
        (
            target("broker: stream, topic: a, key: '${S}'"),
            "11:",
            "a secret may not stand in `key:`",
        ),
        (target("broker: stream, topic: '{typo}'"), "11:", "unknown placeholder"),
        (
            route("{ name: a, match: {}, to: [{ broker: local, topic: t }] }"),
            "11:",
            "needs `source:`",
        ),
        (route("{ name: a, match: { type: x }, to: [] }"), "11:", "no target"),
        (route("{ match: { type: x }, to: [] }"), "11:", "name"),
        (
            route("{ name: a, match: { type: [] }, to: [{ broker: local, topic: t }] }"),
            "11:",
            "empty",
        ),
        (
            route("{ name: a, match: { source: nope }, to: [{ broker: local, topic: t }] }"),
            "11:",
            "no source is named `nope`; there are chat, sonzai",
        ),
        (base("type: miibo", "type: mibo"), "4:", "unknown source type `mibo`"),
        (
            standard("secret: 'no prefix, hidden'"),
            "5:",
            "must begin with `whsec_` (shared) or `whpk_`",
        ),
        (standard("secret: 'whsec_hidden!'"), "5:", "not base64"),
        (
            standard("secret: [whsec_aGlkZGVu, whpk_aGlkZGVu]"),
            "5:",
            "secret 2: the public key has 6",
        ),
        (standard("secret: 'whsk_hidden'"), "5:", "private key"),
        (standard("secret: 'whpk_'"), "5:", "the secret is empty"),
        (standard("secret: []"), "5:", "the secret is empty"),
        (
            standard("secrets: { '*': whsec_aGlkZGVu }"),
            "5:",
            "`secrets:` is no setting of type standard",
        ),
        (base(", secret: [\"${S}\", \"older\"]", ""), "4:", "a miibo source needs `secret:`"),
        (
            base(
                "  chat:",
                "  shop:\n    type: standard\n    path: /shop\n    secret:\n      - hidden\n  chat:",
            ),
            "8:",
            "must begin with `whsec_`",
        ),
        (base("type: log", "type: logs"), "9:", "unknown broker type `logs`"),
        (base("/hooks/miibo", "/hooks/sonzai/x"), "3:", "overlaps"),
        (base("/hooks/miibo", "hooks/miibo"), "4:", "must begin with `/`"),
        (base("older", "${NOPE}"), "4:", "NOPE is not set"),
        (base("older", "${EMPTY}"), "4:", "empty"),
        (base(r#""*": "${S}""#, ""), "3:", "needs `secrets:`"),
        (base("  local:", "  unrouted:"), "9:", "built-in"),
        (base("  local:", "  stream:"), "9:", "duplicate"),
        (base("amqp://", "http://"), "7:", "must begin with `amqp://` or `amqps://`"),
        (base("amqp://u:p@", "amqp:/u:hidden@"), "7:", "must begin with `amqp://`"),
        (
            base("local: { type: log }", "local: { type: log }\n  more: { type: log }"),
            "1",
            "of its own",
        ),
    ] {
        let error = routing::compile("routes.yaml", &text, &env).unwrap_err().to_string();
        assert!(error.starts_with(&format!("routes.yaml:{place}")), "{error}");
        assert!(error.contains(message), "{message}: {error}");
        assert!(!error.contains("whsec_s") && !error.contains("hidden"), "{error}");
    }
}

/// A file whose brokers are `brokers`, one line each from line 6.
fn with_brokers(brokers: &str) -> String {
    let (sources, _) = BASE.split_once("  stream:").expect("the brokers");
    let route = "routes:\n  - { name: a, match: { type: x }, to: [{ broker: local, topic: t }] }\n";
    format!("{sources}{brokers}  local: {{ type: log }}\n{route}")
}

#[test]
fn what_protects_a_broker_is_taken_from_the_file() {
    let table = with_brokers(
        r#"  a: { type: kafka, bootstrap: "k", tls: { ca: /ca.pem, cert: /c.pem, key: "-----BEGIN" }, sasl: { mechanism: scram-sha-512, user: u, password: "${S}" } }
  b: { type: rabbitmq, url: "amqps://r/%2f", tls: { ca: /ca.pem }, user: u, password: "${S}" }
  c: { type: nats, url: "tls://n", tls_first: true, nkey: /run/nkey }
  d: { type: nats, url: "nats://n", tls: true, token: "${S}" }
"#,
    );
    let table = routing::compile("routes.yaml", &table, &env).unwrap();
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
    assert!(shown.contains("Material(/ca.pem)") && shown.contains("Material(the given text)"));
    assert!(a.sasl.is_some() && b.login.is_some() && c.tls_first && d.tls.is_some());
    assert!(matches!(c.login, Some(nats::Login::Nkey(Material::File { .. }))), "{c:?}");
    assert!(matches!(d.login, Some(nats::Login::Token(_))), "{d:?}");
    assert!(!format!("{kinds:?}").contains("whsec_s"));
}

#[test]
fn one_mistake_in_what_protects_a_broker_gives_one_message_in_its_place() {
    let kafka = |rest: &str| format!("type: kafka, bootstrap: k, {rest}");
    let amqps = |rest: &str| format!("type: rabbitmq, url: \"amqps://r/%2f\", {rest}");
    let nats = |rest: &str| format!("type: nats, url: \"nats://n\", {rest}");
    for (broker, message) in [
        (kafka("tls: false"), "write `tls: true`"),
        (kafka("tls: yes please"), "`true`, or `ca:`, `cert:` and `key:`"),
        (kafka("tls: { cas: /x }"), "unknown field `cas`, expected one of ca, cert, key"),
        (kafka("tls: { cert: /x }"), "give both"),
        (kafka("tls: { cert: /x, key: \"${EMPTY}\" }"), "`key:` is empty"),
        (kafka("tls: { ca: \"two\\nlines\" }"), "neither the path of a file nor"),
        (kafka("sasl: hidden"), ""),
        (kafka("sasl: { mechanism: plain, user: u }"), "missing field `password`"),
        (kafka("sasl: { mechanism: hidden, user: u, password: p }"), "known are plain, scram"),
        (kafka("sasl: { mechanism: plain, user: u, password: \"${EMPTY}\" }"), "is empty"),
        (kafka("user: u, password: hidden"), "`user:` is no setting of type kafka"),
        (amqps("user: u"), "give both"),
        (amqps("token: hidden"), "`token:` is no setting of type rabbitmq"),
        ("type: rabbitmq, url: \"amqp://r/%2f\", tls: true".into(), "begins with amqps://"),
        ("type: rabbitmq, url: \"amqp://[::1]/%2f\"".into(), "IPv6"),
        ("type: nats, url: \"nats://u:hidden@n\", token: t".into(), "keep one"),
        (nats("token: hidden, creds: /x"), "give one of them"),
        (nats("nkey: suhidden"), "neither the path of a file nor"),
        (kafka("tls: { cert: /x, key: hidden }"), "neither the path of a file nor"),
        (nats("user: u, password: hidden, nkey: /x"), "give one of them"),
        (nats("tls: { key: /x }, token: t"), "give both"),
    ] {
        let file = with_brokers(&format!("  a: {{ {broker} }}\n"));
        let error = routing::compile("routes.yaml", &file, &env).unwrap_err().to_string();
        assert!(error.starts_with("routes.yaml:6:"), "{broker}: {error}");
        assert!(error.contains(message), "{message}: {error}");
        assert!(!error.contains("hidden"), "{error}");
    }
}

#[test]
fn every_mistake_in_what_protects_brokers_is_reported_at_once() {
    let file = with_brokers(
        r#"  a: { type: kafka, bootstrap: "k:x", tls: { cert: /x }, sasl: { mechanism: md5, user: "", password: "${NOPE}" } }
  b: { type: nats, url: "http://n", tls: false, user: u }
"#,
    );
    let error = routing::compile("routes.yaml", &file, &env).unwrap_err().to_string();
    for message in [
        "give both",
        "unknown SASL mechanism",
        "`user:` is empty",
        "NOPE is not set",
        "must begin with `nats://`",
        "write `tls: true`",
        "`user:` and `password:` go together",
    ] {
        assert!(error.contains(message), "{message}: {error}");
    }
}
