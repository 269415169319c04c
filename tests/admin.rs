//! The admin listener: health, and who may see what.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    daemon::{self, ALL_TO_FILES, Daemon},
    faults::{Fault, Faults},
    log_files,
    operator::{ask, json},
    raw::{self, Raw},
    sender,
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that nobody answers for.
const TO_NOBODY: &str = r#"
brokers:
  live: { type: nats, url: "nats://127.0.0.1:9" }
routes:
  - name: all
    match: { type: "**" }
    to: [{ broker: live, subject: all }]
"#;

fn start(brokers_and_routes: &str, settings: &[(&str, &str)]) -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(dir.path(), brokers_and_routes, settings);
    (dir, daemon)
}

#[track_caller]
fn send(daemon: &Daemon, body: &str) -> u16 {
    Raw::connect(daemon.listen).ask(raw::request(&sender::miibo(body.to_owned()))).status
}

fn token(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.data_dir().join("admin.token")).expect("a token").trim().to_owned()
}

/// Asks whether it is ready until it says so or not, and why.
#[track_caller]
fn await_ready(daemon: &Daemon, ready: bool) -> serde_json::Value {
    let started = Instant::now();
    loop {
        let (status, answer) = json(daemon, "/readyz");
        assert_eq!(status == 200, answer["ready"] == true, "{status} {answer}");
        if answer["ready"] == ready {
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "{answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_page_is_shown_to_who_asks_for_it_rightly() {
    let (_dir, daemon) = start(ALL_TO_FILES, &[]);
    for (path, content_type) in [
        ("/livez", "text/plain"),
        ("/readyz", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/api/status", "application/json"),
        ("/api/config", "application/json"),
    ] {
        let answer = ask(&daemon, "GET", path, &[]);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(content_type)),
            "{path}"
        );
        assert_eq!(ask(&daemon, "GET", &format!("{path}?x=1"), &[]).status, 200, "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = ask(&daemon, method, path, &[]);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method} {path}");
        }
    }
    for path in ["/", "/metrics/", "/livez/x", "/api", "/-/reload/", "//livez"] {
        let (status, answer) = json(&daemon, path);
        assert_eq!(status, 404, "{path}");
        assert!(
            answer["error"].as_str().is_some_and(|words| words.contains("/readyz")),
            "{answer}"
        );
    }
}

#[test]
fn head_gets_the_head_alone() {
    let (_dir, daemon) = start(ALL_TO_FILES, &[]);
    let with_token = format!("authorization: Bearer {}", token(&daemon));
    for path in ["/livez", "/readyz", "/metrics", "/api/status", "/api/tail"] {
        let mut raw = Raw::connect(daemon.admin_listen);
        let head = |path| format!("HEAD {path} HTTP/1.1\r\nhost: [::1]\r\n{with_token}\r\n\r\n");
        raw.say(head(path));
        // Nothing may come between one head and the next.
        raw.say("GET /livez HTTP/1.0\r\n\r\n");
        let text = raw.everything();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {text}");
        let (_, rest) = text.split_once("\r\n\r\n").expect("the end of a head");
        assert!(rest.starts_with("HTTP/1.0 200 OK\r\n"), "{path}: {text}");
    }
}

