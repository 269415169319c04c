//! `waypost check`: what is wrong with a routing table, all of it, for people and for CI.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{Error, environment, input, print};
use crate::{
    routing::{self, Examined, Problem, Tally},
    settings::Settings,
};

/// Check a routing table: every mistake in it, with its place and what to do.
///
/// Ends with 0 if the daemon would take the file, else with 1. Warnings are about what the daemon takes
/// and what is probably not meant.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost check                                  the table that `waypost run` would read
  waypost check deploy/routes.yaml --strict      where warnings count, too
  waypost check --no-secrets routes.yaml         in CI, where there are no secrets
  waypost check --json routes.yaml | jq '.problems[].message'
  git show HEAD:routes.yaml | waypost check -")]
pub struct Arguments {
    /// The file, or - for standard input [default: that of --routes]
    file: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// End with 1 where there are warnings, too
    #[arg(long)]
    strict: bool,
    /// Look at no environment variable and at no file that the table names: check the form of
    /// references only
    #[arg(long)]
    no_secrets: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'r> {
    file: &'r str,
    /// Whether the command ends with 0.
    ok: bool,
    errors: usize,
    warnings: usize,
    /// Of very many, the worst.
    problems: &'r [Problem],
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let path = arguments.file.as_deref().unwrap_or(&settings.routes);
    let (file, bytes) = read(path)?;
    let env: Option<crate::secret::Env> = match arguments.no_secrets {
        true => None,
        false => Some(&environment),
    };
    let Examined { problems, parts, tally, .. } = routing::examine_bytes(&file, &bytes, env);
    let Tally { errors, warnings } = tally;
    let ok = errors == 0 && (warnings == 0 || !arguments.strict);
    let shown = match arguments.json {
        true => {
            let report = Report { file: &file, ok, errors, warnings, problems: &problems };
            serde_json::to_string_pretty(&report).map_err(Error::new)? + "\n"
        }
        false => listing(&file, &problems, tally, parts),
    };
    print(&shown)?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The problems one by one, and what they come to.
fn listing(
    file: &str,
    problems: &[Problem],
    tally: Tally,
    [sources, brokers, routes]: [usize; 3],
) -> String {
    if problems.is_empty() {
        let [sources, brokers, routes] =
            [(sources, "source"), (brokers, "broker"), (routes, "route")].map(counted);
        return format!("{file}: {sources}, {brokers}, {routes}: good\n");
    }
    let lines = problems.iter().map(|problem| format!("{problem}\n\n"));
    lines.collect::<String>() + &tally.with_shown(problems.len()) + "\n"
}

/// `1 source`, `2 sources`.
fn counted((count, one): (usize, &str)) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// What is in the file, and what messages call it.
fn read(path: &Path) -> Result<(String, Vec<u8>), Error> {
    if input::is_stdin(path) {
        return Ok(("<stdin>".to_owned(), input::read(path, None)?));
    }
    Ok((path.display().to_string(), super::read_routes(path)?))
}
