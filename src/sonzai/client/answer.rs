//! Reads answers, leniently: members that are new are skipped, and what is missing is `None`.

use std::collections::HashMap;

use bytestring::ByteString;
use chrono::DateTime;
use secrecy::SecretString;
use serde_json::{error::Category, value::RawValue};

/// Why an answer cannot be read. Quotes nothing of it: it may hold a secret.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it ends too early")]
    Short,
    #[error("it is not JSON from line {line}, column {column} on")]
    NotJson { line: usize, column: usize },
    #[error("it is no JSON object")]
    NoObject,
    #[error("it has no `{0}`, or not as promised")]
    Lacks(&'static str),
    #[error("it says that it did not succeed, and not why")]
    NoSuccess,
    #[error("its next page is the same page")]
    Circle,
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Unreadable {
        match error.classify() {
            Category::Eof => Unreadable::Short,
            Category::Data => Unreadable::NoObject,
            Category::Syntax | Category::Io => {
                Unreadable::NotJson { line: error.line(), column: error.column() }
            }
        }
    }
}

/// An object, member by member, each as it is written. Of equal names the last one counts.
pub struct Object<'a>(HashMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    pub fn read(json: &'a [u8]) -> Result<Object<'a>, Unreadable> {
        Ok(Object(serde_json::from_slice(json)?))
    }

    /// An entry of a list; `None` if it is no object.
    pub fn entry(raw: &'a RawValue) -> Option<Object<'a>> {
        serde_json::from_str(raw.get()).ok().map(Object)
    }

    /// A member as it is written.
    pub fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|raw| raw.get())
    }

    /// The first of these that is a string with something in it, or a number.
    pub fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| {
            let raw = self.raw(name)?;
            match raw.as_bytes().first()? {
                b'"' => serde_json::from_str(raw).ok().filter(|text: &String| !text.is_empty()),
                b'-' | b'0'..=b'9' => Some(raw.to_owned()),
                _ => None,
            }
        })
    }

    /// The same for what becomes part of an event.
    pub fn bytes(&self, names: &[&str]) -> Option<ByteString> {
        self.text(names).map(ByteString::from)
    }

    /// A whole number, perhaps written as a string.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(&[name])?.parse().ok()
    }

    pub fn flag(&self, name: &str) -> Option<bool> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(&[name]).map(SecretString::from)
    }

    /// A time of RFC 3339, in Unix milliseconds; `None` for one before 1970, too, with which Go writes
    /// that there is none.
    pub fn time_ms(&self, name: &str) -> Option<u64> {
        let time = DateTime::parse_from_rfc3339(&self.text(&[name])?).ok()?;
        u64::try_from(time.timestamp_millis()).ok()
    }

    /// The entries of the first of these that is a list; `null` is an empty one. One must be there.
    pub fn list(&self, names: &[&'static str]) -> Result<Vec<&'a RawValue>, Unreadable> {
        let mut found = None;
        for raw in names.iter().filter_map(|name| self.raw(name)) {
            match raw {
                "null" => found = Some(Vec::new()),
                raw if raw.starts_with('[') => return Ok(serde_json::from_str(raw)?),
                _ => {}
            }
        }
        found.ok_or(Unreadable::Lacks(names[0]))
    }

    /// Fails where the answer itself says `"success": false`.
    pub fn succeeded(&self) -> Result<(), Unreadable> {
        if self.flag("success") == Some(false) { Err(Unreadable::NoSuccess) } else { Ok(()) }
    }

    /// Where the next page begins; `None` at the end.
    pub fn next_cursor(&self, this: Option<&str>) -> Result<Option<String>, Unreadable> {
        let next = self.text(&["next_cursor"]).filter(|_| self.flag("has_more") != Some(false));
        if next.is_some() && next.as_deref() == this {
            return Err(Unreadable::Circle);
        }
        Ok(next)
    }
}

/// Reads each entry; says how many could not be read.
pub fn entries<'a, T>(
    list: Vec<&'a RawValue>,
    read: impl Fn(&'a RawValue) -> Option<T>,
) -> (Vec<T>, usize) {
    let all = list.len();
    let items: Vec<T> = list.into_iter().filter_map(read).collect();
    let unreadable = all - items.len();
    (items, unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str) -> Object<'_> {
        Object::read(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_null_list_is_an_empty_one_and_none_is_an_error() {
        let count = |json: &str| object(json).list(&["notifications", "items"]).map(|l| l.len());
        for (json, expected) in [
            (r#"{"notifications":[1,2]}"#, Ok(2)),
            (r#"{"$schema":"x","items":[{}],"new":{"a":[1]}}"#, Ok(1)),
            (r#"{"notifications":null}"#, Ok(0)),
            (r#"{"notifications":null,"items":[1]}"#, Ok(1)),
            (r#"{"notifications":[],"notifications":[1]}"#, Ok(1)),
            (r#"{"notifications":3}"#, Err(Unreadable::Lacks("notifications"))),
            (r#"{}"#, Err(Unreadable::Lacks("notifications"))),
        ] {
            assert_eq!(count(json), expected, "{json}");
        }
    }

    #[test]
    fn texts_are_strings_or_numbers() {
        for (value, expected) in [
            (r#""a\u00e9""#, Some("aé")),
            ("7", Some("7")),
            ("-1.50", Some("-1.50")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            (r#""""#, None),
            (r#""\ud800""#, None),
            ("null", None),
            ("true", None),
            ("{}", None),
        ] {
            let json = format!(r#"{{"id":{value}}}"#);
            assert_eq!(object(&json).text(&["message_id", "id"]).as_deref(), expected, "{value}");
        }
        let both = object(r#"{"message_id":"","id":"b"}"#);
        assert_eq!(both.text(&["message_id", "id"]).as_deref(), Some("b"));
    }

    #[test]
    fn times_are_read_or_none() {
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Some(1000)),
            ("2026-01-01T01:00:00.123456+01:00", Some(1_767_225_600_123)),
            ("0001-01-01T00:00:00Z", None),
            ("yesterday", None),
        ] {
            let json = format!(r#"{{"created_at":"{text}"}}"#);
            assert_eq!(object(&json).time_ms("created_at"), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_and_never_quoted() {
        let deep = format!(r#"{{"a":{}"#, "[".repeat(100_000));
        for (json, expected) in [
            ("", "it ends too early"),
            (r#"{"signing_secret":"whsec_x"#, "it ends too early"),
            (&*deep, "it ends too early"),
            ("<html>whsec_x", "it is not JSON from line 1, column 1 on"),
            (r#"["whsec_x"]"#, "it is no JSON object"),
            (r#""whsec_x""#, "it is no JSON object"),
        ] {
            let error = Object::read(json.as_bytes()).err().unwrap();
            assert_eq!(error.to_string(), expected);
            assert!(!format!("{error:?}").contains("whsec"));
        }
    }

    #[test]
    fn pages_end() {
        let next = |json, this| object(json).next_cursor(this);
        let more = r#"{"has_more":true,"next_cursor":"Mg=="}"#;
        assert_eq!(next(more, None), Ok(Some("Mg==".to_owned())));
        assert_eq!(next(more, Some("Mg==")), Err(Unreadable::Circle));
        assert_eq!(next(r#"{"has_more":false,"next_cursor":"Mg=="}"#, None), Ok(None));
        assert_eq!(next(r#"{"has_more":true,"next_cursor":""}"#, None), Ok(None));
        assert_eq!(next(r#"{"has_more":true}"#, None), Ok(None));
    }
}
