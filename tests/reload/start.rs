//! A bad file at the start runs the last good one; without one there is no start.

use std::{fs, os::unix::fs::PermissionsExt, process::Child, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use super::{
    BROKEN, accepted, attempts, config, eventually, hash, reload, replace, to_topic, with,
};
use crate::common::{
    daemon::Daemon,
    faults::{Fault, Faults},
    log_files, operator,
};

#[test]
fn a_bad_file_at_the_start_runs_the_last_good_one_until_it_is_mended() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = to_topic("first");
    let daemon = Daemon::start(dir.path(), &good, &[]);
    let kept = daemon.data_dir().join("routes.last-good.yaml");
    assert_eq!(fs::read_to_string(&kept).expect("the last good one"), good, "unexpanded");
    assert_eq!(fs::metadata(&kept).expect("the file").permissions().mode() & 0o777, 0o600);
    assert!(daemon.stop().success());

    for bad in [BROKEN, ""] {
        let daemon = Daemon::start(dir.path(), bad, &[]);
        let facts = config(&daemon);
        assert_eq!(facts["in_force"]["hash"], hash(&good), "{facts}");
        assert_eq!(facts["in_force"]["last_good"], true, "{facts}");
        assert_eq!(facts["last_attempt"]["outcome"], "rejected", "{facts}");
        operator::Scrape::of(&daemon).assert(&[("waypost_config_last_reload_successful", 0.0)]);
        assert!(daemon.log().contains("the last good routing table is in force"));
        assert_eq!(fs::read_to_string(&kept).expect("the last good one"), good);
        // The file was told of as bad, and is so no second time when it is looked at.
        let settings = dir.path().join("waypost.toml");
        fs::write(&settings, "[log]\nlevel = 'warn'\n").expect("the settings");
        eventually("there was a look", || config(&daemon)["restart_needed"][0] == "log.level");
        assert_eq!(attempts(&daemon, "rejected"), 0.0);
        fs::remove_file(&settings).expect("to remove the settings");
        let id = accepted(&daemon, 1);
        let is_there = || log_files::read(&daemon.data_dir()).iter().any(|event| event.id == id);
        eventually("the last good table decides", is_there);
        // The daemon goes on watching.
        let mended = to_topic("mended");
        replace(&dir.path().join("routes.yaml"), &mended);
        eventually("the mended file is in force", || {
            let facts = config(&daemon);
            facts["in_force"]["hash"] == hash(&mended) && facts["in_force"]["last_good"] == false
        });
        replace(&dir.path().join("routes.yaml"), &good);
        eventually("the good file is in force", || super::in_force(&daemon) == hash(&good));
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_table_whose_brokers_cannot_be_built_is_no_good_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = to_topic("first");
    let daemon = Daemon::start(dir.path(), &good, &[]);
    assert!(daemon.stop().success());
    // What is parked for one cannot be opened: something is in its place.
    fs::write(dir.path().join("data/parked/other"), "").expect("a file");
    let text = with("other: { type: log }", "{ broker: other, topic: all }");
    let (status, log) = Daemon::fails(dir.path(), &text, &[]);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("parked/other"), "{log}");
    let kept = dir.path().join("data/routes.last-good.yaml");
    assert_eq!(fs::read_to_string(kept).expect("the last good one"), good);
}

#[test]
fn a_reload_on_a_full_disk_leaves_what_is_kept_for_a_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data"));
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &faults.settings());
    let reserve = dir.path().join("data/reserve");
    faults.arm_while_there_is(Fault::Full, &reserve);
    let brokers = "local: { type: log }, more: { type: log, dir: more }";
    reload(&daemon, dir.path(), &with(brokers, "{ broker: more, topic: second }"));
    assert!(daemon.log().contains("what was kept for a start is used for it"), "{}", daemon.log());
    assert!(reserve.exists(), "it is made again at once");
    faults.disarm(Fault::Full);
}

/// Whether a process takes SIGHUP: the first bit of `SigCgt`, see proc(5).
fn takes_hangup(process: &Child) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("its status");
    assert!(!status.contains("State:\tZ"), "it has ended");
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("its signals");
    u64::from_str_radix(caught.trim(), 16).expect("a number") & 1 == 1
}

#[test]
fn a_hangup_while_it_starts_is_heard_and_kills_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("routes.yaml");
    // A bad file that changes all the time is looked at for seconds.
    let daemon = Daemon::start_meanwhile(dir.path(), BROKEN, |process| {
        for n in 0.. {
            replace(&file, &format!("{BROKEN}# {n}\n"));
            if takes_hangup(process) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        kill_process(Pid::from_child(process), Signal::HUP).expect("to signal it");
        replace(&file, &to_topic("first"));
    });
    eventually("it is heard", || attempts(&daemon, "unchanged") == 1.0);
}

#[test]
fn without_a_last_good_one_a_bad_file_is_no_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let (status, log) = Daemon::fails(dir.path(), BROKEN, &[]);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("routes.yaml:4:"), "{log}");
    // One that does not compile either is none, and both are told.
    fs::create_dir_all(dir.path().join("data")).expect("a directory");
    fs::write(dir.path().join("data/routes.last-good.yaml"), "brokers: 1\n").expect("a file");
    let (status, log) = Daemon::fails(dir.path(), BROKEN, &[]);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("routes.yaml:4:"), "{log}");
    assert!(log.contains("routes.last-good.yaml:1:"), "{log}");
}
