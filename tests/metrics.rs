//! `/metrics` tells the truth, in a form that Prometheus takes, and nothing that is nobody's business.

use std::{
    collections::BTreeSet,
    io::Write,
    process::{Command, Output, Stdio},
};

use async_nats::jetstream;
use tempfile::TempDir;

use crate::common::{
    brokers::Nats,
    certificates::Authority,
    consume,
    daemon::{Daemon, MIIBO_SECRET, SONZAI_SECRET},
    operator::{Scrape, await_metrics},
    raw::{self, Raw},
    sender::{self, Webhook},
};

/// Two secrets for Sonzai, of which senders use the second.
const SOURCES: &str = r#"
sources:
  sonzai:
    type: sonzai
    path: "/hooks/sonzai/{type}"
    secrets: { "*": ["${FIRST_SECRET}", "${SONZAI_SECRET}"] }
  miibo: { type: miibo, path: /hooks/miibo, secret: "${MIIBO_SECRET}" }
"#;

const TO_FILES: &str = r#"
brokers:
  local: { type: log }
routes:
  - name: all
    match: { source: "*" }
    to: [{ broker: local, topic: "all.{data.topic}" }]
"#;

fn start(brokers_and_routes: &str, settings: &[(&str, &str)]) -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let settings = [&[("FIRST_SECRET", "whsec_first")], settings].concat();
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{brokers_and_routes}"), &settings);
    (dir, daemon)
}

/// A daemon that shows all there is, its certificate's among them.
fn start_with_tls() -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    Authority::new().issue(&["localhost"]).write(dir.path());
    let settings = [
        ("FIRST_SECRET", "whsec_first"),
        ("WAYPOST_INGRESS__TLS__CERT", "cert.pem"),
        ("WAYPOST_INGRESS__TLS__KEY", "key.pem"),
    ];
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{TO_FILES}"), &settings);
    (dir, daemon)
}

/// The status that a request gets on a connection of its own.
#[track_caller]
fn status(daemon: &Daemon, request: impl AsRef<[u8]>) -> u16 {
    Raw::connect(daemon.listen).ask(request).status
}

#[track_caller]
fn send(daemon: &Daemon, webhook: &Webhook, expected: u16) {
    assert_eq!(status(daemon, raw::request(webhook)), expected, "{webhook:?}");
}

