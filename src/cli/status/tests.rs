use super::*;
use crate::admin::{HangStatus, Reason};

fn status() -> Status {
    let broker = |name: &str, kind: &str| {
        serde_json::json!({
            "name": name, "type": kind, "state": "connected", "since": "", "since_seconds": 7,
            "trouble": null, "lag_records": 0, "lag_bytes": 0, "oldest_waiting_seconds": 0.0,
            "in_flight": 3, "retrying": 0, "parked": 0, "parked_bytes": 0,
            "backlog_full": false, "confirmed": 5, "confirmed_per_second": 12.34,
            "dead_letters": 0,
        })
    };
    let mut down = broker("a-broker-with-a-long-name", "rabbitmq");
    for (field, value) in [
        ("state", "down".into()),
        ("since_seconds", 86_400.into()),
        ("trouble", "connection refused\u{1b}[2J".into()),
        ("lag_records", 1_234_567.into()),
        ("oldest_waiting_seconds", 7201.5.into()),
        ("parked", 12.into()),
        ("parked_bytes", (5 << 20).into()),
        ("retrying", 2.into()),
        ("dead_letters", 4.into()),
        ("backlog_full", true.into()),
    ] {
        down[field] = value;
    }
    let status = serde_json::json!({
        "version": "1.2.3", "pid": 42, "started": "", "uptime_seconds": 11_520, "ready": true,
        "reasons": [],
        "events": {
            "accepted": 120_034, "duplicates": 12, "accepted_per_second": 12.34,
            "rates_over_seconds": 59.9,
        },
        "sources": [
            { "name": "sonzai", "duplicates": 12, "stale": 1, "answers": { "200": 120_046, "401": 3, "503": 1 } },
            { "name": "miibo", "duplicates": 0, "stale": 0, "answers": {} },
        ],
        "unknown_paths": 2,
        "connections": { "now": 7, "max": 4096 },
        "body_bytes_in_flight": { "now": 2048, "max": 1 << 28 },
        "known_events": { "now": 120_034, "max": 1_000_000 },
        "journal": { "count": 9, "bytes": 1_258_291, "max_bytes": 8_u64 << 30 },
        "disk_left_bytes": 51_u64 << 30,
        "data_dir": {
            "limit_bytes": 36_u64 << 30, "journal_bytes": 8_u64 << 30, "parked_bytes": 26_u64 << 30,
            "dead_letters_bytes": 1 << 30, "keys_bytes": 1 << 30, "quarantine_bytes": 0,
            "reserve_bytes": 0, "commands_bytes": 0,
        },
        "dead_letters": { "count": 4, "bytes": 5000, "max_bytes": 1 << 30 },
        "brokers": [
            broker("stream", "kafka"), down, broker("unrouted", "unrouted"),
        ],
        "config": {
            "file": "routes.yaml", "hash": "0123456789ab", "since": "2026-01-02T03:04:05.678Z",
            "last_good": false, "problems": [], "restart_needed": [],
        },
    });
    serde_json::from_value(status).unwrap()
}

