//! A bad file changes nothing, and shows with its place wherever operators look.

use std::{fs, path::Path};

use super::{
    BROKEN, accepted, attempts, config, eventually, hash, in_force, reload, replace, to_topic, with,
};
use crate::common::{
    daemon::Daemon,
    log_files, operator,
    raw::{self, Raw},
    sender,
};

#[test]
fn a_bad_file_changes_nothing_and_shows_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("routes.yaml");
    let good = to_topic("first");
    let daemon = Daemon::start(dir.path(), &good, &[]);
    operator::Scrape::of(&daemon).assert(&[
        ("waypost_config_last_reload_successful", 1.0),
        (&format!("waypost_config_info{{hash=\"{}\"}}", hash(&good)), 1.0),
    ]);
    let since = config(&daemon)["in_force"]["since"].clone();
    for (text, place) in [
        (BROKEN, "routes.yaml:4:"),
        ("", "routes.yaml:1:1: error: the file is empty"),
        (&good.replace("broker: local", "broker: locale"), "no broker is named `locale`"),
    ] {
        let before = attempts(&daemon, "rejected");
        replace(&file, text);
        eventually("it is rejected", || attempts(&daemon, "rejected") > before);
        let (status, output) = daemon.command(&["reload"]);
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains(place), "{output}");
        assert!(output.ends_with("the routing table stays as it was\n"), "{output}");
        let facts = config(&daemon);
        assert_eq!(facts["in_force"]["hash"], hash(&good), "{facts}");
        assert_eq!(facts["in_force"]["since"], since);
        assert_eq!(facts["last_attempt"]["outcome"], "rejected", "{facts}");
        assert!(facts["last_attempt"]["problems"][0].as_str().unwrap().contains(place), "{facts}");
        assert!(daemon.log().contains(place), "{}", daemon.log());
        let status = daemon.command(&["status"]).1;
        assert!(status.contains("IS NOT IN FORCE"), "{status}");
        operator::Scrape::of(&daemon).assert(&[("waypost_config_last_reload_successful", 0.0)]);
        accepted(&daemon, 1);
    }
    fs::remove_file(&file).expect("to remove the file");
    eventually("it is missed", || daemon.log().contains("cannot read the routing table"));
    assert_eq!(in_force(&daemon), hash(&good));
    // What was in force already is good again, and nothing but that.
    replace(&file, &good);
    eventually("it is good again", || {
        operator::Scrape::of(&daemon).get("waypost_config_last_reload_successful") == 1.0
    });
    assert_eq!(attempts(&daemon, "applied"), 0.0);
    assert_eq!(log_files::wait_for(&daemon.data_dir(), 3).len(), 3);
    assert!(daemon.stop().success());
}

#[test]
fn a_broker_that_cannot_be_built_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
    let brokers = r#"
        local: { type: log }, another: { type: log, dir: elsewhere },
        live: { type: nats, url: "nats://127.0.0.1:1" }"#;
    let text = with(brokers, "{ broker: another, topic: second }");
    // What is parked for one cannot be opened: something is in its place.
    let in_the_way = daemon.data_dir().join("parked/live");
    fs::write(&in_the_way, "").expect("a file");
    replace(&dir.path().join("routes.yaml"), &text);
    let (status, output) = daemon.command(&["reload"]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("parked/live"), "{output}");
    assert_eq!(in_force(&daemon), hash(&to_topic("first")));
    let names = |daemon: &Daemon| {
        let (_, status) = operator::json(daemon, "/api/status");
        let brokers = status["brokers"].as_array().expect("brokers").clone();
        brokers.iter().map(|b| b["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&daemon), ["local", "unrouted"]);
    // It was no mistake of the file: once it is gone, nobody needs to ask, and nobody is told again of
    // what was tried meanwhile.
    let rejected = attempts(&daemon, "rejected");
    fs::remove_file(&in_the_way).expect("to remove it");
    eventually("it comes into force by itself", || in_force(&daemon) == hash(&text));
    assert_eq!(attempts(&daemon, "rejected"), rejected);
    // Nothing is in the way of the next one.
    reload(&daemon, dir.path(), &text.replace(":1\"", ":1\", token: t"));
    assert_eq!(names(&daemon), ["another", "live", "local", "unrouted"]);
    let id = accepted(&daemon, 1);
    eventually("it is there", || {
        crate::common::kept::logged_in(&dir.path().join("elsewhere"), "second") == [id.clone()]
    });
}

#[test]
fn what_is_no_regular_file_is_a_mistake_that_nobody_waits_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("to run mkfifo");
    assert!(made.success());
    for file in [&*pipe, Path::new("/dev/zero"), dir.path()] {
        let secret = format!("${{file:{}}}", file.display());
        replace(
            &dir.path().join("routes.yaml"),
            &to_topic("x").replace("${MIIBO_SECRET}", &secret),
        );
        let (status, output) = daemon.command(&["reload"]);
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.contains("not a regular file"), "{output}");
    }
    reload(&daemon, dir.path(), &to_topic("second"));
    // The file itself, too.
    fs::rename(&pipe, dir.path().join("routes.yaml")).expect("to replace the file");
    let (status, output) = daemon.command(&["reload"]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("not a regular file"), "{output}");
    reload(&daemon, dir.path(), &to_topic("third"));
    accepted(&daemon, 1);
}

#[test]
fn a_removed_source_is_not_found_and_the_connections_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
    let mut kept = Raw::connect(daemon.listen);
    assert_eq!(kept.ask(raw::request(&sender::miibo("{}"))).status, 200);
    let listen = daemon.listen;
    let line = to_topic("first");
    let without: String = line
        .lines()
        .filter(|line| !line.contains("miibo"))
        .map(|line| format!("{line}\n"))
        .collect();
    reload(&daemon, dir.path(), &without);
    assert_eq!(kept.ask(raw::request(&sender::miibo("{}"))).status, 404);
    reload(&daemon, dir.path(), &line);
    assert_eq!(kept.ask(raw::request(&sender::miibo("{}"))).status, 200);
    assert_eq!(daemon.listen, listen);
    let accepted_connections = operator::Scrape::of(&daemon)
        .get("waypost_connections_accepted_total{listener=\"ingress\"}");
    assert_eq!(accepted_connections, 1.0, "one connection saw all of it");
}
