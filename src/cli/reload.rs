//! `waypost reload`: put a changed `routes.yaml` in force, or say why not.

use std::process::ExitCode;

use http::Method;
use http_body_util::BodyExt;

use super::{Error, block_on, operator, print, tell};
use crate::{
    admin::config::{Attempt, Outcome},
    settings::Settings,
};

/// Have the running daemon read its routing table again, and say what became of it.
///
/// It does so by itself when the file or a secret file changes; this is for who wants to know. Exits
/// with 0 if the file is in force, else with 1 and every problem: what was in force stays then.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost reload
  waypost reload --data-dir /var/lib/waypost
  waypost reload --json | jq -r .outcome
  waypost reload --admin-listen 10.0.0.7:9090 --token-file admin.token")]
pub struct Arguments {
    /// What became of it, as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    identity: operator::Identity,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let (address, token) = arguments.identity.address_and_token(settings)?;
    let body = block_on(async {
        let response = operator::ask(address, Method::POST, "/-/reload", Some(&token)).await?;
        Ok(response.into_body().collect().await.map_err(Error::new)?.to_bytes())
    })?;
    let attempt: Attempt = serde_json::from_slice(&body).map_err(|error| {
        let hint = "is the daemon of another version?";
        Error(format!("{address} says what this command does not understand ({error}); {hint}"))
    })?;
    if arguments.json {
        print(&String::from_utf8_lossy(&body))?;
    } else if attempt.outcome == Outcome::Rejected {
        let problems = attempt.problems.join("\n");
        tell(&format!("{problems}\nwaypost: the routing table stays as it was"));
    } else {
        print(&text(&attempt))?;
        attempt.warnings.iter().for_each(|warning| tell(warning));
    }
    Ok(match attempt.outcome {
        Outcome::Rejected => ExitCode::FAILURE,
        Outcome::Applied | Outcome::Unchanged => ExitCode::SUCCESS,
    })
}

/// What became of one that is in force, and what it changed when it came.
fn text(attempt: &Attempt) -> String {
    let hash = attempt.hash.as_deref().unwrap_or_default();
    let since = attempt.since.as_deref().unwrap_or_default();
    let mut out = match attempt.outcome {
        Outcome::Unchanged => format!("unchanged: {hash} is in force since {since}\n"),
        _ => format!("reloaded: {hash} is in force\n"),
    };
    for (what, names) in attempt.changes.each() {
        if !names.is_empty() {
            out += &format!("    {what}: {}\n", names.join(", "));
        }
    }
    out
}
