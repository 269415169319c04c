//! Where a line may hold a secret that no place in the file's tree tells of: in a comment, behind a
//! slip of the pen, or anywhere if the file is not YAML. When in doubt, it does.

use std::ops::Range;

use crate::{certificates::PEM_SIGN, secret};

/// How a secret begins that is one word, wherever it stands.
const WORD_SIGNS: [&str; 2] = ["whsec_", "whsk_"];

/// Keys whose values are shown in text that is not YAML: none of them ever holds a secret.
const PLAIN_KEYS: [&str; 21] = [
    "sources",
    "brokers",
    "routes",
    "type",
    "path",
    "name",
    "match",
    "source",
    "otherwise",
    "to",
    "broker",
    "topic",
    "exchange",
    "routing_key",
    "subject",
    "format",
    "when",
    "dedupe",
    "unrouted",
    "when_full",
    "mechanism",
];

/// The other keys of the file. A key within braces that is none of all these may be a secret.
const OTHER_KEYS: [&str; 24] = [
    "secret",
    "secrets",
    "authorization",
    "bootstrap",
    "url",
    "tls",
    "ca",
    "cert",
    "key",
    "sasl",
    "user",
    "password",
    "tls_first",
    "token",
    "nkey",
    "creds",
    "dir",
    "rotate_bytes",
    "keep",
    "retry",
    "for",
    "drain",
    "backlog",
    "headers",
];

/// What to mask in a line of a file whose secrets are known by their places.
pub fn beside_places(line: &str) -> Vec<Range<usize>> {
    let mut found = words(line);
    found.extend(comment(line));
    found.extend(properties(line));
    found
}

/// What to mask in a line of a file of which no places are known.
pub fn without_places(line: &str) -> Vec<Range<usize>> {
    let mut found = beside_places(line);
    found.extend(line.find(PEM_SIGN).map(|start| start..line.len()));
    found.extend(doubtful(line));
    found
}

/// Where words stand that look like secrets, in order. The bare prefix is none: messages explain it.
pub fn words(line: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (start, sign) in WORD_SIGNS.iter().flat_map(|sign| line.match_indices(sign)) {
        let end = end_of_word(line, start + sign.len());
        if end > start + sign.len() {
            found.push(start..end);
        }
    }
    found.sort_by_key(|range| range.start);
    // One within another's word is masked with it.
    found.dedup_by(|next, before| next.start < before.end);
    found
}

fn end_of_word(line: &str, from: usize) -> usize {
    let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | ']' | '}');
    line[from..].find(ends).map_or(line.len(), |at| from + at)
}

/// Where anchors and tags stand that no value follows: a secret that begins with `&` or `!` and is not
/// in quotes, perhaps.
fn properties(line: &str) -> Vec<Range<usize>> {
    let opens = |c: char| c.is_whitespace() || matches!(c, '[' | '{' | ',' | ':' | '-');
    let begins = |at: &usize| line[..*at].chars().next_back().is_some_and(opens);
    let found = line.match_indices(['&', '!']).map(|(at, _)| at).filter(begins);
    let ranges = found.map(|at| at..end_of_word(line, at));
    let ends = |range: &Range<usize>| {
        let rest = line[range.end..].trim_start();
        rest.is_empty() || rest.starts_with([',', ']', '}', '#'])
    };
    ranges.filter(ends).collect()
}

/// What a line's comment says, which is nowhere in the file's tree: a secret that was in force once,
/// perhaps.
fn comment(line: &str) -> Option<Range<usize>> {
    let begins = |at: &usize| {
        let before = &line[..*at];
        let quoted = ['"', '\''].iter().any(|quote| before.matches(*quote).count() % 2 == 1);
        !quoted && before.chars().next_back().is_none_or(char::is_whitespace)
    };
    let at = line.match_indices('#').map(|(at, _)| at).find(begins)?;
    let text = line[at + 1..].find(|c: char| !c.is_whitespace())?;
    Some(at + 1 + text..line.len())
}

/// What is to be masked in a line that has no place in the file's tree: from the first value on that
/// may be secret, or the first key. None of those is that says nothing, or is the one plain value of a
/// plain key.
fn doubtful(line: &str) -> Option<Range<usize>> {
    let says_nothing =
        |text: &str| !secret::without_references(text).contains(char::is_alphanumeric);
    let is_plain = |key: &str, value: &str| {
        let (first, rest) = value.split_once(',').unwrap_or((value, ""));
        PLAIN_KEYS.contains(&key.trim_matches(['"', '\'']))
            && !first.contains(':')
            && says_nothing(rest)
    };
    let keys = keys(line);
    let first = keys.first().map_or(line.len(), |key| key.start);
    if !says_nothing(&line[..first]) {
        return Some(0..line.len());
    }
    let ends = keys.iter().skip(1).map(|key| key.start).chain([line.len()]);
    let mut values = keys.iter().zip(ends).map(|(key, end)| (&line[key.clone()], key.end + 1..end));
    let value = values.find_map(|(key, value)| {
        let text = &line[value.clone()];
        let indent = text.find(|c: char| !c.is_whitespace())?;
        (!says_nothing(text) && !is_plain(key, text)).then_some(value.start + indent)
    });
    let key = keys.iter().find(|key| is_strange(line, key)).map(|key| key.start);
    value.into_iter().chain(key).min().map(|start| start..line.len())
}

/// Whether a key stands within braces or brackets and is none of the file's.
fn is_strange(line: &str, key: &Range<usize>) -> bool {
    let name = line[key.clone()].trim_matches(['"', '\'']);
    let known = PLAIN_KEYS.iter().chain(&OTHER_KEYS).any(|known| *known == name);
    !known && line[..key.start].trim_end().ends_with(['{', '[', ','])
}

/// Where a line's keys stand: words before a colon that nothing but white space or nothing follows.
fn keys(line: &str) -> Vec<Range<usize>> {
    let ends = line
        .match_indices(':')
        .map(|(at, _)| at)
        .filter(|at| line[at + 1..].chars().next().is_none_or(char::is_whitespace));
    let of_a_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '"' | '\'' | '*');
    let start = |end: usize| {
        let before = line[..end].char_indices().rev().take_while(|(_, c)| of_a_key(*c));
        before.last().map_or(end, |(at, _)| at)
    };
    ends.map(|end| start(end)..end).collect()
}
