//! Runs a command as people do, and sees how it ends.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How long a command may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command with nothing but these variables in its environment.
pub fn waypost(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Outcome {
    waypost_reading(dir, arguments, env, b"")
}

pub fn waypost_reading(
    dir: &Path,
    arguments: &[&str],
    env: &[(&str, &str)],
    input: &[u8],
) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_waypost"))
        .args(arguments)
        .current_dir(dir)
        .env_clear()
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("to run waypost");
    let mut stdin = child.stdin.take().expect("its input");
    let reader = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).expect("text");
            text
        })
    };
    let out = reader(Box::new(child.stdout.take().expect("its output")));
    let err = reader(Box::new(child.stderr.take().expect("its errors")));
    let input = input.to_vec();
    // A command that reads nothing may have ended already.
    std::thread::spawn(move || stdin.write_all(&input).ok());
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().expect("to kill it");
            child.wait().expect("its end");
            panic!("{arguments:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |thread: std::thread::JoinHandle<String>| thread.join().expect("a reader");
    Outcome { code: status.code(), out: text(out), err: text(err) }
}

/// A directory with this routing table.
pub fn directory(routes: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("routes.yaml"), routes).expect("to write routes.yaml");
    dir
}

/// It ended with 1, and standard error holds all these.
#[track_caller]
pub fn assert_fails(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    for part in parts {
        assert!(outcome.err.contains(part), "`{part}` is missing in:\n{}", outcome.err);
    }
}
