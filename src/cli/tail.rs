//! `waypost tail`: what comes out, live.

use std::net::SocketAddr;

use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Error, block_on, operator, print, printable};
use crate::{admin::Token, settings::Settings};

/// Longest excerpt of a body in a line.
const MAX_BODY_CHARS: usize = 200;

/// Watch what comes out: each message as its broker confirms it, or as it is given up on.
///
/// Begins with the last few that were settled before, then goes on until Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost tail
  waypost tail --json | jq 'select(.outcome != \"confirmed\")'
  waypost tail --count 1
  waypost tail --admin-listen 10.0.0.7:9090 --token-file admin.token")]
pub struct Arguments {
    /// One JSON object a line, with the whole body; one over 64 KiB is left out ("truncated")
    #[arg(long)]
    json: bool,
    /// End after this many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    identity: operator::Identity,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<(), Error> {
    let (address, token) = arguments.identity.address_and_token(settings)?;
    block_on(follow(&arguments, address, &token))
}

async fn follow(arguments: &Arguments, address: SocketAddr, token: &Token) -> Result<(), Error> {
    let response = operator::get(address, "/api/tail", Some(token)).await?;
    let mut body = response.into_body();
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut pending = Vec::new();
    while left > 0 {
        let Some(frame) = body.frame().await else {
            return Err(Error(format!("the daemon at {address} ended")));
        };
        let Ok(data) = frame.map_err(Error::new)?.into_data() else { continue };
        pending.extend_from_slice(&data);
        while left > 0
            && let Some(end) = pending.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = pending.drain(..=end).collect();
            left -= 1;
            if !print(&show(&line, arguments.json)?)? {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A line of `/api/tail`.
#[derive(Deserialize)]
struct Line {
    outcome: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    route: String,
    #[serde(default)]
    broker: String,
    address: Option<String>,
    #[serde(default)]
    event: Map<String, Value>,
    body: Option<String>,
    #[serde(default)]
    truncated: bool,
    missed: Option<u64>,
}

fn show(line: &[u8], json: bool) -> Result<String, Error> {
    if json {
        return Ok(String::from_utf8_lossy(line).into_owned());
    }
    let line: Line = serde_json::from_slice(line).map_err(Error::new)?;
    if let Some(missed) = line.missed {
        return Ok(format!("… {missed} came too fast to show\n"));
    }
    let attribute = |name| line.event.get(name).and_then(Value::as_str).unwrap_or("-");
    let outcome = line.outcome.as_deref().unwrap_or("-");
    let to = line.address.as_deref().unwrap_or("-");
    let mut text = format!(
        "{}  {outcome}  {} → {}  {} {} {}",
        attribute("time"),
        printable(&line.broker, MAX_BODY_CHARS),
        printable(to, MAX_BODY_CHARS),
        printable(attribute("source"), MAX_BODY_CHARS),
        printable(attribute("type"), MAX_BODY_CHARS),
        printable(attribute("id"), MAX_BODY_CHARS),
    );
    if !line.route.is_empty() {
        text.push_str(&format!("  ({})", printable(&line.route, MAX_BODY_CHARS)));
    }
    if let Some(reason) = &line.reason {
        text.push_str(&format!("\n    because {}", printable(reason, MAX_BODY_CHARS)));
    }
    match &line.body {
        _ if line.truncated => text.push_str("\n    (larger than 64 KiB, left out)\n"),
        Some(body) => text.push_str(&format!("\n    {}\n", printable(body, MAX_BODY_CHARS))),
        None => text.push_str("\n    (not text)\n"),
    }
    Ok(text)
}
