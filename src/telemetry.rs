//! The log: text on a terminal, JSON otherwise, always on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::settings::{Log, LogFormat};

/// Starts logging for the whole process. Libraries are quieter than Waypost itself: what a broker's
/// client has to say, the dispatcher says better.
pub fn start(log: &Log) -> Result<(), ParseError> {
    let directives =
        log.level.as_deref().unwrap_or("waypost=info,warn,lapin=error,async_nats=error");
    let filter = EnvFilter::try_new(directives)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let text = match log.format {
        LogFormat::Auto => io::stderr().is_terminal(),
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
