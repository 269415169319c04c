//! `waypost sonzai repair`: fetches what an outage lost, through the running daemon.

use std::{
    io::{IsTerminal, stderr},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use indicatif::{ProgressBar, ProgressStyle};

use super::super::{Error, block_on, operator, print, printable, tell};
use crate::{
    admin::Token,
    settings::Settings,
    sonzai::repair::{Counts, Line, Request, Step, Summary},
};

/// The admin API's page.
const PAGE: &str = "/api/sonzai/repair";

/// How long the daemon may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// What the command ends with where something cannot be had.
const OUT_OF_REACH: u8 = 3;

/// Longest reason that is shown.
const MAX_REASON_CHARS: usize = 300;

/// Fetch what an outage lost: agents' notifications of every status, and the bodies of failed attempts at
/// webhooks. What came in before is known, and comes in once.
///
/// The agents are those of `poll:` in routes.yaml, else all there are; the webhooks those of `register:`,
/// else all that are registered. Ends with 0 if everything is in, with 3 if something is out of reach (an
/// agent's history shows its newest 500 notifications and no more; a failed attempt may have no body), and
/// with 1 in trouble: run it again then.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai repair --since 2h
  waypost sonzai repair --since 2h --dry-run
  waypost sonzai repair --since 1day --agent agent_7f3a --agent agent_81bc
  waypost sonzai repair --since 30m --json | jq .notifications.new")]
pub struct Arguments {
    /// How far back, such as 90m, 2h, 1day; beyond dedupe.window, what came in comes again
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Duration,
    /// This agent alone, by id; may be given more than once
    #[arg(long = "agent", value_name = "ID", conflicts_with = "project")]
    agents: Vec<String>,
    /// The agents and webhooks of this project
    #[arg(long, value_name = "ID")]
    project: Option<String>,
    /// The source, where several have `api:`
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Let nothing in, and only show what would be
    #[arg(long)]
    dry_run: bool,
    /// The summary, as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    identity: operator::Identity,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let (address, token) = arguments.identity.address_and_token(settings)?;
    let request = Request {
        source: arguments.source,
        // A part of a second is no less than it was meant to be.
        since_seconds: arguments.since.as_millis().div_ceil(1000) as u64,
        agents: arguments.agents,
        project: arguments.project,
        dry_run: arguments.dry_run,
    };
    let summary = block_on(repair(address, &token, &request))?;
    print(&if arguments.json {
        format!("{}\n", serde_json::to_string(&summary).map_err(Error::new)?)
    } else {
        text(&summary)
    })?;
    Ok(match &summary {
        summary if !summary.trouble.is_empty() => ExitCode::FAILURE,
        summary if summary.out_of_reach() > 0 => ExitCode::from(OUT_OF_REACH),
        _ => ExitCode::SUCCESS,
    })
}

async fn repair(address: SocketAddr, token: &Token, request: &Request) -> Result<Summary, Error> {
    let json = serde_json::to_vec(request).map_err(Error::new)?;
    let response = operator::begin(address, PAGE, token, json, BEGINS_WITHIN).await?;
    let mut lines = Lines { body: response.into_body(), pending: Vec::new() };
    let mut shown = Shown::new();
    while let Some(line) = lines.next().await? {
        match line {
            Line::Progress { step, done, total, found, new } => {
                shown.progress(step, (done, total), (found, new));
            }
            Line::Summary(summary) => {
                shown.end();
                return Ok(summary);
            }
        }
    }
    Err(Error(format!("the daemon at {address} ended before the repair did: run it again")))
}

/// The daemon's lines.
struct Lines {
    body: Incoming,
    pending: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Result<Option<Line>, Error> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|error| {
                    let hint = "is it of another version?";
                    Error(format!(
                        "the daemon says what this command does not understand ({error}); {hint}"
                    ))
                });
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(Error::new)?.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// How far it is: a bar on a terminal, else a line as each step begins.
struct Shown {
    bar: Option<ProgressBar>,
    step: Option<Step>,
}

impl Shown {
    fn new() -> Shown {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix:<16} [{bar:30}] {pos}/{len}  {msg}");
            let bar = ProgressBar::new(0);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Shown { bar, step: None }
    }

    fn progress(&mut self, step: Step, (done, total): (u64, u64), (found, new): (u64, u64)) {
        let begins = self.step.replace(step) != Some(step);
        match &self.bar {
            Some(bar) => {
                bar.set_prefix(step.name());
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(format!("{found} found, {new} new"));
            }
            None if begins => tell(&format!("{}: {total} to look at", places(step))),
            None => {}
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn places(step: Step) -> &'static str {
    match step {
        Step::History => "agents' notifications",
        Step::Attempts => "webhooks' failed attempts",
    }
}

fn text(summary: &Summary) -> String {
    let would = if summary.dry_run { " (nothing was appended)" } else { "" };
    let mut out = format!("source {} since {}{would}\n\n", summary.source, summary.since);
    out += &format!(
        "{:<16}  {:>7}  {:>7}  {:>7}  {:>12}\n",
        "", "FOUND", "NEW", "KNOWN", "OUT OF REACH"
    );
    for (step, counts) in
        [(Step::History, &summary.notifications), (Step::Attempts, &summary.failed_attempts)]
    {
        let Counts { found, new, known, dropped, out_of_reach } = counts;
        out +=
            &format!("{:<16}  {found:>7}  {new:>7}  {known:>7}  {out_of_reach:>12}\n", step.name());
        if *dropped > 0 {
            out += &format!("    {dropped} are taken by no route (unrouted: drop)\n");
        }
    }
    for (what, words) in [
        ("trouble", &summary.trouble),
        ("out of reach", &summary.reasons),
        ("warning", &summary.warnings),
    ] {
        for words in words {
            out += &format!("{what}: {}\n", printable(words, MAX_REASON_CHARS));
        }
    }
    if summary.more_reasons > 0 {
        out += &format!("and {} more\n", summary.more_reasons);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_there_was_and_what_cannot_be_had() {
        let mut summary =
            Summary { source: "sonzai".into(), since: "2026".into(), ..Summary::default() };
        summary.notifications = Counts { found: 12, new: 3, known: 9, dropped: 0, out_of_reach: 1 };
        summary.failed_attempts =
            Counts { found: 2, new: 1, known: 0, dropped: 1, out_of_reach: 0 };
        summary.reasons = vec!["agent a\u{1b}: older ones".to_owned()];
        let expected = "\
source sonzai since 2026

                    FOUND      NEW    KNOWN  OUT OF REACH
notifications          12        3        9             1
failed attempts         2        1        0             0
    1 are taken by no route (unrouted: drop)
out of reach: agent a\\u{1b}: older ones
";
        assert_eq!(text(&summary), expected);
    }
}
