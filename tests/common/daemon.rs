//! The built program, run as an operator runs it: its own process, data directory and log.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::raw::Raw;

/// How long the daemon may take to start or to end; recovery included, on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Secrets that every test's `routes.yaml` may refer to.
pub const SONZAI_SECRET: &str = "whsec_test-secret";
pub const MIIBO_SECRET: &str = "miibo-test-secret";

/// The sources that most tests use; brokers and routes are the test's own.
pub const SOURCES: &str = r#"
sources:
  sonzai: { type: sonzai, path: "/hooks/sonzai/{type}", secrets: { "*": "${SONZAI_SECRET}" } }
  miibo: { type: miibo, path: /hooks/miibo, secret: "${MIIBO_SECRET}" }
"#;

/// Everything to one file of the embedded broker.
pub const ALL_TO_FILES: &str = r#"
brokers:
  local: { type: log }
routes:
  - name: all
    match: { type: "**" }
    to: [{ broker: local, topic: all }]
"#;

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    dir: PathBuf,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
}

impl Daemon {
    /// Starts a daemon in `dir` (its `routes.yaml` is written there, its data is in `dir/data`) and
    /// waits until it listens. `settings` are further `WAYPOST_*` variables or any others.
    pub fn start(dir: &Path, routes: &str, settings: &[(&str, &str)]) -> Daemon {
        Daemon::await_ready(dir, Daemon::spawn(waypost(), dir, routes, settings))
    }

    /// The same, with so many file descriptors and no more.
    pub fn start_with_descriptors(
        dir: &Path,
        routes: &str,
        settings: &[(&str, &str)],
        descriptors: usize,
    ) -> Daemon {
        let command = after(&format!("ulimit -n {descriptors}"));
        Daemon::await_ready(dir, Daemon::spawn(command, dir, routes, settings))
    }

    /// The same, without a variable of the environment that every other test sets.
    pub fn start_without(dir: &Path, routes: &str, variable: &str) -> Daemon {
        let command = after(&format!("unset {variable}"));
        Daemon::await_ready(dir, Daemon::spawn(command, dir, routes, &[]))
    }

    /// The same, with something else than a file for its standard error.
    pub fn start_logging_to(
        dir: &Path,
        routes: &str,
        settings: &[(&str, &str)],
        stderr: impl Into<Stdio>,
    ) -> Daemon {
        let child = Daemon::spawn_logging_to(stderr.into(), waypost(), dir, routes, settings);
        Daemon::await_ready(dir, (child, log_file(dir)))
    }

    /// Does something with its process before it listens.
    pub fn start_meanwhile(dir: &Path, routes: &str, meanwhile: impl FnOnce(&Child)) -> Daemon {
        let started = Daemon::spawn(waypost(), dir, routes, &[]);
        meanwhile(&started.0);
        Daemon::await_ready(dir, started)
    }

