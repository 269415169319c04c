//! `waypost status`: the daemon at a glance.

use std::{fmt::Write, process::ExitCode};

use http_body_util::BodyExt;

use super::{Error, block_on, operator, print, printable};
use crate::{
    admin::{BrokerStatus, CommandStatus, SourceStatus, Status},
    commands,
    dispatch::State,
    settings::Settings,
    sonzai::poller::{Poll, pace::Why},
    source::sonzai::settings::Mode,
};

/// Longest reason that is shown.
const MAX_REASON_CHARS: usize = 300;

/// Longest name of a broker or source in a table; longer ones are cut.
const NAME_CHARS: usize = 16;

/// Show how the daemon is doing: brokers, backlog, rates, disk.
///
/// LAG is how many records of the journal a broker has not got past; OLDEST how long the first
/// message that it is owed has waited. Exits with 0 if the daemon answers and can take events, else
/// with 1.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost status
  waypost status --data-dir /var/lib/waypost
  waypost status --admin-listen 10.0.0.7:9090
  waypost status --json | jq '.brokers[] | select(.state != \"connected\")'")]
pub struct Arguments {
    /// Everything there is, as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let address = operator::address(settings)?;
    let body = block_on(async {
        let response = operator::get(address, "/api/status", None).await?;
        Ok(response.into_body().collect().await.map_err(Error::new)?.to_bytes())
    })?;
    let status: Status = serde_json::from_slice(&body).map_err(|error| {
        let hint = "is the daemon of another version?";
        Error(format!("{address} says what this command does not understand ({error}); {hint}"))
    })?;
    print(&if arguments.json {
        String::from_utf8_lossy(&body).into_owned()
    } else {
        text(&status)
    })?;
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    for part in [head, routes, sources, polls, brokers, commands] {
        part(&mut out, status).expect("writing to a string does not fail");
    }
    out
}

fn head(out: &mut String, status: &Status) -> std::fmt::Result {
    let ready = if status.ready { "is ready" } else { "is NOT READY" };
    let (version, pid, up) = (&status.version, status.pid, span(status.uptime_seconds));
    writeln!(out, "waypost {version} {ready}, up {up} (pid {pid})")?;
    for reason in &status.reasons {
        writeln!(out, "    because {}", reason.words())?;
    }
    let events = &status.events;
    let (rate, over) = (events.accepted_per_second, span(events.rates_over_seconds as u64));
    writeln!(
        out,
        "\nevents in     {rate:.1} a second over the last {over}; {} since the start",
        count(events.accepted)
    )?;
    let (connections, bodies) = (status.connections, status.body_bytes_in_flight);
    writeln!(
        out,
        "connections   {} of {}; {} of bodies in flight",
        connections.now,
        connections.max,
        size(bodies.now)
    )?;
    let journal = status.journal;
    let left = status.disk_left_bytes.map_or("?".to_owned(), size);
    writeln!(
        out,
        "journal       {} of {}; {left} left on the disk",
        size(journal.bytes),
        size(journal.max_bytes)
    )?;
    let dead = status.dead_letters;
    writeln!(
        out,
        "dead letters  {}; {} of {}",
        count(dead.count),
        size(dead.bytes),
        size(dead.max_bytes)
    )?;
    let known = status.known_events;
    writeln!(out, "remembered    {} of {} keys of events", count(known.now), count(known.max))
}

/// The routing table, and what is not as the files say.
fn routes(out: &mut String, status: &Status) -> std::fmt::Result {
    let config = &status.config;
    writeln!(out, "routes        {} since {}", config.hash, config.since)?;
    if config.last_good {
        writeln!(out, "    the last good ones: the file was bad when the daemon started")?;
    }
    let file = config.file.display();
    if !config.problems.is_empty() {
        writeln!(out, "    {file} IS NOT IN FORCE: mend it and run `waypost reload`")?;
    }
    for problem in config.problems.iter().flat_map(|problem| problem.lines()) {
        writeln!(out, "    {}", printable(problem, MAX_REASON_CHARS))?;
    }
    if !config.restart_needed.is_empty() {
        writeln!(
            out,
            "    changed, and a restart is needed: {}",
            config.restart_needed.join(", ")
        )?;
    }
    if let Some(problem) = &config.settings_problem {
        writeln!(out, "    the daemon could not start with the settings as they are now:")?;
        for line in problem.lines() {
            writeln!(out, "    {}", printable(line, MAX_REASON_CHARS))?;
        }
    }
    Ok(())
}

