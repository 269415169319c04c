//! The log never changes what the daemon does: not where it cannot be written, and not where nobody reads
//! it.

use std::{
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::common::{
    command::directory,
    daemon::{ALL_TO_FILES, Daemon, SOURCES},
    faults::{Fault, Faults, STEPS},
    log_files,
    operator::{Scrape, await_metrics},
    raw::{self, Raw},
    sender::{self, Webhook},
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const DROPPED: &str = "waypost_log_dropped_lines_total";

/// What says that lines were dropped, before their number.
const LOST: &str = "lines of the log are lost";

/// A broker that is never there is something to log, too.
fn routes() -> String {
    format!("{SOURCES}\n{ALL_TO_FILES}")
        .replace("brokers:\n", "brokers:\n  away: { type: nats, url: \"nats://127.0.0.1:9\" }\n")
}

fn status(daemon: &Daemon, webhook: &Webhook) -> u16 {
    Raw::connect(daemon.listen).ask(raw::request(webhook)).status
}

fn signed(n: usize) -> Webhook {
    sender::miibo(format!(r#"{{"webhookType":"user_utterance","n":{n}}}"#))
}

/// What is logged, where one is.
fn unsigned() -> Webhook {
    Webhook { headers: Vec::new(), ..signed(0) }
}

/// Everything that is logged happens all the same, to the end.
fn assert_does_as_ever(dir: &Path, daemon: Daemon) {
    assert_eq!(status(&daemon, &unsigned()), 401);
    assert_eq!(status(&daemon, &signed(1)), 200);
    for (text, code) in
        [(routes() + "# another\n", 0), ("routes: 7\n".to_owned(), 1), (routes(), 0)]
    {
        fs::write(dir.join("routes.yaml"), text).expect("to write routes.yaml");
        let (outcome, said) = daemon.command(&["reload"]);
        assert_eq!(outcome.code(), Some(code), "{said}");
    }
    assert_eq!(status(&daemon, &unsigned()), 401);
    assert_eq!(status(&daemon, &signed(2)), 200);
    assert_eq!(daemon.stop().code(), Some(0));
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("/dev/full")
}

/// A pipe of which nobody has the other end.
fn closed() -> PipeWriter {
    io::pipe().expect("a pipe").1
}

#[test]
fn an_event_that_is_accepted_and_delivered_is_no_line_of_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(dir.path(), ALL_TO_FILES, &[]);
    assert_eq!(status(&daemon, &signed(0)), 200);
    log_files::wait_for(&daemon.data_dir(), 1);
    let before = daemon.log();
    for n in 1..100 {
        assert_eq!(status(&daemon, &signed(n)), 200);
    }
    log_files::wait_for(&daemon.data_dir(), 100);
    assert_eq!(daemon.stop().code(), Some(0));
    let log = fs::read_to_string(dir.path().join("daemon.log")).expect("the log");
    let since: Vec<&str> = log.strip_prefix(&before).expect("what came since").lines().collect();
    let ended = ["told to stop", "draining", "drained"];
    assert!(since.iter().all(|line| ended.iter().any(|word| line.contains(word))), "{since:?}");
}

#[test]
fn a_log_that_can_never_be_written_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start_logging_to(dir.path(), &routes(), &[], full());
    assert!(Scrape::of(&daemon).get(DROPPED) > 0.0);
    assert_does_as_ever(dir.path(), daemon);
}

#[test]
fn a_log_whose_reader_went_away_changes_nothing() {
    for level in ["warn,waypost=info", "trace"] {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let settings = [("WAYPOST_LOG__LEVEL", level)];
        let daemon = Daemon::start_logging_to(dir.path(), &routes(), &settings, writer);
        reader.read_exact(&mut [0; 64]).expect("a line of the log");
        drop(reader);
        assert_eq!(status(&daemon, &unsigned()), 401);
        await_metrics(&daemon, "what was lost is counted", |scrape| scrape.get(DROPPED) > 0.0);
        assert_does_as_ever(dir.path(), daemon);
    }
}

/// A daemon whose log nobody reads; its pipe and its queue are full.
fn unread(dir: &Path) -> (Daemon, PipeReader) {
    let (reader, writer) = io::pipe().expect("a pipe");
    fill(&writer);
    let settings = [("WAYPOST_LOG__LEVEL", "debug"), ("WAYPOST_LOG__MAX_QUEUED_LINES", "64")];
    let daemon = Daemon::start_logging_to(dir, &routes(), &settings, writer);
    // Each is a line.
    for n in 0..80 {
        assert_eq!(status(&daemon, &signed(n)), 200);
    }
    assert!(Scrape::of(&daemon).get(DROPPED) > 0.0);
    Scrape::of(&daemon)
        .assert(&[("waypost_log_queued_lines", 65.0), ("waypost_log_queued_limit_lines", 64.0)]);
    (daemon, reader)
}

#[test]
fn a_log_that_nobody_reads_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (daemon, _unread) = unread(dir.path());
    assert_does_as_ever(dir.path(), daemon);
}

#[test]
fn a_second_signal_ends_at_once_though_nobody_reads_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let (reader, writer) = io::pipe().expect("a pipe");
    fill(&writer);
    let settings = [("WAYPOST_SHUTDOWN__DELAY", "1h")];
    let daemon = Daemon::start_logging_to(dir.path(), &routes(), &settings, writer);
    daemon.terminate();
    await_metrics(&daemon, "it drains", |scrape| scrape.get("waypost_ready") == 0.0);
    daemon.terminate();
    assert_eq!(daemon.ended().code(), Some(1));
    drop(reader);
}

