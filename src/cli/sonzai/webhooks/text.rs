//! Answers about webhooks, for people.

use std::fmt::Write;

use super::super::super::printable;
use crate::sonzai::webhooks::{
    document::{Action, Answer, Asked, Attempt, Do, Known, Row},
    plan::Difference,
};

/// Longest texts in a line; longer ones are cut.
const MAX_NAME_CHARS: usize = 60;
const MAX_URL_CHARS: usize = 200;
const MAX_WORDS_CHARS: usize = 500;

/// An answer, and what to do next.
pub fn of(asked: &Asked, answer: &Answer) -> String {
    match asked.action {
        Action::Attempts => attempts(answer),
        Action::List => list(answer),
        Action::Sync | Action::Rotate | Action::Delete => changes(asked, answer),
    }
}

fn head(answer: &Answer) -> String {
    let project = match &answer.project {
        Some(project) => format!("project {}", printable(project, MAX_NAME_CHARS)),
        None => "the key's own project".to_owned(),
    };
    format!("source {}, {project}\n", printable(&answer.source, MAX_NAME_CHARS))
}

fn list(answer: &Answer) -> String {
    let mut out = head(answer);
    let registered = || answer.webhooks.iter().filter(|row| row.registered);
    if registered().next().is_none() {
        out += "no webhook is registered\n";
    }
    let width = name_width(registered());
    for row in registered() {
        let url = row.registered_url.as_ref().unwrap_or(&row.url);
        let active = if row.active { "active" } else { "INACTIVE" };
        line(&mut out, width, row, &format!("{active}, secret {}", secret(row)));
        out += &format!("{:width$}  {}\n", "", printable(url, MAX_URL_CHARS));
        if let Some(last) = &row.last_attempt {
            out += &format!("{:width$}  last delivery: {}\n", "", attempt(last));
        }
        if let Some(error) = &row.error {
            out += &format!("{:width$}  {}\n", "", printable(error, MAX_WORDS_CHARS));
        }
    }
    let left: Vec<&Row> = answer.webhooks.iter().filter(|row| row.is_left()).collect();
    if !left.is_empty() {
        let differ = if left.len() == 1 { "differs" } else { "differ" };
        let hint = "see `waypost sonzai webhooks sync`";
        out += &format!("{} {differ} from routes.yaml: {hint}\n", left.len());
    }
    out
}

fn changes(asked: &Asked, answer: &Answer) -> String {
    let mut out = head(answer);
    let width = name_width(answer.webhooks.iter());
    for row in &answer.webhooks {
        line(&mut out, width, row, &said(row));
        if let Some(error) = &row.error {
            out += &format!("{:width$}  {}\n", "", printable(error, MAX_WORDS_CHARS));
        }
    }
    let count = |is_one: fn(&Row) -> bool| answer.webhooks.iter().filter(|row| is_one(row)).count();
    let lacks_secret = asked.action == Action::Sync && count(Row::lacks_secret) > 0;
    if lacks_secret {
        out += "Deliveries with a secret that nobody here knows are not verified: put it into \
                `secrets:`, or make another with --rotate-unknown --yes.\n";
    }
    let failed = count(|row| row.done == Some(false));
    out += &match (answer.applied, count(Row::changes)) {
        (_, 0) if lacks_secret => "nothing else to do\n".to_owned(),
        (_, 0) => "nothing to do\n".to_owned(),
        (false, _) => "nothing was changed: do it with --yes\n".to_owned(),
        (true, _) if failed > 0 => format!("{failed} failed\n"),
        (true, _) => "done\n".to_owned(),
    };
    out
}

/// What is, or was, done with a webhook.
fn said(row: &Row) -> String {
    let mut words: Vec<String> = Vec::new();
    match (row.step, row.done) {
        (Do::Nothing, _) if row.lacks_secret() => words.push("leads here".into()),
        (Do::Nothing, _) if !row.rotate => words.push("as it should be".into()),
        (Do::Nothing, _) => {}
        (Do::Leave, _) => words.push("somebody else's, left alone".into()),
        (Do::Register, Some(true)) => words.push("registered".into()),
        (Do::Register, _) => words.push("register".into()),
        (Do::Update, done) => {
            let differs: Vec<&str> = row.differs.iter().map(|each| difference(*each)).collect();
            let verb = if done == Some(true) { "updated" } else { "update" };
            words.push(format!("{verb}: {}", differs.join(", ")));
        }
        (Do::Delete, Some(true)) => words.push("deleted".into()),
        (Do::Delete, _) => words.push("delete".into()),
    }
    match (row.rotate, row.done) {
        (true, Some(true)) => words.push("its secret was changed".into()),
        (true, _) => words.push("change its secret".into()),
        (false, _) if row.lacks_secret() => words.push("its secret is UNKNOWN here".into()),
        (false, _) => {}
    }
    let mut said = words.join("; ");
    if row.done == Some(false) {
        said.insert_str(0, "FAILED: ");
    }
    let url = match (row.step, &row.registered_url) {
        (Do::Update, Some(from)) => {
            let then = if row.done == Some(true) { "was" } else { "now" };
            format!("{} ({then} {from})", row.url)
        }
        _ => row.url.clone(),
    };
    if row.step != Do::Nothing {
        // Writing to a string cannot fail.
        let _ = write!(said, ": {}", printable(&url, 2 * MAX_URL_CHARS));
    }
    said
}

fn difference(difference: Difference) -> &'static str {
    match difference {
        Difference::Url => "where it leads",
        Difference::Authorization => "its Authorization header",
        Difference::Inactive => "it is not active",
    }
}

fn secret(row: &Row) -> String {
    let since = row.secret_since.as_deref().unwrap_or_default();
    match row.secret {
        Known::Stored => format!("kept since {since}"),
        Known::Listed => "in routes.yaml".to_owned(),
        Known::Changing => format!("BEING CHANGED since {since}"),
        Known::Unknown => "UNKNOWN".to_owned(),
        Known::None => "not ours".to_owned(),
    }
}

fn attempts(answer: &Answer) -> String {
    let mut out = head(answer);
    if answer.attempts.is_empty() {
        out +=
            "no deliveries: see `waypost sonzai webhooks list` for the types that are registered\n";
    }
    for each in &answer.attempts {
        out += &format!("{}\n", attempt(each));
    }
    if let Some(cursor) = &answer.next_cursor {
        out += &format!("there are more: --cursor {}\n", printable(cursor, MAX_WORDS_CHARS));
    }
    out
}

fn attempt(attempt: &Attempt) -> String {
    let text = |text: &str| printable(text, MAX_NAME_CHARS);
    let answered = match attempt.response_code {
        0 => "no answer".to_owned(),
        code => format!("answered {code}"),
    };
    let took = attempt.duration_ms.map(|ms| format!(" after {ms} ms")).unwrap_or_default();
    let error = attempt.error.as_deref().filter(|error| !error.is_empty());
    let error = error.map(|error| format!(": {}", printable(error, MAX_WORDS_CHARS)));
    format!(
        "{}  {}, {answered}{took}, attempt {}{}",
        text(&attempt.at),
        text(&attempt.status),
        attempt.number,
        error.unwrap_or_default()
    )
}

fn line(out: &mut String, width: usize, row: &Row, words: &str) {
    *out += &format!("{:width$}  {words}\n", printable(&row.event_type, MAX_NAME_CHARS));
}

fn name_width<'r>(rows: impl Iterator<Item = &'r Row>) -> usize {
    let widths = rows.map(|row| printable(&row.event_type, MAX_NAME_CHARS).chars().count());
    widths.max().unwrap_or_default()
}
