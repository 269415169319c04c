//! A crash at each step of a reload loses nothing: the process is killed at the first, the second, the
//! third … operation on its data directory after the reload was asked for, until it gets through.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{event, hash, in_force, replace, with};
use crate::common::{
    daemon::{self, Daemon},
    faults::{Faults, STEPS},
    kept, operator,
    raw::{self, Raw},
    variable::number,
};

/// Steps between two kills; `WAYPOST_RELOAD_STEP` 1 kills at every one.
const STRIDE: u64 = 4;

/// `kept` stays, `old` goes, `new` comes, `changed` goes on elsewhere, and `retyped`, a NATS server that
/// never answers, is files from then on; each writes to a directory of its own.
fn table(which: &str) -> String {
    let log = |name: &str, dir: &str| format!("{name}: {{ type: log, dir: out/{dir} }}");
    let (retyped, target) = match which {
        "old" => (r#"retyped: { type: nats, url: "nats://127.0.0.1:1" }"#.to_owned(), "subject"),
        _ => (log("retyped", "retyped"), "topic"),
    };
    let changed = log("changed", &format!("changed-{which}"));
    let brokers = [log("kept", "kept"), log(which, which), changed, retyped].join(", ");
    let to = |name: &str, target: &str| format!("{{ broker: {name}, {target}: all }}");
    let targets =
        [to("kept", "topic"), to(which, "topic"), to("changed", "topic"), to("retyped", target)];
    with(&brokers, &targets.join(", "))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_each_step_of_a_reload_loses_nothing() {
    let (before, after) = (table("old"), table("new"));
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data"));
    let settings = [&faults.settings()[..], &[STEPS]].concat();
    let file = dir.path().join("routes.yaml");
    let ledger = Mutex::new(BTreeSet::new());
    let stride = number("WAYPOST_RELOAD_STEP", STRIDE);
    let (mut kills, mut step) = (0, 1);
    loop {
        let daemon = Daemon::start(dir.path(), &before, &settings);
        assert_eq!(in_force(&daemon), hash(&before));
        let done = AtomicBool::new(false);
        let killed = std::thread::scope(|scope| {
            scope.spawn(|| post_until(&daemon, &ledger, &done));
            faults.kill_at_step(step);
            replace(&file, &after);
            let (reloaded, output) = daemon::command(dir.path(), &["reload"]);
            done.store(true, Relaxed);
            faults.forget_steps();
            println!("step {step}: {}", output.lines().next().unwrap_or_default());
            // It may also have been killed just after it had said that it was through.
            !reloaded.success() || Raw::try_connect(daemon.admin_listen).is_err()
        });
        if !killed {
            assert_eq!(in_force(&daemon), hash(&after));
            assert!(daemon.stop().success());
            break;
        }
        assert!(!daemon.ended().success());
        (kills, step) = (kills + 1, step + stride);
    }
    println!("killed {kills} times, through after step {step}");
    assert!(kills > 3, "the test is worth something only if it killed");
    let accepted = ledger.into_inner().expect("the ledger");

    let daemon = Daemon::start(dir.path(), &after, &[]);
    let output = dir.path().join("out");
    let logged = |broker: &str| -> BTreeSet<String> {
        kept::logged_in(&output.join(broker), "all").into_iter().collect()
    };
    kept::eventually("all is where it stays", || accepted.is_subset(&logged("kept"))).await;
    let is_in_one_of = |dirs: [&str; 2]| {
        let found = dirs.into_iter().flat_map(logged).collect();
        accepted.is_subset(&found)
    };
    let changed = ["changed-old", "changed-new"];
    kept::eventually("all is where it was to be changed", || is_in_one_of(changed)).await;
    // What is owed after a crash to a broker that is in the file no more is a dead letter, and so is what
    // was for one of another type.
    for brokers in [["old", "new"], ["retyped"; 2]] {
        kept::eventually("all is where it was to go, or a dead letter", || {
            let letters = kept::dead_letters(dir.path()).into_iter();
            let letters = letters.filter(|letter| brokers.contains(&&*letter.broker));
            let mut found: BTreeSet<String> = letters.map(|letter| letter.id).collect();
            found.extend(brokers.into_iter().flat_map(logged));
            accepted.is_subset(&found)
        })
        .await;
    }
    operator::await_metrics(&daemon, "the end of the old", |scrape| {
        !scrape.text.contains("broker=\"old\"")
    });
    assert!(daemon.stop().success());
}

/// Posts events until told or until the daemon is gone; what is accepted goes into the ledger.
fn post_until(daemon: &Daemon, ledger: &Mutex<BTreeSet<String>>, done: &AtomicBool) {
    let mut n = 0;
    while !done.load(Relaxed) {
        n += 1;
        let Ok(mut raw) = Raw::try_connect(daemon.listen) else { return };
        let Ok(()) = raw.try_say(raw::request(&event(n))) else { return };
        let Some(answer) = raw.hear() else { return };
        if answer.status == 200 {
            let id = answer.header("waypost-event-id").expect("an id").to_owned();
            ledger.lock().expect("the ledger").insert(id);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}