/// Fills a pipe.
fn fill(pipe: &PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(pipe).expect("its flags");
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).expect("a pipe that does not wait");
    let mut out = pipe;
    // Whole pages, then single bytes.
    for chunk in [&[b'x'; 4096][..], b"x"] {
        while io::Write::write(&mut out, chunk).is_ok() {}
    }
    fcntl_setfl(pipe, flags).expect("a pipe that waits");
}

#[test]
fn what_was_lost_while_nobody_read_is_said_once_somebody_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let (daemon, mut reader) = unread(dir.path());
    let lost = Scrape::of(&daemon).get(DROPPED);
    let text = Arc::new(Mutex::new(Vec::new()));
    let read = std::thread::spawn({
        let text = text.clone();
        move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                text.lock().expect("the text").extend_from_slice(&chunk[..count]);
            }
        }
    });
    let started = Instant::now();
    let said = || said_lost(&String::from_utf8_lossy(&text.lock().expect("the text")));
    while (said().iter().sum::<u64>() as f64) < lost {
        assert!(started.elapsed() < PATIENCE, "{lost} lines are lost, and {:?} are told", said());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(daemon.stop().code(), Some(0));
    read.join().expect("the reader");
    let text = String::from_utf8_lossy(&text.lock().expect("the text")).into_owned();
    assert!(text.trim_end().lines().any(|line| line.ends_with("drained")), "{text}");
}

/// How many lines a log says were lost, each time.
fn said_lost(text: &str) -> Vec<u64> {
    let number =
        |line: &str| line.contains(LOST).then(|| line.rsplit_once("lines=")?.1.parse().ok());
    text.lines().filter_map(number).map(|number| number.expect("a number")).collect()
}

#[test]
fn a_log_on_the_data_directorys_full_disk_changes_nothing_and_goes_on_when_there_is_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), dir.path());
    let settings = [&faults.settings()[..], &[STEPS]].concat();
    let daemon = Daemon::start(dir.path(), &routes(), &settings);
    assert_eq!(status(&daemon, &signed(0)), 200);
    faults.arm(Fault::Full);
    for n in 1..=3 {
        assert_eq!(status(&daemon, &signed(n)), 503);
        assert_eq!(status(&daemon, &unsigned()), 401);
    }
    await_metrics(&daemon, "what was lost is counted", |scrape| scrape.get(DROPPED) > 0.0);
    faults.disarm(Fault::Full);
    let started = Instant::now();
    while status(&daemon, &signed(1)) != 200 || said_lost(&daemon.log()).is_empty() {
        assert!(started.elapsed() < PATIENCE, "{}", daemon.log());
        // A line a second says so.
        status(&daemon, &unsigned());
        std::thread::sleep(Duration::from_millis(100));
    }
    let lost = Scrape::of(&daemon).get(DROPPED);
    let log = daemon.log();
    assert_eq!(said_lost(&log).iter().sum::<u64>() as f64, lost, "{log}");
    assert!(!log.contains("panicked"), "{log}");
    assert_does_as_ever(dir.path(), daemon);
}

