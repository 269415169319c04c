//! `waypost sonzai wakeups`: what an agent is to do later by itself. Asks Sonzai's API; no daemon is
//! needed.

use std::{process::ExitCode, time::Duration};

use chrono::{DateTime, FixedOffset, SecondsFormat, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::super::{Error, block_on, print, printable, read_table, tell};
use crate::{
    clock::now_ms,
    nearest::listed,
    settings::Settings,
    sonzai::client::{Client, Limits, NewWakeup, Wakeup},
    source::{Provider, sonzai::settings::Api},
};

/// What a wakeup is of, unless it is said.
const DEFAULT_CHECK_TYPE: &str = "custom";

/// Longest text in a table.
const MAX_CHARS: usize = 48;

/// The furthest ahead.
const MOST_AHEAD: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Schedule and list wakeups. Needs `api:` of a Sonzai source in routes.yaml, and no daemon.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  waypost sonzai wakeups schedule --agent Luna --user user_1 --in 2h --intent 'ask how it went'
  waypost sonzai wakeups list --agent Luna --status pending")]
pub enum Command {
    Schedule(Schedule),
    List(List),
}

/// Have an agent do something later by itself.
///
/// It fires within about a minute of its time. An agent may be named by its id or its name.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai wakeups schedule --agent agent_7f3a --user user_1 --in 2h \\
      --intent 'ask how the interview went'
  waypost sonzai wakeups schedule --agent Luna --user user_1 --at 2026-12-24T18:00:00+01:00 \\
      --intent 'wish a merry Christmas' --occasion christmas")]
#[command(group(clap::ArgGroup::new("when").required(true).args(["at", "after"])))]
pub struct Schedule {
    /// The agent, by id or name
    #[arg(long, value_name = "AGENT")]
    agent: String,
    /// The user whom it is about
    #[arg(long, value_name = "ID")]
    user: String,
    /// When, in RFC 3339: 2026-12-24T18:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<DateTime<FixedOffset>>,
    /// After how long: 90m, 2h, 3days
    #[arg(id = "after", long = "in", value_name = "TIME", value_parser = humantime::parse_duration)]
    after: Option<Duration>,
    /// What it is to do
    #[arg(long, value_name = "TEXT")]
    intent: String,
    /// What kind of wakeup it is
    #[arg(long, value_name = "TYPE", default_value = DEFAULT_CHECK_TYPE)]
    check_type: String,
    /// What the occasion is, such as christmas
    #[arg(long, value_name = "TEXT")]
    occasion: Option<String>,
    /// What the user is interested in
    #[arg(long, value_name = "TEXT")]
    interest_topic: Option<String>,
    /// What event it is about
    #[arg(long, value_name = "TEXT")]
    event_description: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// List an agent's wakeups.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost sonzai wakeups list --agent agent_7f3a
  waypost sonzai wakeups list --agent Luna --status pending --json | jq '.[].scheduled_at'")]
pub struct List {
    /// The agent, by id or name
    #[arg(long, value_name = "AGENT")]
    agent: String,
    /// Only those of this status, such as pending or executed
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// How many, 1 to 500
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The source, where several have `api:`
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// JSON instead of words
    #[arg(long)]
    json: bool,
}

pub fn main(command: Command, settings: &Settings) -> Result<ExitCode, Error> {
    match command {
        Command::Schedule(arguments) => schedule(arguments, settings)?,
        Command::List(arguments) => list(arguments, settings)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn schedule(arguments: Schedule, settings: &Settings) -> Result<(), Error> {
    let (scheduled_at, delay_hours) = match (arguments.at, arguments.after) {
        (Some(at), _) => (rfc3339(&at), 0),
        (None, Some(after)) => ahead(now(), after)?,
        (None, None) => return Err(Error("say when: --at or --in".to_owned())),
    };
    let wakeup = NewWakeup {
        user_id: arguments.user,
        check_type: arguments.check_type,
        intent: arguments.intent,
        delay_hours,
        scheduled_at: Some(scheduled_at.clone()),
        occasion: arguments.occasion,
        interest_topic: arguments.interest_topic,
        event_description: arguments.event_description,
    };
    let client = client(&arguments.common, settings)?;
    let key = Uuid::now_v7().simple().to_string();
    let scheduled = block_on(async {
        let scheduled = client.schedule_wakeup(&arguments.agent, &wakeup, &key).await;
        scheduled.map_err(|error| {
            let hint = match error.is_uncertain() {
                true => ": see `waypost sonzai wakeups list` before you schedule it again",
                false => "",
            };
            Error(format!("cannot schedule it: {error}{hint}"))
        })
    })?;
    let at = scheduled.scheduled_at.unwrap_or(scheduled_at);
    let text = match arguments.common.json {
        true => json!({ "wakeup_id": scheduled.wakeup_id, "scheduled_at": at }).to_string(),
        false => {
            let id = printable(&scheduled.wakeup_id, usize::MAX);
            format!("scheduled: wakeup {id} at {}", printable(&at, MAX_CHARS))
        }
    };
    print(&format!("{text}\n")).map(drop)
}

fn list(arguments: List, settings: &Settings) -> Result<(), Error> {
    let client = client(&arguments.common, settings)?;
    let List { agent, status, limit, common } = arguments;
    let listed = block_on(async {
        client.wakeups(&agent, status.as_deref(), limit).await.map_err(Error::new)
    })?;
    if listed.unreadable > 0 {
        let count = listed.unreadable;
        tell(&format!("waypost: {count} wakeups cannot be read, and are left out"));
    }
    let text = match (common.json, &status) {
        (true, _) => format!("{}\n", json!(listed.items.iter().map(document).collect::<Vec<_>>())),
        (false, Some(status)) if listed.items.is_empty() => {
            format!("no wakeups of status `{}`\n", printable(status, MAX_CHARS))
        }
        (false, _) => table(&listed.items),
    };
    print(&text).map(drop)
}

fn document(wakeup: &Wakeup) -> serde_json::Value {
    json!({
        "wakeup_id": wakeup.wakeup_id,
        "agent_id": wakeup.agent_id,
        "user_id": wakeup.user_id,
        "check_type": wakeup.check_type,
        "intent": wakeup.intent,
        "status": wakeup.status,
        "scheduled_at": wakeup.scheduled_at,
        "created_at": wakeup.created_at,
        "executed_at": wakeup.executed_at,
        "occasion": wakeup.occasion,
        "interest_topic": wakeup.interest_topic,
        "event_description": wakeup.event_description,
    })
}

fn table(wakeups: &[Wakeup]) -> String {
    if wakeups.is_empty() {
        return "no wakeups\n".to_owned();
    }
    let shown = |text: &Option<String>| printable(text.as_deref().unwrap_or("-"), MAX_CHARS);
    let mut out =
        format!("{:<25}  {:<9}  {:<16}  {:<43}  INTENT\n", "SCHEDULED", "STATUS", "USER", "WAKEUP");
    for wakeup in wakeups {
        out += &format!(
            "{:<25}  {:<9}  {:<16}  {:<43}  {}\n",
            shown(&wakeup.scheduled_at),
            shown(&wakeup.status),
            shown(&wakeup.user_id),
            printable(&wakeup.wakeup_id, MAX_CHARS),
            shown(&wakeup.intent),
        );
    }
    out
}

/// A client of the API that routes.yaml names.
fn client(common: &Common, settings: &Settings) -> Result<Client, Error> {
    let table = read_table(&settings.routes)?;
    let apis: Vec<(&str, &Api)> = table
        .sources()
        .filter_map(|(_, source)| match &source.provider {
            Provider::Sonzai(sonzai) => Some((&*source.name, sonzai.settings.api.as_ref()?)),
            _ => None,
        })
        .collect();
    let names: Vec<&str> = apis.iter().map(|(name, _)| *name).collect();
    let api = match (&common.source, &apis[..]) {
        (_, []) => Err(Error(format!(
            "no source in {} has `api:`: give the API's key there, like `api: {{ key: \
             \"${{SONZAI_API_KEY}}\" }}`",
            settings.routes.display()
        ))),
        (None, [(_, api)]) => Ok(*api),
        (None, _) => Err(Error(format!(
            "several sources have `api:`: name one of {} with --source",
            listed(&names)
        ))),
        (Some(name), apis) => {
            let named = apis.iter().find(|(source, _)| source == name);
            named.map(|(_, api)| *api).ok_or_else(|| {
                Error(format!("no source `{name}` has `api:`; there is {}", listed(&names)))
            })
        }
    }?;
    Client::new(api, Limits::from(&settings.sonzai)).map_err(Error::new)
}

fn now() -> DateTime<Utc> {
    // A clock beyond the year 262,000 is told as 1970 is.
    DateTime::from_timestamp_millis(now_ms() as i64).unwrap_or_default()
}

/// When it is after so long, and about how many hours that is: what the API wants besides.
fn ahead(now: DateTime<Utc>, after: Duration) -> Result<(String, i64), Error> {
    if after > MOST_AHEAD {
        return Err(Error("--in: that is more than ten years ahead".to_owned()));
    }
    let at = TimeDelta::from_std(after).ok().and_then(|after| now.checked_add_signed(after));
    let at = at.ok_or_else(|| Error("--in: there is no such time".to_owned()))?;
    let hours = (after.as_secs_f64() / 3600.0).round() as i64;
    Ok((at.to_rfc3339_opts(SecondsFormat::Secs, true), hours))
}

fn time(text: &str) -> Result<DateTime<FixedOffset>, String> {
    DateTime::parse_from_rfc3339(text)
        .map_err(|error| format!("{error}; write it like 2026-12-24T18:00:00Z"))
}

fn rfc3339(at: &DateTime<FixedOffset>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_while_from_now_is_a_time_and_its_hours() {
        let now = DateTime::parse_from_rfc3339("2026-02-03T04:05:06Z").unwrap().to_utc();
        for (after_s, at, hours) in [
            (0, "2026-02-03T04:05:06Z", 0),
            (1799, "2026-02-03T04:35:05Z", 0),
            (1800, "2026-02-03T04:35:06Z", 1),
            (7200, "2026-02-03T06:05:06Z", 2),
        ] {
            let ahead = ahead(now, Duration::from_secs(after_s)).unwrap();
            assert_eq!(ahead, (at.to_owned(), hours));
        }
        assert!(ahead(now, Duration::MAX).is_err());
    }

    #[test]
    fn a_time_is_taken_with_its_offset_and_nothing_else_is_a_time() {
        let shown = |text| time(text).map(|at| rfc3339(&at));
        assert_eq!(shown("2026-12-24T18:00:00+01:00").unwrap(), "2026-12-24T18:00:00+01:00");
        assert_eq!(shown("2026-12-24T17:00:00Z").unwrap(), "2026-12-24T17:00:00Z");
        for text in ["", "tomorrow", "2026-12-24", "2026-12-24T18:00:00"] {
            assert!(shown(text).is_err(), "{text}");
        }
    }
}