#[test]
fn everything_is_there_at_a_glance_within_eighty_columns() {
    let text = text(&status());
    let expected = "\
waypost 1.2.3 is ready, up 3h (pid 42)

events in     12.3 a second over the last 59s; 120034 since the start
connections   7 of 4096; 2.0 KiB of bodies in flight
journal       1.2 MiB of 8.0 GiB; 51.0 GiB left on the disk
data dir      up to 36.0 GiB: journal 8.0 GiB, parked 26.0 GiB, rest 2.0 GiB
dead letters  4; 4.9 KiB of 1.0 GiB
remembered    120034 of 1.0M keys of events
routes        0123456789ab since 2026-01-02T03:04:05.678Z

SOURCE             ACCEPTED  DUPLICATES   STALE  REFUSED
sonzai               120034          12       1  3 x 401, 1 x 503
miibo                     0           0       0  -
(and 2 requests on paths that no source has)

BROKER            TYPE      STATE               LAG  OLDEST    OUT/S  FLIGHT
stream            kafka     connected 7s          0       -     12.3       3
a-broker-with-a…  rabbitmq  DOWN 1d            1.2M      2h     12.3       3
    connection refused\\u{1b}[2J
    its backlog is full: events that it is owed are refused with 503
    12 parked (5.0 MiB)
    2 failed and are tried again
    4 dead letters since the start: see `waypost dead-letters list`
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn a_disk_that_does_not_answer_is_told_with_what_waits_for_it() {
    let mut status = status();
    status.hangs = [("main", 7.9), ("dead_letters", 130.0)]
        .map(|(journal, seconds)| HangStatus { journal: journal.to_owned(), seconds })
        .to_vec();
    let text = text(&status);
    for (what, waits) in [("main", "7s"), ("dead letters", "2m")] {
        let line = format!("    THE DISK DOES NOT ANSWER: {what} has waited for it for {waits}\n");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn a_poller_shows_its_pace_and_what_keeps_it() {
    let poll = serde_json::json!({
        "source": "sonzai", "whose": "project 1111", "mode": "fallback", "fast": true,
        "why": "deliveries_fail", "take": true, "listed": 1200, "appended": 7, "duplicates": 3,
        "taken": 9, "stuck": 2, "too_large": 1, "unreadable": 0, "hidden_lists": 1,
        "lists_in_trouble": 0, "agents": 0, "max_agents": 10_000, "agents_left_out": true,
        "deliveries_fail": true, "last_success": null, "oldest_pending_seconds": 130.5,
        "trouble": {
            "kind": "key_refused", "since": "", "since_seconds": 61, "words": "401\u{1b}[2J",
        },
    });
    let mut status = status();
    status.polls = vec![serde_json::from_value(poll).unwrap()];
    let text = text(&status);
    let expected = "
POLLED            PACE      LISTED       NEW     TAKEN   STUCK  OLDEST  WHOSE
sonzai            fast        1200         7         9       3      2m  project 1111
    NOT POLLED for 1m: 401\\u{1b}[2J
    the key in api.key is refused: put a valid one there
    fast, since deliveries fail: see `waypost sonzai webhooks attempts`
    2 durable here, and cannot be taken there
    1 larger than the journal takes: they stay where they are
    1 lists full of what stays pending: what is behind is out of sight
    only 10000 agents are polled, and there are more (sonzai.max_agents)
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn damage_and_what_cannot_be_read_are_told_with_what_to_do() {
    let mut status = status();
    assert!(!text(&status).contains("damage"));
    status.damage = serde_json::from_value(serde_json::json!({
        "damaged_regions": 3, "lost_regions": 0, "lost_records": 0,
        "kept": [
            { "dir": "data/journal", "files": 0, "bytes": 0,
              "max_bytes": 1 << 28 },
            { "dir": "data/parked/live/quarantine", "files": 2,
              "bytes": 2 << 20, "max_bytes": 1 << 28 },
        ],
        "unreadable": { "regions": 0, "records": 0, "some": [] },
    }))
    .unwrap();
    assert!(!status.damage.is_trouble());
    let expected = "
damage        3 damaged regions in the journals
    nothing was lost by them: all brokers had what they held
    kept in data/journal, and in its quarantine once it is done with
    kept in data/parked/live/quarantine (2 files, 2.0 MiB of 256.0 MiB): move them away to be done with it
";
    assert!(text(&status).contains(expected), "{}", text(&status));

    (status.damage.lost_regions, status.damage.lost_records) = (2, 14);
    status.brokers[1].lost_records = 14;
    assert!(status.damage.is_trouble());
    let lost = text(&status);
    assert!(lost.contains("RECORDS WERE LOST in 2:") && lost.contains("salvage"), "{lost}");
    assert!(lost.contains("    14 records were LOST to it since the start"), "{lost}");

    status.damage = serde_json::from_value(serde_json::json!({
        "damaged_regions": 0, "lost_regions": 0, "lost_records": 0, "kept": [],
        "unreadable": { "regions": 1, "records": 12, "some": [{
            "file": "data/journal/7.seg", "offset": 4096, "bytes": 8192,
            "records": 12, "for_seconds": 130, "error": "Input/output error\u{1b}[2J",
        }] },
    }))
    .unwrap();
    assert!(status.damage.is_trouble());
    let expected = "
unreadable    1 regions cannot be read, up to 12 records: nothing is lost yet, and they are tried again
    data/journal/7.seg at 4096, 8192 bytes, for 2m: Input/output error\\u{1b}[2J
    see to the disk; `waypost journal skip` gives up on what it never reads again
";
    assert!(text(&status).contains(expected), "{}", text(&status));
}

#[test]
fn why_it_is_not_ready_comes_first() {
    let reasons = vec![Reason::JournalFull, Reason::Draining];
    let text = text(&Status { ready: false, reasons, ..status() });
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("waypost 1.2.3 is NOT READY, up 3h (pid 42)"));
    assert!(lines.next().is_some_and(|line| line.contains("journal.max_bytes")));
    assert!(lines.next().is_some_and(|line| line.contains("told to stop")));
}

#[test]
fn a_command_shows_how_it_stands_and_what_it_waits_for() {
    assert!(!text(&status()).contains("COMMANDS"));
    let mut status = status();
    let command = |state: &str, trouble: Option<&str>| {
        serde_json::from_value(serde_json::json!({
            "name": "wakeups", "source": "sonzai", "broker": "live", "state": state,
            "since": "", "since_seconds": 720, "trouble": trouble, "taken": 9, "scheduled": 7,
            "duplicates": 1, "dead_letters": 1, "retries": 3,
        }))
        .unwrap()
    };
    let trouble = Some("the key is wrong\u{1b}[2J");
    status.commands = vec![command("ready", None), command("denied", trouble)];
    let text = text(&status);
    let expected = "
COMMANDS          BROKER            STATE            SCHEDULED  DUPLICATES
wakeups           live              ready 12m                7           1
    1 dead letters since the start: see `waypost dead-letters list`
wakeups           live              KEY REFUSED 12m          7           1
    the key is wrong\\u{1b}[2J
    1 dead letters since the start: see `waypost dead-letters list`
";
    assert!(text.ends_with(expected), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn a_bad_file_shows_with_its_place_and_what_is_in_force_instead() {
    let mut status = status();
    status.config.problems = vec!["routes.yaml:3:4: no\n 3 | x".to_owned()];
    (status.config.last_good, status.config.restart_needed) = (true, vec!["listen".to_owned()]);
    status.config.settings_problem = Some("waypost.toml: no\nmore".to_owned());
    let text = text(&status);
    let expected = "\
routes        0123456789ab since 2026-01-02T03:04:05.678Z
    the last good ones: the file was bad when the daemon started
    routes.yaml IS NOT IN FORCE: mend it and run `waypost reload`
    routes.yaml:3:4: no
     3 | x
    changed, and a restart is needed: listen
    the daemon could not start with the settings as they are now:
    waypost.toml: no
    more
";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn numbers_are_short() {
    let counts = [0, 999_999, 1_000_000, 12_345_678, 2_000_000_000].map(count);
    assert_eq!(counts, ["0", "999999", "1.0M", "12.3M", "2.0G"]);
    let sizes = [0, 512, 1 << 20, 1536 << 30, 1 << 60].map(size);
    assert_eq!(sizes, ["0.0 KiB", "0.5 KiB", "1.0 MiB", "1.5 TiB", "1048576.0 TiB"]);
    assert_eq!([0, 59, 60, 3599, 7200, 200_000].map(span), ["0s", "59s", "1m", "59m", "2h", "2d"]);
}
