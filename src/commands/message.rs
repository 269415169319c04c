//! A command out of a message: `wakeup.schedule`, and nothing else so far.
//!
//! The data is what Sonzai's API takes for a wakeup, and `agent_id` beside it. Two forms that Sonzai's
//! guides show and its API does not take are put right: the older `{userId, scheduledAt, context}`,
//! whose `context` is what the API calls `intent` and which has no `check_type`; and one with
//! `scheduled_at` and without `delay_hours`, which the API wants all the same. Pure.

use std::sync::LazyLock;

use bytestring::ByteString;
use chrono::DateTime;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::{
    bounds::{KIND, MAX_DELAY_HOURS},
    delivery::Delivery,
    envelope::{Envelope, cut, is_name},
    refused::Refused,
};
use crate::{nearest::nearest, printable::escaped, sonzai::client::NewWakeup, source::UNPARSED};

/// The `check_type` of a wakeup in the older form, which has none. The API takes any text, and nobody
/// publishes a list; this one says that somebody asked for it.
pub const OLDER_CHECK_TYPE: &str = "custom";

/// A command that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub id: ByteString,
    /// Who sent it, as CloudEvents names senders; empty where nobody says. Ids are unique to it.
    pub source: ByteString,
    pub agent: String,
    pub wakeup: NewWakeup,
}

/// What a message says of itself, whether or not it is a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its own, else what the broker knows it by.
    pub id: ByteString,
    pub kind: ByteString,
}

/// Reads a message. What it says of itself is there even where it is refused.
pub fn read(delivery: &Delivery) -> (Label, Result<Command, Refused>) {
    let (envelope, outcome) = Envelope::read(delivery);
    let named =
        |text: &Option<String>| text.as_deref().filter(|text| is_name(text)).map(Into::into);
    let label = Label {
        id: named(&envelope.id).unwrap_or_else(|| delivery.place.as_str().into()),
        kind: named(&envelope.kind).unwrap_or_else(|| match &outcome {
            Ok(()) => KIND.into(),
            Err(_) => UNPARSED.into(),
        }),
    };
    let command = outcome.and_then(|()| {
        let (agent, wakeup) = wakeup(&envelope.data)?;
        let source = envelope.source.as_str().into();
        Ok(Command { id: label.id.clone(), source, agent, wakeup })
    });
    (label, command)
}

/// A wakeup to schedule.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Wakeup")]
#[expect(dead_code, reason = "describes the data, which is read member by member for better words")]
struct Present {
    /// The agent that is to wake up: its id or its name.
    #[schemars(length(min = 1))]
    agent_id: String,
    /// For whom.
    #[schemars(length(min = 1))]
    user_id: String,
    /// What kind of occasion it is, such as `birthday` or `interest_followup`.
    #[schemars(length(min = 1))]
    check_type: String,
    /// What the agent is to do, and why.
    #[schemars(length(min = 1))]
    intent: String,
    /// In how many hours. One of this and `scheduled_at` must be there.
    #[schemars(range(max = MAX_DELAY_HOURS))]
    delay_hours: Option<u32>,
    /// When, as RFC 3339; goes before `delay_hours`.
    #[schemars(extend("format" = "date-time"))]
    scheduled_at: Option<String>,
    /// Such as `their 30th birthday`.
    #[schemars(length(min = 1))]
    occasion: Option<String>,
    /// What the user once spoke of.
    #[schemars(length(min = 1))]
    interest_topic: Option<String>,
    /// What happened.
    #[schemars(length(min = 1))]
    event_description: Option<String>,
}

/// The same in the form of Sonzai's older guide.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "OlderWakeup")]
#[expect(non_snake_case, dead_code, reason = "as above; these are the guide's own names")]
struct Older {
    #[schemars(length(min = 1))]
    agentId: String,
    #[schemars(length(min = 1))]
    userId: String,
    #[schemars(extend("format" = "date-time"))]
    scheduledAt: String,
    /// What the API calls `intent`.
    #[schemars(length(min = 1))]
    context: String,
}

/// The data of a `wakeup.schedule` command.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "wakeup.schedule")]
#[expect(dead_code, reason = "as above")]
enum Data {
    Present(Present),
    Older(Older),
}

/// The JSON Schema of the data, as `waypost schema --commands` prints it.
pub fn schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let generator = SchemaSettings::draft2020_12().into_generator();
        let mut schema = generator.into_root_schema_for::<Data>().to_value();
        one_line_descriptions(&mut schema);
        let present = schema.pointer_mut("/$defs/Wakeup").and_then(Value::as_object_mut);
        let when = ["delay_hours", "scheduled_at"].map(|name| {
            // Naming it is not enough: null is nothing.
            serde_json::json!({ "required": [name], "properties": { name: { "not": { "type": "null" } } } })
        });
        if let Some(present) = present {
            present.insert("anyOf".to_owned(), Value::from(when.to_vec()));
        }
        schema
    });
    &SCHEMA
}

