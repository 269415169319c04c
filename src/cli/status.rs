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

/// Regions that cannot be read which are shown each.
const MAX_REGIONS: usize = 10;

/// Longest name of a broker or source in a table; longer ones are cut.
const NAME_CHARS: usize = 16;

/// Show how the daemon is doing: brokers, backlog, rates, disk.
///
/// LAG is how many records of the journal a broker has not got past; OLDEST how long the first
/// message that it is owed has waited. Exits with 0 if the daemon answers and can take events, else
/// with 1: also while its disk does not answer or cannot read a part of a journal, and as long as
/// files are kept whose damage cost somebody something.
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
    let is_well = status.ready && !status.damage.is_trouble();
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(status: &Status) -> String {
    let mut out = String::new();
    for part in [head, damage, routes, sources, polls, brokers, commands] {
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
    for hang in &status.hangs {
        let (what, waits) = (hang.journal.replace('_', " "), span(hang.seconds as u64));
        writeln!(out, "    THE DISK DOES NOT ANSWER: {what} has waited for it for {waits}")?;
    }
    let (limit, parts) = (status.data_dir.limit_bytes, status.data_dir.parts);
    let (journal, parked) = (parts.journal_bytes, parts.parked_bytes);
    writeln!(
        out,
        "data dir      up to {}: journal {}, parked {}, rest {}",
        size(limit),
        size(journal),
        size(parked),
        size(limit.saturating_sub(journal).saturating_sub(parked))
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

/// What of the journals is damaged, or cannot be read at present, and what to do.
fn damage(out: &mut String, status: &Status) -> std::fmt::Result {
    let damage = &status.damage;
    if damage.damaged_regions > 0 {
        let (regions, lost) = (count(damage.damaged_regions), damage.lost_regions);
        writeln!(out, "damage        {regions} damaged regions in the journals")?;
        match lost {
            0 => writeln!(out, "    nothing was lost by them: all brokers had what they held")?,
            _ => {
                let records = count(damage.lost_records);
                writeln!(
                    out,
                    "    RECORDS WERE LOST in {}: see `waypost dead-letters list`; {records} since \
                     the start",
                    count(lost)
                )?;
                let hint = "`waypost journal salvage FILE` sends on what can be read after all";
                writeln!(out, "    {hint}")?;
            }
        }
    }
    for kept in &damage.kept {
        let dir = kept.dir.display();
        match kept.files {
            0 => writeln!(out, "    kept in {dir}, and in its quarantine once it is done with")?,
            files => writeln!(
                out,
                "    kept in {dir} ({files} files, {} of {}): move them away to be done with it",
                size(kept.bytes),
                size(kept.max_bytes)
            )?,
        }
    }
    let unreadable = &damage.unreadable;
    if unreadable.regions == 0 {
        return Ok(());
    }
    let (regions, records) = (count(unreadable.regions), count(unreadable.records));
    writeln!(
        out,
        "unreadable    {regions} regions cannot be read, up to {records} records: nothing is lost \
         yet, and they are tried again"
    )?;
    for region in unreadable.some.iter().take(MAX_REGIONS) {
        writeln!(
            out,
            "    {} at {}, {} bytes, for {}: {}",
            region.file.display(),
            region.offset,
            region.bytes,
            span(region.for_seconds),
            printable(&region.error, MAX_REASON_CHARS)
        )?;
    }
    let hint = "see to the disk; `waypost journal skip` gives up on what it never reads again";
    writeln!(out, "    {hint}")
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
    if broker.lost_records > 0 {
        let lost = count(broker.lost_records);
        notes.push(format!("{lost} records were LOST to it since the start: damaged on disk"));
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
mod tests;
