//! One broker's process, from start to end; the same for all three.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use super::leash::Leash;

/// The slowest start seen is Kafka's, 2 s alone; ten times that and more, for a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long the effect of a signal may take; an orderly end takes longest.
const DONE_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at whether something has happened.
const POLL: Duration = Duration::from_millis(50);

/// How much of a failed broker's log is worth reading in a test's output.
const LOG_TAIL_LINES: usize = 40;

/// How a broker is started and how it shows that it is ready; stays the same over restarts.
pub struct Plan {
    pub name: &'static str,
    pub command: Command,
    /// Asks once whether the broker answers; bounds its own time.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// A broker's process, its directory and its ports.
pub struct Server {
    plan: Plan,
    dir: PathBuf,
    log: PathBuf,
    leash: Option<Leash>,
}

impl Server {
    /// Starts the broker and waits until it answers.
    pub(super) fn start(plan: Plan, dir: TempDir) -> Result<Server, String> {
        let log = dir.path().join("output.log");
        let leash = Leash::start(&plan.command, dir.path(), &log)?;
        // From here on the leash removes the directory.
        let dir = dir.keep();
        let server = Server { plan, dir, log, leash: Some(leash) };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Ends it at once, as a crash does (`SIGKILL`). It stays down until [`restart`](Self::restart).
    pub fn kill(&mut self) {
        self.leash().signal_all(Signal::KILL);
        self.wait_until_ended();
    }

    /// Ends it in order (`SIGTERM`). It stays down until [`restart`](Self::restart).
    pub fn stop(&mut self) {
        self.leash().signal(Signal::TERM);
        self.wait_for("end", || self.leash().has_ended());
        // What it started on the side may have outlived it.
        self.leash().signal_all(Signal::KILL);
        self.wait_until_ended();
    }

    /// Starts it again on the same ports and data, after killing it if it runs.
    pub fn restart(&mut self) {
        self.kill();
        // The new leash comes first, so that there is always one to remove the directory.
        let leash = match Leash::start(&self.plan.command, &self.dir, &self.log) {
            Ok(leash) => leash,
            Err(error) => panic!("{} did not start again: {error}", self.plan.name),
        };
        if let Some(old) = self.leash.replace(leash) {
            old.release();
        }
        if let Err(error) = self.wait_until_ready() {
            panic!("{error}");
        }
    }

    /// Stops it from running, as a machine that hangs does: connections stay open, nothing answers.
    pub fn pause(&mut self) {
        self.leash().signal_all(Signal::STOP);
        self.wait_for("pause", || self.leash().is_paused());
    }

    /// Lets it run again after [`pause`](Self::pause).
    pub fn resume(&mut self) {
        self.leash().signal_all(Signal::CONT);
    }

    /// Where its files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn leash(&self) -> &Leash {
        self.leash.as_ref().expect("only dropping takes the leash away")
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let name = self.plan.name;
        let started = Instant::now();
        loop {
            let ended = self.leash().has_ended();
            let answer = (self.plan.ready)();
            match answer {
                Ok(()) => return Ok(()),
                Err(_) if ended => return Err(format!("{name} ended. {}", self.log_tail())),
                Err(error) if started.elapsed() > READY_WITHIN => {
                    let waited = READY_WITHIN.as_secs();
                    let tail = self.log_tail();
                    return Err(format!("{name} is not ready after {waited} s: {error}. {tail}"));
                }
                Err(_) => sleep(POLL),
            }
        }
    }

    fn wait_until_ended(&self) {
        self.wait_for("end", || self.leash().has_all_ended());
    }

    fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            let (name, waited) = (self.plan.name, DONE_WITHIN.as_secs());
            if started.elapsed() > DONE_WITHIN {
                panic!("{name} did not {what} within {waited} s. {}", self.log_tail());
            }
            sleep(POLL);
        }
    }

    /// Everything that it has said so far.
    pub fn log(&self) -> String {
        match std::fs::read(&self.log) {
            Ok(log) => String::from_utf8_lossy(&log).into_owned(),
            Err(error) => format!("its log cannot be read: {error}"),
        }
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("Its log ends:\n{}", tail.join("\n"))
    }
}
