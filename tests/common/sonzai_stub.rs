//! The stand-in for Sonzai's API, run as a program of its own.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::raw::{Answer, Raw};

pub const KEY: &str = "sk_test";
pub const PROJECT: &str = "11111111-1111-4111-8111-111111111111";

/// How long what must come about may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running stand-in. Killed when dropped.
pub struct SonzaiStub {
    child: Child,
    /// Kept open, so that it can say more.
    _said: BufReader<ChildStdout>,
    pub address: SocketAddr,
}

impl SonzaiStub {
    /// Starts it on a free port, with the key [`KEY`] and these flags.
    pub fn start(flags: &[&str]) -> SonzaiStub {
        let mut child = Command::new(env!("CARGO_BIN_EXE_waypost"))
            .args(["sonzai", "stub", "--listen", "127.0.0.1:0", "--key", KEY])
            .args(flags)
            .current_dir(std::env::temp_dir())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("to start waypost");
        let mut said = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        said.read_line(&mut line).expect("its first line");
        let address = line.trim().strip_prefix("listening on http://").expect("where it listens");
        SonzaiStub { child, address: address.parse().expect("an address"), _said: said }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One call of the API, with the key.
    #[track_caller]
    pub fn call(&self, method: &str, target: &str, body: &str) -> Answer {
        self.ask(&request(method, &format!("/api/v1{target}"), body))
    }

    /// One call that must go well: its answer as JSON.
    #[track_caller]
    pub fn json(&self, method: &str, target: &str, body: &str) -> Value {
        let answer = self.call(method, target, body);
        assert_eq!(answer.status, 200, "{method} {target}: {answer:?}");
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// One request, byte for byte.
    #[track_caller]
    pub fn ask(&self, request: &str) -> Answer {
        Raw::connect(self.address).ask(request)
    }

    /// Tells it something, or asks for what it remembers.
    #[track_caller]
    pub fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.ask(&request(method, &format!("/-/{path}"), &body));
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Makes something happen.
    #[track_caller]
    pub fn emit(&self, emit: Value) -> Value {
        self.control("POST", "emit", &emit)
    }

    /// Waits until the stand-in's memory is as it must come to be.
    #[track_caller]
    pub fn await_state(&self, what: &str, come: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let state = self.control("GET", "state", &Value::Null);
            if come(&state) {
                return state;
            }
            assert!(started.elapsed() < PATIENCE, "{what} does not come about: {state:#}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and how it ends.
    pub fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("to signal it");
        self.child.wait().expect("its end")
    }
}

impl Drop for SonzaiStub {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A whole request with the key.
pub fn request(method: &str, target: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}
