//! Compares what was found out with what was expected: a regression test of a routing table.
//!
//! Every member that the expectation has must be there and equal; what it does not have may be as it
//! is, and `null` stands for what must not be there. A list is compared whole: as many items, in the
//! same order, each by the same rule; but of items that have names, as routes do, each is compared with
//! its namesake, and the others may be as they are. Numbers are the same however they are written.

use std::{fmt::Write, path::Path, process::ExitCode};

use serde_json::{Number, Value, json};

use super::{MAX_EXPECTED_BYTES, parse_time};
use crate::cli::{Error, input, print, printable};

/// Longest value that is shown in a difference, in characters.
const MAX_SHOWN_CHARS: usize = 300;

/// What is expected.
pub struct Expected {
    /// When the request is received. Not compared: it is where the answer comes from.
    pub at_ms: Option<u64>,
    document: Value,
}

/// Something that is not as expected.
#[derive(Debug, PartialEq)]
struct Difference {
    /// Where, as `routes[0].messages[1].topic`.
    path: String,
    expected: Value,
    /// `None` if there is nothing.
    found: Option<Value>,
}

/// Reads a file of expectations.
pub fn read(path: &Path) -> Result<Expected, Error> {
    let text = input::read(path, Some(MAX_EXPECTED_BYTES))?;
    let wrong = |why: String| Error(format!("{}: {why}", path.display()));
    let document = serde_json::from_slice(&text)
        .map_err(|error| wrong(format!("not JSON ({error}); write it with --json")))?;
    let Value::Object(mut members) = document else {
        return Err(wrong("not a JSON object; write it with --json".to_owned()));
    };
    let at_ms = match members.remove("at") {
        None => None,
        Some(Value::String(text)) => Some(parse_time(&text)),
        Some(other) => Some(parse_time(&other.to_string())),
    };
    let at_ms = at_ms.transpose().map_err(|hint| wrong(format!("`at`: {hint}")))?;
    if members.is_empty() {
        return Err(wrong(
            "it expects nothing, and anything is as expected; write it with --json".to_owned(),
        ));
    }
    Ok(Expected { at_ms, document: Value::Object(members) })
}

/// Says what is not as expected; exits with 0 if everything is.
pub fn compare(expected: &Expected, found: &Value, as_json: bool) -> Result<ExitCode, Error> {
    let mut differences = Vec::new();
    differ(&expected.document, Some(found), &mut String::new(), &mut differences);
    print(&if as_json { document(&differences) } else { text(&differences) })?;
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn differ(
    expected: &Value,
    found: Option<&Value>,
    path: &mut String,
    differences: &mut Vec<Difference>,
) {
    let len = path.len();
    match (expected, found) {
        (Value::Object(members), Some(Value::Object(found))) => {
            for (name, expected) in members {
                path.push_str(if len == 0 { "" } else { "." });
                path.push_str(name);
                differ(expected, found.get(name), path, differences);
                path.truncate(len);
            }
        }
        (Value::Array(items), Some(Value::Array(found))) if is_named(items) && is_named(found) => {
            for expected in items {
                let at = found.iter().position(|found| found["name"] == expected["name"]);
                match at {
                    Some(index) => path.push_str(&format!("[{index}]")),
                    None => path.push_str(&format!("[{}]", expected["name"])),
                }
                differ(expected, at.map(|index| &found[index]), path, differences);
                path.truncate(len);
            }
        }
        (Value::Array(items), Some(Value::Array(found))) if items.len() == found.len() => {
            for (index, (expected, found)) in items.iter().zip(found).enumerate() {
                path.push_str(&format!("[{index}]"));
                differ(expected, Some(found), path, differences);
                path.truncate(len);
            }
        }
        (Value::Null, None) => {}
        (Value::Number(expected), Some(Value::Number(found))) if same(expected, found) => {}
        (expected, found) if Some(expected) == found => {}
        (expected, found) => differences.push(Difference {
            path: path.clone(),
            expected: expected.clone(),
            found: found.cloned(),
        }),
    }
}

/// Whether a list is one of things with names.
fn is_named(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item["name"].is_string())
}

/// Whether two numbers are, however they are written.
fn same(one: &Number, other: &Number) -> bool {
    let whole = |number: &Number| number.as_i128();
    match (whole(one), whole(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.as_f64() == other.as_f64(),
    }
}

fn text(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "as expected\n".to_owned();
    }
    let shown = |value: &Value| printable(&value.to_string(), MAX_SHOWN_CHARS);
    let mut out = String::new();
    for Difference { path, expected, found } in differences {
        let found = found.as_ref().map_or("nothing".to_owned(), shown);
        writeln!(out, "{path}\n    expected  {}\n    found     {found}", shown(expected))
            .expect("writing to a string does not fail");
    }
    out.push_str(&match differences.len() {
        1 => "1 difference\n".to_owned(),
        count => format!("{count} differences\n"),
    });
    out
}

fn document(differences: &[Difference]) -> String {
    let list: Vec<Value> = differences
        .iter()
        .map(|d| json!({ "path": d.path, "expected": d.expected, "found": d.found }))
        .collect();
    format!("{:#}\n", json!({ "as_expected": list.is_empty(), "differences": list }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(expected: Value, found: Value) -> Vec<String> {
        let mut differences = Vec::new();
        differ(&expected, Some(&found), &mut String::new(), &mut differences);
        differences.into_iter().map(|difference| difference.path).collect()
    }

    #[test]
    fn what_is_expected_must_be_there_and_the_rest_may_be_as_it_is() {
        let found = json!({
            "a": 1, "b": { "c": "x", "d": null }, "list": [{ "n": 1, "m": 2 }, { "n": 2 }],
            "named": [{ "name": "x", "n": 1 }, { "name": "y", "n": 2 }],
        });
        for (expected, differing) in [
            (json!({}), &[][..]),
            (found.clone(), &[]),
            (json!({ "b": { "c": "x" } }), &[]),
            (json!({ "list": [{ "n": 1 }, { "n": 2 }] }), &[]),
            (json!({ "a": 1.0 }), &[]),
            (json!({ "a": 1.5 }), &["a"]),
            (json!({ "a": 2, "b": { "c": "y" } }), &["a", "b.c"]),
            (json!({ "none": 1, "b": { "d": 1, "e": null } }), &["b.d", "none"]),
            (json!({ "list": [{ "n": 1 }] }), &["list"]),
            (
                json!({ "list": [{ "n": 2 }, { "n": 1, "m": 3 }] }),
                &["list[0].n", "list[1].m", "list[1].n"],
            ),
            (json!({ "list": {} }), &["list"]),
            (json!({ "named": [{ "name": "y", "n": 2 }] }), &[]),
            (
                json!({ "named": [{ "name": "y", "n": 1 }, { "name": "z" }] }),
                &["named[1].n", "named[\"z\"]"],
            ),
            (json!({ "named": [] }), &["named"]),
            (json!({ "named": [{ "n": 1 }] }), &["named"]),
            (json!({ "a": "1" }), &["a"]),
        ] {
            assert_eq!(paths(expected.clone(), found.clone()), differing, "{expected}");
        }
    }

    #[test]
    fn what_expects_nothing_is_no_expectation() {
        for (text, expected) in [
            ("{}", Some("expects nothing")),
            (r#"{ "at": "2026-01-01T00:00:00Z" }"#, Some("expects nothing")),
            ("[]", Some("not a JSON object")),
            (r#"{ "routes": [] }"#, None),
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let error = read(file.path()).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), expected.is_some(), "{text}: {error:?}");
            assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()), "{text}");
        }
    }
}
