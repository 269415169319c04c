//! `waypost explain`: what becomes of a request, a sample or an event, and why.
//!
//! [`raw`] reads a request, [`verdict`] judges it by the ingress's own functions and says why it is
//! refused, [`routes`] asks the table, [`recorded`] looks an event up in the data directory. All of it
//! is one [`document`], which [`text`] shows and [`expect`] compares. No secret and no signature is in
//! it: [`redact`] sees to that once more.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::UNIX_EPOCH,
};

use uuid::Uuid;

use super::{Error, environment, input, print, read_routes_text, stored};
use crate::{
    clock::{now_ms, rfc3339},
    event::Event,
    ingress::Rejection,
    nearest::nearest,
    routing::{self, Secrets, Table},
    settings::Settings,
    signature::diagnosis,
    source::{Claim, Provider},
};

mod document;
mod expect;
mod raw;
mod recorded;
mod redact;
mod routes;
mod sampled;
mod text;
mod verdict;

pub use document::Explanation;
pub use raw::{RawRequest, parse};

use document::{EventShown, Outcome, Reason, Verdict};
use redact::Redact;
use routes::Resolved;
use verdict::Case;

/// The last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// Longest request head, beside the body, that is read from a file, in bytes.
const MAX_HEAD_BYTES: u64 = 1 << 20;

/// Largest file of expectations, in bytes.
const MAX_EXPECTED_BYTES: u64 = 16 << 20;

/// Most paths that are named where none is that of the request.
const MAX_PATHS: usize = 20;

/// Explain what becomes of a request, and why.
///
/// Says whether it is accepted, or why not: the clock, another secret, a body that was changed. Then
/// the event that it is or would be, and for each route whether it matches, or why not, with each
/// message. Exits with 1 if the request is refused; with --expect, if something is not as expected.
/// Never shows a secret or a signature, and sends nothing anywhere.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true)), after_help = "\
Examples:
  waypost explain request.http                      a request as it was captured, to the byte
  waypost explain - < request.http
  waypost explain request.http --at 2026-11-24T09:30:00Z
  waypost explain --sample agent.message            what `waypost send` would send
  waypost explain --sample shop/contact.created
  waypost explain --event 083b526cccd3e6f2762e3177ae8715dd
  waypost explain request.http --no-secrets --json > expected.json    (once, then look it over)
  waypost explain request.http --no-secrets --expect expected.json    (in CI)")]
pub struct Arguments {
    /// A file with a raw HTTP request: request line, headers, an empty line, the body; `-` is
    /// standard input
    #[arg(group = "what")]
    request: Option<PathBuf>,
    /// A sample of `waypost send`, signed as its source would; the first source that has it, unless
    /// one is named
    #[arg(long, value_name = "[SOURCE/]NAME", group = "what")]
    sample: Option<String>,
    /// The id of an event in the data directory
    #[arg(long, value_name = "ID", group = "what")]
    event: Option<String>,
    /// Judge as if received then: RFC 3339 in UTC, or Unix seconds [default: now, or as in the file
    /// of --expect]
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "event")]
    at: Option<u64>,
    /// Do without the environment and secret files; no signature is checked then
    #[arg(long)]
    no_secrets: bool,
    /// One JSON document
    #[arg(long)]
    json: bool,
    /// Compare with a document of --json, or a part of one, instead of showing it
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let expected = arguments.expect.as_deref().map(expect::read).transpose()?;
    let expected_at_ms = expected.as_ref().and_then(|expected| expected.at_ms);
    let at_ms = arguments.at.or(expected_at_ms).unwrap_or_else(now_ms);
    let explanation = found_out(&arguments, settings, at_ms)?;
    let document = || serde_json::to_value(&explanation);
    if let Some(expected) = expected {
        return expect::compare(&expected, &document().map_err(Error::new)?, arguments.json);
    }
    print(&match arguments.json {
        true => format!("{:#}\n", document().map_err(Error::new)?),
        false => explanation.to_string(),
    })?;
    let refused = explanation.verdict.outcome == Outcome::Refused;
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn found_out(arguments: &Arguments, settings: &Settings, at_ms: u64) -> Result<Explanation, Error> {
    let text = read_routes_text(&settings.routes)?;
    let mut table = table(&settings.routes, &text, arguments.no_secrets)?;
    let kept = match arguments.no_secrets {
        true => stored::Texts::new(),
        false => stored::give(&mut table, &settings.data_dir),
    };
    let secrets_of = |source: &str| -> Result<Option<Secrets>, Error> {
        if arguments.no_secrets {
            return Ok(None);
        }
        let secrets = routing::secrets(&text, source, &environment);
        let mut secrets = secrets.map_err(Error::new)?;
        secrets.signing.extend(kept.get(source).into_iter().flatten().cloned());
        Ok(Some(secrets))
    };
    if let Some(id) = &arguments.event {
        let mut explanation = recorded::explain(&table, id, &settings.data_dir)?;
        let source = explanation.event.as_ref().map(|event| &*event.source);
        let secrets = source.map(secrets_of).transpose()?.flatten();
        Redact::of(None, secrets.as_ref()).explanation(&mut explanation);
        return Ok(explanation);
    }
    let raw = request(arguments, settings, &table, at_ms)?;
    explain(&table, &raw, at_ms, settings.ingress.max_body_bytes as usize, secrets_of)
}

