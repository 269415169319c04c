//! `waypost journal skip`: gives up on what the disk cannot read, through the running daemon.

use std::{
    io::{BufRead, stdin},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use super::super::{Error, block_on, operator, print, printable};
use crate::{
    admin::{Region, Skip, SkipAnswer, Token, Unreadable},
    settings::Settings,
};

/// The admin API's page.
const PAGE: &str = "/api/journal/skip";

/// How long the daemon may take: it writes down what is given up on, on a disk that is not well.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Longest reason that is shown.
const MAX_REASON_CHARS: usize = 300;

/// Give up on what the disk cannot read at present: from then on it counts as damaged, and as lost to
/// every broker that has not had it.
///
/// Brokers step over it after journal.read_patience, and have it delivered once the disk reads it again:
/// there is no need to skip what may still be read. Shows what there is and asks twice. A broker may meet
/// more behind it: then `waypost status` tells of that, and this can be run again. Ends with 0 if it was
/// done, or if there is nothing to skip.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost journal skip
  waypost journal skip --data-dir /var/lib/waypost
  waypost journal skip --yes                     in a script: asks nothing")]
pub struct Arguments {
    /// Do it, and ask nothing
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    identity: operator::Identity,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let (address, token) = arguments.identity.address_and_token(settings)?;
    let there = ask(address, &token, &Skip::default())?.unreadable;
    if there.regions == 0 {
        print("everything can be read: there is nothing to skip\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&text(&there))?;
    if !arguments.yes && !is_confirmed(&there)? {
        print("nothing was skipped\n")?;
        return Ok(ExitCode::FAILURE);
    }
    let skipped = ask(address, &token, &Skip { records: Some(there.records) })?.skipped;
    print(&format!(
        "{skipped} regions were skipped; `waypost dead-letters list` tells what of them was lost, and \
         `waypost status` whether there are more\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

fn ask(address: SocketAddr, token: &Token, skip: &Skip) -> Result<SkipAnswer, Error> {
    let json = serde_json::to_vec(skip).map_err(Error::new)?;
    let body = block_on(operator::have_done(address, PAGE, token, json, ANSWER_WITHIN))?;
    serde_json::from_slice(&body).map_err(|error| {
        let hint = "is the daemon of another version?";
        Error(format!("{address} says what this command does not understand ({error}); {hint}"))
    })
}

fn text(unreadable: &Unreadable) -> String {
    let Unreadable { regions, records, some } = unreadable;
    let mut out = format!("the disk cannot read {regions} regions, up to {records} records:\n");
    for Region { file, offset, bytes, records, for_seconds, error, .. } in some {
        out += &format!(
            "  {} at {offset}, {bytes} bytes, up to {records} records, for {for_seconds} s: {}\n",
            file.display(),
            printable(error, MAX_REASON_CHARS)
        );
    }
    let more = regions.saturating_sub(some.len() as u64);
    if more > 0 {
        out += &format!("  and {more} more\n");
    }
    out
}

/// Asks twice: first whether it is understood what this means, then for a word that is typed by nobody
/// who does not look.
fn is_confirmed(unreadable: &Unreadable) -> Result<bool, Error> {
    print(
        "\nSkipped, they are lost to every broker that has not had them, even if the disk reads them \
         again;\n`waypost journal salvage` could then send them on. Left as they are, they are \
         delivered\nonce it does, and nothing else waits for them.\n\nSkip them? [yes/no] ",
    )?;
    if !matches!(&*typed()?, "y" | "yes") {
        return Ok(false);
    }
    let records = unreadable.records;
    print(&format!("How many records is that at the most? Type {records} to skip them: "))?;
    Ok(typed()? == records.to_string())
}

/// A line of standard input; empty at its end.
fn typed() -> Result<String, Error> {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).map_err(Error::new)?;
    Ok(line.trim().to_owned())
}
