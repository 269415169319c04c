use super::*;
use crate::{
    broker::material::Material,
    event::{Address, Event, Message, tests::plain},
    routing,
    source::{Dedupe, Unrouted},
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
        Ok(Address::LogTopic(topic)) => format!("{} {topic} -", message.broker),
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
fn a_condition_decides_and_what_it_cannot_say_is_no_match_and_counted() {
    let table = compile(
        r#"
routes:
  - name: loud
    match: { type: "**" }
    when: data.delta > 0.3
    to: [{ broker: local, topic: loud }]
  - name: everything else
    match: { otherwise: true }
    to: [{ broker: local, topic: other }]
"#,
    );
    let errors = |table: &Table| {
        let counts: Vec<u64> =
            table.conditional_routes().map(|(_, stats)| stats.condition_errors.get()).collect();
        counts[0]
    };
    for (body, expected, counted) in [
        (r#"{"delta":0.5}"#, "local loud -", 0),
        (r#"{"delta":1}"#, "local loud -", 0),
        (r#"{"delta":0.1}"#, "local other -", 0),
        (r#"{"delta":"much"}"#, "local other -", 1),
        ("{}", "local other -", 2),
        ("no json", "local other -", 3),
    ] {
        let event = event("chat", "x", body);
        table.trace(&event);
        assert_eq!(owed(&table, &event), [expected], "{body}");
        assert_eq!(errors(&table), counted, "{body}");
    }
    let mut next = compile(
        "routes:\n  - { name: loud, match: { type: x }, when: \"data.delta > 1\", to: [{ broker: local, topic: t }] }\n",
    );
    next.inherit(&table);
    assert_eq!(errors(&next), 3, "a reload goes on counting");
}

#[test]
fn a_trace_says_of_each_route_why() {
    let table = compile(
        r#"
routes:
  - { name: otherwise, match: { otherwise: true }, to: [{ broker: local, topic: other }] }
  - { name: of sonzai, match: { source: sonzai }, to: [{ broker: local, topic: t }] }
  - { name: of type y, match: { type: ["y.*", z] }, to: [{ broker: local, topic: t }] }
  - { name: "false", match: { type: x }, when: data.n > 5, to: [{ broker: local, topic: t }] }
  - { name: broken, match: { type: x }, when: data.m > 5, to: [{ broker: local, topic: t }] }
  - { name: first, match: { type: x }, when: data.n == 1, to: [{ broker: local, topic: t }] }
  - name: second
    match: { type: [x, z] }
    to: [{ broker: local, topic: t }, { broker: local, topic: "{data.m}" }]
"#,
    );
    let Trace { routes, messages } = table.trace(&event("chat", "x", r#"{"n":1}"#));
    let reason = |at: usize| routes[at].outcome.as_ref().unwrap_err().clone();
    let missing = Mismatch::ConditionError(crate::routing::Why::Missing("data.m".to_owned()));
    let (source, kind) = (Mismatch::Source("sonzai".into()), Mismatch::Type("y.* and z".into()));
    assert_eq!(kind.to_string(), "its `type:` takes y.* and z");
    for (at, expected) in
        [Mismatch::OthersTook, source, kind, Mismatch::Condition, missing].into_iter().enumerate()
    {
        assert_eq!(reason(at), expected);
    }
    assert_eq!(routes[3].condition.as_deref(), Some("data.n > 5"));
    let taken = |at: usize| routes[at].outcome.as_ref().unwrap();
    assert_eq!(taken(5)[0].merged_into, None);
    assert_eq!(taken(6)[0].merged_into.as_deref(), Some("first"));
    assert!(taken(6)[1].message.address.as_ref().unwrap_err().contains("no such field"));
    assert_eq!(messages, [taken(5)[0].message.clone(), taken(6)[1].message.clone()]);
}

#[test]
fn messages_merge_only_if_a_consumer_could_not_tell_them_apart() {
    let table = compile(
        r#"
routes:
  - name: all
    match: { type: x }
    to:
      - { broker: live, subject: a }
      - { broker: live, subject: a, format: binary }
      - { broker: live, subject: a, format: raw }
      - { broker: live, subject: a, headers: { x-team: moods } }
      - { broker: live, subject: a, headers: { x-team: other } }
      - { broker: live, subject: a, headers: { x-team: moods } }
      - { broker: live, subject: a, format: structured, headers: { x-cost: "5$$" } }
"#,
    );
    let messages = table.resolve(&event("chat", "x", ""));
    let written: Vec<_> = messages
        .iter()
        .map(|message| (message.format.name(), message.headers.first().map(|(_, value)| &**value)))
        .collect();
    assert_eq!(
        written,
        [
            ("binary", None),
            ("raw", None),
            ("binary", Some("moods")),
            ("binary", Some("other")),
            ("structured", Some("5$")),
        ]
    );
}

#[test]
fn a_source_may_say_that_what_no_route_takes_is_dropped() {
    let file = format!(
        "{BASE}routes:\n  - {{ name: a, match: {{ type: x }}, to: [{{ broker: local, topic: t }}] }}\n"
    );
    let file =
        file.replace("path: /hooks/miibo,", "path: /hooks/miibo, unrouted: drop, dedupe: body,");
    let table = routing::compile("routes.yaml", &file, &env).unwrap();
    assert_eq!(owed(&table, &event("chat", "y", "")), [""; 0]);
    assert_eq!(table.trace(&event("chat", "y", "")).messages, []);
    assert_eq!(owed(&table, &event("chat", "x", "")).len(), 1);
    assert_eq!(owed(&table, &event("sonzai", "y", "")).len(), 1);
    let (chat, _) = table.source("/hooks/miibo").unwrap();
    assert_eq!((chat.dedupe, chat.unrouted), (Dedupe::Body, Unrouted::Drop));
}

#[test]
fn a_source_counts_on_through_a_reload_unless_it_is_another_s() {
    let (before, mut after) = (compile(ROUTES), compile(ROUTES));
    before.source("/hooks/miibo").unwrap().0.stats.duplicates.inc();
    before.source("/hooks/sonzai/x").unwrap().0.stats.duplicates.inc();
    after.inherit(&before);
    let duplicates = |table: &Table, path| table.source(path).unwrap().0.stats.duplicates.get();
    assert_eq!(duplicates(&after, "/hooks/miibo"), 1);
    before.source("/hooks/miibo").unwrap().0.stats.duplicates.inc();
    assert_eq!(duplicates(&after, "/hooks/miibo"), 2, "also what ends on the table before");
    let file = format!("{BASE}{ROUTES}")
        .replace("type: miibo", "type: standard")
        .replace(r#"["${S}", "older"]"#, "whsec_aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVu");
    let mut other = routing::compile("routes.yaml", &file, &env).unwrap();
    other.inherit(&before);
    assert_eq!(duplicates(&other, "/hooks/miibo"), 0);
    assert_eq!(duplicates(&other, "/hooks/sonzai/x"), 1);
}

#[test]
fn no_table_is_too_deep_for_the_stack_of_who_reads_it() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("\n      - ", "")] {
        for depth in [12, 60, 250, 100_000] {
            let deep = if close.is_empty() {
                format!("{open}{}1", "- ".repeat(depth))
            } else {
                format!("{}1{}", open.repeat(depth), close.repeat(depth))
            };
            let text = format!("\nroutes:\n  - name: a\n    extra: {deep}\n");
            let examined = routing::examine("routes.yaml", &text, Some(&env));
            assert!(!examined.problems.is_empty(), "{open} {depth}");
        }
    }
}

#[test]
fn an_event_meets_no_more_routes_in_a_table_of_a_thousand_than_in_one_of_ten() {
    let table = |count: usize| {
        let mut routes = String::from("\nroutes:\n");
        for n in 0..count {
            let kind = match n % 10 {
                0 => "x".to_owned(),
                1 => "\"*\"".to_owned(),
                2 => format!("[shop{n}.paid, shop{n}.sent, shop{n}.lost]"),
                3 => format!("\"shop{n}.*\""),
                _ => format!("shop{}.order_{n}", n / 10),
            };
            // What an event of type `x` may match is in the first ten.
            let kind = if n >= 10 && n % 10 < 2 { format!("shop{n}.x") } else { kind };
            let source = ["sonzai", "chat"][n % 2];
            routes.push_str(&format!(
                "  - {{ name: r{n}, match: {{ source: [{source}, chat], type: {kind} }}, to: [{{ \
                 broker: local, topic: t }}] }}\n"
            ));
        }
        compile(&routes)
    };
    let (small, large) = (table(10), table(1000));
    for (source, kind, expected) in [("chat", "x", 2), ("chat", "shop1.order_4", 1), ("no", "x", 0)]
    {
        let event = event(source, kind, "{}");
        let candidates = large.index.candidates(&event);
        assert!(candidates.len() <= expected, "{source} {kind}: {candidates:?}");
        if kind == "x" {
            assert_eq!(small.index.candidates(&event), candidates);
        }
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Patterns> {
        let name = prop_oneof![
            3 => "[ab](\\.[ab]){0,2}",
            1 => "[ab*]{1,3}(\\.[ab*]{1,2}){0,2}",
            1 => Just("**".to_owned()),
        ];
        prop::collection::vec(name, 0..3).prop_map(|names| Patterns::new(&names))
    }

    /// Sources, types, `otherwise:` and `when:`.
    type Rough = (Patterns, Patterns, bool, Option<&'static str>);

    fn route() -> impl Strategy<Value = Rough> {
        let conditions = [None, Some("data.n > 1"), Some("data.m == 'x'"), Some("true")];
        (names(), names(), prop::bool::weighted(0.2), prop::sample::select(conditions.to_vec()))
    }

    fn table(routes: Vec<Rough>) -> Table {
        let mut paths = Paths::default();
        let mut compiled = Vec::new();
        for (place, (sources, types, otherwise, when)) in routes.into_iter().enumerate() {
            let rule = crate::routing::address::Rule::LogTopic;
            let topic = Template::compile(["t", "{data.n}"][place % 2], rule, &mut paths).unwrap();
            compiled.push(Route {
                name: place.to_string().into(),
                matcher: Matcher { sources, types, otherwise },
                condition: when.map(|when| Condition::compile(when, &mut paths).unwrap()),
                retry_for: None,
                targets: vec![Target {
                    broker: "local".into(),
                    address: AddressTemplate::LogTopic(topic),
                    format: Format::default(),
                    headers: if place % 3 == 0 { vec![("x".into(), "y".into())] } else { vec![] },
                }],
                stats: Default::default(),
            });
        }
        Table::new(vec![], vec![], compiled, vec![], paths)
    }

    proptest! {
        /// The trace looks at every route, so this holds for the index, too.
        #[test]
        fn a_trace_ends_in_what_is_done(
            routes in prop::collection::vec(route(), 0..12),
            source in "[ab](\\.[ab])?", kind in "[ab](\\.[ab]){0,2}",
            body in prop::sample::select(vec!["{}", r#"{"n":2,"m":"x"}"#, r#"{"n":1}"#, "no json"]),
        ) {
            let table = table(routes);
            let event = event(&source, &kind, body);
            prop_assert_eq!(table.trace(&event).messages, table.resolve(&event));
        }

        #[test]
        fn the_index_finds_every_route_that_matches_and_in_order(
            routes in prop::collection::vec(route(), 0..12),
            source in "[ab](\\.[ab])?", kind in "[ab](\\.[ab]){0,2}|",
        ) {
            let table = table(routes);
            let event = event(&source, &kind, "");
            let found = table.index.candidates(&event);
            prop_assert!(found.is_sorted_by(|a, b| a < b));
            for (place, route) in table.routes.iter().enumerate() {
                if route.matcher.matches(&event).is_ok() {
                    prop_assert!(found.contains(&place), "{place} of {found:?}");
                }
            }
        }
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