fn sources(out: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<NAME_CHARS$}  {:>9}  {:>10}  {:>6}  REFUSED",
        "SOURCE", "ACCEPTED", "DUPLICATES", "STALE"
    )?;
    for source in &status.sources {
        let accepted = source.answers.get("200").copied().unwrap_or_default();
        writeln!(
            out,
            "{:<NAME_CHARS$}  {:>9}  {:>10}  {:>6}  {}",
            name(&source.name),
            count(accepted.saturating_sub(source.duplicates)),
            count(source.duplicates),
            count(source.stale),
            refused(source),
        )?;
        for note in webhooks(source) {
            writeln!(out, "    {note}")?;
        }
    }
    if status.unknown_paths > 0 {
        writeln!(
            out,
            "(and {} requests on paths that no source has)",
            count(status.unknown_paths)
        )?;
    }
    Ok(())
}

/// Sources whose pending notifications are polled, and what is not as it should be.
fn polls(out: &mut String, status: &Status) -> std::fmt::Result {
    if status.polls.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<NAME_CHARS$}  {:<6}  {:>8}  {:>8}  {:>8}  {:>6}  {:>6}  WHOSE",
        "POLLED", "PACE", "LISTED", "NEW", "TAKEN", "STUCK", "OLDEST"
    )?;
    for poll in &status.polls {
        let oldest = poll.oldest_pending_seconds;
        writeln!(
            out,
            "{:<NAME_CHARS$}  {:<6}  {:>8}  {:>8}  {:>8}  {:>6}  {:>6}  {}",
            name(&poll.source),
            if poll.fast { "fast" } else { "slow" },
            count(poll.listed),
            count(poll.appended),
            count(poll.taken),
            count(poll.stuck + poll.too_large),
            if oldest > 0.0 { span(oldest as u64) } else { "-".to_owned() },
            printable(&poll.whose, NAME_CHARS),
        )?;
        for note in poll_notes(poll) {
            writeln!(out, "    {note}")?;
        }
    }
    Ok(())
}

fn poll_notes(poll: &Poll) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(trouble) = &poll.trouble {
        let since = span(trouble.since_seconds);
        let words = printable(&trouble.words, MAX_REASON_CHARS);
        notes.push(format!("NOT POLLED for {since}: {words}"));
        notes.push(trouble.kind.hint().to_owned());
    }
    if poll.mode == Mode::Fallback && !matches!(poll.why, Why::PushWorks | Why::Started) {
        notes.push(format!("fast, since {}", poll.why.words()));
    }
    for (number, words) in [
        (poll.stuck, "durable here, and cannot be taken there"),
        (poll.too_large, "larger than the journal takes: they stay where they are"),
        (poll.unreadable, "could not be read"),
        (poll.hidden_lists, "lists full of what stays pending: what is behind is out of sight"),
        (poll.lists_in_trouble, "lists cannot be polled: see the log"),
    ] {
        if number > 0 {
            notes.push(format!("{} {words}", count(number)));
        }
    }
    if poll.agents_left_out {
        let max = count(poll.max_agents);
        notes.push(format!("only {max} agents are polled, and there are more (sonzai.max_agents)"));
    }
    notes
}

/// Answers other than 200: `3 x 401, 1 x 503`.
fn refused(source: &SourceStatus) -> String {
    let others = source.answers.iter().filter(|(status, _)| *status != "200");
    let others: Vec<String> =
        others.map(|(status, times)| format!("{} x {status}", count(*times))).collect();
    if others.is_empty() { "-".to_owned() } else { others.join(", ") }
}

/// What is not well with its webhooks at Sonzai, and what to do.
fn webhooks(source: &SourceStatus) -> Vec<String> {
    let Some(webhooks) = &source.webhooks else { return Vec::new() };
    let mut notes = Vec::new();
    notes.extend(webhooks.trouble.as_ref().map(|words| printable(words, MAX_REASON_CHARS)));
    for changing in &webhooks.changing {
        notes.push(format!(
            "the secret of {} is being changed for {}: what cannot be verified gets 503",
            printable(&changing.event_type, MAX_REASON_CHARS),
            span(changing.since_seconds)
        ));
    }
    if !webhooks.without_secret.is_empty() {
        let types = printable(&webhooks.without_secret.join(", "), MAX_REASON_CHARS);
        let hint = "run `waypost sonzai webhooks sync`";
        notes.push(format!("no secret yet, so 503 to all, for {types}: {hint}"));
    }
    notes
}