fn sonzai(n: usize) -> Webhook {
    sender::sonzai("agent.message", format!(r#"{{"topic":"t","n":{n}}}"#))
}

fn miibo(n: usize) -> Webhook {
    sender::miibo(format!(r#"{{"webhookType":"user_utterance","topic":"t","n":{n}}}"#))
}

fn with_signature(mut webhook: Webhook, value: &str) -> Webhook {
    webhook.headers[0].1 = value.to_owned();
    webhook
}

fn promtool(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("to run promtool: `scripts/install.sh test` installs it");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input.as_bytes()).expect("to write to it");
    drop(stdin);
    child.wait_with_output().expect("its output")
}

#[track_caller]
fn assert_nothing_wrong(output: &Output) {
    let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("help text") && !said.contains("should"), "{said}");
}

#[test]
fn promtool_finds_nothing_wrong_with_a_scrape() {
    let (_dir, daemon) = start(TO_FILES, &[]);
    send(&daemon, &sonzai(1), 200);
    send(&daemon, &with_signature(sonzai(2), "t=1,v1=00"), 401);
    let scrape = Scrape::of(&daemon);
    assert_nothing_wrong(&promtool(&["check", "metrics"], &scrape.text));
    let (_dir, with_tls) = start_with_tls();
    let more = Scrape::of(&with_tls);
    assert_nothing_wrong(&promtool(&["check", "metrics"], &more.text));
    assert!(more.get("waypost_tls_certificate_expires_seconds") > sender::now_s() as f64);
    // It would have said so.
    let wrong = scrape.text.replace("# HELP waypost_ready Whether events can be taken.\n", "");
    assert!(!promtool(&["check", "metrics"], &wrong).status.success());
}

#[test]
fn the_alerts_that_come_along_parse_and_name_only_metrics_that_there_are() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/alerts.yaml");
    assert_nothing_wrong(&promtool(&["check", "rules", file], ""));
    let (_dir, daemon) = start_with_tls();
    let families = families(&Scrape::of(&daemon));
    let rules = std::fs::read_to_string(file).expect("the alerts");
    let named = names_in(&rules);
    assert!(named.len() > 10, "{named:?}");
    let unknown: Vec<&String> = named.difference(&families).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn an_alert_on_the_journals_comes_when_it_should_and_goes() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/alerts.yaml");
    let output = promtool(&["test", "rules", file], "");
    let said = [&*output.stdout, &*output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{said}");
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_is_there() {
    let (_dir, daemon) = start_with_tls();
    let families = families(&Scrape::of(&daemon));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let documented = names_in(&std::fs::read_to_string(file).expect("the documentation"));
    assert_eq!(documented, families);
}

/// The families of a scrape, by what it says of their types.
fn families(scrape: &Scrape) -> BTreeSet<String> {
    let types = scrape.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// The metrics that a text names; a histogram's parts count as the histogram.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("waypost_") || word.starts_with("process_"));
    let family = |name: &str| name.strip_suffix("_bucket").unwrap_or(name).to_owned();
    names.map(family).collect()
}

#[test]
fn counters_tell_the_truth() {
    let (_dir, daemon) = start(TO_FILES, &[]);
    let valid: Vec<Webhook> = (0..7).map(sonzai).collect();
    valid.iter().for_each(|webhook| send(&daemon, webhook, 200));
    (0..4).for_each(|n| send(&daemon, &miibo(n), 200));
    // Duplicates.
    valid.iter().take(3).for_each(|webhook| send(&daemon, webhook, 200));
    // The body names another type; signed by the first secret.
    let disputed = sender::sonzai("agent.message", r#"{"topic":"t","event_type":"agent.other"}"#);
    let key = waypost::signature::sonzai::key("whsec_first").expect("a key");
    let signature = waypost::signature::sonzai::sign(&key, &disputed.body, sender::now_s());
    send(&daemon, &with_signature(disputed, &signature), 200);
    // Not verified, each for a reason of its own.
    let stale = sender::sonzai_at("agent.message", "{}", sender::now_s() - 1000);
    send(&daemon, &stale, 401);
    let wrong = format!("t={},v1={}", sender::now_s(), "0".repeat(64));
    (0..5).for_each(|n| send(&daemon, &with_signature(sonzai(n), &wrong), 401));
    (0..2).for_each(|n| send(&daemon, &with_signature(sonzai(n), "t=1,t=2,v1=00"), 401));
    let mut unsigned = miibo(9);
    unsigned.headers.remove(0);
    send(&daemon, &unsigned, 401);
    // Not even looked at.
    let unknown = || Webhook { path: "/hooks/none".to_owned(), ..miibo(1) };
    (0..6).for_each(|_| send(&daemon, &unknown(), 404));
    assert_eq!(status(&daemon, "GET /hooks/miibo HTTP/1.1\r\nhost: x\r\n\r\n"), 405);
    let too_large = raw::head(&miibo(1), &["content-length: 99999999"]);
    assert_eq!(status(&daemon, too_large), 413);
    // An address that cannot be filled.
    send(&daemon, &sender::miibo("{}"), 200);

    let confirmed = r#"waypost_broker_confirmed_total{broker="local"}"#;
    let dead = r#"waypost_broker_dead_letters_total{broker="local"}"#;
    let scrape = await_metrics(&daemon, "all that is owed is settled", |scrape| {
        scrape.get(confirmed) == 12.0
            && scrape.get(dead) == 1.0
            && scrape.get(r#"waypost_broker_lag_records{broker="local"}"#) == 0.0
    });
    assert_eq!(
        scrape.nonzero("waypost_ingress_requests_total"),
        [
            (r#"waypost_ingress_requests_total{source="",code="404"}"#, 6.0),
            (r#"waypost_ingress_requests_total{source="miibo",code="200"}"#, 5.0),
            (r#"waypost_ingress_requests_total{source="miibo",code="401"}"#, 1.0),
            (r#"waypost_ingress_requests_total{source="miibo",code="405"}"#, 1.0),
            (r#"waypost_ingress_requests_total{source="miibo",code="413"}"#, 1.0),
            (r#"waypost_ingress_requests_total{source="sonzai",code="200"}"#, 11.0),
            (r#"waypost_ingress_requests_total{source="sonzai",code="401"}"#, 8.0),
        ]
    );
    assert_eq!(
        scrape.nonzero("waypost_verified_total"),
        [
            (r#"waypost_verified_total{source="miibo",key="0"}"#, 5.0),
            (r#"waypost_verified_total{source="sonzai",key="0"}"#, 1.0),
            (r#"waypost_verified_total{source="sonzai",key="1"}"#, 10.0),
        ]
    );
    assert_eq!(
        scrape.nonzero("waypost_verification_failures_total"),
        [
            (r#"waypost_verification_failures_total{source="miibo",reason="missing"}"#, 1.0),
            (r#"waypost_verification_failures_total{source="sonzai",reason="malformed"}"#, 2.0),
            (r#"waypost_verification_failures_total{source="sonzai",reason="mismatch"}"#, 5.0),
        ]
    );
    scrape.assert(&[
        (r#"waypost_stale_signatures_total{source="sonzai"}"#, 1.0),
        (r#"waypost_duplicates_total{source="sonzai"}"#, 3.0),
        (r#"waypost_type_disagreements_total{source="sonzai"}"#, 1.0),
        ("waypost_ingress_request_duration_seconds_count", 33.0),
        ("waypost_journal_appended_records_total", 13.0),
        ("waypost_journal_commit_records_sum", 13.0),
        // Two of each of Sonzai's, by id and body; one of miibo's.
        ("waypost_dedupe_keys", 21.0),
        ("waypost_dead_letters_kept", 1.0),
        (r#"waypost_broker_published_total{broker="local"}"#, 12.0),
        (r#"waypost_broker_publish_duration_seconds_count{broker="local"}"#, 12.0),
        (r#"waypost_broker_up{broker="local"}"#, 1.0),
        (r#"waypost_broker_lag_records{broker="local"}"#, 0.0),
        (r#"waypost_broker_oldest_waiting_seconds{broker="local"}"#, 0.0),
        ("waypost_ingress_in_flight_bytes", 0.0),
        ("waypost_ready", 1.0),
    ]);
    assert!(scrape.get("process_resident_memory_bytes") > 1e6);
    assert!(scrape.get("process_open_fds") > 3.0);
    assert!(scrape.get("process_cpu_seconds_total") > 0.0);
    assert!(daemon.stop().success());
}

#[test]
fn connections_are_counted_and_how_they_fail() {
    let (_dir, daemon) = start(TO_FILES, &[("WAYPOST_INGRESS__MAX_CONNECTIONS", "1")]);
    let mut only = Raw::connect(daemon.listen);
    only.say("P");
    let open = r#"waypost_connections{listener="ingress"}"#;
    await_metrics(&daemon, "the connection is taken", |scrape| scrape.get(open) == 1.0);
    assert_eq!(Raw::connect(daemon.listen).hear().expect("an answer").status, 503);
    only.say(" \r\n\r\n");
    assert_eq!(only.hear().expect("an answer").status, 400);
    drop(only);
    let failed = |reason: &str| {
        format!(r#"waypost_connections_failed_total{{listener="ingress",reason="{reason}"}}"#)
    };
    let scrape = await_metrics(&daemon, "the connection has ended", |scrape| {
        scrape.get(open) == 0.0 && scrape.get(&failed("malformed")) == 1.0
    });
    scrape.assert(&[
        (r#"waypost_connections_limit{listener="ingress"}"#, 1.0),
        (r#"waypost_connections_shed_total{listener="ingress"}"#, 1.0),
        (r#"waypost_connections_accepted_total{listener="ingress"}"#, 1.0),
    ]);
    let large = format!("POST /{} HTTP/1.1\r\n", "x".repeat(100_000));
    let mut larger = Raw::connect(daemon.listen);
    // It may be closed before it has said all of it.
    larger.try_say(large).ok();
    await_metrics(&daemon, "a large head is counted", |scrape| {
        scrape.get(&failed("head_too_large")) == 1.0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_rises_while_a_broker_is_down_and_returns_to_nothing() {
    let mut nats = Nats::start();
    let stream = jetstream::stream::Config {
        name: "LAG".to_owned(),
        subjects: vec!["lag.>".to_owned()],
        ..Default::default()
    };
    consume::create_stream(nats.url(), stream).await;
    let routes = format!(
        r#"
brokers:
  local: {{ type: log }}
  live: {{ type: nats, url: "{}" }}
routes:
  - name: all
    match: {{ source: miibo }}
    to: [{{ broker: local, topic: all }}, {{ broker: live, subject: lag.all }}]
"#,
        nats.url()
    );
    let (_dir, daemon) = start(&routes, &[]);
    let of = |family: &str| format!(r#"waypost_broker_{family}{{broker="live"}}"#);
    send(&daemon, &miibo(0), 200);
    await_metrics(&daemon, "the first event is confirmed", |scrape| {
        scrape.get(&of("confirmed_total")) == 1.0 && scrape.get(&of("lag_records")) == 0.0
    });

    nats.kill();
    (1..=20).for_each(|n| send(&daemon, &miibo(n), 200));
    let down =
        await_metrics(&daemon, "the broker is known to be down, and others go on", |scrape| {
            scrape.get(&of("up")) == 0.0
                && scrape.get(&of("connect_failures_total")) > 0.0
                && scrape.get(r#"waypost_broker_confirmed_total{broker="local"}"#) == 21.0
                && scrape.get(r#"waypost_broker_lag_records{broker="local"}"#) == 0.0
        });
    down.assert(&[
        (&of("lag_records"), 20.0),
        (&of("in_flight"), 0.0),
        (&of("confirmed_total"), 1.0),
        ("waypost_ready", 1.0),
    ]);
    assert!(down.get(&of("lag_bytes")) > 0.0);
    let oldest = down.get(&of("oldest_waiting_seconds"));
    assert!(oldest > 0.0);
    await_metrics(&daemon, "the oldest waits on", |scrape| {
        scrape.get(&of("oldest_waiting_seconds")) > oldest
    });

    nats.restart();
    let well = await_metrics(&daemon, "everything is confirmed", |scrape| {
        scrape.get(&of("confirmed_total")) == 21.0 && scrape.get(&of("lag_records")) == 0.0
    });
    well.assert(&[
        (&of("up"), 1.0),
        (&of("lag_bytes"), 0.0),
        (&of("oldest_waiting_seconds"), 0.0),
        (&of("in_flight"), 0.0),
        (&of("dead_letters_total"), 0.0),
    ]);
    assert!(well.get(&of("connections_total")) >= 2.0);
    assert!(well.get(r#"waypost_broker_failures_total{broker="live",class="down"}"#) >= 1.0);
    assert!(daemon.stop().success());
}

#[test]
fn a_broker_that_is_down_and_owed_nothing_lags_behind_nothing() {
    let routes = format!("{TO_FILES}\n")
        .replace("brokers:\n", "brokers:\n  idle: { type: nats, url: \"nats://127.0.0.1:9\" }\n");
    let (_dir, daemon) = start(&routes, &[]);
    (0..5).for_each(|n| send(&daemon, &miibo(n), 200));
    let of = |family: &str| format!(r#"waypost_broker_{family}{{broker="idle"}}"#);
    let scrape = await_metrics(&daemon, "it has read past what is not its own", |scrape| {
        scrape.get(&of("connect_failures_total")) > 0.0 && scrape.get(&of("lag_records")) == 0.0
    });
    scrape.assert(&[(&of("up"), 0.0), (&of("oldest_waiting_seconds"), 0.0)]);
}

#[test]
fn no_secret_and_no_payload_text_is_shown_and_no_sender_makes_a_series() {
    let (_dir, daemon) = start(TO_FILES, &[]);
    send(&daemon, &sonzai(1), 200);
    let before = Scrape::of(&daemon);
    let marks = ["m4rk-path", "m4rk-type", "m4rk-body", "m4rk-header", "m4rk-method", "m4rk-host"];
    for n in 0..50 {
        let body = format!(r#"{{"topic":"m4rk-body{n}","event_type":"m4rk-body{n}","n":{n}}}"#);
        let mut webhook = sender::sonzai(&format!("m4rk-type{n}"), body);
        webhook.headers.push((format!("m4rk-header{n}"), format!("m4rk-header{n}")));
        send(&daemon, &webhook, 200);
        let path = format!("/m4rk-path{n}?m4rk-path=1");
        send(&daemon, &Webhook { path, ..webhook }, 404);
        let head = format!("/hooks/miibo HTTP/1.1\r\nhost: m4rk-host{n}\r\n\r\n");
        assert_eq!(status(&daemon, format!("m4rk-method{n} {head}")), 405);
    }
    let after = Scrape::of(&daemon);
    let names = |scrape: &Scrape| scrape.series.keys().cloned().collect::<BTreeSet<String>>();
    assert_eq!(names(&before), names(&after));
    let token = std::fs::read_to_string(daemon.data_dir().join("admin.token")).expect("a token");
    let secrets = [SONZAI_SECRET, MIIBO_SECRET, "whsec_first", "test-secret", token.trim()];
    for hidden in marks.iter().chain(&secrets) {
        assert!(!after.text.contains(hidden), "{hidden}");
    }
}
