//! A secret never gets out, and payload text cannot forge what the log says.

use std::path::Path;

use super::*;
use crate::common::{
    daemon::{MIIBO_SECRET, SONZAI_SECRET},
    frames::{self, Answer, Http2},
    log_files,
    shared::Brokers,
};

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_logged_or_shown_among_the_processes() {
    const AUTHORIZATION: &str = "Bearer b3ar3r-t0k3n";
    const RABBIT_PASSWORD: &str = "r4bbit-passw0rd";
    const NATS_PASSWORD: &str = "n4ts-passw0rd";
    const SHOWN: [&str; 5] =
        [SONZAI_SECRET, MIIBO_SECRET, "b3ar3r-t0k3n", RABBIT_PASSWORD, NATS_PASSWORD];
    let brokers = Brokers::shared();
    let after_at = |url: &'static str| url.rsplit(['@', '/']).find(|part| part.contains(':'));
    let rabbit = after_at(brokers.rabbitmq.url()).expect("an address");
    let nats = after_at(brokers.nats.url()).expect("an address");
    let rabbit = format!("amqp://waypost:{RABBIT_PASSWORD}@{rabbit}/%2f");
    let nats = format!("nats://waypost:{NATS_PASSWORD}@{nats}");
    let kafka = brokers.kafka.bootstrap();
    let routes = format!(
        r#"
sources:
  sonzai:
    type: sonzai
    path: /hooks/sonzai/{{type}}
    secrets: {{ "*": "${{SONZAI_SECRET}}" }}
    authorization: "${{AUTHORIZATION}}"
  miibo: {{ type: miibo, path: /hooks/miibo, secret: "${{MIIBO_SECRET}}" }}
brokers:
  local: {{ type: log }}
  stream: {{ type: kafka, bootstrap: "{kafka}" }}
  tasks: {{ type: rabbitmq, url: "${{RABBIT_URL}}" }}
  live: {{ type: nats, url: "${{NATS_URL}}" }}
routes:
  - name: all
    match: {{ type: "**" }}
    to:
      - {{ broker: local, topic: all }}
      - {{ broker: stream, topic: secrets-in-logs }}
      - {{ broker: tasks, exchange: agents, routing_key: "secrets" }}
      - {{ broker: live, subject: "secrets.in.logs" }}
"#
    );
    for level in ["debug", "trace"] {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = [
            ("AUTHORIZATION", AUTHORIZATION),
            ("RABBIT_URL", &*rabbit),
            ("NATS_URL", &*nats),
            ("WAYPOST_INGRESS__HTTP2", "true"),
            ("WAYPOST_LOG__LEVEL", level),
            ("WAYPOST_SHUTDOWN__DEADLINE", "1s"),
        ];
        let daemon = Daemon::start(dir.path(), &routes, &settings);
        let mut webhook = sender::sonzai("agent.message", "{}");
        let mut signatures = vec![webhook.headers[0].1.clone()];
        webhook.headers.push(("authorization".to_owned(), AUTHORIZATION.to_owned()));
        assert_eq!(ask(&daemon, raw::request(&webhook)).status, 200);
        let miibo = event(1);
        signatures.push(miibo.headers[0].1.clone());
        assert_eq!(ask(&daemon, raw::request(&miibo)).status, 200);
        let mut http2 = Http2::connect(daemon.listen);
        let over_http2 = event(2);
        signatures.push(over_http2.headers[0].1.clone());
        assert_eq!(http2.ask(1, frames::request(1, &over_http2)), Answer::Status(200));
        for (_, webhook) in unverified() {
            assert_eq!(ask(&daemon, raw::request(&webhook)).status, 401);
        }
        assert_eq!(http2.ask(3, frames::request(3, &unverified()[0].1)), Answer::Status(401));
        log_files::wait_for(&daemon.data_dir(), 3);
        let told = |daemon: &Daemon| {
            let log = daemon.log();
            ["broker=tasks", "broker=live", "broker=stream"].iter().all(|name| log.contains(name))
        };
        let started = Instant::now();
        while !told(&daemon) {
            assert!(started.elapsed() < PATIENCE, "every broker has something to say");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let process = format!("/proc/{}/cmdline", daemon.pid());
        let command_line = std::fs::read_to_string(process).expect("the command line");
        let log_path = dir.path().join("daemon.log");
        daemon.stop();
        let log = std::fs::read_to_string(&log_path).expect("the log");
        assert!(log.contains("DEBUG"), "the level counts");
        assert_none_in(&log, &SHOWN);
        let signatures: Vec<&str> = signatures.iter().map(String::as_str).collect();
        assert_none_in(&log, &signatures);
        assert_none_in(&command_line, &SHOWN);
        assert_only_the_environment_holds(dir.path(), &SHOWN);
    }
}

#[track_caller]
fn assert_none_in(text: &str, secrets: &[&str]) {
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is told");
    }
}

/// No file that the daemon wrote holds a secret either.
fn assert_only_the_environment_holds(dir: &Path, secrets: &[&str]) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            assert_only_the_environment_holds(&path, secrets);
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", path.display());
        }
    }
}

#[test]
fn payload_text_in_the_log_is_escaped_and_cut() {
    const FORGED: &str = "2026-01-01T00:00:00Z ERROR forged";
    let settings = [("WAYPOST_LOG__LEVEL", "debug"), ("WAYPOST_INGRESS__HTTP2", "true")];
    let (dir, daemon) = start(&settings);
    let evil = format!("\u{1b}[2J\r\n{FORGED}\u{202e}{}", "x".repeat(100_000));
    let body = |field: &str| serde_json::json!({ field: evil }).to_string();
    for webhook in [
        sender::sonzai("-", body("event_type")),
        sender::sonzai("agent.message", body("agent_id")),
        sender::miibo(body("webhookType")),
        sender::miibo(evil.clone()),
    ] {
        assert_eq!(ask(&daemon, raw::request(&webhook)).status, 200);
        let mut tampered = webhook;
        tampered.headers[0].1.push('\u{1b}');
        // A control character in a header, or a wrong signature.
        assert!([400, 401].contains(&ask(&daemon, raw::request(&tampered)).status));
    }
    for name in [":authority", ":path", ":method", ":scheme", "content-length"] {
        let evil = format!("\u{1b}[2J <{FORGED}> {}", "x".repeat(12_000));
        let mut fields = frames::fields(&event(1));
        fields.retain(|(found, _)| found != name);
        fields.insert(0, (name.to_owned(), evil));
        let mut http2 = Http2::connect(daemon.listen);
        let answer = http2.ask(1, frames::with_body(1, &fields, b""));
        assert_ne!(answer, Answer::Status(200), "{name}");
    }
    log_files::wait_for(&daemon.data_dir(), 4);
    daemon.stop();
    let log = std::fs::read_to_string(dir.path().join("daemon.log")).expect("the log");
    for line in log.lines() {
        assert!(!line.starts_with(FORGED), "a line is forged");
        assert!(!line.contains(['\u{1b}', '\u{202e}']), "{line:?}");
        assert!(line.len() < 4096, "a line of {} bytes", line.len());
    }
}
