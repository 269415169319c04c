//! A changed `routes.yaml` takes effect without anyone noticing; a bad one changes nothing.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::common::{
    daemon::Daemon,
    operator,
    raw::{self, Raw},
    sender::{self, Webhook},
};

mod brokers;
mod crash;
mod many;
mod notices;
mod rejected;
mod start;

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything to a file of its own topic.
pub fn to_topic(topic: &str) -> String {
    with(r#"local: { type: log }"#, &format!("{{ broker: local, topic: {topic} }}"))
}

/// These brokers, and everything to these targets.
pub fn with(brokers: &str, targets: &str) -> String {
    format!(
        r#"{}
brokers: {{ {brokers} }}
routes: [{{ name: all, match: {{ type: "**" }}, to: [{targets}] }}]
"#,
        crate::common::daemon::SOURCES
    )
}

/// A file that is no routing table, with the place of its mistake.
pub const BROKEN: &str = "sources: {}\nbrokers: {}\nroutes:\n  - name: [\n";

fn event(n: usize) -> Webhook {
    sender::miibo(format!("{{\"n\":{n}}}"))
}

/// Posts an event; its id.
#[track_caller]
fn accepted(daemon: &Daemon, n: usize) -> String {
    let answer = Raw::connect(daemon.listen).ask(raw::request(&event(n)));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("waypost-event-id").expect("an id").to_owned()
}

fn config(daemon: &Daemon) -> Value {
    operator::json(daemon, "/api/config").1
}

/// The hash of what is in force.
fn in_force(daemon: &Daemon) -> String {
    config(daemon)["in_force"]["hash"].as_str().expect("a hash").to_owned()
}

/// How many attempts had this outcome.
fn attempts(daemon: &Daemon, outcome: &str) -> f64 {
    let series = format!("waypost_config_reloads_total{{outcome=\"{outcome}\"}}");
    operator::Scrape::of(daemon).get(&series)
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The hash that a text is shown by.
fn hash(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let mut hex = const_hex::encode(Sha256::digest(text));
    hex.truncate(12);
    hex
}

/// Replaces the daemon's file at once, and has it put in force.
#[track_caller]
fn reload(daemon: &Daemon, dir: &Path, text: &str) {
    replace(&dir.join("routes.yaml"), text);
    let (status, output) = daemon.command(&["reload"]);
    assert!(status.success(), "{output}");
    assert_eq!(in_force(daemon), hash(text), "{output}");
}

fn replace(file: &Path, text: &str) {
    let next = file.with_extension("next");
    fs::write(&next, text).expect("to write a file");
    fs::rename(&next, file).expect("to rename a file");
}
