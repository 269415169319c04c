//! What of a file is under each name, to tell what another one changes. It holds digests alone: what
//! they are of may be secret.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Digest, secret_files};
use crate::routing::file;

/// See the module. A secret file belongs to whatever names it.
#[derive(Debug, Default)]
pub struct Outline {
    pub sources: Part,
    pub brokers: Part,
    pub routes: Part,
    pub commands: Part,
}

/// By name.
pub type Part = BTreeMap<String, Digest>;

impl Outline {
    /// Of a text that compiles, with what was read of its secret files.
    pub fn of(text: &str, secrets: &BTreeMap<PathBuf, Digest>) -> Outline {
        let Some(whole) = file::document(text) else { return Outline::default() };
        let named = |name: &str| {
            let entries = whole[name].as_object().into_iter().flatten();
            entries.map(|(name, value)| (name.clone(), digest(value, secrets))).collect()
        };
        let route =
            |route: &Value| Some((route["name"].as_str()?.to_owned(), digest(route, secrets)));
        let routes = whole["routes"].as_array().into_iter().flatten().filter_map(route).collect();
        Outline {
            sources: named("sources"),
            brokers: named("brokers"),
            routes,
            commands: named("commands"),
        }
    }
}

/// The names that both have and that are not the same in them.
pub fn changed(old: &Part, new: &Part) -> BTreeSet<String> {
    let changed = new.iter().filter(|(name, part)| old.get(*name).is_some_and(|old| old != *part));
    changed.map(|(name, _)| name.clone()).collect()
}

fn digest(value: &Value, secrets: &BTreeMap<PathBuf, Digest>) -> Digest {
    let mut digest = Sha256::new_with_prefix(value.to_string());
    let mut texts = Vec::new();
    collect(value, &mut texts);
    let files = texts.into_iter().flat_map(secret_files);
    files.filter_map(|file| secrets.get(&file)).for_each(|secret| digest.update(secret));
    digest.finalize().into()
}

fn collect<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(entries) => entries.values().for_each(|value| collect(value, texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
sources:
  one: { type: miibo, path: /one, secret: "${file:/run/one}" }
  two: { type: miibo, path: /two, secret: literal-secret }
brokers: { local: { type: log, retry: { for: 1m } } }
routes: [{ name: all, match: { type: "**" }, to: [{ broker: local, topic: all }] }]
commands: { wakeups: { source: one, from: { broker: local, queue: q } } }
"#;

    /// The sources, brokers, routes and commands that differ.
    fn changes(text: &str, secret: u8) -> [Vec<String>; 4] {
        let outline = |text: &str, secret: u8| {
            Outline::of(text, &BTreeMap::from([(PathBuf::from("/run/one"), [secret; 32])]))
        };
        let (old, new) = (outline(TEXT, 0), outline(text, secret));
        let parts = [
            (old.sources, new.sources),
            (old.brokers, new.brokers),
            (old.routes, new.routes),
            (old.commands, new.commands),
        ];
        parts.map(|(old, new)| changed(&old, &new).into_iter().collect())
    }

    #[test]
    fn what_changed_is_named_whatever_of_it_changed() {
        let none = Vec::<String>::new;
        let name = |name: &str| vec![name.to_owned()];
        let is_changed = |text: &str, secret: u8, expected: [Vec<String>; 4]| {
            assert_eq!(changes(text, secret), expected, "{text}");
        };
        is_changed(TEXT, 0, [none(), none(), none(), none()]);
        is_changed(&TEXT.replace(": {", ":  {"), 0, [none(), none(), none(), none()]);
        is_changed(TEXT, 1, [name("one"), none(), none(), none()]);
        let another = TEXT.replace("literal", "another");
        is_changed(&another, 0, [name("two"), none(), none(), none()]);
        is_changed(&TEXT.replace("1m", "2m"), 0, [none(), name("local"), none(), none()]);
        let topic = TEXT.replace("topic: all", "topic: x");
        is_changed(&topic, 0, [none(), none(), name("all"), none()]);
        is_changed(
            &TEXT.replace("queue: q", "queue: r"),
            0,
            [none(), none(), none(), name("wakeups")],
        );
        // What is new is no change.
        is_changed(&TEXT.replace("name: all", "name: x"), 0, [none(), none(), none(), none()]);
        is_changed(&TEXT.replace("wakeups:", "x:"), 0, [none(), none(), none(), none()]);
    }
}
