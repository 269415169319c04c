//! The log: text on a terminal, JSON otherwise, always on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
};

use crate::settings::{Log, LogFormat};

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
}

/// Starts logging for the whole process.
pub fn start(log: &Log) -> Result<(), Error> {
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
    use super::*;

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
