//! What operators do about a broken disk: `waypost journal verify`, `skip` and `salvage`, as they meet
//! them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{
    command::{assert_fails, waypost, waypost_reading},
    daemon::{Daemon, SOURCES},
    faults::{Fault, Faults, READS},
    kept::{eventually, logged, wait_for_logged},
    operator::{ask, await_metrics},
    outage::{self, LIVE, LOCAL, Outage, Plan},
    raw::{self, Raw},
    segments, sender,
};

/// Everything is owed to a broker that is there and to one that never is.
const AWAY: &str = r#"
brokers:
  local: { type: log }
  away: { type: nats, url: "nats://127.0.0.1:9" }
routes:
  - name: all
    match: { type: "**" }
    to: [{ broker: local, topic: all }, { broker: away, subject: all }]
"#;

/// How many events these are about.
const EVENTS: usize = 5;

/// A daemon that has taken some events.
fn with_events(dir: &Path) -> (Daemon, Vec<String>) {
    let daemon = Daemon::with_sources(dir, AWAY, &[]);
    for n in 0..EVENTS {
        let webhook = sender::miibo(format!(r#"{{"webhookType":"user_utterance","n":{n}}}"#));
        assert_eq!(Raw::connect(daemon.listen).ask(raw::request(&webhook)).status, 200);
    }
    let segment = fs::read(segment_of(dir)).expect("a segment");
    let ids = segments::records(&segment).into_iter().map(|found| found.id).collect();
    (daemon, ids)
}

/// The one segment of its journal.
fn segment_of(dir: &Path) -> PathBuf {
    let mut segments = segments::files(&dir.join("data/journal"), "seg");
    assert_eq!(segments.len(), 1);
    segments.remove(0)
}

/// Everything below a directory, with its length.
fn tree(dir: &Path) -> BTreeSet<(PathBuf, u64)> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(tree(&path));
        } else {
            let len = fs::metadata(&path).expect("a file").len();
            all.insert((path, len));
        }
    }
    all
}

#[test]
fn verify_reads_everything_beside_a_daemon_and_finds_what_is_damaged() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let verify = |further: &[&str]| waypost(dir, &[&["journal", "verify"], further].concat(), &[]);
    assert_fails(&verify(&[]), &["no daemon has run in data", "--data-dir"]);

    let (daemon, ids) = with_events(dir);
    assert_eq!(ids.len(), EVENTS);
    let intact = verify(&[]);
    assert_eq!((intact.code, &*intact.err), (Some(0), ""), "{intact:?}");
    assert!(intact.out.contains("nothing is damaged: 5 records"), "{intact:?}");
    daemon.kill();

    let path = segment_of(dir);
    let mut bytes = fs::read(&path).expect("a segment");
    let third = segments::records(&bytes).swap_remove(2);
    bytes[third.bytes.end - 1] ^= 1;
    fs::write(&path, bytes).expect("to damage it");
    let before = tree(&dir.join("data"));
    let damaged = verify(&[]);
    assert_eq!(damaged.code, Some(1), "{damaged:?}");
    let place = format!("at {}, {} bytes", third.bytes.start, third.bytes.len());
    let file = path.strip_prefix(dir).expect("a path").display().to_string();
    for part in [&*file, &place, "up to 1 records", "damaged", "1 findings", "docs/journal.md"] {
        assert!(damaged.out.contains(part), "{part}: {damaged:?}");
    }
    let json = verify(&["--json"]);
    assert_eq!(json.code, Some(1), "{json:?}");
    let lines: Vec<serde_json::Value> =
        json.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (found, journals): (Vec<_>, Vec<_>) =
        lines.iter().partition(|line| line["file"].is_string());
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["records"], &found[0]["read_error"]), (&1.into(), &false.into()));
    let main = journals.iter().find(|line| line["journal"] == "journal").expect("the main one");
    assert_eq!((&main["records"], &main["findings"]), (&4.into(), &1.into()));
    assert_eq!(tree(&dir.join("data")), before, "looking changes nothing");
}