#[test]
fn payloads_are_shown_only_with_the_token() {
    let (dir, daemon) = start(ALL_TO_FILES, &[]);
    assert_eq!(send(&daemon, r#"{"private":"words"}"#), 200);
    log_files::wait_for(&daemon.data_dir(), 1);
    let token = token(&daemon);
    assert_eq!(token.len(), 64);
    let mode = fs::metadata(daemon.data_dir().join("admin.token")).expect("its mode").mode();
    assert_eq!(mode & 0o777, 0o600);
    for header in [
        "x-nothing: 1".to_owned(),
        "authorization: Bearer".to_owned(),
        format!("authorization: Bearer {}", "0".repeat(64)),
        format!("authorization: Basic {token}"),
        format!("authorization: {token}"),
        format!("authorization: Bearer {token}\r\nauthorization: Bearer {token}"),
    ] {
        let answer = ask(&daemon, "GET", "/api/tail", &[&header]);
        assert_eq!(answer.status, 401, "{header}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(
            answer.body.contains("admin.token") && !answer.body.contains("words"),
            "{answer:?}"
        );
    }
    // What needs none shows none.
    for path in ["/readyz", "/metrics", "/api/status"] {
        let answer = ask(&daemon, "GET", path, &[]);
        assert!(answer.status == 200 && !answer.body.contains("words"), "{answer:?}");
    }
    let (status, shown) = daemon.command(&["tail", "--count", "1"]);
    assert!(status.success() && shown.contains("words"), "{shown}");
    // The command reads it where the daemon runs; elsewhere it says so.
    let admin = daemon.admin_listen.to_string();
    let elsewhere = ["tail", "--count", "1", "--admin-listen", &admin, "--data-dir", "none"];
    let (status, said) = daemon.command(&elsewhere);
    assert!(!status.success());
    for part in ["data directory none", "--data-dir", "`waypost run`"] {
        assert!(said.contains(part), "{said}");
    }
    let with_file = [&elsewhere[..], &["--token-file", "data/admin.token"]].concat();
    let (status, shown) = daemon.command(&with_file);
    assert!(status.success() && shown.contains("words"), "{shown}");
    assert!(!daemon.log().contains(&token));
    assert!(daemon.stop().success());
    let daemon = Daemon::with_sources(dir.path(), ALL_TO_FILES, &[]);
    assert_eq!(self::token(&daemon), token, "it is kept over restarts");
}

/// Listens; the thread says whether anything ever arrived.
fn eavesdrop() -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let heard = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut heard = String::new();
        stream.read_to_string(&mut heard).expect("text");
        heard
    });
    (address, heard)
}

#[track_caller]
fn assert_heard_nothing(address: SocketAddr, heard: JoinHandle<String>) {
    // The first connection that it takes is this one, unless another was there before.
    TcpStream::connect(address).expect("a connection").write_all(b"nobody").expect("to write");
    assert_eq!(heard.join().expect("the listener"), "nobody");
}

#[test]
fn the_token_is_sent_only_to_the_daemon_that_is_alive_on_the_data_directory() {
    let (dir, daemon) = start(ALL_TO_FILES, &[]);
    // Who is named, and is another than the daemon.
    let (stranger, heard) = eavesdrop();
    let named = ["tail", "--count", "1", "--admin-listen", &stranger.to_string()];
    let (status, said) = daemon.command(&named);
    assert!(!status.success() && said.contains("--token-file"), "{said}");
    assert_heard_nothing(stranger, heard);
    // Who listens where a daemon was that was killed.
    let file = daemon.data_dir().join("daemon.json");
    let was = daemon.admin_listen.to_string();
    daemon.kill();
    let with_file = ["tail", "--count", "1", "--token-file", "data/admin.token"];
    let (status, said) = daemon::command(dir.path(), &with_file);
    assert!(!status.success() && said.contains("--admin-listen names"), "{said}");
    let (stranger, heard) = eavesdrop();
    let left = fs::read_to_string(&file).expect("what it left");
    fs::write(&file, left.replace(&was, &stranger.to_string())).expect("to write");
    let (status, said) = daemon::command(dir.path(), &["tail", "--count", "1"]);
    assert!(!status.success() && said.contains("`waypost run`"), "{said}");
    assert_heard_nothing(stranger, heard);
    // Nor is what was left believed while the next one starts.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("its address").to_string();
    let routes = format!("{}{ALL_TO_FILES}", daemon::SOURCES);
    let (status, log) = Daemon::fails(dir.path(), &routes, &[("WAYPOST_LISTEN", &taken)]);
    assert!(!status.success() && !file.exists(), "{log}");
}

#[test]
fn a_damaged_token_keeps_the_daemon_from_starting_with_the_way_out() {
    let (dir, daemon) = start(ALL_TO_FILES, &[]);
    let file = daemon.data_dir().join("admin.token");
    assert!(daemon.stop().success());
    fs::write(file, "not a token").expect("to write");
    let routes = format!("{}{ALL_TO_FILES}", daemon::SOURCES);
    let (status, log) = Daemon::fails(dir.path(), &routes, &[]);
    assert!(!status.success());
    assert!(log.contains("admin.token") && log.contains("remove it"), "{log}");
}