fn one_line_descriptions(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(one_line_descriptions),
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            members.values_mut().for_each(one_line_descriptions);
        }
        _ => {}
    }
}

/// The members of the data.
const MEMBERS: [&str; 9] = [
    "agent_id",
    "user_id",
    "check_type",
    "intent",
    "delay_hours",
    "scheduled_at",
    "occasion",
    "interest_topic",
    "event_description",
];

/// Those of the older form, each with what it is called now.
const OLDER: [(&str, &str); 4] = [
    ("agentId", "agent_id"),
    ("userId", "user_id"),
    ("scheduledAt", "scheduled_at"),
    ("context", "intent"),
];

fn wakeup(data: &[u8]) -> Result<(String, NewWakeup), Refused> {
    let members = match serde_json::from_slice(data) {
        Ok(Value::Object(members)) => members,
        Ok(_) => return Err(Refused::NotAnObject),
        Err(error) => return Err(Refused::NotJson(error.to_string())),
    };
    let data = Members(translated(members)?);
    if let Some(name) = data.0.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
        let nearest = nearest(name, MEMBERS);
        return Err(Refused::Unknown { name: escaped(&cut(name)), nearest });
    }
    let scheduled_at = data.text("scheduled_at")?;
    if scheduled_at.as_deref().is_some_and(|time| DateTime::parse_from_rfc3339(time).is_err()) {
        return Err(Refused::NotATime);
    }
    let delay_hours = match (data.hours()?, &scheduled_at) {
        (Some(hours), _) => hours,
        (None, Some(_)) => 0,
        (None, None) => return Err(Refused::NoTime),
    };
    let wakeup = NewWakeup {
        user_id: data.needed("user_id")?,
        check_type: data.needed("check_type")?,
        intent: data.needed("intent")?,
        delay_hours: delay_hours.into(),
        scheduled_at,
        occasion: data.text("occasion")?,
        interest_topic: data.text("interest_topic")?,
        event_description: data.text("event_description")?,
    };
    Ok((data.needed("agent_id")?, wakeup))
}

/// With the members of the older form under their present names.
fn translated(mut members: Map<String, Value>) -> Result<Map<String, Value>, Refused> {
    let mut is_older = false;
    for (older, present) in OLDER {
        let Some(value) = members.remove(older) else { continue };
        if members.contains_key(present) {
            return Err(Refused::Both(older, present));
        }
        members.insert(present.to_owned(), value);
        is_older = true;
    }
    if is_older {
        members.entry("check_type").or_insert_with(|| OLDER_CHECK_TYPE.into());
    }
    Ok(members)
}

/// The members of the data; one that is `null` is not there.
struct Members(Map<String, Value>);

