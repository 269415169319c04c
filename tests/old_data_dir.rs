//! A data directory of the format before is opened and drained; and what is written in that format
//! can be read by the version that knew no other.
//!
//! `tests/vectors/data-dir-v1.tar.gz` is the data directory of a daemon of that version that was
//! killed: closed segments and the key files of released ones, a broker that had got a part, one that
//! was away and has messages parked and others in the journal, and dead letters. The JSON beside it
//! says what it holds.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tempfile::TempDir;

use crate::common::{
    brokers::Nats,
    consume,
    daemon::Daemon,
    kept::{dead_letters, eventually, logged},
    operator::{Scrape, await_metrics},
    outage::{await_nothing_waits, series},
    segments,
    sender::{self, Webhook},
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const SECRET: &str = "whsec_a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=";

/// The directory's keys are as old as it is.
const REMEMBER: (&str, &str) = ("WAYPOST_DEDUPE__WINDOW", "1000000h");

/// What the directory holds: ids of events, each list in the order in which they were sent.
#[derive(Deserialize)]
struct Holds {
    /// Owed to the broker that had got some.
    live: Vec<String>,
    /// Owed to the broker that was away, and of those the first ones, which are parked.
    away: Vec<String>,
    parked: Vec<String>,
    /// Published, every one.
    local: Vec<String>,
    dead_letters: Vec<String>,
    /// Everything that was ever accepted.
    known: Vec<String>,
}

/// Its broker of the name is reached there; both have one stream.
fn routes(live: &Nats, away: &Nats) -> String {
    let (live, away) = (live.url(), away.url());
    format!(
        r#"
sources:
  shop: {{ type: standard, path: "/hooks/shop/{{type}}", secret: "{SECRET}" }}
brokers:
  live: {{ type: nats, url: "{live}" }}
  away: {{ type: nats, url: "{away}" }}
  local: {{ type: log }}
routes:
  - {{ name: live, match: {{ type: a.event }}, to: [{{ broker: live, subject: "kept.live" }}] }}
  - {{ name: away, match: {{ type: b.event }}, to: [{{ broker: away, subject: "kept.away" }}] }}
  - {{ name: local, match: {{ type: c.event }}, to: [{{ broker: local, topic: kept }}] }}
"#
    )
}

async fn broker() -> Nats {
    let nats = Nats::start();
    let subjects = vec!["kept.>".to_owned()];
    let config = async_nats::jetstream::stream::Config {
        name: "kept".to_owned(),
        subjects,
        ..Default::default()
    };
    consume::create_stream(nats.url(), config).await;
    nats
}

/// The body of the event of this id, `b-17` for one.
fn body(id: &str) -> String {
    let number: u8 = id[2..].parse().expect("a number");
    let padding = char::from(b'a' + number % 26).to_string().repeat(300);
    format!(r#"{{"number": {number}, "padding": "{padding}"}}"#)
}

/// The event of this id, signed now.
fn webhook(id: &str) -> Webhook {
    let (now, body) = (sender::now_s(), body(id));
    let library = standardwebhooks::Webhook::new(SECRET).expect("a secret");
    let signature = library.sign(id, now as i64, body.as_bytes()).expect("a signature");
    let header = |part: &str, value: String| (format!("webhook-{part}"), value);
    Webhook {
        path: format!("/hooks/shop/{}.event", &id[..1]),
        headers: vec![
            header("id", id.to_owned()),
            header("timestamp", now.to_string()),
            header("signature", signature),
            ("content-type".to_owned(), "application/json".to_owned()),
        ],
        body: body.into(),
    }
}

/// The directory of a daemon of the version before, and what it holds.
fn unpacked() -> (TempDir, Holds) {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let dir = tempfile::tempdir().expect("a directory");
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(vectors.join("data-dir-v1.tar.gz")).arg("-C").arg(dir.path());
    assert!(tar.status().expect("to run tar").success());
    let holds = fs::read(vectors.join("data-dir-v1.json")).expect("what it holds");
    (dir, serde_json::from_slice(&holds).expect("what it holds"))
}

/// Whether an event is taken; its id says to which broker it goes.
async fn is_taken(daemon: &Daemon, id: &str) -> bool {
    let answer = sender::post(daemon.listen, &webhook(id)).await.expect("an answer");
    assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
    assert!(answer.status == 503 || answer.event_id.as_deref() == Some(id), "{answer:?}");
    answer.status == 200
}

/// A broker has these events, whole and in this order.
async fn assert_has(nats: &Nats, expected: &[String]) {
    let messages = consume::read_stream(nats.url(), "kept", expected.len()).await;
    let ids: Vec<&str> = messages.iter().map(|m| m.header("ce-id").expect("an id")).collect();
    assert_eq!(ids, expected);
    for (message, id) in messages.iter().zip(expected) {
        assert_eq!(message.body.as_deref(), Some(body(id).as_bytes()), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_the_version_before_is_opened_and_drained() {
    let (dir, holds) = unpacked();
    assert!(!holds.parked.is_empty() && holds.parked.len() < holds.away.len());
    let (live, away) = (broker().await, broker().await);
    let daemon = Daemon::start(dir.path(), &routes(&live, &away), &[REMEMBER]);
    assert_has(&live, &holds.live).await;
    assert_has(&away, &holds.away).await;
    assert_eq!(logged(dir.path(), "kept"), holds.local, "nothing is published again");
    let letters: Vec<String> = dead_letters(dir.path()).into_iter().map(|l| l.id).collect();
    assert_eq!(letters, holds.dead_letters);
    await_nothing_waits(&daemon, "live");

    let duplicates = |scrape: &Scrape| scrape.get("waypost_duplicates_total{source=\"shop\"}");
    for (before, id) in holds.known.iter().enumerate() {
        assert!(is_taken(&daemon, id).await);
        assert_eq!(duplicates(&Scrape::of(&daemon)), (before + 1) as f64, "{id} is known");
    }
    assert!(is_taken(&daemon, "a-200").await);
    assert_has(&live, &[&*holds.live, &["a-200".to_owned()]].concat()).await;
    assert_has(&away, &holds.away).await;

    // Nothing of it is lost or done again at the next start either.
    assert!(daemon.stop().success());
    let daemon = Daemon::start(dir.path(), &routes(&live, &away), &[REMEMBER]);
    let scrape = await_nothing_waits(&daemon, "live");
    for broker in ["live", "away", "local"] {
        assert_eq!(scrape.get(&series("waypost_broker_confirmed_total", broker)), 0.0, "{broker}");
    }
    assert!(!daemon.log().contains("damaged"));
    assert!(daemon.stop().success());
}

/// Small segments, of which many are closed and released, and little room for who is away.
const WAY_BACK: [(&str, &str); 4] = [
    ("WAYPOST_JOURNAL__WRITE_VERSION", "1"),
    ("WAYPOST_JOURNAL__SEGMENT_BYTES", "12000"),
    ("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES", "30000"),
    REMEMBER,
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_for_the_way_back_is_of_the_format_before() {
    let fresh = tempfile::tempdir().expect("a directory");
    for dir in [fresh, unpacked().0] {
        let (live, mut away) = (broker().await, broker().await);
        away.kill();
        let routes = routes(&live, &away);
        let start = || Daemon::start(dir.path(), &routes, &WAY_BACK);
        let daemon = start();
        let mut taken = BTreeSet::new();
        for kind in ["a", "c", "x"] {
            for n in 100..140 {
                let id = format!("{kind}-{n}");
                // What is older may be all that its broker may hold back for a moment.
                let started = Instant::now();
                while !is_taken(&daemon, &id).await {
                    assert!(started.elapsed() < PATIENCE, "{id} is not taken");
                }
                taken.insert(id);
            }
        }
        // Until what waits for who is away was parked, and that is all it may have.
        for n in 100..250 {
            let id = format!("b-{n}");
            if !is_taken(&daemon, &id).await {
                break;
            }
            taken.insert(id);
        }
        await_metrics(&daemon, "a broker with parked messages", |scrape| {
            scrape.get(&series("waypost_broker_parked_messages", "away")) > 0.0
        });
        await_nothing_waits(&daemon, "live");
        eventually("dead letters of what no route took", || {
            dead_letters(dir.path()).iter().filter(|letter| taken.contains(&letter.id)).count()
                == 40
        })
        .await;
        daemon.kill();
        assert_format_before(&dir.path().join("data"));

        // What an end leaves, and what a start makes of it, is so, too.
        assert!(start().stop().success());
        assert_format_before(&dir.path().join("data"));
        away.restart();
        let daemon = start();
        let wanted: BTreeSet<String> =
            taken.iter().filter(|id| id.starts_with('b')).cloned().collect();
        let messages = consume::read_stream(away.url(), "kept", &wanted).await;
        let ids: BTreeSet<&str> = messages.iter().map(|m| m.header("ce-id").expect("id")).collect();
        assert!(wanted.iter().all(|id| ids.contains(&**id)));
        assert!(daemon.stop().success());
        assert_format_before(&dir.path().join("data"));
    }
}

/// All that is below a data directory says that it is of version 1, and a reader who knows nothing
/// else finds one record after the other.
fn assert_format_before(data: &Path) {
    let mut found = BTreeSet::new();
    let mut dirs = vec![data.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let bytes = fs::read(&path).expect("a file");
            let Some(magic) = bytes.get(..8).filter(|bytes| bytes.starts_with(b"WP")) else {
                continue;
            };
            let magic = std::str::from_utf8(magic).expect("a magic word").to_owned();
            // Of a cursor there are two copies, and one may never have been written.
            let copies: &[usize] = if magic == "WPCURSOR" { &[0, 4096] } else { &[0] };
            for copy in copies.iter().filter(|copy| bytes[**copy] != 0) {
                let version = bytes[copy + 8..].first_chunk().expect("a version");
                assert_eq!(u32::from_le_bytes(*version), 1, "{} at {copy}", path.display());
            }
            if magic == "WPSEGMNT" {
                segments::assert_records_alone(&path, &bytes);
            }
            found.insert(magic);
        }
    }
    // The version before does not look for an identity.
    let expected = ["WPCURSOR", "WPIDENTY", "WPKEYSET", "WPSEGMNT"].map(str::to_owned);
    assert_eq!(found, BTreeSet::from(expected), "nothing else is there");
}
