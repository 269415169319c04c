//! The log: text on a terminal, JSON otherwise, always on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::settings::{Log, LogFormat};

/// What is logged unless `log.level` says otherwise.
const DEFAULT: &str = "warn,waypost=info";

/// Libraries that are silent whatever `log.level` says. lapin logs the bodies of returned messages,
/// and its frames hold the password; async-nats logs whole URLs, and every reconnect as an error.
/// What they have to say, the dispatcher says better.
const SILENT: [&str; 2] = ["lapin", "async_nats"];

/// Why `log.level` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("log.level does not parse: {0}; write a level, or MODULE=LEVEL with commas between")]
    Parse(#[from] ParseError),
    #[error("log.level names {0}, which would log payloads and credentials; leave it out")]
    Silent(&'static str),
}

/// Starts logging for the whole process.
pub fn start(log: &Log) -> Result<(), Error> {
    let level = log.level.as_deref().unwrap_or(DEFAULT);
    let mut filter = EnvFilter::try_new(level)?;
    for library in SILENT {
        // A directive for one of its modules would win over this one.
        if level.contains(library) {
            return Err(Error::Silent(library));
        }
        filter = filter.add_directive(format!("{library}=off").parse()?);
    }
    let on_terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
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
    Ok(())
}
