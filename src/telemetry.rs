//! The log: text on a terminal, JSON otherwise, always on standard error.
//!
//! It never changes what the daemon does. A line is left to a thread that writes it; one that cannot be
//! written, or that nobody reads, is dropped, counted, and said once a line can be written again. See
//! [`lines`](Lines).

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    panic::{self, PanicHookInfo},
    sync::Arc,
    thread,
};

use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
};

use crate::settings::{self, LogFormat};

mod lines;

pub use lines::Lines;

/// What is logged unless `log.level` says otherwise.
const DEFAULT: &str = "warn,waypost=info";

/// Libraries that say no more than this whatever `log.level` says. lapin logs the bodies of returned
/// messages, and its frames hold the password; async-nats logs whole URLs, and every reconnect as an
/// error: what they have to say, the dispatcher says better. h2 repeats what senders' heads hold,
/// as long as it is, and warns of each stray PING.
const HELD_DOWN: [(&str, &str); 3] = [("lapin", "off"), ("async_nats", "off"), ("h2", "error")];

/// Why `log.level` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log.level does not parse: {0}; write a level, or MODULE=LEVEL with commas between")]
    Parse(#[from] ParseError),
    #[error(
        "log.level: `{0}` is no level; write off, error, warn, info, debug or trace, or MODULE=LEVEL \
         with commas between"
    )]
    NoLevel(String),
    #[error("log.level names {0}, which would log payloads and credentials; leave it out")]
    HeldDown(&'static str),
    #[error("cannot begin to log: {0}; raise the limits on file descriptors and threads")]
    Begin(#[from] io::Error),
}

/// The log at work. Once dropped, what was logged before is written, unless that takes too long.
#[must_use]
#[derive(Debug)]
pub struct Log(Arc<Lines>);

impl Log {
    /// What waits to be written.
    pub fn lines(&self) -> Arc<Lines> {
        self.0.clone()
    }

    /// Says something to whoever started the process, in no log's format and whatever `log.level` is.
    pub fn say(&self, words: &str) {
        self.0.push(format!("{words}\n").as_bytes());
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.settle();
    }
}

/// Starts logging for the whole process.
pub fn start(log: &settings::Log) -> Result<Log, Error> {
    let level = log.level.as_deref().unwrap_or(DEFAULT);
    // The filter would take the word for a module's name, and be silent about all others.
    if let Some(word) = no_level(level) {
        return Err(Error::NoLevel(word.to_owned()));
    }
    let mut filter = EnvFilter::try_new(level)?;
    for (library, most) in HELD_DOWN {
        // A directive for one of its modules would win over this one.
        if names(level, library) {
            return Err(Error::HeldDown(library));
        }
        filter = filter.add_directive(format!("{library}={most}").parse()?);
    }
    let on_terminal = io::stderr().is_terminal();
    let lines = Arc::new(Lines::new(log.max_queued_lines));
    // The descriptor itself: who panics while the log is stuck must not wait for the standard library's
    // lock around it.
    let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        // By `eprintln!`, which panics where there is trouble with standard error.
        .log_internal_errors(false)
        .with_ansi(on_terminal);
    let text = match log.format {
        LogFormat::Auto => on_terminal,
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    if text {
        builder.with_target(false).init();
    } else {
        builder.json().flatten_event(true).init();
    }
    panic::set_hook(Box::new(tell_panic));
    let writes = lines.clone();
    // Never joined: it may be stuck for as long as the log's reader is.
    thread::Builder::new()
        .name("log".into())
        .spawn(move || writes.write_all_to(out, tell_dropped))?;
    Ok(Log(lines))
}

fn tell_dropped(lines: u64) {
    tracing::warn!(
        lines,
        "lines of the log are lost: they could not be written, or were not read in time"
    );
}

/// What a panic says is a line of the log. The standard library's own hook writes to standard error itself
/// and shrugs off an error, but waits, with a lock that every other panic wants, where nobody reads.
fn tell_panic(panic: &PanicHookInfo) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let words = words(panic.payload());
    let trace = Backtrace::capture();
    let backtrace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    tracing::error!(
        thread,
        at,
        panic = words,
        backtrace,
        "waypost panicked, which is a mistake of its own"
    );
}

/// What a panic says: text, unless it was raised with a value of another type.
fn words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref().map(String::as_str)).unwrap_or("(no text)")
}

/// A directive that is a single word and no level.
fn no_level(level: &str) -> Option<&str> {
    let mut words = level.split(',').map(str::trim).filter(|directive| !directive.is_empty());
    words.find(|word| !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err())
}

/// Whether a directive is about a library or one of its modules.
fn names(level: &str, library: &str) -> bool {
    level.split(',').any(|directive| directive.trim_start().starts_with(library))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Write, pipe},
        process::{Command, Stdio},
    };

    use super::*;

    /// The hook is the whole process's: the test below runs this in one of its own.
    #[test]
    #[ignore = "changes the process that it runs in"]
    fn a_process_of_which_threads_panic() {
        let _log = start(&settings::Log::default()).unwrap();
        for _ in 0..2 {
            let panics = || panic!("a {}", "mistake");
            let thread = thread::Builder::new().name("worker".into()).spawn(panics);
            assert!(thread.unwrap().join().is_err());
        }
    }

    #[test]
    fn a_panic_is_a_line_of_the_log_and_waits_for_nobody_who_reads_it() {
        let run = |stderr: Stdio| {
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "telemetry::tests::a_process_of_which_threads_panic"])
                .args(["--ignored", "--nocapture"])
                .stdout(Stdio::null())
                .stderr(stderr)
                .status();
            assert!(status.unwrap().success());
        };
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        run(fs::File::create(&file).unwrap().into());
        let log = fs::read_to_string(file).unwrap();
        let lines: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{log}");
        for line in lines {
            assert_eq!((&line["panic"], &line["thread"]), (&"a mistake".into(), &"worker".into()));
            assert!(line["at"].as_str().unwrap().starts_with("src/telemetry.rs:"), "{line}");
        }

        let (_reader, mut writer) = pipe().unwrap();
        writer.write_all(&[0; PIPE_BYTES]).unwrap();
        run(writer.into());
        run(fs::File::options().write(true).open("/dev/full").unwrap().into());
        run(pipe().unwrap().1.into());
    }

    /// What a pipe takes that nobody reads, from pipe(7).
    const PIPE_BYTES: usize = 64 << 10;

    #[test]
    fn a_misspelt_level_is_no_modules_name() {
        for (level, expected) in [
            ("debug", None),
            ("INFO", None),
            ("warn,waypost=info", None),
            ("off", None),
            ("info,waypost::server[conn]=debug", None),
            ("debgu", Some("debgu")),
            ("info, verbose", Some("verbose")),
        ] {
            assert_eq!(no_level(level), expected, "{level}");
        }
    }

    #[test]
    fn a_library_is_named_by_itself_or_a_module() {
        for (level, expected) in [
            ("h2", true),
            ("h2=trace", true),
            ("info, h2::proto=debug", true),
            ("info", false),
            ("waypost::server::http2=debug,info", false),
            ("hyper::proto::h2=debug", false),
        ] {
            assert_eq!(names(level, "h2"), expected, "{level}");
        }
    }
}