impl Members {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, Refused> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(_) => Err(Refused::NotText(name)),
        }
    }

    fn needed(&self, name: &'static str) -> Result<String, Refused> {
        self.text(name)?.ok_or(Refused::Missing(name))
    }

    fn hours(&self) -> Result<Option<u32>, Refused> {
        let Some(value) = self.get("delay_hours") else { return Ok(None) };
        let hours = value.as_u64().and_then(|hours| u32::try_from(hours).ok());
        hours.filter(|hours| *hours <= MAX_DELAY_HOURS).map(Some).ok_or(Refused::NotHours)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::delivery::tests::delivery, *};

    const FULL: &str = r#"{
        "agent_id": "Luna 月", "user_id": "u1", "check_type": "birthday", "intent": "wish well",
        "delay_hours": 3, "scheduled_at": "2026-01-02T03:04:05+09:00", "occasion": "their 30th",
        "interest_topic": "kites", "event_description": "said so"
    }"#;

    #[test]
    fn every_member_of_a_wakeup_is_passed_on() {
        let (agent, wakeup) = wakeup(FULL.as_bytes()).unwrap();
        let text = |text: &str| Some(text.to_owned());
        let expected = NewWakeup {
            user_id: "u1".into(),
            check_type: "birthday".into(),
            intent: "wish well".into(),
            delay_hours: 3,
            scheduled_at: text("2026-01-02T03:04:05+09:00"),
            occasion: text("their 30th"),
            interest_topic: text("kites"),
            event_description: text("said so"),
        };
        assert_eq!((agent.as_str(), wakeup), ("Luna 月", expected));
    }

    #[test]
    fn what_the_guides_show_is_translated() {
        let at = "2026-01-02T03:04:05Z";
        for (data, check_type, hours) in [
            (
                json!({ "agentId": "a", "userId": "u", "scheduledAt": at, "context": "i" }),
                "custom",
                0,
            ),
            (
                json!({ "agent_id": "a", "userId": "u", "scheduledAt": at, "context": "i",
                        "check_type": "birthday", "delay_hours": 2 }),
                "birthday",
                2,
            ),
            (
                json!({ "agent_id": "a", "user_id": "u", "scheduled_at": at, "intent": "i",
                        "check_type": "c", "occasion": null }),
                "c",
                0,
            ),
        ] {
            let (agent, wakeup) = wakeup(data.to_string().as_bytes()).unwrap();
            assert_eq!((&*agent, &*wakeup.user_id, &*wakeup.intent), ("a", "u", "i"));
            assert_eq!((&*wakeup.check_type, wakeup.delay_hours), (check_type, hours));
            assert_eq!(wakeup.scheduled_at.as_deref(), Some(at));
        }
    }

    /// A change to the full data, and what is said of it.
    fn mistakes() -> Vec<(Value, &'static str)> {
        vec![
            (json!({ "agent_id": null }), "no `agent_id`"),
            (json!({ "user_id": null }), "no `user_id`"),
            (json!({ "check_type": null }), "no `check_type`"),
            (json!({ "intent": null }), "no `intent`"),
            (json!({ "user_id": "" }), "`user_id` of its data must be text"),
            (json!({ "agent_id": 7 }), "`agent_id` of its data must be text"),
            (json!({ "occasion": [] }), "`occasion` of its data must be text"),
            (json!({ "delay_hours": -1 }), "whole number of hours"),
            (json!({ "delay_hours": 1.5 }), "whole number of hours"),
            (json!({ "delay_hours": "3" }), "whole number of hours"),
            (json!({ "delay_hours": 1_000_001 }), "whole number of hours"),
            (json!({ "delay_hours": null, "scheduled_at": null }), "neither"),
            (json!({ "scheduled_at": "tomorrow" }), "RFC 3339"),
            (json!({ "scheduled_at": "2026-01-02" }), "RFC 3339"),
            (json!({ "scheduled_at": 1_767_000_000 }), "`scheduled_at` of its data must be text"),
            (json!({ "intnet": "x" }), "`intnet`, which is not known; is it `intent`?"),
            (json!({ "priority": 1 }), "`priority`, which is not known"),
            (json!({ "userId": "u2" }), "both `userId` and `user_id`"),
            (json!({ "context": "x" }), "both `context` and `intent`"),
        ]
    }

    fn changed(change: &Value) -> Value {
        let mut data: Value = serde_json::from_str(FULL).unwrap();
        let members = data.as_object_mut().unwrap();
        for (name, value) in change.as_object().unwrap() {
            members.insert(name.clone(), value.clone());
        }
        data
    }

    #[test]
    fn what_the_api_would_not_take_is_refused_by_name() {
        for (change, expected) in mistakes() {
            let refused = wakeup(changed(&change).to_string().as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(expected), "{change}: {refused}");
        }
        for (data, expected) in [("", "not JSON"), ("[1]", "not a JSON object"), ("{]", "not JSON")]
        {
            let refused = wakeup(data.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(expected), "{data}: {refused}");
        }
        let hostile = "\u{1b}[2J".repeat(100);
        let refused = wakeup(json!({ hostile: 1 }).to_string().as_bytes()).unwrap_err().to_string();
        assert!(!refused.contains('\u{1b}') && refused.len() < 1000, "{refused}");
    }

    #[test]
    fn the_schema_takes_what_is_taken_and_refuses_what_is_refused() {
        let validator =
            jsonschema::options().should_validate_formats(true).build(schema()).unwrap();
        let full: Value = serde_json::from_str(FULL).unwrap();
        let at = "2026-01-02T03:04:05Z";
        for data in [
            full.clone(),
            changed(&json!({ "scheduled_at": null, "occasion": null })),
            changed(&json!({ "delay_hours": null })),
            json!({ "agentId": "a", "userId": "u", "scheduledAt": at, "context": "i" }),
        ] {
            assert!(wakeup(data.to_string().as_bytes()).is_ok(), "{data}");
            assert!(validator.is_valid(&data), "{data}");
        }
        for (change, expected) in mistakes() {
            assert!(!validator.is_valid(&changed(&change)), "{change}: {expected}");
        }
        let names = schema()["$defs"]["Wakeup"]["properties"].as_object().unwrap();
        assert!(
            names.keys().all(|name| MEMBERS.contains(&&**name)) && names.len() == MEMBERS.len()
        );
    }

    #[test]
    fn a_message_that_is_refused_can_still_be_found() {
        let kind = ("ce-type", KIND);
        for (headers, id, expected_kind) in [
            (vec![("ce-id", "7"), kind], "7", KIND),
            (vec![("ce-id", "7"), ("ce-type", "other")], "7", "other"),
            (vec![kind], "COMMANDS/42", KIND),
            (vec![], "COMMANDS/42", UNPARSED),
        ] {
            let (label, command) = read(&delivery(&headers, "nonsense"));
            assert_eq!((&*label.id, &*label.kind), (id, expected_kind));
            assert!(command.is_err());
        }
        let (label, command) = read(&delivery(&[("ce-id", "7"), kind, ("ce-source", "s")], FULL));
        let command = command.unwrap();
        assert_eq!((&*label.id, &*command.id, &*command.source), ("7", "7", "s"));
        assert_eq!(command.agent, "Luna 月");
    }
}
