//! `waypost dead-letters`: what was given up on, and why.

use std::sync::Arc;

use serde_json::json;

use super::{Error, print, printable, tell};
use crate::{
    clock::rfc3339,
    dispatch::{dead_letter, kept::Kept},
    journal::RealDisk,
    settings::Settings,
};

/// Longest excerpt of a reason in a line.
const MAX_REASON_CHARS: usize = 300;

/// Look at what was given up on.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  waypost dead-letters list
  waypost dead-letters list --json | jq -r .reason | sort | uniq -c")]
pub enum Command {
    List(List),
}

/// List dead letters, oldest first, from the data directory; the daemon may be running or not.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost dead-letters list
  waypost dead-letters list --data-dir /var/lib/waypost --json | jq -r .reason | sort | uniq -c")]
pub struct List {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn main(command: Command, settings: &Settings) -> Result<(), Error> {
    let Command::List(arguments) = command;
    let data_dir = &settings.data_dir;
    // Not the same as a daemon that never gave up on anything.
    if !dead_letter::dir(data_dir).is_dir() {
        let hint = "name its data directory with --data-dir";
        return Err(Error(format!("no daemon has run in {}; {hint}", data_dir.display())));
    }
    let letters = dead_letter::list(Arc::new(RealDisk), data_dir).map_err(Error::new)?;
    let mut damaged = None;
    let mut count = 0;
    for letter in letters {
        match letter {
            Ok(kept) => {
                count += 1;
                print(&if arguments.json { as_json(&kept) } else { as_text(&kept) })?;
            }
            Err(error) => {
                tell(&format!("waypost: {error}"));
                damaged = Some(error);
            }
        }
    }
    if count == 0 && damaged.is_none() && !arguments.json {
        print("no dead letters\n")?;
    }
    match damaged {
        None => Ok(()),
        Some(error) => Err(Error(format!("not all dead letters can be read: {error}"))),
    }
}

fn as_text(kept: &Kept) -> String {
    let address = kept.message.address.as_ref().map_or("-".to_owned(), ToString::to_string);
    format!(
        "{}  {} → {}  {} {} {}  ({} attempts)\n    because {}\n",
        rfc3339(kept.at_ms),
        kept.message.broker,
        printable(&address, MAX_REASON_CHARS),
        kept.event.source,
        printable(&kept.event.kind, MAX_REASON_CHARS),
        printable(&kept.event.id, MAX_REASON_CHARS),
        kept.attempts,
        printable(&kept.reason, MAX_REASON_CHARS),
    )
}

fn as_json(kept: &Kept) -> String {
    let line = json!({
        "time": rfc3339(kept.at_ms),
        "first_tried": (kept.first_ms > 0).then(|| rfc3339(kept.first_ms)),
        "attempts": kept.attempts,
        "reason": &*kept.reason,
        "broker": &*kept.message.broker,
        "route": &*kept.message.route,
        "address": kept.message.address.as_ref().ok().map(ToString::to_string),
        "id": &*kept.event.id,
        "source": &*kept.event.source,
        "type": &*kept.event.kind,
        "received": kept.event.time_rfc3339(),
        "body_bytes": kept.event.body.len(),
    });
    format!("{line}\n")
}
