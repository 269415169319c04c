//! What a condition reads and an event does not have.

use std::ops::Range;

use super::{Condition, reference::Reference};
use crate::{body::Paths, event::Event, routing::input::Input};

/// The fields and headers that a condition reads of an event which has none of them, each with its
/// place. Not what it asks for first (`has`), and nothing where it decides by the event's type or
/// source.
pub fn absent(text: &str, event: &Event) -> Vec<(String, Range<usize>)> {
    let mut paths = Paths::default();
    let Ok(condition) = Condition::compile(text, &mut paths) else { return Vec::new() };
    let input = Input::new(event, &paths);
    // By these it decides the same of any such event, and by the body's fields it may not.
    let by_kind = ["type", "source", "in headers"].into_iter().any(|name| text.contains(name));
    if by_kind && condition.holds(&input).is_ok() {
        return Vec::new();
    }
    let references = &condition.references;
    let unasked = |reference: &&Reference| match reference {
        Reference::Field { slot, test: false, shown } => {
            let is_there = input.fields().is_ok_and(|fields| fields.raw(*slot).is_some());
            !is_there && !references.iter().any(|other| asks_for_field(other, shown))
        }
        Reference::Header { name, test: false } => {
            let asks = |other: &Reference| matches!(other, Reference::Header { name: asked, test: true } if asked == name);
            input.header(name).is_none() && !references.iter().any(asks)
        }
        _ => false,
    };
    let absent = references.iter().filter(unasked);
    absent.filter_map(|reference| place(reference, text)).collect()
}

/// Whether this asks if there is a field, or something that it lies in.
fn asks_for_field(reference: &Reference, field: &str) -> bool {
    let Reference::Field { test: true, shown, .. } = reference else { return false };
    field.strip_prefix(&**shown).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// How something is written, and where if it is written like that.
fn place(reference: &Reference, text: &str) -> Option<(String, Range<usize>)> {
    let shown = match reference {
        Reference::Field { shown, .. } => shown.clone(),
        Reference::Header { name, .. } => format!("headers[\"{name}\"]"),
        Reference::Pattern(_) => return None,
    };
    let range = text.find(&shown).map_or(0..text.len(), |at| at..at + shown.len());
    Some((shown, range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::plain;

    /// What is absent of an event of type `test` that has `data.status` and `data.intent.kind`.
    fn shown(text: &str) -> Vec<String> {
        let body = r#"{ "status": "pending", "check_type": "daily", "intent": { "kind": "x" } }"#;
        let event = Event { kind: "agent.message".into(), ..plain("e1", body.to_owned()) };
        let part = |(shown, range): (String, Range<usize>)| {
            assert!(range == (0..text.len()) || text[range] == *shown, "{text}");
            shown
        };
        absent(text, &event).into_iter().map(part).collect()
    }

    #[test]
    fn what_is_read_and_not_there_is_named_once() {
        for (text, expected) in [
            ("data.status == 'pending' && data.intent.kind == 'x'", vec![]),
            ("data.data.delta > 0.3", vec!["data.data.delta"]),
            ("data.delta > 0.3 && data.delta < data['high']", vec!["data.delta", "data.high"]),
            ("data.items[0].sku == 'a'", vec!["data.items[0].sku"]),
            ("headers['x-team'] == 'a'", vec!["headers[\"x-team\"]"]),
            ("subject != 'a' && size(data) > 3", vec![]),
            ("no condition", vec![]),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn who_asks_first_knows_that_it_may_not_be_there() {
        for text in [
            "has(data.data.delta) && data.data.delta > 0.3",
            "has(data.data) && data.data.delta > 0.3",
            "!has(data.items[0]) || data.items[0].sku == 'a'",
            "has(data.delta)",
            "'x-team' in headers && headers['x-team'] == 'a'",
        ] {
            assert_eq!(shown(text), Vec::<String>::new(), "{text}");
        }
        assert_eq!(shown("has(data.d) && data.delta > 0.3"), ["data.delta"]);
    }

    #[test]
    fn what_is_not_read_of_the_type_at_hand_may_be_absent() {
        assert!(shown("type != 'agent.message' && data.delta > 0.3").is_empty());
        assert!(shown("type == 'agent.message' || data.delta > 0.3").is_empty());
        assert_eq!(shown("type == 'agent.message' && data.delta > 0.3"), ["data.delta"]);
        // Another one may be of another check.
        assert_eq!(shown("data.status == 'sent' && data.delta > 0.3"), ["data.delta"]);
    }
}
