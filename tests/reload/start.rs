//! A bad file at the start runs the last good one; without one there is no start.

use std::{fs, os::unix::fs::PermissionsExt};

use super::{BROKEN, accepted, config, eventually, hash, replace, to_topic};
use crate::common::{daemon::Daemon, log_files, operator};

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
