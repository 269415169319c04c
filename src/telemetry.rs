//! The log: text on a terminal, JSON otherwise, always on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::settings::{Log, LogFormat};

/// What is logged unless `log.level` says otherwise. What a broker's client has to say, the
/// dispatcher says better; lapin is off altogether, since it logs the bodies of returned messages.
const DIRECTIVES: &str = "warn,waypost=info,lapin=off,async_nats=error";

/// Starts logging for the whole process.
pub fn start(log: &Log) -> Result<(), ParseError> {
    let directives = log.level.as_deref().unwrap_or(DIRECTIVES);
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
