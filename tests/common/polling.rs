//! A stand-in for Sonzai's API and a daemon that polls it, in a directory of its own.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost::sonzai::stub::{Options, Stub};

use super::{
    daemon::{ALL_TO_FILES, Daemon},
    log_files::{self, Published},
    openapi, operator,
    sonzai_stub::{KEY, PROJECT},
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Polling {
    pub stub: Stub,
    pub dir: TempDir,
    /// What `routes.yaml` says.
    pub routes: String,
}

/// A stand-in on a free port, with nothing pending.
pub fn options() -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        key: KEY.into(),
        project: PROJECT.to_owned(),
        notifications: 0,
        wakeups: 0,
        retry_delay: Duration::from_millis(50),
        ..Options::default()
    }
}

impl Polling {
    /// `source` is what the source has in `routes.yaml` besides its path, secrets and API.
    pub async fn of(options: Options, source: &str) -> Polling {
        Polling::with(options, source, ALL_TO_FILES).await
    }

    /// The same, with brokers and routes of one's own.
    pub async fn with(options: Options, source: &str, brokers_and_routes: &str) -> Polling {
        let stub = Stub::start(options).await.expect("a stand-in");
        let url = stub.url();
        let routes = format!(
            r#"
sources:
  sonzai:
    type: sonzai
    path: "/hooks/sonzai/{{type}}"
    secrets: {{ "*": "${{SONZAI_SECRET}}" }}
    api: {{ url: "{url}", key: {KEY} }}
    {source}
{brokers_and_routes}"#
        );
        let dir = tempfile::tempdir().expect("a directory");
        Polling { stub, dir, routes }
    }

    /// A project that is polled each second.
    pub async fn project(options: Options) -> Polling {
        Polling::of(options, &poll_project("")).await
    }

    /// Starts the daemon; it does not wait long before it tries again.
    pub fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub fn start_with(&self, settings: &[(&str, &str)]) -> Daemon {
        let usual = [
            ("WAYPOST_SONZAI__MAX_PAUSE", "200ms"),
            ("WAYPOST_SONZAI__MAX_REQUESTS_PER_SECOND", "2000"),
        ];
        Daemon::start(self.dir.path(), &self.routes, &[&usual, settings].concat())
    }

    /// Makes something happen at Sonzai, as `POST /-/emit` would.
    #[track_caller]
    pub fn emit(&self, emit: &str) -> Value {
        let emit = serde_json::from_str(emit).expect("what to emit");
        json!(self.stub.emit(emit).expect("it happens"))
    }

    /// Lets something go wrong.
    #[track_caller]
    pub fn fault(&self, rule: Value) {
        assert!(self.stub.fault(serde_json::from_value(rule).expect("a rule")));
    }

    #[track_caller]
    pub fn fail_take(&self, stubborn: Value) {
        self.stub.fail_take(serde_json::from_value(stubborn).expect("what is stubborn"));
    }

    /// What is pending, by project.
    pub fn pending(&self) -> u64 {
        self.stub.state()["pending"]["project"].as_u64().expect("a number")
    }

    /// What is pending, over all agents.
    pub fn pending_of_agents(&self) -> u64 {
        let state = self.stub.state();
        let agents = state["pending"]["agents"].as_object().expect("agents");
        agents.values().map(|count| count.as_u64().expect("a number")).sum()
    }

    /// Ids of what was taken: those of messages, those of notifications.
    pub fn taken(&self) -> (Vec<String>, Vec<String>) {
        let taken = &self.stub.state()["taken"];
        let ids = |family: &str| {
            let ids = taken[family].as_array().expect("ids").iter();
            ids.map(|id| id.as_str().expect("an id").to_owned()).collect()
        };
        (ids("consumed"), ids("acknowledged"))
    }

    /// How many requests the API had since the start.
    pub fn requests(&self) -> u64 {
        self.stub.requests()["count"].as_u64().expect("a number")
    }

    /// How many of those that are remembered have this in their method and target.
    pub fn requests_with(&self, method: &str, part: &str) -> usize {
        let requests = self.stub.requests();
        let requests = requests["requests"].as_array().expect("requests").iter();
        let matching = requests.filter(|request| {
            let target = request["target"].as_str().expect("a target");
            request["method"] == method && target.contains(part)
        });
        matching.count()
    }

    /// What came out.
    pub fn published(&self) -> Vec<Published> {
        log_files::read(&self.dir.path().join("data"))
    }

    /// The same, once there are so many.
    pub fn await_published(&self, count: usize) -> Vec<Published> {
        log_files::wait_for(&self.dir.path().join("data"), count)
    }

    /// Every request that is remembered is one that Sonzai's document allows.
    #[track_caller]
    pub fn assert_valid(&self) {
        openapi::assert_allows(&self.stub.requests());
    }
}

/// `poll:` of the stand-in's project, each second, with further members.
pub fn poll_project(further: &str) -> String {
    format!("poll: {{ project: {PROJECT}, every: 1s, mode: always{further} }}")
}

/// What the daemon says of its poller.
pub fn status(daemon: &Daemon) -> Value {
    operator::json(daemon, "/api/status").1["polls"][0].clone()
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many lines of a log hold this.
pub fn lines(log: &str, part: &str) -> usize {
    log.lines().filter(|line| line.contains(part)).count()
}

/// How often each value is there.
pub fn counts<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    all.into_iter().for_each(|value| *counts.entry(value).or_default() += 1);
    counts
}
