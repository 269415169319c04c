//! What is wrong with the settings, in words: which setting, where it came from, what it may be.

use std::fmt;

use figment::{
    Source,
    error::{Actual, Kind},
};

use super::{PREFIX, Settings};
use crate::nearest::{listed, nearest};

/// Everything that is wrong with the settings, one a line.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Error(Vec<String>);

impl Error {
    pub(super) fn new(message: impl fmt::Display) -> Error {
        Error(vec![message.to_string()])
    }

    /// One of several messages, if there are any.
    pub(super) fn of(messages: Vec<String>) -> Option<Error> {
        (!messages.is_empty()).then_some(Error(messages))
    }
}

impl From<figment::Error> for Error {
    fn from(error: figment::Error) -> Error {
        Error(error.into_iter().map(|error| in_words(&error)).collect())
    }
}

fn in_words(error: &figment::Error) -> String {
    let name = error.path.join(".");
    let origin = match origin(error) {
        Some(origin) => format!(" ({origin})"),
        None => String::new(),
    };
    match &error.kind {
        Kind::UnknownField(field, _) => {
            let section = match error.path.as_slice() {
                [section @ .., last] if last == field => section.join("."),
                path => path.join("."),
            };
            let name =
                if section.is_empty() { field.clone() } else { format!("{section}.{field}") };
            format!("there is no setting `{name}`{origin}{}", advice(&name))
        }
        Kind::UnknownVariant(variant, known) => {
            format!("`{name}` is `{variant}`{origin}; known are {}", listed(known))
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("`{name}` is {}{origin}; it must be {}", shown(actual), wanted(expected))
        }
        kind => format!("`{name}`{origin}: {kind}"),
    }
}

/// Where a value came from.
fn origin(error: &figment::Error) -> Option<String> {
    let metadata = error.metadata.as_ref()?;
    match &metadata.source {
        Some(Source::File(path)) => {
            Some(path.file_name().unwrap_or(path.as_os_str()).display().to_string())
        }
        _ if metadata.name.contains("environment") => {
            Some(format!("in the environment, {PREFIX}{}", variable(&error.path.join("."))))
        }
        _ => None,
    }
}

/// The nearest settings to a name that there is not.
fn advice(name: &str) -> String {
    let known = names();
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("; did you mean `{near}`?"),
        None => "; docs/settings.md lists them".to_owned(),
    }
}

fn shown(actual: &Actual) -> String {
    match actual {
        Actual::Str(text) => format!("{text:?}"),
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        other => format!("a {other}"),
    }
}

/// What a type is, for people.
fn wanted(expected: &str) -> &str {
    match expected {
        "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "a string" | "string" | "path string" => "text",
        "a boolean" | "bool" => "true or false",
        other if other.starts_with("socket address") => {
            "an address and a port, like 127.0.0.1:8080"
        }
        other => other,
    }
}

/// How a setting is named in the environment, after the prefix.
pub(super) fn variable(name: &str) -> String {
    name.to_ascii_uppercase().replace('.', "__")
}

/// The names of all settings, sections before what is in them.
pub(super) fn names() -> Vec<String> {
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let mut names = Vec::new();
    collect("", &defaults, &mut names);
    names
}

fn collect(section: &str, value: &serde_json::Value, names: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        names.push(name.clone());
        collect(&name, value, names);
    }
}
