//! A daemon under load in a directory of its own, and everything it publishes to.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{
    daemon::{self, Daemon},
    sender::{self, Load},
    sinks::{self, Addresses, Sink, Sinks},
};

/// How long a condition may take to come about.
const WITHIN: Duration = Duration::from_secs(120);

/// Senders, each with one connection and an agent of its own: what one sends is accepted in order.
const SENDERS: usize = 6;

/// Bytes that the body of a usual event is filled up with.
pub const SMALL_BYTES: usize = 300;

/// A daemon in a directory, started and ended, and what it publishes to.
pub struct Scene {
    /// First, so that it is dropped before its directory.
    daemon: Option<Daemon>,
    pub dir: TempDir,
    pub sinks: Sinks,
    settings: Vec<(String, String)>,
    address: Arc<Mutex<SocketAddr>>,
}

impl Scene {
    /// `name` is the test's own. The daemon is not started yet.
    pub async fn create(name: &str, brokers: Addresses, settings: &[(&str, &str)]) -> Scene {
        let dir = tempfile::tempdir().expect("a directory");
        let sinks = Sinks::create(name, brokers, dir.path()).await;
        Scene::around(dir, sinks, settings)
    }

    pub fn around(dir: TempDir, sinks: Sinks, settings: &[(&str, &str)]) -> Scene {
        let settings = settings.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        Scene { dir, sinks, settings, address: Arc::new(Mutex::new(nowhere)), daemon: None }
    }

    pub fn start_daemon(&mut self) {
        let settings: Vec<_> = self.settings.iter().map(|(k, v)| (&**k, &**v)).collect();
        let daemon = Daemon::start(self.dir.path(), &self.sinks.routes(), &settings);
        *self.address.lock().expect("the address") = daemon.listen;
        self.daemon = Some(daemon);
    }

    pub fn kill_daemon(&mut self) {
        self.daemon.take().expect("a daemon").kill();
    }

    /// SIGTERM; whether it ended as it should.
    pub fn stop_daemon(&mut self) -> bool {
        self.daemon.take().expect("a daemon").stop().success()
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon")
    }

    pub fn log(&self) -> String {
        self.daemon().log()
    }

    /// Starts senders, each of which pauses after each answer.
    pub fn send(&self, event_type: &'static str, padding_bytes: usize, pause: Duration) -> Senders {
        static NUMBER: Mutex<usize> = Mutex::new(0);
        let loads = (0..SENDERS).map(|_| {
            let mut number = NUMBER.lock().expect("a number");
            *number += 1;
            let agent = format!("agent-{number}");
            let webhook = move |n| sinks::event(event_type, &agent, n, padding_bytes);
            Load::start_paced(1, self.address.clone(), pause, webhook)
        });
        Senders(loads.collect())
    }

    /// Posts one event that no sender sends.
    pub async fn post(&self, event_type: &str) -> sender::Answer {
        let address = *self.address.lock().expect("the address");
        let webhook = sinks::event(event_type, "nobody", 0, SMALL_BYTES);
        sender::post(address, &webhook).await.expect("an answer")
    }

    /// Everything accepted arrived everywhere; nothing was given up on. How many came twice.
    pub async fn assert_all_arrived(&self, what: &str, accepted: &[String]) -> Vec<(Sink, usize)> {
        let mut twice = Vec::new();
        for sink in Sink::ALL {
            let arrived = self.sinks.read_all(sink, accepted).await;
            let duplicates = sinks::assert_complete(sink, accepted, &arrived);
            println!("{what}: {sink:?} got {} events, {duplicates} twice", accepted.len());
            twice.push((sink, duplicates));
        }
        let dead_letters = daemon::command(self.dir.path(), &["dead-letters", "list"]).1;
        assert_eq!(dead_letters, "no dead letters\n");
        twice
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// See [`Daemon::peak_memory_bytes`].
    pub fn peak_memory_bytes(&self) -> u64 {
        self.daemon().peak_memory_bytes()
    }
}

/// Events sent to a scene's daemon, in order by agent.
pub struct Senders(Vec<Load>);

impl Senders {
    /// Waits until so many more were accepted, of each sender its part.
    pub async fn accept_more(&self, count: usize) {
        for load in &self.0 {
            load.accept_more(count / self.0.len()).await;
        }
    }

    pub fn accepted(&self) -> Vec<String> {
        self.0.iter().flat_map(Load::ledger).collect()
    }

    /// How many each sender's answers were so far.
    pub fn mark(&self) -> Vec<usize> {
        self.0.iter().map(Load::accepted).collect()
    }

    /// What was sent and accepted since. The first one of each sender may have been under way.
    pub fn accepted_since(&self, mark: &[usize]) -> Vec<String> {
        let since = |(load, mark): (&Load, &usize)| load.ledger().into_iter().skip(mark + 1);
        self.0.iter().zip(mark).flat_map(since).collect()
    }

    pub fn refused(&self) -> u64 {
        self.0.iter().map(Load::refused).sum()
    }

    pub async fn stop(self) -> Vec<String> {
        let mut accepted = Vec::new();
        for load in self.0 {
            accepted.extend(load.stop().await);
        }
        accepted
    }
}

/// How often a daemon's log told of a broker that it is in trouble, and that it is well again.
pub fn changes(log: &Path, sink: Sink) -> (usize, usize) {
    let log = fs::read_to_string(log).expect("the daemon's log");
    let broker = format!("broker={}", sink.broker());
    let count = |what: &str| {
        log.lines().filter(|line| line.contains(what) && line.contains(&broker)).count()
    };
    (count(" is in trouble"), count(" is well again"))
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < WITHIN, "waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