/// The table, without secrets one that verifies nothing.
fn table(path: &Path, text: &str, no_secrets: bool) -> Result<Table, Error> {
    let file = path.display().to_string();
    let table = match no_secrets {
        false => routing::compile(&file, text, &environment),
        true => routing::compile_unseen(&file, text),
    };
    table.map_err(Error::new)
}

/// The request in the file, or the sample as one.
fn request(
    arguments: &Arguments,
    settings: &Settings,
    table: &Table,
    at_ms: u64,
) -> Result<RawRequest, Error> {
    if let Some(name) = &arguments.sample {
        return sampled::request(table, name, at_ms, !arguments.no_secrets);
    }
    let path = arguments.request.as_deref().unwrap_or(Path::new("-"));
    let max_bytes = u64::from(settings.ingress.max_body_bytes) + MAX_HEAD_BYTES;
    let text = input::read(path, Some(max_bytes))?;
    let name = if input::is_stdin(path) { "standard input" } else { &*path.to_string_lossy() };
    raw::parse(&text).map_err(|error| Error(format!("{name}: {error}")))
}

/// Explains a request that is received at `at_ms`, milliseconds since the Unix epoch; `secrets_of`
/// gives the texts of a source's secrets, or none if nothing is to be verified. Nothing secret is in
/// what comes of it.
pub fn explain<E>(
    table: &Table,
    raw: &RawRequest,
    at_ms: u64,
    max_body_bytes: usize,
    secrets_of: impl Fn(&str) -> Result<Option<Secrets>, E>,
) -> Result<Explanation, E> {
    let path = raw.head.uri.path();
    let mut explanation = Explanation {
        at: rfc3339(at_ms),
        request: Some(document::Request::from(raw)),
        source: None,
        verdict: no_source(table, path),
        event: None,
        recorded: None,
        matched: Vec::new(),
        routes: Vec::new(),
        unrouted: None,
    };
    let Some((pattern, source, path_type)) = table
        .sources()
        .find_map(|(pattern, source)| Some((pattern, source, pattern.matches(path)?)))
    else {
        Redact::of(Some(raw), None).explanation(&mut explanation);
        return Ok(explanation);
    };
    let secrets = secrets_of(&source.name)?;
    let case = Case { table, source, path_type, raw, at_ms };
    let (mut verdict, claim) = case.verdict(secrets.as_ref());
    if let Some(early) = verdict::refused_early(raw, max_body_bytes) {
        let (status, words) = early.status_and_words();
        verdict.outcome = Outcome::Refused;
        verdict.status = Some(status.as_u16());
        verdict.reasons.insert(0, Reason::new("refused-early", words));
    }
    let event = event(&case, &claim);
    let Resolved { routes, unrouted, .. } = Resolved::of(table, &event);
    explanation.matched = document::Route::matched(&routes);
    (explanation.routes, explanation.unrouted) = (routes, unrouted);
    explanation.source = Some(document::Source {
        name: source.name.to_string(),
        r#type: source.provider.name(),
        path: pattern.as_str().to_owned(),
        path_type: path_type.map(str::to_owned),
    });
    explanation.verdict = verdict;
    explanation.event = Some(EventShown::from(&event));
    Redact::of(Some(raw), secrets.as_ref()).explanation(&mut explanation);
    Ok(explanation)
}

/// The event that the request is, or would be if it were accepted.
fn event(case: &Case, claim: &diagnosis::Claim) -> Event {
    let mut event =
        case.source.judge(case.request()).map(|received| received.event).unwrap_or_else(|_| {
            let id = claim.id.as_deref().unwrap_or("unknown");
            let timestamp_s = claim.timestamp_s.unwrap_or(case.at_ms / 1000);
            case.source.suppose(case.request(), Claim { id, timestamp_s })
        });
    if let Provider::Miibo(_) = case.source.provider {
        // Each of its requests is an event with a new id; here the same is to come of the same.
        event.id = id_at(case.at_ms).to_string().into();
    }
    event
}

/// What stands for the new id of an event or message at that time.
fn id_at(at_ms: u64) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(at_ms, &[0; 10]).into_uuid()
}

fn no_source(table: &Table, path: &str) -> Verdict {
    // As they would be for the type that this one names.
    let last = path.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or_default();
    let like: Vec<String> = table.sources().map(|(path, _)| path.of_type(last)).collect();
    let near = nearest(path, like.iter().map(String::as_str));
    let near = near.map(|near| format!("; did its sender mean `{near}`?")).unwrap_or_default();
    let paths =
        table.sources().map(|(path, source)| format!("`{}` ({})", path.as_str(), source.name));
    let paths: Vec<String> = paths.take(MAX_PATHS).collect();
    let words = format!("no source has this path; there are {}{near}", paths.join(", "));
    Verdict {
        outcome: Outcome::Refused,
        status: Some(Rejection::NoSuchSource.status_and_words().0.as_u16()),
        secret: None,
        clock: None,
        reasons: vec![Reason::new("no-source", words)],
    }
}

/// A time of `--at`, in milliseconds since the Unix epoch.
fn parse_time(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<u64>().ok().filter(|seconds| *seconds <= LAST_SECOND);
    let parsed = || humantime::parse_rfc3339_weak(text).ok()?.duration_since(UNIX_EPOCH).ok();
    seconds
        .map(|seconds| seconds * 1000)
        .or_else(|| parsed().map(|since| since.as_millis() as u64))
        .ok_or_else(|| "write 2026-11-24T09:30:00Z, or Unix seconds".to_owned())
}

#[cfg(test)]
mod tests;
