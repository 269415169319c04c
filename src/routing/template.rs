//! Templates: text with `{name}` placeholders that an event fills in. `{{` and `}}` are plain braces.

use bytestring::ByteString;

use super::address::Rule;
use crate::{
    body::{Fields, NoText, Paths},
    event::Event,
};

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Variable {
    Type,
    Id,
    Source,
    Subject,
    /// A CloudEvents extension of the event.
    Extension(String),
    /// A field of the JSON body: its slot in the table's paths, and its path for messages.
    Data {
        slot: usize,
        path: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

/// A compiled template and the rule its result must keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    rule: Rule,
    /// The result itself where there is no placeholder: rendered and checked once.
    fixed: Option<ByteString>,
}

/// Why text is not a template.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{{` is not closed; write `{{{{` for a plain brace")]
    Unclosed,
    #[error("`}}` closes nothing; write `}}}}` for a plain brace")]
    Unopened,
    #[error(
        "unknown placeholder `{{{0}}}`; known are {{type}}, {{id}}, {{source}}, {{subject}}, \
         {{agentid}}, {{userid}}, {{projectid}} and {{data.FIELD}}"
    )]
    Unknown(String),
    #[error("`{{{0}}}` names no field; write {{data.FIELD}} or {{data.FIELD.FIELD}}")]
    EmptyField(String),
    #[error("{0}")]
    Address(&'static str),
}

impl Template {
    /// Compiles; the body fields it needs are added to `paths`. What can already be known about the
    /// result is checked here.
    pub fn compile(text: &str, rule: Rule, paths: &mut Paths) -> Result<Template, Error> {
        let parts = parse(text, paths)?;
        let fixed = match parts.as_slice() {
            [] => Some(ByteString::new()),
            [Part::Text(text)] => Some(ByteString::from(&**text)),
            _ => None,
        };
        if let Some(fixed) = &fixed {
            rule.check(fixed).map_err(Error::Address)?;
        }
        Ok(Template { parts, rule, fixed })
    }

    /// Whether rendering needs the body's fields.
    pub fn reads_body(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable(Variable::Data { .. })))
    }

    /// Renders for an event; `fields` are the body's, or why the body has none. The error is the
    /// reason that ends in a dead letter.
    pub fn render(
        &self,
        event: &Event,
        fields: Result<&Fields, &str>,
    ) -> Result<ByteString, String> {
        if let Some(fixed) = &self.fixed {
            return Ok(fixed.clone());
        }
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(variable) => variable.render(event, fields, self.rule, &mut out)?,
            }
        }
        match self.rule.check(&out) {
            Ok(()) => Ok(out.into()),
            Err(why) => Err(format!("the address {:?} is not allowed: {why}", shorten(&out))),
        }
    }
}

impl Variable {
    fn render(
        &self,
        event: &Event,
        fields: Result<&Fields, &str>,
        rule: Rule,
        out: &mut String,
    ) -> Result<(), String> {
        match self {
            // Types and source names are dotted by nature; their dots are the operator's intent.
            Variable::Type => out.push_str(&event.kind),
            Variable::Source => out.push_str(&event.source),
            Variable::Id => put(out, "id", Some(&event.id), rule)?,
            Variable::Subject => put(out, "subject", event.subject.as_deref(), rule)?,
            Variable::Extension(name) => put(out, name, event.extension(name).map(|v| &**v), rule)?,
            Variable::Data { slot, path } => {
                let fields = fields.map_err(|why| format!("{{{path}}} cannot be filled: {why}"))?;
                let value = fields.text(*slot).map_err(|why| no_text(path, why))?;
                put(out, path, Some(&value), rule)?;
            }
        }
        Ok(())
    }
}

fn put(out: &mut String, name: &str, value: Option<&str>, rule: Rule) -> Result<(), String> {
    let value = value.filter(|value| !value.is_empty());
    let value = value.ok_or_else(|| format!("{{{name}}} cannot be filled: the event has none"))?;
    rule.check_value(value).map_err(|why| format!("{{{name}}} is {:?}: {why}", shorten(value)))?;
    out.push_str(value);
    Ok(())
}

fn no_text(path: &str, why: NoText) -> String {
    let why = match why {
        NoText::Missing => "the body has no such field",
        NoText::NotScalar => "the field is an object or a list",
        NoText::NotUnicode => "the field is not Unicode text",
    };
    format!("{{{path}}} cannot be filled: {why}")
}

/// Payload text in a reason is bounded; the event itself is kept whole beside it.
fn shorten(text: &str) -> &str {
    const MAX_CHARS: usize = 100;
    text.char_indices().nth(MAX_CHARS).map_or(text, |(end, _)| &text[..end])
}