fn brokers(out: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(
        out,
        "\n{:<NAME_CHARS$}  {:<8}  {:<15}  {:>6}  {:>6}  {:>7}  {:>6}",
        "BROKER", "TYPE", "STATE", "LAG", "OLDEST", "OUT/S", "FLIGHT"
    )?;
    for broker in status.brokers.iter().filter(|broker| is_worth_a_line(broker)) {
        let oldest = broker.oldest_waiting_seconds;
        writeln!(
            out,
            "{:<NAME_CHARS$}  {:<8}  {:<15}  {:>6}  {:>6}  {:>7.1}  {:>6}",
            name(&broker.name),
            broker.kind.name(),
            format!("{} {}", state(broker.state), span(broker.since_seconds)),
            count(broker.lag_records),
            if oldest > 0.0 { span(oldest as u64) } else { "-".to_owned() },
            broker.confirmed_per_second,
            broker.in_flight,
        )?;
        for note in notes(broker) {
            writeln!(out, "    {note}")?;
        }
    }
    Ok(())
}

/// Where commands are taken from, if anywhere.
fn commands(out: &mut String, status: &Status) -> std::fmt::Result {
    if status.commands.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:<NAME_CHARS$}  {:<NAME_CHARS$}  {:<15}  {:>9}  {:>10}",
        "COMMANDS", "BROKER", "STATE", "SCHEDULED", "DUPLICATES"
    )?;
    for command in &status.commands {
        writeln!(
            out,
            "{:<NAME_CHARS$}  {:<NAME_CHARS$}  {:<15}  {:>9}  {:>10}",
            name(&command.name),
            name(&command.broker),
            format!("{} {}", command_state(command.state), span(command.since_seconds)),
            count(command.scheduled),
            count(command.duplicates),
        )?;
        for note in command_notes(command) {
            writeln!(out, "    {note}")?;
        }
    }
    Ok(())
}

/// What is not as it should be.
fn command_notes(command: &CommandStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(trouble) = &command.trouble {
        notes.push(printable(trouble, MAX_REASON_CHARS));
    }
    if command.dead_letters > 0 {
        let dead = count(command.dead_letters);
        notes.push(format!("{dead} dead letters since the start: see `waypost dead-letters list`"));
    }
    notes
}

fn command_state(state: commands::stats::State) -> &'static str {
    use commands::stats::State;
    match state {
        State::Connecting => "CONNECTING",
        State::Ready => "ready",
        State::Working => "working",
        State::Waiting => "API FAILS",
        State::Denied => "KEY REFUSED",
        State::NoRoom => "NO ROOM",
        State::Ended => "ended",
    }
}

/// What stands in for a broker that is not there is of interest only if something came its way.
fn is_worth_a_line(broker: &BrokerStatus) -> bool {
    broker.kind.is_there() || broker.lag_records > 0 || broker.dead_letters > 0
}

/// What is not as it should be.
fn notes(broker: &BrokerStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(trouble) = &broker.trouble {
        notes.push(printable(trouble, MAX_REASON_CHARS));
    }
    if broker.backlog_full {
        notes.push("its backlog is full: events that it is owed are refused with 503".to_owned());
    }
    if broker.parked > 0 {
        notes.push(format!("{} parked ({})", count(broker.parked), size(broker.parked_bytes)));
    }
    if broker.retrying > 0 {
        notes.push(format!("{} failed and are tried again", count(broker.retrying)));
    }
    if broker.dead_letters > 0 {
        let dead = count(broker.dead_letters);
        notes.push(format!("{dead} dead letters since the start: see `waypost dead-letters list`"));
    }
    notes
}

fn state(state: State) -> &'static str {
    match state {
        State::Connecting => "connecting",
        State::Connected => "connected",
        State::Down => "DOWN",
        State::Draining => "draining",
        State::Ended => "ended",
    }
}

fn name(name: &str) -> String {
    printable(name, NAME_CHARS - 1)
}

