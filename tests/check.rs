//! What is wrong with a routing table is told all at once, with its place and what to do about it, and
//! no secret.
//!
//! tests/routes holds the tables: `invalid` and `warned` with what `waypost check` prints of each
//! beside it, `valid` with nothing to print. UPDATE_SNAPSHOTS=1 writes what is printed now; read the
//! difference before you keep it.

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::common::command::{Outcome, waypost, waypost_reading};

/// What the tables refer to.
const ENV: [(&str, &str); 3] = [
    ("SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ("SHORT", "hunter2"),
    ("EMPTY", ""),
];

/// How every literal secret in the tables begins, as it stands there.
const LITERAL: &str = "hunter2";

fn routes(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/routes").join(kind)
}

/// The names of the tables of a kind.
fn tables(kind: &str) -> BTreeSet<String> {
    let files = fs::read_dir(routes(kind)).expect("a directory of tables");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    let names: BTreeSet<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    assert!(!names.is_empty(), "{kind}");
    names
}

fn check(kind: &str, name: &str, options: &[&str]) -> Outcome {
    waypost(&routes(kind), &[&["check", name], options].concat(), &ENV)
}

/// Holds what is printed of each table of a kind to what stands beside it.
#[track_caller]
fn hold_to_snapshots(kind: &str, code: i32) {
    let update = env::var_os("UPDATE_SNAPSHOTS").is_some();
    let mut wrong = Vec::new();
    for name in tables(kind) {
        let outcome = check(kind, &name, &[]);
        assert_eq!((outcome.code, &*outcome.err), (Some(code), ""), "{name}: {outcome:?}");
        assert!(!outcome.out.contains(LITERAL), "{name} shows a secret:\n{}", outcome.out);
        let snapshot = routes(kind).join(&name).with_extension("txt");
        if update {
            fs::write(&snapshot, &outcome.out).expect("to write a snapshot");
        }
        let expected = fs::read_to_string(&snapshot).unwrap_or_default();
        if outcome.out != expected {
            wrong.push(format!("{name}\n--- expected\n{expected}\n--- printed\n{}", outcome.out));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn each_mistake_is_told_as_reviewed() {
    assert!(tables("invalid").len() >= 45);
    hold_to_snapshots("invalid", 1);
}

#[test]
fn each_doubt_is_told_as_reviewed_and_keeps_nobody_from_starting() {
    hold_to_snapshots("warned", 0);
    for name in tables("warned") {
        assert_eq!(check("warned", &name, &["--strict"]).code, Some(1), "{name}");
    }
}

#[test]
fn what_is_right_is_told_in_one_line() {
    for name in tables("valid") {
        let outcome = check("valid", &name, &["--strict"]);
        assert_eq!((outcome.code, &*outcome.err), (Some(0), ""), "{name}: {outcome:?}");
        assert!(outcome.out.ends_with(": good\n"), "{name}: {}", outcome.out);
        assert_eq!(outcome.out.lines().count(), 1, "{name}: {}", outcome.out);
    }
}

/// One mistake of each kind, from line 2 on.
const MANY: &str = r#"# Eight mistakes.
sources:
  shop: { type: standard, path: hooks/shop, secret: "${NOPE}" }
  chat: { type: mibo, path: /hooks/chat, secret: hunter2-hunter2 }
brokers:
  local: { type: log, kep: 3 }
  live: { type: nats, url: "http://nats" }
routes:
  - name: all
    match: { source: [shop, chat, shp] }
    to:
      - { broker: local, topic: "{typ}" }
      - { broker: live, topic: events }
      - { broker: lokal, topic: events }
"#;

#[test]
fn every_mistake_is_told_in_one_run_and_in_the_files_order() {
    let outcome = waypost_reading(&routes("valid"), &["check", "-"], &ENV, MANY.as_bytes());
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let told = outcome.out.lines().filter(|line| line.starts_with("<stdin>:"));
    let told: Vec<&str> = told.map(|line| line.trim_start_matches("<stdin>:")).collect();
    let expected = [
        "3:33: error: the path must begin with `/`: write `/hooks/shop`",
        "3:53: error: the environment variable NOPE is not set; set it, or put it in .env",
        "4:17: error: unknown `type:` `mibo`; did you mean `miibo`?",
        "6:23: error: unknown key `kep:`; did you mean `keep:`?",
        "7:28: error: the URL must begin with `nats://` or `tls://`",
        "10:35: error: no source is named `shp`; did you mean `shop`?",
        "12:35: error: unknown placeholder `{typ}`",
        "13:25: error: a nats target takes no `topic:`",
        "14:19: error: no broker is named `lokal`; did you mean `local`?",
    ];
    let same = |(told, expected): (&&str, &&str)| told.starts_with(expected);
    assert!(
        told.len() == expected.len() && told.iter().zip(&expected).all(same),
        "{}",
        outcome.out
    );
    assert!(outcome.out.ends_with("9 errors\n"), "{}", outcome.out);
}

#[test]
fn json_tells_the_same_to_programs() {
    let outcome = check("invalid", "misspelt_key.yaml", &["--json"]);
    assert_eq!((outcome.code, &*outcome.err), (Some(1), ""), "{outcome:?}");
    let report: Value = serde_json::from_str(&outcome.out).expect("JSON");
    assert_eq!((&report["ok"], &report["errors"]), (&false.into(), &1.into()), "{report}");
    let problem = &report["problems"][0];
    assert_eq!(problem["code"], "unknown-key");
    assert_eq!(problem["severity"], "error");
    assert_eq!((&problem["line"], &problem["column"]), (&4.into(), &43.into()));
    assert_eq!(problem["end_column"], 49);
    assert!(!outcome.out.contains(LITERAL), "{}", outcome.out);
    let outcome = check("warned", "short_secret.yaml", &["--json"]);
    let report: Value = serde_json::from_str(&outcome.out).expect("JSON");
    assert_eq!((&report["ok"], &report["warnings"]), (&true.into(), &1.into()), "{report}");
}

#[test]
fn all_problems_are_counted_where_not_all_are_shown() {
    let target = "      - { broker: lokal, topic: events }\n";
    let table = MANY.replace(target, &target.repeat(500));
    let run =
        |arguments: &[&str]| waypost_reading(&routes("valid"), arguments, &ENV, table.as_bytes());
    let outcome = run(&["check", "-"]);
    let told = outcome.out.lines().filter(|line| line.starts_with("<stdin>:")).count();
    let last = outcome.out.lines().last();
    assert_eq!((told, last), (200, Some("508 errors (200 of 508 shown: mend some first)")));
    let report: Value = serde_json::from_str(&run(&["check", "-", "--json"]).out).expect("JSON");
    assert_eq!(report["errors"], 508);
}

#[test]
fn a_reader_that_went_away_makes_no_bad_file_good() {
    for (kind, name, code) in [("invalid", "empty.yaml", 1), ("valid", "log.yaml", 0)] {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_waypost"));
        command.current_dir(routes(kind)).args(["check", name]).envs(ENV).stdout(writer);
        assert_eq!(command.status().expect("to run").code(), Some(code), "{name}");
    }
}

#[test]
fn without_secrets_the_form_is_checked_and_nothing_is_read() {
    let table = r#"sources:
  shop: { type: standard, path: /hooks/shop, secret: ["${NOPE}", "${file:/nowhere/secret}"] }
brokers:
  stream:
    type: kafka
    bootstrap: "${KAFKA}"
    tls: { ca: /nowhere/ca.pem, cert: "${CERT}", key: "${KEY}" }
    sasl: { mechanism: plain, user: waypost, password: "${PASSWORD}" }
  tasks: { type: rabbitmq, url: "amqp://waypost:${PASSWORD}@localhost/%2f" }
  live: { type: nats, url: "${NATS}", creds: /nowhere/waypost.creds }
routes:
  - name: all
    match: { source: shop }
    to:
      - { broker: stream, topic: events }
      - { broker: tasks, exchange: events, routing_key: "{type}" }
      - { broker: live, subject: "events.{type}" }
"#;
    let dir = routes("valid");
    let run = |table: String| {
        waypost_reading(&dir, &["check", "--no-secrets", "-"], &[], table.as_bytes())
    };
    let outcome = run(table.to_owned());
    assert_eq!((outcome.code, &*outcome.err), (Some(0), ""), "{outcome:?}");
    assert_eq!(outcome.out, "<stdin>: 1 source, 3 brokers, 1 route: good\n");
    for (from, to, expected) in [
        ("${NOPE}", "${NOPE", "not closed"),
        ("${file:/nowhere/secret}", "${}", "names nothing"),
        ("amqp://", "http://", "must begin with `amqp://`"),
        ("/hooks/shop", "hooks/shop", "must begin with `/`"),
    ] {
        let outcome = run(table.replace(from, to));
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.out.contains(expected), "{expected}: {}", outcome.out);
    }
    for name in tables("valid") {
        let outcome = waypost(&dir, &["check", "--no-secrets", "--strict", &name], &[]);
        assert_eq!(outcome.code, Some(0), "{name}: {outcome:?}");
    }
}

#[test]
fn a_table_that_is_not_there_is_named() {
    let outcome = waypost(&routes("valid"), &["check", "nowhere.yaml"], &[]);
    assert_eq!((outcome.code, &*outcome.out), (Some(1), ""), "{outcome:?}");
    let expected = "waypost: cannot read the routing table nowhere.yaml: No such file";
    assert!(outcome.err.starts_with(expected), "{}", outcome.err);
}

#[test]
fn the_schema_in_the_repository_is_the_one_that_is_printed() {
    let outcome = waypost(&routes("valid"), &["schema"], &[]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/routes.schema.json");
    if env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&file, &outcome.out).expect("to write the schema");
    }
    assert_eq!(fs::read_to_string(&file).unwrap_or_default(), outcome.out);
    let first = include_str!("../routes.yaml").lines().next();
    assert_eq!(first, Some("# yaml-language-server: $schema=docs/routes.schema.json"));
}

/// What an example in the docs may leave out.
const AROUND: [(&str, &str); 4] = [
    (
        "sources:",
        "sources:\n  sonzai: { type: sonzai, path: \"/hooks/{type}\", secrets: { \"*\": \"${S}\" }, \
         api: { key: \"${S}\" } }\n  shop: { type: standard, path: /shop, secret: \"${S}\" }\n",
    ),
    (
        "brokers:",
        "brokers:\n  local: { type: log }\n  stream: { type: kafka, bootstrap: k }\n  tasks: { type: \
         rabbitmq, url: \"amqp://r/%2f\" }\n  live: { type: nats, url: \"nats://n\" }\n",
    ),
    ("routes:", "routes: []\n"),
    ("commands:", ""),
];

#[test]
fn every_example_of_the_docs_is_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut examples = 0;
    for file in ["README.md", "docs/routes.md", "docs/brokers.md"] {
        let text = fs::read_to_string(root.join(file)).expect("a page of the docs");
        for block in text.split("```yaml\n").skip(1) {
            let (example, _) = block.split_once("```").expect("the end of an example");
            let has = |part: &str| example.lines().any(|line| line.starts_with(part));
            // Others are about other files.
            if !AROUND.iter().any(|(part, _)| has(part)) {
                continue;
            }
            let left_out = AROUND.iter().filter(|(part, _)| !has(part)).map(|(_, around)| *around);
            let table = left_out.fold(example.to_owned(), |table, around| table + around);
            let options = ["check", "--no-secrets", "-"];
            let outcome = waypost_reading(root, &options, &[], table.as_bytes());
            assert_eq!(outcome.code, Some(0), "{file}:\n{table}\n{}", outcome.out);
            examples += 1;
        }
    }
    assert!(examples > 0);
    let outcome = waypost(root, &["check", "--no-secrets", "--strict", "routes.yaml"], &[]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.out);
}