fn parse(text: &str, paths: &mut Paths) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
        } else if brace == "{" {
            let end = rest.find('}').ok_or(Error::Unclosed)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Variable(variable(&rest[..end], paths)?));
            rest = &rest[end + 1..];
        } else {
            return Err(Error::Unopened);
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

fn variable(name: &str, paths: &mut Paths) -> Result<Variable, Error> {
    Ok(match name {
        "type" => Variable::Type,
        "id" => Variable::Id,
        "source" => Variable::Source,
        "subject" => Variable::Subject,
        "agentid" | "userid" | "projectid" => Variable::Extension(name.to_owned()),
        _ => match name.strip_prefix("data") {
            Some(field) if field.is_empty() || field.starts_with('.') => {
                let path: Vec<&str> = field.split('.').skip(1).collect();
                if path.is_empty() || path.contains(&"") {
                    return Err(Error::EmptyField(name.to_owned()));
                }
                Variable::Data { slot: paths.add(&path), path: name.to_owned() }
            }
            _ => return Err(Error::Unknown(name.to_owned())),
        },
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::plain;

    fn event(kind: &str, body: &str) -> Event {
        Event {
            source: "sonzai".into(),
            kind: kind.into(),
            extensions: vec![("agentid".into(), "a.1".into())],
            ..plain("e1", body.to_owned())
        }
    }

    fn render(text: &str, rule: Rule, event: &Event) -> Result<String, String> {
        let mut paths = Paths::default();
        let template = Template::compile(text, rule, &mut paths).unwrap();
        let fields = paths.read(&event.body).map_err(|e| e.to_string());
        template.render(event, fields.as_ref().map_err(|e| &**e)).map(|s| s.to_string())
    }

    #[test]
    fn an_event_fills_its_placeholders() {
        let event = event("agent.message", r#"{"agent_id":"x","n":1.50,"a":{"b":"c"}}"#);
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("{type}/{id}/{source}", "agent.message/e1/sonzai"),
            ("{agentid}", "a.1"),
            ("{data.agent_id}-{data.n}-{data.a.b}", "x-1.50-c"),
            ("{{{id}}}", "{e1}"),
            ("{{id}}", "{id}"),
        ] {
            assert_eq!(render(text, Rule::Key, &event).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_says_why_and_never_becomes_another_address() {
        let object = event("agent.message", r#"{"a":{"b":"c.d"},"s":"$JS","w":"x y","e":""}"#);
        let text = event("agent.message", "hello");
        for (event, template, rule, expected) in [
            (&object, "x.{subject}", Rule::NatsSubject, "the event has none"),
            (&object, "{userid}", Rule::Key, "the event has none"),
            (&object, "{data.z}", Rule::Key, "no such field"),
            (&object, "{data.e}", Rule::Key, "has none"),
            (&object, "{data.a}", Rule::Key, "object or a list"),
            (&object, "x.{data.a.b}", Rule::NatsSubject, "may not contain a dot"),
            (&object, "x.{data.s}", Rule::NatsSubject, "may not begin with `$`"),
            (&object, "x.{data.w}", Rule::NatsSubject, "white space"),
            (&object, "{data.w}", Rule::KafkaTopic, "only letters"),
            (&text, "{data.a}", Rule::Key, "not JSON"),
        ] {
            let mut paths = Paths::default();
            let template = Template::compile(template, rule, &mut paths).unwrap();
            let fields = paths.read(&event.body).map_err(|_| "the body is not JSON");
            let reason = template.render(event, fields.as_ref().map_err(|e| *e)).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }

    #[test]
    fn a_types_dots_are_tokens_of_a_subject() {
        let event = event("agent.message", "{}");
        let subject = render("events.{source}.{type}", Rule::NatsSubject, &event);
        assert_eq!(subject.as_deref(), Ok("events.sonzai.agent.message"));
    }

    #[test]
    fn text_that_is_no_template_is_refused() {
        for (text, expected) in [
            ("a{", Error::Unclosed),
            ("a}", Error::Unopened),
            ("{typo}", Error::Unknown("typo".into())),
            ("{database}", Error::Unknown("database".into())),
            ("{data}", Error::EmptyField("data".into())),
            ("{data.}", Error::EmptyField("data.".into())),
            ("{data.a..b}", Error::EmptyField("data.a..b".into())),
        ] {
            let error = Template::compile(text, Rule::Key, &mut Paths::default()).unwrap_err();
            assert_eq!(error, expected, "{text}");
        }
        let fixed = Template::compile("a b", Rule::KafkaTopic, &mut Paths::default());
        assert!(matches!(fixed, Err(Error::Address(_))));
    }

    proptest! {
        #[test]
        fn payload_text_never_adds_a_token_or_a_wildcard(value in "\\PC{1,20}|[.*>$ a]{1,6}") {
            let body = serde_json::json!({ "v": value }).to_string();
            let subject = render("agents.{data.v}.mood", Rule::NatsSubject, &event("t", &body));
            if let Ok(subject) = subject {
                prop_assert_eq!(subject.split('.').count(), 3);
                prop_assert!(!subject.contains(['*', '>', ' ']));
            }
        }
    }
}
