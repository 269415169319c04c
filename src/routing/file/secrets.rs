//! Where literal secrets stand in a file.

use std::{collections::HashSet, ops::Range};

use serde_json::Value;

use super::{
    tree::{Key, Kind, Node, Span},
    url,
};
use crate::{routing::header, secret};

/// The places and texts of what must not be shown.
#[derive(Debug, Default)]
pub struct Secrets(Vec<Hidden>);

/// A text of the file that is secret in part.
#[derive(Debug)]
struct Hidden {
    /// Where all of it stands.
    bytes: Range<usize>,
    text: String,
    /// Which bytes of `text` are secret.
    part: Range<usize>,
}

impl Secrets {
    /// Takes in a value whose schema says what of it is secret, in `x-secret`.
    pub fn add(&mut self, node: &Node, schema: &Value) {
        match (schema["x-secret"].as_str(), node.text()) {
            (Some("url"), Some(text)) => {
                url::secrets(text).into_iter().for_each(|part| self.put(node, text, part));
            }
            (Some("web-url"), Some(text)) => {
                let parts = url::secrets_of_one(text);
                parts.into_iter().for_each(|part| self.put(node, text, part));
            }
            (Some("material"), Some(text)) if looks_like_path(text) => {}
            (Some("headers"), None) => self.headers(node),
            _ if schema["type"] == "object" => self.named(node),
            _ => self.hide(node),
        }
    }

    /// Hides secrets that have names, which the file may give: they are none, unless nothing follows
    /// them.
    fn named(&mut self, node: &Node) {
        for (name, secret) in node.entries() {
            self.hide_bare_key(name, secret);
        }
        self.below(node, Secrets::hide);
    }

    /// Hides the headers that must not be where they are.
    fn headers(&mut self, node: &Node) {
        let entries = node.entries().iter();
        let is_secret = |(key, value): &&(Key, Node)| {
            header::may_be_secret(&key.name, value.text().unwrap_or_default())
        };
        entries.filter(is_secret).for_each(|(_, value)| self.hide(value));
    }

    /// Hides all that a value is, keys too, whatever it is meant to be.
    pub fn hide(&mut self, node: &Node) {
        for (key, _) in node.entries() {
            self.hide_key(key);
        }
        self.below(node, Secrets::hide);
    }

    /// Hides every value below a node, and keys that no value follows.
    pub fn hide_values(&mut self, node: &Node) {
        for (key, value) in node.entries() {
            self.hide_bare_key(key, value);
        }
        self.below(node, Secrets::hide_values);
    }

    /// Hides what stands behind the colon in a key.
    pub fn hide_behind_colon(&mut self, key: &Key) {
        let Some(colon) = key.name.find(':') else { return };
        let value = key.name[colon + 1..].trim_start_matches(['"', '\'', ' ']);
        let part = key.name.len() - value.len()..key.name.len();
        self.0.push(Hidden { bytes: key.span.bytes.clone(), text: key.name.clone(), part });
    }

    /// Hides a key that no value follows.
    pub fn hide_bare_key(&mut self, key: &Key, node: &Node) {
        if matches!(node.kind, Kind::Nothing) {
            self.hide_key(key);
        }
    }

    /// The places, with what they say: of a secret that stands in the text as it is, just that; else
    /// all that its value takes up. What is one of the `words` of every message says nothing.
    pub fn into_places(self, text: &str, words: &HashSet<&str>) -> Vec<(Range<usize>, String)> {
        let place = |Hidden { bytes, text: whole, part }: Hidden| {
            let source = text.get(bytes.clone()).unwrap_or_default();
            let secret = &whole[part.clone()];
            let at = source.find(&whole).filter(|_| !secret.is_empty()).map(|at| bytes.start + at);
            let word = if words.contains(secret) { String::new() } else { secret.to_owned() };
            let from = with_properties(text, bytes.start);
            match at {
                Some(at) if part.start > 0 || from == bytes.start => {
                    (at + part.start..at + part.end, word)
                }
                Some(at) => (from..at + part.end, word),
                None => (from..bytes.end, word),
            }
        };
        self.0.into_iter().map(place).collect()
    }

    /// Hides a key.
    pub fn hide_key(&mut self, key: &Key) {
        let (text, part) = (key.name.clone(), 0..key.name.len());
        self.0.push(Hidden { bytes: key.span.bytes.clone(), text, part });
    }

    /// Hides a scalar; of a list or a mapping, `each` value.
    fn below(&mut self, node: &Node, each: fn(&mut Secrets, &Node)) {
        match &node.kind {
            Kind::Number(number) => {
                let text = number.to_string();
                self.put(node, &text, 0..text.len());
            }
            Kind::Text(text) if !is_references(text) => self.put(node, text, 0..text.len()),
            // What stands in front of it may be one.
            Kind::Nothing | Kind::Bool(_) | Kind::Text(_) => self.put_properties(node),
            Kind::List(items) => {
                self.put_properties(node);
                items.iter().for_each(|item| each(self, item));
            }
            Kind::Map(entries) => {
                self.put_properties(node);
                entries.iter().for_each(|(_, value)| each(self, value));
            }
        }
    }

    fn put(&mut self, node: &Node, text: &str, part: Range<usize>) {
        for Span { bytes, .. } in spans(node) {
            let (bytes, text, part) = (bytes.clone(), text.to_owned(), part.clone());
            self.0.push(Hidden { bytes, text, part });
        }
    }

    fn put_properties(&mut self, node: &Node) {
        for Span { bytes, .. } in spans(node) {
            let bytes = bytes.start..bytes.start;
            self.0.push(Hidden { bytes, text: String::new(), part: 0..0 });
        }
    }
}

/// Where a value stands, and where its text does, if an alias names it.
fn spans(node: &Node) -> impl Iterator<Item = &Span> {
    let defined = Some(&node.defined).filter(|defined| **defined != node.span);
    [&node.span].into_iter().chain(defined)
}

/// Where the anchor and the tag of what begins at `start` begin: a secret that begins with `&` or `!`
/// and is not in quotes is read as one.
fn with_properties(text: &str, start: usize) -> usize {
    let mut start = start;
    while let Some(before) = text.get(..start).map(str::trim_end) {
        let word = before.rsplit(|c: char| c.is_whitespace() || "[{,".contains(c)).next();
        match word.filter(|word| word.starts_with(['&', '!'])) {
            Some(word) => start = before.len() - word.len(),
            None => break,
        }
    }
    start
}

/// Whether a value only names where its text comes from.
fn is_references(text: &str) -> bool {
    secret::without_references(text).is_empty()
}

/// Whether a value is the path of a file rather than what it holds.
fn looks_like_path(text: &str) -> bool {
    is_references(text)
        || (text.contains(['/', '.'])
            && !text.contains(['\n', '=', '+'])
            && !text.contains("-----"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_but_references_is_no_literal_secret() {
        for (text, expected) in [
            ("${A}", true),
            ("${A}${file:/x}", true),
            ("", true),
            ("x${A}", false),
            ("${A}x", false),
            ("${A", false),
            ("$${A}", false),
            ("${", false),
        ] {
            assert_eq!(is_references(text), expected, "{text}");
        }
    }
}
