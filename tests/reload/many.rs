//! Many reloads under load: nothing is refused, lost or doubled, and nothing piles up.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{BROKEN, attempts, eventually, hash, in_force, replace};
use crate::common::{
    daemon::Daemon,
    kept, operator,
    sender::{self, Load},
    variable::number,
};

/// `WAYPOST_RELOADS` raises it.
const RELOADS: u64 = 40;

/// After so many, everything that is made once has been made.
const WARM: u64 = 15;

/// The n-th table: one broker stays, one has other settings each time, one comes, goes and comes back,
/// and a route moves between the last two; the secrets change, the valid one is always among them.
fn table(n: u64) -> String {
    let guest = n % 3;
    let second = if n.is_multiple_of(2) { "changing" } else { "stays" };
    format!(
        r#"
sources:
  miibo: {{ type: miibo, path: /hooks/miibo, secret: ["${{MIIBO_SECRET}}", "another-secret-{n}-of-many"] }}
brokers:
  stays: {{ type: log, dir: out/stays }}
  changing: {{ type: log, dir: out/changing, keep: {n}, retry: {{ for: {n}s }} }}
  guest-{guest}: {{ type: log, dir: out/guest-{guest} }}
routes:
  - {{ name: all, match: {{ type: "**" }}, to: [{{ broker: stays, topic: all }}, {{ broker: changing, topic: all }}] }}
  - {{ name: moves-{n}, match: {{ type: "**" }}, to: [{{ broker: {second}, topic: moves }}] }}
  - {{ name: guests, match: {{ type: "**" }}, to: [{{ broker: guest-{guest}, topic: all }}] }}
"#
    )
}

/// What a process holds that could pile up.
#[derive(Debug)]
struct Held {
    threads: usize,
    descriptors: usize,
    memory_bytes: f64,
}

fn held(daemon: &Daemon) -> Held {
    let count = |what: &str| {
        fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).expect("a process").count()
    };
    let scrape = operator::Scrape::of(daemon);
    let memory_bytes = scrape.get("process_resident_memory_bytes");
    Held { threads: count("task"), descriptors: count("fd"), memory_bytes }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_reloads_under_load_refuse_lose_and_double_nothing_and_pile_nothing_up() {
    let reloads = number("WAYPOST_RELOADS", RELOADS);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("routes.yaml");
    let small = [
        ("WAYPOST_JOURNAL__SEGMENT_BYTES", "1048576"),
        // The newest records would fill it up meanwhile.
        ("WAYPOST_JOURNAL__TAIL_BYTES", "1048576"),
    ];
    let daemon = Daemon::start(dir.path(), &table(0), &small);
    let load =
        Load::start_paced(4, Arc::new(Mutex::new(daemon.listen)), Duration::from_millis(5), |n| {
            sender::miibo(format!("{{\"n\":{n}}}"))
        });
    let mut warm = None;
    for n in 1..=reloads {
        load.accept_more(4).await;
        if n.is_multiple_of(5) {
            let rejected = attempts(&daemon, "rejected");
            replace(&file, BROKEN);
            eventually("it is rejected", || attempts(&daemon, "rejected") > rejected);
        }
        replace(&file, &table(n));
        eventually("it is in force", || in_force(&daemon) == hash(&table(n)));
        if n == WARM {
            await_guest(&daemon).await;
            warm = Some(held(&daemon));
        }
    }
    load.accept_more(20).await;
    assert_eq!(load.refused(), 0, "no request is refused");
    let accepted = load.stop().await;
    await_guest(&daemon).await;
    let cold = held(&daemon);
    println!("{reloads} reloads, {} accepted; {warm:?}, then {cold:?}", accepted.len());
    if let Some(warm) = warm {
        // The runtime's threads for what blocks, and the connections of the load, come and go.
        assert!(cold.threads <= warm.threads + 8, "{warm:?}, then {cold:?}");
        assert!(cold.descriptors <= warm.descriptors + 8, "{warm:?}, then {cold:?}");
        assert!(cold.memory_bytes < warm.memory_bytes * 1.5, "{warm:?}, then {cold:?}");
    }
    assert!(daemon.stop().success());
    assert_each_once(dir.path(), &accepted);
}

/// Waits until of the brokers that come and go only the present one is left.
async fn await_guest(daemon: &Daemon) {
    let brokers = || operator::json(daemon, "/api/status").1["brokers"].as_array().map(Vec::len);
    kept::eventually("only the present brokers are left", || brokers() == Some(4)).await;
}

fn assert_each_once(dir: &Path, accepted: &[String]) {
    let expected: BTreeSet<&String> = accepted.iter().collect();
    let logged = |broker: &str, topic: &str| kept::logged_in(&dir.join("out").join(broker), topic);
    let guests = (0..3).flat_map(|guest| logged(&format!("guest-{guest}"), "all"));
    let moved = ["stays", "changing"].into_iter().flat_map(|broker| logged(broker, "moves"));
    for (what, ids) in [
        ("stays", logged("stays", "all")),
        ("changing", logged("changing", "all")),
        ("guests", guests.collect()),
        ("moved", moved.collect()),
    ] {
        let mut counts = BTreeMap::<&String, usize>::new();
        ids.iter().for_each(|id| *counts.entry(id).or_default() += 1);
        let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{what}: {twice:?}");
        assert_eq!(counts.into_keys().collect::<BTreeSet<_>>(), expected, "{what}");
    }
    assert_eq!(kept::dead_letters(dir), []);
}
