//! `waypost sonzai webhooks`: what is registered at Sonzai, and whether that is what `routes.yaml` says.
//!
//! All of it goes through the running daemon: it holds the secrets, and it has deliveries sent again
//! while one is being changed.

use std::{process::ExitCode, time::Duration};

use super::super::{Error, block_on, operator, print};
use crate::{
    settings::Settings,
    sonzai::webhooks::{
        desk::{DEFAULT_ATTEMPTS, MAX_ATTEMPTS},
        document::{Action, Answer, Asked},
    },
};

mod text;

/// The admin API's page.
const PAGE: &str = "/api/sonzai/webhooks";

/// How long the daemon may take: each change calls the API several times, and waits for it each time.
const ANSWER_WITHIN: Duration = Duration::from_secs(30 * 60);

/// What a command ends with that leaves something to do.
const LEFT_TO_DO: u8 = 2;

/// Register webhooks at Sonzai, and change their secrets, through the running daemon.
///
/// The daemon keeps each secret that Sonzai gives under DATA_DIR/secrets, and verifies with it at once.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  waypost sonzai webhooks sync                      what there is to do
  waypost sonzai webhooks sync --yes                do it
  waypost sonzai webhooks list
  waypost sonzai webhooks attempts agent.message
  waypost sonzai webhooks rotate agent.message --yes
  waypost sonzai webhooks delete agent.message --yes")]
pub enum Command {
    Sync(Sync),
    List(List),
    Attempts(Attempts),
    Rotate(Change),
    Delete(Delete),
}

/// Make what is registered what `register:` in routes.yaml says.
///
/// Without --yes it only shows what there is to do. A webhook whose secret nobody here knows is
/// shown, and gets another one only with --rotate-unknown. Webhooks that lead elsewhere, and whose type is not in
/// `register:`, are left alone. Ends with 0 if nothing is left to do, with 2 if something is, and with 1
/// if something failed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai webhooks sync
  waypost sonzai webhooks sync --yes
  waypost sonzai webhooks sync --yes --rotate-unknown
  waypost sonzai webhooks sync --json | jq '.webhooks[] | select(.do != \"nothing\")'")]
pub struct Sync {
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Make another secret for webhooks whose secret nobody here knows
    #[arg(long)]
    rotate_unknown: bool,
    #[command(flatten)]
    common: Common,
}

/// List what is registered, what is known of its secret, and the last delivery of each.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai webhooks list
  waypost sonzai webhooks list --project proj_1 --json | jq -r '.webhooks[].type'")]
pub struct List {
    #[command(flatten)]
    common: Common,
}

/// List what became of deliveries of a type, as Sonzai saw it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai webhooks attempts agent.message
  waypost sonzai webhooks attempts agent.message --limit 500 --json \\
    | jq '.attempts[] | select(.status != \"success\")'
  waypost sonzai webhooks attempts agent.message --cursor CURSOR      the next page")]
pub struct Attempts {
    /// The event type
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// How many, 1 to 500
    #[arg(long, value_name = "N", default_value_t = DEFAULT_ATTEMPTS,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ATTEMPTS)))]
    limit: u32,
    /// Where to go on, as the last page said
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Make another secret, without losing a delivery.
///
/// Sonzai invalidates the old one at once. While the new one is on its way, the daemon has deliveries that
/// it cannot verify sent again. Without --yes it only says what it would do, and ends with 2.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai webhooks rotate agent.message --yes
  waypost sonzai webhooks rotate --yes                 those of all types that lead here")]
pub struct Change {
    /// The event type [default: all that lead here]
    #[arg(value_name = "TYPE")]
    event_type: Option<String>,
    /// Do it
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    common: Common,
}

/// Register no more: Sonzai delivers nothing of the type from then on.
///
/// What is under way is still taken for a while. Without --yes it only says what it would do, and ends
/// with 2.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai webhooks delete agent.message --yes
  waypost sonzai webhooks delete --yes                 those of all types that lead here")]
pub struct Delete {
    #[command(flatten)]
    change: Change,
}

#[derive(clap::Args)]
struct Common {
    /// Name of a source with `api:` [default: the only one]
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Webhooks of this project [default: what `register:` says, else the key's own]
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// One JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    identity: operator::Identity,
}

pub fn main(command: Command, settings: &Settings) -> Result<ExitCode, Error> {
    let ask = |action, common: &Common| Asked {
        action,
        source: common.source.clone(),
        project: common.project.clone(),
        event_type: None,
        apply: false,
        rotate_unknown: false,
        limit: None,
        cursor: None,
    };
    let (asked, common) = match command {
        Command::List(List { common }) => (ask(Action::List, &common), common),
        Command::Sync(Sync { yes: apply, rotate_unknown, common }) => {
            (Asked { apply, rotate_unknown, ..ask(Action::Sync, &common) }, common)
        }
        Command::Attempts(Attempts { event_type, limit, cursor, common }) => {
            let (event_type, limit) = (Some(event_type), Some(limit));
            (Asked { event_type, limit, cursor, ..ask(Action::Attempts, &common) }, common)
        }
        Command::Rotate(Change { event_type, yes: apply, common }) => {
            (Asked { event_type, apply, ..ask(Action::Rotate, &common) }, common)
        }
        Command::Delete(Delete { change: Change { event_type, yes: apply, common } }) => {
            (Asked { event_type, apply, ..ask(Action::Delete, &common) }, common)
        }
    };
    let (address, token) = common.identity.address_and_token(settings)?;
    let json = serde_json::to_vec(&asked).map_err(Error::new)?;
    let body = block_on(operator::have_done(address, PAGE, &token, json, ANSWER_WITHIN))?;
    let answer: Answer = serde_json::from_slice(&body).map_err(|error| {
        let hint = "is the daemon of another version?";
        Error(format!("{address} says what this command does not understand ({error}); {hint}"))
    })?;
    if common.json {
        print(&String::from_utf8_lossy(&body))?;
    } else {
        print(&text::of(&asked, &answer))?;
    }
    Ok(ends_with(&asked, &answer))
}

/// What a script learns.
fn ends_with(asked: &Asked, answer: &Answer) -> ExitCode {
    let changes = !matches!(asked.action, Action::List | Action::Attempts);
    match () {
        () if answer.webhooks.iter().any(|row| row.done == Some(false)) => ExitCode::FAILURE,
        () if changes && answer.webhooks.iter().any(|row| row.is_left()) => {
            ExitCode::from(LEFT_TO_DO)
        }
        () => ExitCode::SUCCESS,
    }
}
