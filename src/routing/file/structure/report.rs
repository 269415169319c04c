//! What is said of a tree that does not fit the schema.

use serde_json::Value;

use super::{
    super::tree::{Key, Kind, Node, Span},
    Rule, TAG, Walker,
};
use crate::{
    nearest::{listed, nearest},
    routing::diagnostic::{Code, Diagnostic},
};

/// What takes text that is a number in no case, in quotes or not.
const NO_NUMBERS: [&str; 2] = ["when", "for"];

impl<'s> Walker<'s> {
    /// A value of none of the types that `expected` wants; one of constants, if there are none.
    pub(super) fn wrong_type(
        &mut self,
        node: &Node,
        expected: &'s [Value],
        rule: Rule<'s, '_>,
    ) -> Option<Node> {
        if expected.iter().any(|schema| self.may_hide(schema)) {
            match node.kind {
                Kind::Map(_) => self.secrets.hide_values(node),
                _ => self.secrets.hide(node),
            }
        }
        let mut wanted: Vec<&str> = expected.iter().map(|s| type_name(self.resolve(s))).collect();
        wanted.dedup();
        if wanted.is_empty() {
            wanted.push("text");
        }
        let what = match rule.name {
            "" => "the file".to_owned(),
            name => format!("`{name}:`"),
        };
        let (found, span) = match &node.kind {
            Kind::Nothing => ("there is nothing", rule.anchor),
            Kind::Bool(_) => ("this is true/false", &node.span),
            Kind::Number(_) => ("this is a number", &node.span),
            Kind::Text(_) => ("this is text", &node.span),
            Kind::List(_) => ("this is a list", rule.anchor),
            Kind::Map(_) => ("this is a mapping", rule.anchor),
        };
        let help = match &node.kind {
            Kind::Number(_) if wanted.contains(&"text") && !NO_NUMBERS.contains(&rule.name) => {
                Some("put it in quotes".to_owned())
            }
            Kind::Bool(value) if wanted.contains(&"text") => {
                let written = self.text.get(node.span.bytes.clone()).unwrap_or_default();
                Some(match written {
                    "" | "true" | "false" => "put it in quotes".to_owned(),
                    _ => format!("YAML reads `{written}` as {value}: put it in quotes"),
                })
            }
            _ if rule.name.is_empty() => {
                Some("it has the keys `sources:`, `brokers:` and `routes:`".to_owned())
            }
            Kind::Nothing => Some("write a value behind the key, or remove the key".to_owned()),
            _ => self.description(rule.schema).map(str::to_owned),
        };
        let message = format!("{what} takes {}, and {found}", wanted.join(" or "));
        let problem = Diagnostic::error(Code::WrongType, span.clone(), message);
        self.problems.push(Diagnostic { help, ..problem });
        None
    }

    /// Reports a key that there is not; what was probably meant.
    pub(super) fn unknown_key<'k>(
        &mut self,
        key: &Key,
        what: &str,
        known: &[&'k str],
    ) -> Option<&'k str> {
        let name = &key.name;
        let near = nearest(name, known.iter().copied());
        let message = match near {
            Some(near) => format!("unknown key `{name}:`; did you mean `{near}:`?"),
            None => format!("unknown key `{name}:`"),
        };
        let problem = Diagnostic::error(Code::UnknownKey, key.span.clone(), message);
        let help = match name.contains(':') {
            true => "a space goes behind a key's colon: `key: value`".to_owned(),
            false => format!("{what} takes {}", listed(known)),
        };
        self.problems.push(problem.help(help));
        near
    }

    /// Reports an object that does not say what it is, or says it under a misspelt key.
    pub(super) fn no_tag(&mut self, node: &Node, what: &str, known: &[&str], anchor: &Span) {
        let meant = |(key, _): &&(Key, Node)| nearest(&key.name, [TAG]).is_some();
        let problem = match node.entries().iter().find(meant) {
            Some((Key { name, span }, _)) => {
                let message = format!("unknown key `{name}:`; did you mean `{TAG}:`?");
                Diagnostic::error(Code::UnknownKey, span.clone(), message)
            }
            None => {
                let message = format!("a {what} needs `{TAG}:`");
                Diagnostic::error(Code::MissingKey, anchor.clone(), message)
            }
        };
        self.problems.push(problem.help(format!("known types are {}", listed(known))));
    }

    /// What a schema says of its value, its definition where it says nothing itself.
    pub(super) fn description(&self, schema: &'s Value) -> Option<&'s str> {
        let own = schema.get("description").or_else(|| self.resolve(schema).get("description"));
        own.and_then(Value::as_str)
    }
}

/// What a schema wants, in the words of people who write YAML.
fn type_name(schema: &Value) -> &'static str {
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => "true/false",
        Some("integer") => "a whole number",
        Some("array") => "a list",
        Some("string") => "text",
        _ => "a mapping",
    }
}