/// At most six characters.
fn count(count: u64) -> String {
    match count {
        0..1_000_000 => count.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}G", count as f64 / 1e9),
    }
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let (mut size, mut unit) = (bytes as f64 / 1024.0, 0);
    while size >= 1024.0 && unit + 1 < units.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    format!("{size:.1} {}", units[unit])
}

/// A time in its largest unit, at most four characters below three years.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Reason;

    fn status() -> Status {
        let broker = |name: &str, kind: &str| {
            serde_json::json!({
                "name": name, "type": kind, "state": "connected", "since": "", "since_seconds": 7,
                "trouble": null, "lag_records": 0, "lag_bytes": 0, "oldest_waiting_seconds": 0.0,
                "in_flight": 3, "retrying": 0, "parked": 0, "parked_bytes": 0,
                "backlog_full": false, "confirmed": 5, "confirmed_per_second": 12.34,
                "dead_letters": 0,
            })
        };
        let mut down = broker("a-broker-with-a-long-name", "rabbitmq");
        for (field, value) in [
            ("state", "down".into()),
            ("since_seconds", 86_400.into()),
            ("trouble", "connection refused\u{1b}[2J".into()),
            ("lag_records", 1_234_567.into()),
            ("oldest_waiting_seconds", 7201.5.into()),
            ("parked", 12.into()),
            ("parked_bytes", (5 << 20).into()),
            ("retrying", 2.into()),
            ("dead_letters", 4.into()),
            ("backlog_full", true.into()),
        ] {
            down[field] = value;
        }
        let status = serde_json::json!({
            "version": "1.2.3", "pid": 42, "started": "", "uptime_seconds": 11_520, "ready": true,
            "reasons": [],
            "events": {
                "accepted": 120_034, "duplicates": 12, "accepted_per_second": 12.34,
                "rates_over_seconds": 59.9,
            },
            "sources": [
                { "name": "sonzai", "duplicates": 12, "stale": 1, "answers": { "200": 120_046, "401": 3, "503": 1 } },
                { "name": "miibo", "duplicates": 0, "stale": 0, "answers": {} },
            ],
            "unknown_paths": 2,
            "connections": { "now": 7, "max": 4096 },
            "body_bytes_in_flight": { "now": 2048, "max": 1 << 28 },
            "known_events": { "now": 120_034, "max": 1_000_000 },
            "journal": { "count": 9, "bytes": 1_258_291, "max_bytes": 8_u64 << 30 },
            "disk_left_bytes": 51_u64 << 30,
            "dead_letters": { "count": 4, "bytes": 5000, "max_bytes": 1 << 30 },
            "brokers": [
                broker("stream", "kafka"), down, broker("unrouted", "unrouted"),
            ],
            "config": {
                "file": "routes.yaml", "hash": "0123456789ab", "since": "2026-01-02T03:04:05.678Z",
                "last_good": false, "problems": [], "restart_needed": [],
            },
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn everything_is_there_at_a_glance_within_eighty_columns() {
        let text = text(&status());
        let expected = "\
waypost 1.2.3 is ready, up 3h (pid 42)

events in     12.3 a second over the last 59s; 120034 since the start
connections   7 of 4096; 2.0 KiB of bodies in flight
journal       1.2 MiB of 8.0 GiB; 51.0 GiB left on the disk
dead letters  4; 4.9 KiB of 1.0 GiB
remembered    120034 of 1.0M keys of events
routes        0123456789ab since 2026-01-02T03:04:05.678Z

SOURCE             ACCEPTED  DUPLICATES   STALE  REFUSED
sonzai               120034          12       1  3 x 401, 1 x 503
miibo                     0           0       0  -
(and 2 requests on paths that no source has)

BROKER            TYPE      STATE               LAG  OLDEST    OUT/S  FLIGHT
stream            kafka     connected 7s          0       -     12.3       3
a-broker-with-a…  rabbitmq  DOWN 1d            1.2M      2h     12.3       3
    connection refused\\u{1b}[2J
    its backlog is full: events that it is owed are refused with 503
    12 parked (5.0 MiB)
    2 failed and are tried again
    4 dead letters since the start: see `waypost dead-letters list`
";
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_poller_shows_its_pace_and_what_keeps_it() {
        let poll = serde_json::json!({
            "source": "sonzai", "whose": "project 1111", "mode": "fallback", "fast": true,
            "why": "deliveries_fail", "take": true, "listed": 1200, "appended": 7, "duplicates": 3,
            "taken": 9, "stuck": 2, "too_large": 1, "unreadable": 0, "hidden_lists": 1,
            "lists_in_trouble": 0, "agents": 0, "max_agents": 10_000, "agents_left_out": true,
            "deliveries_fail": true, "last_success": null, "oldest_pending_seconds": 130.5,
            "trouble": {
                "kind": "key_refused", "since": "", "since_seconds": 61, "words": "401\u{1b}[2J",
            },
        });
        let mut status = status();
        status.polls = vec![serde_json::from_value(poll).unwrap()];
        let text = text(&status);
        let expected = "
POLLED            PACE      LISTED       NEW     TAKEN   STUCK  OLDEST  WHOSE
sonzai            fast        1200         7         9       3      2m  project 1111
    NOT POLLED for 1m: 401\\u{1b}[2J
    the key in api.key is refused: put a valid one there
    fast, since deliveries fail: see `waypost sonzai webhooks attempts`
    2 durable here, and cannot be taken there
    1 larger than the journal takes: they stay where they are
    1 lists full of what stays pending: what is behind is out of sight
    only 10000 agents are polled, and there are more (sonzai.max_agents)
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn why_it_is_not_ready_comes_first() {
        let reasons = vec![Reason::JournalFull, Reason::Draining];
        let text = text(&Status { ready: false, reasons, ..status() });
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("waypost 1.2.3 is NOT READY, up 3h (pid 42)"));
        assert!(lines.next().is_some_and(|line| line.contains("journal.max_bytes")));
        assert!(lines.next().is_some_and(|line| line.contains("told to stop")));
    }

    #[test]
    fn a_command_shows_how_it_stands_and_what_it_waits_for() {
        assert!(!text(&status()).contains("COMMANDS"));
        let mut status = status();
        let command = |state: &str, trouble: Option<&str>| {
            serde_json::from_value(serde_json::json!({
                "name": "wakeups", "source": "sonzai", "broker": "live", "state": state,
                "since": "", "since_seconds": 720, "trouble": trouble, "taken": 9, "scheduled": 7,
                "duplicates": 1, "dead_letters": 1, "retries": 3,
            }))
            .unwrap()
        };
        let trouble = Some("the key is wrong\u{1b}[2J");
        status.commands = vec![command("ready", None), command("denied", trouble)];
        let text = text(&status);
        let expected = "
COMMANDS          BROKER            STATE            SCHEDULED  DUPLICATES
wakeups           live              ready 12m                7           1
    1 dead letters since the start: see `waypost dead-letters list`
wakeups           live              KEY REFUSED 12m          7           1
    the key is wrong\\u{1b}[2J
    1 dead letters since the start: see `waypost dead-letters list`
";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_bad_file_shows_with_its_place_and_what_is_in_force_instead() {
        let mut status = status();
        status.config.problems = vec!["routes.yaml:3:4: no\n 3 | x".to_owned()];
        (status.config.last_good, status.config.restart_needed) = (true, vec!["listen".to_owned()]);
        status.config.settings_problem = Some("waypost.toml: no\nmore".to_owned());
        let text = text(&status);
        let expected = "\
routes        0123456789ab since 2026-01-02T03:04:05.678Z
    the last good ones: the file was bad when the daemon started
    routes.yaml IS NOT IN FORCE: mend it and run `waypost reload`
    routes.yaml:3:4: no
     3 | x
    changed, and a restart is needed: listen
    the daemon could not start with the settings as they are now:
    waypost.toml: no
    more
";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        let counts = [0, 999_999, 1_000_000, 12_345_678, 2_000_000_000].map(count);
        assert_eq!(counts, ["0", "999999", "1.0M", "12.3M", "2.0G"]);
        let sizes = [0, 512, 1 << 20, 1536 << 30, 1 << 60].map(size);
        assert_eq!(sizes, ["0.0 KiB", "0.5 KiB", "1.0 MiB", "1.5 TiB", "1048576.0 TiB"]);
        assert_eq!(
            [0, 59, 60, 3599, 7200, 200_000].map(span),
            ["0s", "59s", "1m", "59m", "2h", "2d"]
        );
    }
}