#[test]
fn a_page_in_a_browser_cannot_read_it_by_a_name_that_leads_to_loopback() {
    let (_dir, daemon) = start(ALL_TO_FILES, &[]);
    let with_host = |host: &str| {
        let request = format!("GET /api/status HTTP/1.1\r\nhost: {host}\r\n\r\n");
        Raw::connect(daemon.admin_listen).ask(request).status
    };
    assert_eq!(with_host("evil.example:9090"), 421);
    assert_eq!(with_host("127.0.0.1.evil.example"), 421);
    for host in ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]"] {
        assert_eq!(with_host(host), 200, "{host}");
    }
    // Where others may reach it, they may use its name.
    let (_dir, daemon) = start(ALL_TO_FILES, &[("WAYPOST_ADMIN_LISTEN", "0.0.0.0:0")]);
    let port = daemon.admin_listen.port();
    let mut raw = Raw::connect(([127, 0, 0, 1], port).into());
    let answer = raw.ask("GET /readyz HTTP/1.1\r\nhost: waypost.monitoring.svc\r\n\r\n");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_broker_that_is_down_is_listed_and_does_not_make_it_unready() {
    let (_dir, daemon) = start(TO_NOBODY, &[]);
    let started = Instant::now();
    loop {
        let (status, answer) = json(&daemon, "/readyz");
        assert_eq!((status, &answer["ready"]), (200, &true.into()), "{answer}");
        let broker = &answer["brokers"][0];
        if broker["state"] == "down" {
            assert_eq!(broker["name"], "live");
            assert!(broker["trouble"].as_str().is_some_and(|trouble| trouble.contains("NATS")));
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(send(&daemon, "{}"), 200);
}

#[test]
fn a_full_journal_makes_it_unready() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/parked"));
    let settings = [&faults.settings()[..], &[("WAYPOST_JOURNAL__MAX_BYTES", "262144")]].concat();
    let daemon = Daemon::with_sources(dir.path(), TO_NOBODY, &settings);
    await_ready(&daemon, true);
    // So that nothing is parked, and the journal fills up.
    faults.arm(Fault::Full);
    let body = format!(r#"{{"filler":"{}"}}"#, "x".repeat(20_000));
    let started = Instant::now();
    while send(&daemon, &body) == 200 {
        assert!(started.elapsed() < PATIENCE, "the journal is never full");
    }
    let answer = await_ready(&daemon, false);
    assert_eq!(answer["reasons"], serde_json::json!(["journal_full"]));
    assert_eq!(ask(&daemon, "GET", "/livez", &[]).status, 200);
    let (status, said) = daemon.command(&["status"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("NOT READY") && said.contains("journal.max_bytes"), "{said}");
}

#[test]
fn a_full_disk_makes_it_unready_until_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/journal"));
    let daemon = Daemon::with_sources(dir.path(), ALL_TO_FILES, &faults.settings());
    assert_eq!(send(&daemon, r#"{"n":1}"#), 200);
    faults.arm(Fault::Full);
    assert_eq!(send(&daemon, r#"{"n":2}"#), 503);
    let answer = await_ready(&daemon, false);
    assert_eq!(answer["reasons"], serde_json::json!(["disk_full"]));
    faults.disarm(Fault::Full);
    // Also without an event that shows it: nobody may send any while it is unready.
    await_ready(&daemon, true);
    assert_eq!(send(&daemon, r#"{"n":3}"#), 200);
    assert!(daemon.stop().success());
}

#[test]
fn a_daemon_that_drains_is_not_ready_and_still_accepts() {
    let (_dir, daemon) = start(ALL_TO_FILES, &[("WAYPOST_SHUTDOWN__DELAY", "10m")]);
    await_ready(&daemon, true);
    daemon.terminate();
    let answer = await_ready(&daemon, false);
    assert_eq!(answer["reasons"], serde_json::json!(["draining"]));
    assert_eq!(ask(&daemon, "GET", "/livez", &[]).status, 200);
    assert_eq!(send(&daemon, "{}"), 200);
    daemon.kill();
}
