//! The built program under load, as an operator runs it.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{generator::SECRET, sink::Sink};

/// How long a start may take, recovery included.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    pub address: SocketAddr,
    /// From its start to its listening.
    pub started_in: Duration,
}

/// Which of a sink's two brokers the routing table names.
#[derive(Clone, Copy)]
pub enum Broker {
    Up,
    Down,
}

impl Daemon {
    /// Starts it in `dir`, its data in `dir/data`, and waits until it listens.
    pub fn start(dir: &Path, sink: &Sink, broker: Broker) -> Daemon {
        let broker = match broker {
            Broker::Up => &sink.broker,
            Broker::Down => &sink.broker_down,
        };
        let routes = format!(
            "sources:\n  load: {{ type: sonzai, path: \"/hooks/sonzai/{{type}}\", secrets: {{ \"*\": {SECRET} }} }}\n\
             brokers:\n  sink: {broker}\n\
             routes:\n  - name: all\n    match: {{ type: \"**\" }}\n    to: [{{ broker: sink, {} }}]\n",
            sink.address
        );
        fs::write(dir.join("routes.yaml"), routes).expect("to write routes.yaml");
        let log = File::options().create(true).append(true).open(dir.join("daemon.log"));
        let started = Instant::now();
        let child = command()
            .args(["run", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .current_dir(dir)
            .env_clear()
            .env("WAYPOST_SHUTDOWN__DELAY", "0s")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("to start waypost");
        let mut daemon =
            Daemon { child, address: ([0, 0, 0, 0], 0).into(), started_in: Duration::ZERO };
        while started.elapsed() < READY_WITHIN {
            if let Some(address) = listens_on(dir, daemon.pid()) {
                daemon.started_in = started.elapsed();
                daemon.address = address;
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let log = fs::read_to_string(dir.join("daemon.log")).unwrap_or_default();
        panic!("the daemon does not listen:\n{log}");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// The program; under the profiler that `UNDER` names, if any, such as `UNDER="valgrind
/// --tool=callgrind"`. It must become the program (`exec`), which is looked for by its process id.
fn command() -> Command {
    let program = env!("CARGO_BIN_EXE_waypost");
    let under = std::env::var("UNDER").unwrap_or_default();
    let mut words = under.split_whitespace().chain([program]);
    let mut command = Command::new(words.next().expect("at least the program"));
    command.args(words);
    command
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().expect("to kill the daemon");
        self.child.wait().expect("its end");
    }
}

fn listens_on(dir: &Path, pid: u32) -> Option<SocketAddr> {
    let text = fs::read(dir.join("data/daemon.json")).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
    // The file of a daemon that was killed here before is still there.
    (json["pid"] == pid).then_some(())?;
    json["listen"].as_str()?.parse().ok()
}