#[test]
fn skip_and_salvage_say_what_they_want() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let no_daemon = ["no daemon is ready on the data directory data", "`waypost run`"];
    assert_fails(&waypost(dir, &["journal", "skip"], &[]), &no_daemon);

    let (daemon, _) = with_events(dir);
    let skip = waypost(dir, &["journal", "skip"], &[]);
    assert_eq!(skip.code, Some(0), "{skip:?}");
    assert!(skip.out.contains("there is nothing to skip"), "{skip:?}");
    // Nobody does either without the token.
    for page in ["/api/journal/skip", "/api/journal/salvage"] {
        assert_eq!(ask(&daemon, "POST", page, &["content-length: 0"]).status, 401);
        assert_eq!(ask(&daemon, "GET", page, &[]).status, 405);
    }

    let salvage = |file: &str| waypost(dir, &["journal", "salvage", file], &[]);
    assert_fails(&salvage("none.seg"), &["none.seg", "No such file", "FILE is a .seg file"]);
    assert_fails(&salvage("routes.yaml"), &["routes.yaml is no segment of a journal"]);
    let letters = segments::files(&dir.join("data/dead-letters"), "seg");
    let letters = letters[0].display().to_string();
    assert_fails(&salvage(&letters), &["nothing of it is to be sent", "dead-letters list"]);
    // Nothing says what of it was lost.
    let file = segment_of(dir).display().to_string();
    assert_fails(&salvage(&file), &["5 records", "with --all"].map(|_| "with --all"));
    let all = waypost(dir, &["journal", "salvage", "--all", &file], &[]);
    assert_eq!(all.code, Some(0), "{all:?}");
    assert!(all.out.contains("0 sent, 5 known already, 0 not taken"), "{all:?}");
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_daemon_left_is_sent_once_to_the_brokers_that_there_are() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (daemon, ids) = with_events(elsewhere.path());
    daemon.kill();
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let copy = dir.join(segment_of(elsewhere.path()).file_name().expect("a name"));
    fs::copy(segment_of(elsewhere.path()), &copy).expect("a copy");
    let copy = copy.display().to_string();

    let routes = |name: &str| {
        format!(
            "{SOURCES}\nbrokers:\n  {name}: {{ type: log }}\nroutes:\n  - name: all\n    \
             match: {{ type: \"**\" }}\n    to: [{{ broker: {name}, topic: elsewhere }}]\n"
        )
    };
    let daemon = Daemon::start(dir, &routes("local"), &[]);
    let salvage = |further: &[&str]| {
        waypost(dir, &[&["journal", "salvage", "--all", &copy], further].concat(), &[])
    };
    let dry = salvage(&["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    for part in
        ["5 records to send", "5  miibo.user_utterance to local", "5  miibo.user_utterance to away"]
    {
        assert!(dry.out.contains(part), "{part}: {dry:?}");
    }
    assert!(!dry.out.contains("sent,"), "{dry:?}");
    let sent = salvage(&[]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.out.contains("5 sent, 0 known already, 0 not taken"), "{sent:?}");
    // By the route that was in force when they were received, and in order.
    wait_for_logged(dir, "all", EVENTS).await;
    assert_eq!(logged(dir, "all"), ids);
    let again = salvage(&[]);
    assert!(again.out.contains("0 sent, 5 known already"), "{again:?}");
    assert!(daemon.stop().success());
    let daemon = Daemon::start(dir, &routes("local"), &[]);
    let again = salvage(&[]);
    assert!(again.out.contains("0 sent, 5 known already"), "after a restart: {again:?}");
    assert!(daemon.stop().success());
    assert_eq!(logged(dir, "all"), ids);

    fs::remove_dir_all(dir.join("data")).expect("to begin anew");
    let daemon = Daemon::start(dir, &routes("other"), &[]);
    let nobody = salvage(&[]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.out.contains("0 sent, 0 known already, 5 not taken"), "{nobody:?}");
    assert!(nobody.out.contains("no such broker in routes.yaml: away, local"), "{nobody:?}");
    assert!(daemon.stop().success());
}

/// The disk is full for a while.
#[test]
fn where_there_is_no_room_salvage_waits_until_there_is() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let (daemon, _) = with_events(elsewhere.path());
    daemon.kill();
    let file = segment_of(elsewhere.path()).display().to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/journal"));
    let daemon = Daemon::with_sources(dir.path(), AWAY, &faults.settings());
    faults.arm(Fault::Full);
    let (salvaged, waits) = std::thread::scope(|scope| {
        let salvage =
            scope.spawn(|| waypost(dir.path(), &["journal", "salvage", "--all", &file], &[]));
        await_metrics(&daemon, "a refusal", |scrape| {
            scrape.get(r#"waypost_journal_refused_appends_total{reason="disk_full"}"#) > 0.0
        });
        let waits = !salvage.is_finished();
        faults.disarm(Fault::Full);
        (salvage.join().expect("an outcome"), waits)
    });
    assert!(waits, "{salvaged:?}");
    assert_eq!(salvaged.code, Some(0), "{salvaged:?}");
    assert!(salvaged.out.contains("5 sent, 0 known already, 0 not taken"), "{salvaged:?}");
    assert!(daemon.stop().success());
}

/// Several small segments, so that there are closed ones, and nothing of them in memory.
const PLAN: Plan = Plan {
    settings: &[
        ("WAYPOST_JOURNAL__SEGMENT_BYTES", "65536"),
        ("WAYPOST_JOURNAL__TAIL_BYTES", "1000"),
        ("WAYPOST_JOURNAL__READ_PATIENCE", "2s"),
    ],
    had: 5,
    waiting: 300,
    padding: 900,
    connections: 1,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_cannot_read_is_skipped_when_asked_twice_and_salvaged_once_it_can() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data"));
    let settings = [&faults.settings()[..], &[READS]].concat();
    let (mut outage, daemon) = Outage::begin(PLAN, &settings, dir).await;
    let dir = outage.dir.path().to_owned();
    let path = segments::files(&dir.join("data/journal"), "seg")[2].clone();
    let name = path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
    let block = 12288..16384_usize;
    let records = segments::records(&fs::read(&path).expect("a segment")).into_iter();
    let touched = records.filter(|its| its.bytes.start < block.end && block.start < its.bytes.end);
    let touched: Vec<String> = touched.map(|found| found.id).collect();
    assert!(touched.len() > 2);
    faults.make_unreadable(&[(&name, block.start as u64..block.end as u64)]);
    outage.nats.restart();
    await_metrics(&daemon, "a region that cannot be read", |scrape| {
        scrape.get("waypost_journal_unreadable_regions") > 0.0
    });
    // The broker has met all of it once it went on behind it.
    let confirmed = outage::series("waypost_broker_confirmed_total", LIVE);
    let others = (outage.events.len() - touched.len()) as f64;
    await_metrics(&daemon, "what is behind goes out", |scrape| scrape.get(&confirmed) == others);
    let (code, text) = daemon.command(&["status"]);
    assert_eq!(code.code(), Some(1), "{text}");
    for part in ["cannot be read", &name, "waypost journal skip"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // Who does not mean it changes nothing.
    let skip = |typed: &str| waypost_reading(&dir, &["journal", "skip"], &[], typed.as_bytes());
    for typed in ["", "no\n", "yes\n", "yes\nyes\n"] {
        let outcome = skip(typed);
        assert_eq!(outcome.code, Some(1), "{typed:?}: {outcome:?}");
        assert!(outcome.out.contains("nothing was skipped"), "{typed:?}: {outcome:?}");
    }
    let shown = skip("no\n").out;
    let number = shown.split("up to ").nth(1).and_then(|rest| rest.split(' ').next());
    let outcome = skip(&format!("yes\n{}\n", number.expect("a number of records")));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.out.contains("regions were skipped"), "{outcome:?}");
    outage::await_nothing_waits(&daemon, LIVE);
    let lost = outage::series("waypost_broker_lost_records_total", LIVE);
    let scrape =
        await_metrics(&daemon, "the records are counted", |scrape| scrape.get(&lost) > 0.0);
    assert!(scrape.get(&lost) as usize >= touched.len());
    assert_eq!(scrape.get(&outage::series("waypost_broker_lost_records_total", LOCAL)), 0.0);
    let regions = scrape.nonzero("waypost_journal_damaged_regions_total")[0].1 as usize;
    eventually("dead letters tell", || outage::damage_told(&dir).len() == regions).await;
    let (code, text) = daemon.command(&["status"]);
    assert_eq!(code.code(), Some(1), "{text}");
    assert!(text.contains("damaged") && text.contains("RECORDS WERE LOST"), "{text}");

    faults.make_readable();
    let quarantine = dir.join("data/journal/quarantine");
    eventually("it is kept", || !segments::files(&quarantine, "seg").is_empty()).await;
    let kept = segments::files(&quarantine, "seg")[0].display().to_string();
    let salvage =
        |further: &[&str]| waypost(&dir, &[&["journal", "salvage", &kept], further].concat(), &[]);
    let dry = salvage(&["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(dry.out.contains(&format!("{} records to send", touched.len())), "{dry:?}");
    let sent = salvage(&[]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(sent.out.contains(&format!("{} sent, 0 known", touched.len())), "{sent:?}");
    let all = outage.events.iter().map(|(id, _)| &**id);
    let delivered = outage.delivered_all(all.clone()).await;
    assert!(all.clone().all(|id| delivered.contains(id)), "nothing is missing after all");
    let again = salvage(&[]);
    assert!(again.out.contains(&format!("0 sent, {} known", touched.len())), "{again:?}");
    assert!(daemon.stop().success());
}
