use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::*;
use crate::routing;

/// Tables that are right, with every setting in one of them.
const VALID: [&str; 5] = [
    include_str!("../../../tests/routes/valid/conditions.yaml"),
    include_str!("../../../tests/routes/valid/kafka.yaml"),
    include_str!("../../../tests/routes/valid/sonzai.yaml"),
    include_str!("../../../tests/routes/valid/sonzai_api.yaml"),
    include_str!("../../../tests/routes/valid/nats.yaml"),
];

/// A literal secret wherever one can stand.
const SECRETS: &str = r#"sources:
  shop: { type: standard, path: /hooks/shop, secret: whsec_hunter2hunter2 }
  chat:
    type: miibo
    path: /hooks/chat
    secret:
      - "hunter2hunter2"
      - hunter2hunter2
  sonzai:
    type: sonzai
    path: /hooks/sonzai
    authorization: Bearer hunter2hunter2
    secrets:
      agent.message: hunter2hunter2
      "*": |
        hunter2hunter2
        hunter2hunter2
  api:
    type: sonzai
    path: /hooks/api/{type}
    api: { url: "https://waypost:hunter2hunter2@api.example", key: hunter2hunter2 }
    register: { public_url: "https://hooks.example?key=hunter2hunter2", types: [on_wakeup_ready] }
    poll:
      agents: all
      every: 0s
brokers:
  stream:
    type: kafka
    bootstrap: localhost:9092
    tls: { cert: /nowhere/cert.pem, key: hunter2hunter2 }
    sasl: { mechanism: plain, user: waypost, password: hunter2hunter2 }
  tasks: { type: rabbitmq, url: "amqp://waypost:hunter2hunter2@localhost/%2f" }
  live: { type: nats, url: nats://localhost, token: hunter2hunter2, nkey: SUhunter2hunter2 }
routes:
  - name: all
    match: { type: "**" }
    to:
      - { broker: stream, topic: events }
      - { broker: tasks, exchange: events, routing_key: "{type}" }
      - { broker: live, subject: events }
commands:
  wakeups:
    source: shop
    from: { broker: live, subject: commands.* }
"#;

/// A secret as it may stand behind a key.
const MISPLACED: [&str; 11] = [
    "hunter2hunter2",
    "\"hunter2 hunter2\"",
    "{hunter2hunter2}",
    "{ hunter2hunter2: x }",
    "[{ hunter2: x }, [hunter2hunter2]]",
    "&hunter2hunter2 x",
    "!hunter2hunter2 x",
    "&hunter2hunter2 [x]",
    "amqp://u:hunter2hunter2",
    "|\n            hunter2\n            hunter2",
    "{ x: y, hunter2hunter2 }",
];

/// A table with a secret behind a key on a line of its own, below line `at`.
fn misplaced(valid: &str, at: usize, indent: usize, key: &str, value: &str) -> String {
    let lines: Vec<&str> = valid.lines().collect();
    let space = lines[at].len() - lines[at].trim_start_matches([' ', '-']).len();
    let margin = " ".repeat((space + 2 * indent).saturating_sub(2));
    let (above, below) = (lines[..=at].join("\n"), lines[at + 1..].join("\n"));
    format!("{above}\n{margin}{key}: {value}\n{below}")
}

fn env(name: &str) -> Option<String> {
    (name == "SECRET").then(|| "whsec_MDEyMzQ1Njc4OWFiY2RlZg==".to_owned())
}

/// All that is said of a text, with and without secrets.
fn told(text: &str) -> String {
    let all = [None, Some(&env as crate::secret::Env)];
    let problems = all.into_iter().flat_map(|env| routing::examine("f", text, env).problems);
    problems.map(|p| format!("{p}\n{}\n", serde_json::to_string(&p).unwrap())).collect()
}

/// Every value within a document, as a JSON pointer.
fn pointers(document: &Value) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut at = 0;
    while let Some(pointer) = found.get(at).cloned() {
        match document.pointer(&pointer) {
            Some(Value::Object(object)) => found.extend(
                object
                    .keys()
                    .map(|key| format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))),
            ),
            Some(Value::Array(items)) => {
                found.extend((0..items.len()).map(|index| format!("{pointer}/{index}")));
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn anything() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(""),
        json!("kafka"),
        json!("text"),
        json!("10m"),
        json!([]),
        json!(["a"]),
        json!([1]),
        json!({}),
        json!({ "type": "log" }),
        json!({ "for": "1h" }),
    ])
}

