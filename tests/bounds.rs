//! Bounds that undo each other are refused with the arithmetic, and what all of them allow is told.

use std::time::{Duration, Instant};

use crate::common::{
    daemon::{Daemon, SOURCES},
    kept,
    operator::{Scrape, json},
    raw::{self, Raw},
    sender,
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that nobody answers for beside one that is well; the first one's events are `dead`.
fn routes(of_the_dead: &str) -> String {
    format!(
        r#"{SOURCES}
brokers:
  away: {{ type: nats, url: "nats://127.0.0.1:9"{of_the_dead} }}
  local: {{ type: log }}
routes:
  - {{ name: dead, match: {{ type: dead }}, to: [{{ broker: away, subject: dead }}] }}
  - {{ name: live, match: {{ otherwise: true }}, to: [{{ broker: local, topic: live }}] }}
"#
    )
}

const SMALL_JOURNAL: [(&str, &str); 2] =
    [("WAYPOST_JOURNAL__MAX_BYTES", "2000000"), ("WAYPOST_JOURNAL__SEGMENT_BYTES", "100000")];

#[test]
fn a_start_with_bounds_that_undo_each_other_says_what_to_write() {
    for (setting, parts) in [
        (
            ("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES", "50000000"),
            [
                "`dispatch.backlog_max_bytes` is 50000000",
                "`journal.max_bytes` is 2000000",
                "1800000",
            ],
        ),
        (
            ("WAYPOST_DEAD_LETTERS__MAX_BYTES", "1000000"),
            [
                "`dead_letters.max_bytes` is 1000000",
                "`ingress.max_body_bytes` is 2097152",
                "975424",
            ],
        ),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = [&SMALL_JOURNAL[..], &[setting]].concat();
        let (status, said) = Daemon::fails(dir.path(), &routes(""), &settings);
        assert_eq!(status.code(), Some(1), "{said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "`{part}` is missing: {said}"));
        assert!(!dir.path().join("data").exists(), "nothing was begun");
    }
}

/// Only what is parked goes by a broker's own bound; the journal is relieved of it all the same.
#[test]
fn a_broker_whose_own_backlog_is_larger_than_the_journal_fills_it_for_nobody() {
    const EVENTS: usize = 2500;
    let dir = tempfile::tempdir().expect("a directory");
    let routes = routes(", backlog: { max_bytes: 50MiB }");
    let daemon = Daemon::start(dir.path(), &routes, &SMALL_JOURNAL);
    let dead = sender::sonzai("dead", "{}");
    assert_eq!(Raw::connect(daemon.listen).ask(raw::request(&dead)).status, 200);
    let padding = "x".repeat(1500);
    let started = Instant::now();
    for n in 0..EVENTS {
        let webhook = sender::sonzai("live", format!(r#"{{"n":{n},"padding":"{padding}"}}"#));
        // A burst may be ahead of the relief, which looks once a second.
        while Raw::connect(daemon.listen).ask(raw::request(&webhook)).status != 200 {
            assert!(started.elapsed() < PATIENCE, "{n} were taken: {}", daemon.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let parked = Scrape::of(&daemon).get(r#"waypost_broker_parked_messages{broker="away"}"#);
    assert_eq!(parked, 1.0, "what waits for the other is set aside");
    assert!(daemon.stop().success());
    assert_eq!(kept::logged(dir.path(), "live").len(), EVENTS);
}

#[test]
fn what_the_data_directory_may_hold_is_told_and_so_is_a_disk_that_is_smaller() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = 1_u64 << 60;
    let settings = [("WAYPOST_JOURNAL__MAX_BYTES", &*journal.to_string())];
    let daemon = Daemon::start(dir.path(), &routes(", backlog: { max_bytes: 1MiB }"), &settings);
    let (_, status) = json(&daemon, "/api/status");
    let number = |name: &str| status["data_dir"][name].as_u64().expect("a number");
    // One has a bound of its own; the other and the built-in one have half of the journal.
    let headroom = 64 << 20;
    assert_eq!(number("parked_bytes"), (2 << 20) + 2 * journal + 3 * headroom);
    let all = ["journal", "parked", "dead_letters", "keys", "quarantine", "reserve", "commands"];
    let sum: u64 = all.iter().map(|part| number(&format!("{part}_bytes"))).sum();
    assert_eq!(number("limit_bytes"), sum);
    let metric = Scrape::of(&daemon).get("waypost_data_dir_limit_bytes");
    assert!((metric - sum as f64).abs() <= sum as f64 * 1e-9);
    let (_, said) = daemon.command(&["status"]);
    assert!(said.contains("data dir      up to "), "{said}");
    let log = daemon.log();
    let short = log.lines().find(|line| line.contains("the data directory may come to hold"));
    let short = short.expect("it is told at the start");
    for part in ["WARN", &format!("hold {sum} bytes"), "left", "journal.max_bytes"] {
        assert!(short.contains(part), "`{part}` is missing: {short}");
    }
    assert!(daemon.stop().success());
}