    fn await_ready(dir: &Path, (mut child, log): (Child, PathBuf)) -> Daemon {
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("the daemon's status") {
                panic!("the daemon ended with {status}:\n{}", read(&log));
            }
            if let Some((listen, admin_listen)) = addresses(dir, child.id()) {
                return Daemon { child, dir: dir.to_owned(), listen, admin_listen };
            }
            assert!(started.elapsed() < WITHIN, "the daemon is not ready:\n{}", read(&log));
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts a daemon with the [`SOURCES`] of most tests.
    pub fn with_sources(dir: &Path, brokers_and_routes: &str, settings: &[(&str, &str)]) -> Daemon {
        Daemon::start(dir, &format!("{SOURCES}\n{brokers_and_routes}"), settings)
    }

    /// Starts a daemon that is expected to end by itself; its status and log.
    pub fn fails(dir: &Path, routes: &str, settings: &[(&str, &str)]) -> (ExitStatus, String) {
        let (mut child, log) = Daemon::spawn(waypost(), dir, routes, settings);
        let status = wait(&mut child);
        (status, read(&log))
    }

    /// Starts a daemon and kills it after a while, which may be long before it listens.
    pub fn killed_while_starting(
        dir: &Path,
        routes: &str,
        settings: &[(&str, &str)],
        after: Duration,
    ) {
        let (mut child, _) = Daemon::spawn(waypost(), dir, routes, settings);
        std::thread::sleep(after);
        child.kill().expect("to kill the daemon");
        child.wait().expect("its end");
    }

    /// Starts a daemon that is expected to end by itself, with something else than a file for its standard
    /// error.
    pub fn fails_logging_to(
        dir: &Path,
        routes: &str,
        settings: &[(&str, &str)],
        stderr: impl Into<Stdio>,
    ) -> ExitStatus {
        wait(&mut Daemon::spawn_logging_to(stderr.into(), waypost(), dir, routes, settings))
    }

    fn spawn(
        command: Command,
        dir: &Path,
        routes: &str,
        settings: &[(&str, &str)],
    ) -> (Child, PathBuf) {
        let log = log_file(dir);
        let out = File::options().create(true).append(true).open(&log).expect("a log file");
        (Daemon::spawn_logging_to(out.into(), command, dir, routes, settings), log)
    }

    fn spawn_logging_to(
        stderr: Stdio,
        mut command: Command,
        dir: &Path,
        routes: &str,
        settings: &[(&str, &str)],
    ) -> Child {
        fs::write(dir.join("routes.yaml"), routes).expect("to write routes.yaml");
        command
            .arg("run")
            .current_dir(dir)
            .env_clear()
            .envs(settings_of_every_test())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("to start waypost")
    }

    /// Runs another command of the program in the daemon's directory: its status and output.
    pub fn command(&self, arguments: &[&str]) -> (ExitStatus, String) {
        command(&self.dir, arguments)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Everything logged so far, by this daemon and those before it in the same directory.
    pub fn log(&self) -> String {
        while self.still_logs() == Some(true) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.written()
    }

    /// Whether lines are not written yet; `None` where it does not say.
    fn still_logs(&self) -> Option<bool> {
        let mut admin = Raw::try_connect(self.admin_listen).ok()?;
        admin.try_say("GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").ok()?;
        let page = admin.hear().filter(|answer| answer.status == 200)?.body;
        Some(!page.lines().any(|line| line == "waypost_log_queued_lines 0"))
    }

    fn written(&self) -> String {
        read(&log_file(&self.dir))
    }

    /// The most resident memory it has ever had.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// Its resident memory now.
    pub fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(status).expect("the daemon's status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line");
        let kib: u64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("KiB");
        kib << 10
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().expect("to kill the daemon");
        self.child.wait().expect("its end");
    }

    /// SIGTERM; the drain begins.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGHUP; a reload begins.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("to signal the daemon");
    }

    /// SIGTERM, and waits for the drain.
    pub fn stop(self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", tail(&self.written()));
        }
    }
}

/// Runs a command of the program in a directory: its status, and both of its outputs.
pub fn command(dir: &Path, arguments: &[&str]) -> (ExitStatus, String) {
    let output = waypost()
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .envs(settings_of_every_test())
        .stdin(Stdio::null())
        .output()
        .expect("to run waypost");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status, text)
}

/// The program, run by a shell after something else.
fn after(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = format!("{script} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_waypost")]);
    command
}

fn waypost() -> Command {
    Command::new(env!("CARGO_BIN_EXE_waypost"))
}

fn settings_of_every_test() -> [(&'static str, &'static str); 8] {
    [
        ("SONZAI_SECRET", SONZAI_SECRET),
        ("MIIBO_SECRET", MIIBO_SECRET),
        ("WAYPOST_LISTEN", "127.0.0.1:0"),
        ("WAYPOST_ADMIN_LISTEN", "127.0.0.1:0"),
        ("WAYPOST_SHUTDOWN__DELAY", "0s"),
        ("WAYPOST_LOG__FORMAT", "text"),
        // Hundreds of data directories need not write 12 MiB each.
        ("WAYPOST_JOURNAL__RESERVE_BYTES", "65536"),
        ("RUST_BACKTRACE", "1"),
    ]
}

fn addresses(dir: &Path, pid: u32) -> Option<(SocketAddr, SocketAddr)> {
    let text = fs::read(dir.join("data/daemon.json")).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let address = |name: &str| json[name].as_str()?.parse().ok();
    // The file of a daemon that was killed here before is still there.
    (json["pid"] == pid).then_some(())?;
    Some((address("listen")?, address("admin_listen")?))
}

fn wait(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the daemon's status") {
            return status;
        }
        assert!(started.elapsed() < WITHIN, "the daemon does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Where a daemon in this directory logs to.
fn log_file(dir: &Path) -> PathBuf {
    dir.join("daemon.log")
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
