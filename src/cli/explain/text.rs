//! The document for people.

use std::fmt::{self, Result};

use super::document::{
    AddressShown, EventShown, Explanation, MessageShown, Outcome, Recorded, Route, Source,
};
use crate::{cli::printable, event::Format};

/// Longest text from outside that is shown whole, in characters.
const MAX_CHARS: usize = 300;

impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> Result {
        let parts = [request, source, verdict, event, recorded, routes];
        parts.into_iter().try_for_each(|part| part(out, self))
    }
}

fn request(out: &mut fmt::Formatter, explanation: &Explanation) -> Result {
    let Some(request) = &explanation.request else { return Ok(()) };
    let (method, path) = (shown(&request.method), shown(&request.path));
    let (headers, bytes) = (request.headers, request.body_bytes);
    writeln!(out, "request   {method} {path}, {headers} headers, {bytes} bytes of body")?;
    request.notes.iter().try_for_each(|note| writeln!(out, "          note: {note}"))
}

fn source(out: &mut fmt::Formatter, explanation: &Explanation) -> Result {
    let Some(Source { name, r#type, path, path_type }) = &explanation.source else { return Ok(()) };
    write!(out, "source    {name} (type {type}, {path})")?;
    path_type.iter().try_for_each(|event_type| write!(out, ", for type {event_type}"))?;
    writeln!(out)
}

fn verdict(out: &mut fmt::Formatter, explanation: &Explanation) -> Result {
    let verdict = &explanation.verdict;
    let at = &explanation.at;
    match (verdict.outcome, verdict.status) {
        (Outcome::Accepted, _) => write!(out, "verdict   accepted")?,
        (Outcome::Refused, Some(status)) => write!(out, "verdict   REFUSED with {status}")?,
        (Outcome::Refused, None) => write!(out, "verdict   REFUSED")?,
        (Outcome::NotChecked, _) => write!(out, "verdict   not checked")?,
        (Outcome::Recorded, _) => return writeln!(out, "recorded  at {at}"),
    }
    writeln!(out, ", as received at {at}")?;
    if verdict.outcome == Outcome::Accepted {
        verdict
            .secret
            .iter()
            .try_for_each(|place| writeln!(out, "          signed with {place}"))?;
    }
    let mut reasons = verdict.reasons.iter();
    reasons.try_for_each(|reason| writeln!(out, "        - {}", reason.message))
}

fn event(out: &mut fmt::Formatter, explanation: &Explanation) -> Result {
    let Some(event) = &explanation.event else { return Ok(()) };
    let EventShown { id, source, r#type, subject, body_bytes, json, .. } = event;
    writeln!(out)?;
    if explanation.verdict.outcome == Outcome::Refused {
        writeln!(out, "If it were accepted:\n")?;
    }
    let what = if *json { "JSON" } else { "not JSON" };
    writeln!(out, "event     {}, {body_bytes} bytes, {what}", shown(id))?;
    writeln!(out, "          source {source}, type {}", shown(r#type))?;
    subject.iter().try_for_each(|s| writeln!(out, "          subject {}", shown(s)))?;
    for (name, value) in &event.extensions {
        writeln!(out, "          {name} {}", shown(value.as_str().unwrap_or_default()))?;
    }
    for [name, value] in &event.headers {
        writeln!(out, "          {}: {}", shown(name), shown(value))?;
    }
    Ok(())
}

fn recorded(out: &mut fmt::Formatter, explanation: &Explanation) -> Result {
    let Some(recorded) = &explanation.recorded else { return Ok(()) };
    let Recorded { position, messages, same_now, only_then, only_now, dead_letters } = recorded;
    match position {
        Some(position) => writeln!(out, "\nowed as recorded at position {position}")?,
        None => writeln!(out, "\nowed as its dead letters say; its record has been removed since")?,
    }
    messages.iter().try_for_each(|owed| message(out, owed))?;
    if *same_now {
        writeln!(out, "The present table would decide the same.")?;
    } else {
        writeln!(out, "The present table would decide otherwise:")?;
        only_then.iter().try_for_each(|owed| line(out, "no more", owed))?;
        only_now.iter().try_for_each(|owed| line(out, "new", owed))?;
    }
    for letter in dead_letters {
        let (time, attempts, reason) = (&letter.time, letter.attempts, shown(&letter.reason));
        writeln!(out, "\ndead letter of {time}, after {attempts} attempts: {reason}")?;
        message(out, &letter.message)?;
    }
    Ok(())
}

fn routes(out: &mut fmt::Formatter, explanation: &Explanation) -> Result {
    if explanation.event.is_none() {
        return Ok(());
    }
    writeln!(out, "\nroutes")?;
    for Route { name, condition, matched, why, messages } in &explanation.routes {
        let sign = if *matched { "+" } else { "-" };
        write!(out, "  {sign} {name}")?;
        why.iter().try_for_each(|why| write!(out, ": {}", shown(&why.message)))?;
        writeln!(out)?;
        condition.iter().try_for_each(|when| writeln!(out, "      when {}", shown(when)))?;
        messages.iter().try_for_each(|owed| message(out, owed))?;
    }
    match explanation.unrouted {
        None => Ok(()),
        Some("drop") => writeln!(out, "No route takes it: it is counted and dropped."),
        Some(_) => writeln!(out, "No route takes it: it becomes a dead letter."),
    }
}

fn line(out: &mut fmt::Formatter, what: &str, owed: &MessageShown) -> Result {
    write!(out, "  {what}, route {}:\n  ", owed.route)?;
    message(out, owed)
}

fn message(out: &mut fmt::Formatter, owed: &MessageShown) -> Result {
    write!(out, "      {}  ", owed.broker)?;
    match &owed.address {
        AddressShown::Topic { topic, key } => {
            write!(out, "topic {}", shown(topic))?;
            key.iter().try_for_each(|key| write!(out, ", key {}", shown(key)))?;
        }
        AddressShown::Exchange { exchange, routing_key } => {
            write!(out, "exchange {}, routing key {}", shown(exchange), shown(routing_key))?;
        }
        AddressShown::Subject { subject } => write!(out, "subject {}", shown(subject))?,
        AddressShown::Cannot { cannot } => write!(out, "DEAD LETTER: {}", shown(cannot))?,
    }
    if owed.format != Format::default().name() {
        write!(out, ", format {}", owed.format)?;
    }
    for [name, value] in &owed.headers {
        write!(out, ", header {name}: {}", shown(value))?;
    }
    owed.merged_into
        .iter()
        .try_for_each(|route| write!(out, " (as of route {route}, sent once)"))?;
    writeln!(out)
}

fn shown(text: &str) -> String {
    printable(text, MAX_CHARS)
}
