//! Where literal secrets stand in a file.

use std::ops::Range;

use serde_json::Value;

use super::tree::{Key, Kind, Node, Span};
use crate::{routing::header, secret};

/// The places and texts of what must not be shown.
#[derive(Debug, Default)]
pub struct Secrets(Vec<(Range<usize>, String)>);

impl Secrets {
    /// Takes in a value that the schema marks with `x-secret: kind`.
    pub fn add(&mut self, node: &Node, kind: &Value) {
        match (kind.as_str(), node.text()) {
            (Some("url"), Some(url)) => self.user_info(node, url),
            (Some("material"), Some(text)) if looks_like_path(text) => {}
            (Some("headers"), None) => self.headers(node),
            _ => self.hide(node),
        }
    }

    /// Hides the headers that must not be where they are.
    fn headers(&mut self, node: &Node) {
        let entries = node.entries().iter();
        let is_secret = |(key, value): &&(Key, Node)| {
            header::may_be_secret(&key.name, value.text().unwrap_or_default())
        };
        entries.filter(is_secret).for_each(|(_, value)| self.hide(value));
    }

    /// Hides every value below a node, whatever it is meant to be.
    pub fn hide(&mut self, node: &Node) {
        match &node.kind {
            Kind::Nothing | Kind::Bool(_) => {}
            Kind::Number(number) => self.put(node, number.to_string()),
            Kind::Text(text) if is_references(text) => {}
            Kind::Text(text) => self.put(node, text.clone()),
            Kind::List(items) => items.iter().for_each(|item| self.hide(item)),
            Kind::Map(entries) => entries.iter().for_each(|(_, value)| self.hide(value)),
        }
    }

    /// Hides what stands behind the colon in a key.
    pub fn hide_behind_colon(&mut self, key: &Key) {
        let value = key.name.split_once(':').map_or("", |(_, value)| value);
        let value = value.trim_start_matches(['"', '\'', ' ']);
        self.0.push((key.span.bytes.clone(), value.to_owned()));
    }

    /// Hides a key that no value follows.
    pub fn hide_bare_key(&mut self, key: &Key, node: &Node) {
        if matches!(node.kind, Kind::Nothing) {
            self.0.push((key.span.bytes.clone(), key.name.clone()));
        }
    }

    /// The places, with what they say: of a secret that stands in the text as it is, just that; else
    /// all that its value takes up.
    pub fn into_places(self, text: &str) -> Vec<(Range<usize>, String)> {
        let place = |(bytes, secret): (Range<usize>, String)| {
            let source = text.get(bytes.clone()).unwrap_or_default();
            let at = (!secret.is_empty()).then(|| source.find(&secret)).flatten();
            let exact = at.map(|at| bytes.start + at..bytes.start + at + secret.len());
            (exact.unwrap_or(bytes), secret)
        };
        self.0.into_iter().map(place).collect()
    }

    fn put(&mut self, node: &Node, text: String) {
        self.0.push((node.span.bytes.clone(), text.clone()));
        if node.defined != node.span {
            self.0.push((node.defined.bytes.clone(), text));
        }
    }

    /// What stands before the `@` of an address, unless it is but references.
    fn user_info(&mut self, node: &Node, url: &str) {
        let Some((before, _)) = url.rsplit_once('@') else { return };
        let info = before.split_once("://").map_or(before, |(_, info)| info);
        let password = info.split_once(':').map_or(info, |(_, password)| password);
        if is_references(password) && !password.is_empty() {
            return;
        }
        for Span { bytes, .. } in [&node.span, &node.defined] {
            self.0.push((bytes.clone(), info.to_owned()));
        }
        self.0.push((0..0, password.to_owned()));
    }
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