#[test]
fn no_secret_of_a_table_is_told() {
    let told = told(SECRETS);
    assert!(told.lines().count() > 3, "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}

#[test]
fn no_key_in_the_value_of_a_key_that_there_is_not_is_told() {
    for (key, value) in [
        ("urll", "[{ hunter2: x }, [hunter2hunter2]]"),
        ("urll", "{ a: { hunter2: x } }"),
        ("routess", "[{ name: x, hunter2: x }]"),
        ("headerss", "{ hunter2: x }"),
        ("too", "[{ broker: x, hunter2: { hunter2: x } }]"),
    ] {
        for valid in [&VALID[1..], &[SECRETS]].concat() {
            for (at, indent) in
                (0..valid.lines().count()).flat_map(|at| (0..3).map(move |n| (at, n)))
            {
                let text = misplaced(valid, at, indent, key, value);
                let told = told(&text);
                assert!(!told.contains("hunter2"), "{text}\n{told}");
            }
        }
    }
}

#[test]
fn a_place_within_text_is_found_in_the_file() {
    for (file, expected) in [
        ("a: one two", (1, 8)),
        ("a: 'one two'", (1, 9)),
        ("a: \"one two\"", (1, 9)),
        ("a: |\n  one two\n", (2, 7)),
        ("a: [x, 日本 one two]", (1, 15)),
        // Where it cannot be known, the beginning.
        ("a: \"one\\x20two\"", (1, 4)),
        ("a: >-\n  one\n  two", (2, 3)),
    ] {
        let tree = tree::parse(file).unwrap();
        let mut place = Place::root(&tree).key("a");
        if file.contains('[') {
            place = place.item(1);
        }
        let json = tree.to_json();
        let value = json["a"].as_str().or(json["a"][1].as_str()).unwrap();
        let start = value.find("two").unwrap();
        let span = place.within(file, value, start..start + 3);
        assert_eq!((span.line, span.column), expected, "{file}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_fits_the_schema_deserialises(
        valid in select(VALID.to_vec()),
        (at, value) in (any::<prop::sample::Index>(), anything()),
        (at_2, value_2) in (any::<prop::sample::Index>(), anything()),
    ) {
        let mut document = tree::parse(valid).unwrap().to_json();
        for (at, value) in [(at, value), (at_2, value_2)] {
            let pointers = pointers(&document);
            *document.pointer_mut(&pointers[at.index(pointers.len())]).unwrap() = value;
        }
        // JSON is YAML.
        let whole = tree::parse(&document.to_string()).unwrap();
        if let Some(fitting) = structure::check("", &whole, schema()).tree {
            let read = mirror(&fitting);
            prop_assert!(read.is_ok(), "{:?}\n{}", read.unwrap_err(), document);
        }
        told(&document.to_string());
    }

    #[test]
    fn no_text_makes_it_panic(
        valid in select(VALID.to_vec()),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, "[^a]{0,3}|[:{}\\[\\]&*|>'\"#\n -]{1,3}"), 1..4),
    ) {
        let mut text: Vec<char> = valid.chars().collect();
        for (at, length, with) in cuts {
            let from = at.index(text.len());
            let to = (from + length).min(text.len() - 1).max(from);
            text.splice(from..to, with.chars());
        }
        told(&text.into_iter().collect::<String>());
    }

    #[test]
    fn no_slip_of_the_pen_tells_a_secret(
        at in any::<prop::sample::Index>(),
        removed in 0..2usize,
        slip in select(vec!["", ":", " ", "'", "\"", "{", "}", "[", "]", ",", "#", "&", "*", "|", "-", "\t", "\r", "x"]),
    ) {
        let mut at = at.index(SECRETS.len());
        // Beside a secret, not in it.
        while !SECRETS.is_char_boundary(at) || SECRETS[..at].ends_with(|c: char| c.is_alphanumeric()) {
            at -= 1;
        }
        let rest = &SECRETS[at..];
        let removed = removed * usize::from(!rest.starts_with(|c: char| c.is_alphanumeric()));
        let told = told(&format!("{}{slip}{}", &SECRETS[..at], &rest[removed..]));
        prop_assert!(!told.contains("hunter2"), "{}", told);
    }

    #[test]
    fn no_secret_in_a_wrong_place_is_told(
        // Without the one where a line may belong to a condition.
        valid in select([&VALID[1..], &[SECRETS]].concat()),
        line in any::<prop::sample::Index>(),
        key in select(vec!["secret", "token", "password", "passwort", "authorization", "secrt", "urll", "x"]),
        value in select(MISPLACED.to_vec()),
        indent in 0..3usize,
    ) {
        let lines = valid.lines().count();
        let text = misplaced(valid, line.index(lines), indent, key, value);
        let told = told(&text);
        prop_assert!(!told.contains("hunter2"), "{}\n{}", text, told);
    }

    #[test]
    fn no_url_tells_what_is_not_plainly_a_host(
        kind in select(vec!["kafka, bootstrap", "rabbitmq, url", "nats, url"]),
        before in select(vec!["", "amqp://", "nats://", "nats://a:4222,nats://", "tls://u:", "u:"]),
        secret in select(vec!["hunter2!hunter2", "hunter2/hunter2:1", "u:hunter2hunter2", "hunter2:x@", "?password=hunter2", "u:hunter2@u:hunter2"]),
        after in select(vec!["", "@h", ":4222", "/v", "?x=1", ",b:9092", "@"]),
    ) {
        let text = format!("brokers:\n  b: {{ type: {kind}: \"{before}{secret}{after}\", x: 1 }}\n");
        let told = told(&text);
        prop_assert!(!told.contains("hunter2"), "{}\n{}", text, told);
    }
}