#[test]
fn what_was_logged_before_the_end_is_written_whatever_the_end_is() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let in_the_way = [("WAYPOST_LISTEN", &*address)];
    let dir = tempfile::tempdir().expect("a directory");
    let (status, log) = Daemon::fails(dir.path(), &routes(), &in_the_way);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("waypost ends") && log.contains(&address), "{log}");
    assert_eq!(
        Daemon::fails_logging_to(dir.path(), &routes(), &in_the_way, full()).code(),
        Some(1)
    );

    // Before there is a table, it is said to whoever started the daemon.
    let dir = tempfile::tempdir().expect("a directory");
    let (status, log) = Daemon::fails(dir.path(), "routes: 7\n", &[]);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("waypost: ") && log.contains("routes.yaml"), "{log}");
    let (_reader, writer) = io::pipe().expect("a pipe");
    fill(&writer);
    for stderr in [Stdio::from(full()), closed().into(), writer.into()] {
        let status = Daemon::fails_logging_to(dir.path(), "routes: 7\n", &[], stderr);
        assert_eq!(status.code(), Some(1));
    }

    let dir = tempfile::tempdir().expect("a directory");
    let settings = [("WAYPOST_SHUTDOWN__DELAY", "1h")];
    let daemon = Daemon::start(dir.path(), &routes(), &settings);
    daemon.terminate();
    await_metrics(&daemon, "it drains", |scrape| scrape.get("waypost_ready") == 0.0);
    daemon.terminate();
    assert_eq!(daemon.ended().code(), Some(1));
    let log = fs::read_to_string(dir.path().join("daemon.log")).expect("the log");
    assert!(log.contains("told to stop") && log.contains("told again"), "{log}");
}

#[test]
fn a_command_that_nobody_listens_to_ends_as_it_would_otherwise() {
    let dir = directory(&format!("{SOURCES}\n{ALL_TO_FILES}"));
    fs::write(dir.path().join("bad.yaml"), "routes: 7\n").expect("to write bad.yaml");
    // Each with its exit code, and with that where its output is to be kept and cannot be.
    for (arguments, code, full_code) in [
        (&["check"][..], 0, 1),
        (&["check", "bad.yaml"], 1, 1),
        (&["schema"], 0, 1),
        (&["explain", "--sample", "agent.message"], 0, 1),
        (&["explain", "--event", "083b526cccd3e6f2762e3177ae8715dd"], 1, 1),
        (&["dead-letters", "list"], 1, 1),
        (&["status"], 1, 1),
        (&["reload"], 1, 1),
        (&["tail"], 1, 1),
        (&["send", "miibo"], 1, 1),
        (&["run", "--routes", "none.yaml"], 1, 1),
        (&["--version"], 0, 0),
        (&["--help"], 0, 0),
        (&["nonsense"], 2, 2),
    ] {
        let run = |out: Stdio, err: Stdio| {
            let status = Command::new(env!("CARGO_BIN_EXE_waypost"))
                .args(arguments)
                .current_dir(dir.path())
                .env_clear()
                .envs([("SONZAI_SECRET", "s"), ("MIIBO_SECRET", "m")])
                .stdin(Stdio::null())
                .stdout(out)
                .stderr(err)
                .status();
            status.expect("to run waypost").code()
        };
        assert_eq!(run(Stdio::null(), Stdio::null()), Some(code), "{arguments:?}");
        assert_eq!(run(closed().into(), closed().into()), Some(code), "{arguments:?}");
        assert_eq!(run(full().into(), full().into()), Some(full_code), "{arguments:?}");
    }
}
