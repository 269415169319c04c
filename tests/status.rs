//! `waypost status`: the daemon at a glance, and an exit code that scripts can rely on.

use std::time::{Duration, Instant};

use crate::common::{
    daemon::{self, Daemon},
    log_files,
    operator::json,
    raw::{self, Raw},
    sender,
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ROUTES: &str = r#"
brokers:
  local: { type: log }
  away: { type: nats, url: "nats://user:hunter2@127.0.0.1:9" }
routes:
  - name: all
    match: { type: "**" }
    to: [{ broker: local, topic: all }, { broker: away, subject: all }]
"#;

#[test]
fn it_shows_what_came_in_what_went_out_and_what_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(dir.path(), ROUTES, &[]);
    let event = sender::sonzai("agent.message", "{}");
    for webhook in [&event, &event, &sender::miibo("{}"), &sender::miibo("{}")] {
        assert_eq!(Raw::connect(daemon.listen).ask(raw::request(webhook)).status, 200);
    }
    let unsigned = "POST /hooks/miibo HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(Raw::connect(daemon.listen).ask(unsigned).status, 401);
    log_files::wait_for(&daemon.data_dir(), 3);

    let status = await_status(&daemon, |status| {
        status["brokers"][0]["state"] == "down" && status["brokers"][1]["lag_records"] == 0
    });
    assert_eq!((&status["ready"], &status["version"]), (&true.into(), &version().into()));
    assert_eq!(status["events"]["accepted"], 3);
    assert_eq!(status["events"]["duplicates"], 1);
    assert!(status["events"]["accepted_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
    assert_eq!(
        status["sources"],
        serde_json::json!([
            { "name": "miibo", "duplicates": 0, "stale": 0, "answers": { "200": 2, "401": 1 } },
            { "name": "sonzai", "duplicates": 1, "stale": 0, "answers": { "200": 2 } },
        ])
    );
    assert_eq!(
        (&status["journal"]["count"], &status["known_events"]["now"]),
        (&3.into(), &4.into()),
        "one key of each event of miibo's, two of Sonzai's"
    );
    let [away, local] = [&status["brokers"][0], &status["brokers"][1]];
    assert_eq!((&away["name"], &away["type"]), (&"away".into(), &"nats".into()));
    assert_eq!((&away["lag_records"], &away["confirmed"]), (&3.into(), &0.into()));
    assert!(away["oldest_waiting_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!((&local["state"], &local["confirmed"]), (&"connected".into(), &3.into()));

    let (code, text) = daemon.command(&["status"]);
    assert_eq!(code.code(), Some(0), "{text}");
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or(&text);
    assert!(line("waypost ").contains("is ready"), "{text}");
    assert!(line("events in").contains("; 3 since the start"), "{text}");
    assert!(line("miibo").ends_with("1 x 401"), "{text}");
    assert!(line("away").contains("nats") && line("away").contains("DOWN"), "{text}");
    assert!(line("local").contains("connected"), "{text}");
    assert!(text.contains("Connection refused") && !text.contains("hunter2"), "{text}");
    assert!(!text.contains("unrouted"), "nothing came its way: {text}");
    let (code, text) = daemon.command(&["status", "--json"]);
    assert!(code.success() && !text.contains("hunter2"));
    let same: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(same["events"]["accepted"], 3);
}

/// `/api/status`, once it is as it must come to be.
#[track_caller]
fn await_status(daemon: &Daemon, come: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let started = Instant::now();
    loop {
        let (_, status) = json(daemon, "/api/status");
        if come(&status) {
            return status;
        }
        assert!(started.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[test]
fn without_a_daemon_or_with_the_wrong_address_it_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let fails = |arguments: &[&str], parts: &[&str]| {
        let (code, said) = daemon::command(dir.path(), &[&["status"], arguments].concat());
        assert_eq!(code.code(), Some(1), "{said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "`{part}` is missing: {said}"));
    };
    let hints = ["cannot reach", "`waypost run`", "--data-dir", "--admin-listen"];
    fails(&["--admin-listen", "127.0.0.1:9"], &hints);
    let daemon = Daemon::with_sources(dir.path(), ROUTES, &[]);
    // Senders' listener, not operators'.
    let listen = daemon.listen.to_string();
    fails(&["--admin-listen", &listen], &[&listen, "404", "admin listener"]);
    // Another daemon's answer is not what was asked for.
    fails(&["--data-dir", "elsewhere"], &["no daemon runs on the data directory elsewhere"]);
    let (code, said) =
        daemon.command(&["send", "--data-dir", "elsewhere", "--listen", "0.0.0.0:8080"]);
    assert!(!code.success() && said.contains("--url"), "{said}");
    // One that was killed leaves word of where it was.
    daemon.kill();
    fails(&[], &hints);
}
