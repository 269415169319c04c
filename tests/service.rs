//! What the service manager is told, over a socket as systemd's: ready once requests are answered,
//! alive as long as it is, stopping when it drains.

use std::{io, net::TcpListener, os::unix::net::UnixDatagram, path::PathBuf, time::Duration};

use tempfile::TempDir;

use crate::common::{
    daemon::{Daemon, SOURCES},
    raw::{self, Raw},
    sender,
};

/// How long the next word may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ROUTES: &str = r#"
brokers: { local: { type: log } }
routes: [{ name: all, match: { type: "**" }, to: [{ broker: local, topic: all }] }]
"#;

/// The manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn listen(dir: &TempDir) -> Manager {
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket that gives up");
        Manager { socket, path }
    }

    /// A daemon under this manager, with the variables that it sets.
    fn start(&self, dir: &TempDir, variables: &[(&str, &str)]) -> Daemon {
        let path = self.path.to_str().expect("a path in UTF-8");
        let variables = [&[("NOTIFY_SOCKET", path)], variables].concat();
        Daemon::start(dir.path(), &format!("{SOURCES}{ROUTES}"), &variables)
    }

    /// The next word, as lines of `NAME=value`.
    #[track_caller]
    fn hear(&self) -> Vec<String> {
        self.next().expect("a word from the daemon")
    }

    /// All that was said and not yet heard, once nobody can say more.
    fn rest(&self) -> Vec<Vec<String>> {
        self.socket.set_nonblocking(true).expect("a socket that does not wait");
        std::iter::from_fn(|| self.next().ok()).collect()
    }

    /// Fills the socket's queue, so that nobody can say more; how much that took.
    fn fill(&self) -> usize {
        let other = UnixDatagram::unbound().expect("a socket");
        other.set_nonblocking(true).expect("a socket that does not wait");
        let sent = || other.send_to(b"OTHER=1", &self.path).ok();
        std::iter::from_fn(sent).count()
    }

    fn next(&self) -> io::Result<Vec<String>> {
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes)?;
        let text = std::str::from_utf8(&bytes[..len]).expect("UTF-8");
        Ok(text.lines().map(str::to_owned).collect())
    }
}

#[test]
fn it_is_ready_once_requests_are_answered_alive_until_the_end_and_stopping_when_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = Manager::listen(&dir);
    let variables = [("WATCHDOG_USEC", "50000"), ("WAYPOST_SHUTDOWN__DELAY", "1s")];
    let daemon = manager.start(&dir, &variables);

    let status = format!("STATUS=receiving on {}", daemon.listen);
    assert_eq!(manager.hear(), ["READY=1", &status]);
    let answer = Raw::connect(daemon.listen).ask(raw::request(&sender::miibo("{}")));
    assert_eq!(answer.status, 200);
    for _ in 0..10 {
        assert_eq!(manager.hear(), ["WATCHDOG=1"]);
    }

    daemon.terminate();
    let mut said = manager.hear();
    while said == ["WATCHDOG=1"] {
        said = manager.hear();
    }
    assert_eq!(said, ["STOPPING=1", "STATUS=draining"]);
    assert_eq!(manager.hear(), ["WATCHDOG=1"], "a drain is alive, too");
    assert!(daemon.ended().success());
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end_whatever_became_of_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = Manager::listen(&dir);
    let daemon = manager.start(&dir, &[]);
    assert_eq!(manager.hear()[0], "READY=1");
    let by_command = |daemon: &Daemon| drop(daemon.command(&["reload"]));
    for (text, status, ask) in [
        (format!("{SOURCES}{ROUTES}"), "STATUS=routes.yaml is in force", Daemon::hang_up as fn(&_)),
        (String::new(), "STATUS=routes.yaml is bad: see the log", Daemon::hang_up),
        (format!("{SOURCES}{ROUTES}"), "STATUS=routes.yaml is in force", by_command),
    ] {
        std::fs::write(dir.path().join("routes.yaml"), text).expect("to write the file");
        ask(&daemon);
        let begun = manager.hear();
        assert_eq!(begun[0], "RELOADING=1");
        let since = begun[1].strip_prefix("MONOTONIC_USEC=").expect("a time");
        assert!(since.parse::<u64>().is_ok_and(|since| since > 0), "{since}");
        assert_eq!(manager.hear(), ["READY=1", status]);
    }
}

#[test]
fn the_watchdog_is_silent_unless_it_was_asked_for() {
    for variables in [&[][..], &[("WATCHDOG_USEC", "10000"), ("WATCHDOG_PID", "1")]] {
        let dir = tempfile::tempdir().expect("a directory");
        let manager = Manager::listen(&dir);
        let daemon = manager.start(&dir, variables);
        assert_eq!(manager.hear()[0], "READY=1");
        assert!(daemon.stop().success());
        assert_eq!(manager.rest(), [["STOPPING=1", "STATUS=draining"]]);
    }
}

#[test]
fn a_daemon_that_cannot_start_is_never_ready() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = Manager::listen(&dir);
    let taken = TcpListener::bind("127.0.0.1:0")
        .and_then(|taken| taken.local_addr().map(|address| (taken, address)));
    let (_taken, address) = taken.expect("a port");
    let (path, address) = (manager.path.to_str().expect("UTF-8"), address.to_string());
    let variables = [("NOTIFY_SOCKET", path), ("WAYPOST_LISTEN", &address)];
    let (status, log) = Daemon::fails(dir.path(), &format!("{SOURCES}{ROUTES}"), &variables);
    assert_eq!(status.code(), Some(1), "{log}");
    assert_eq!(manager.rest(), Vec::<Vec<String>>::new());
}

#[test]
fn a_manager_that_does_not_listen_holds_up_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let manager = Manager::listen(&dir);
    let daemon = manager.start(&dir, &[("WATCHDOG_USEC", "2000")]);
    assert_eq!(manager.hear()[0], "READY=1");
    let unheard = manager.fill();
    let answer = Raw::connect(daemon.listen).ask(raw::request(&sender::miibo("{}")));
    assert_eq!(answer.status, 200);
    assert!(daemon.stop().success());
    let said = manager.rest();
    assert!(said.len() >= unheard, "{said:?}");
    assert!(said.iter().flatten().all(|line| line != "STOPPING=1"), "{said:?}");
}
