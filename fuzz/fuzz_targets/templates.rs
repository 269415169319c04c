//! A target's address is exactly what its templates say, filled with what the event holds, and allowed
//! by its broker; or there is none. Checked against the same done naively.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use waypost::{
    event::{Address, Event},
    routing,
};
use waypost_fuzz::{Json, Name, Text};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    target: Target<'a>,
    event: Attributes<'a>,
    body: Json<'a>,
}

#[derive(Arbitrary, Debug)]
enum Target<'a> {
    Kafka { topic: Vec<Filled<'a>>, key: Option<Vec<Filled<'a>>> },
    Log { topic: Vec<Filled<'a>> },
    RabbitMq { exchange: Vec<Filled<'a>>, routing_key: Vec<Filled<'a>> },
    Nats { subject: Vec<Filled<'a>> },
}

#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Text(Text<'a>),
    Type,
    Id,
    Source,
    Subject,
    AgentId,
    Header,
    Data(Name, Vec<Name>),
}

/// What an event fills in, or what stands for it, and whether it is slugged.
#[derive(Arbitrary, Debug)]
struct Filled<'a> {
    part: Part<'a>,
    default: Option<Text<'a>>,
    slug: bool,
}

#[derive(Arbitrary, Debug)]
struct Attributes<'a> {
    id: Text<'a>,
    kind: Text<'a>,
    subject: Option<Text<'a>>,
    agent_id: Option<Text<'a>>,
    header: Option<Text<'a>>,
}

const SOURCE: &str = "shop.eu";

fuzz_target!(|input: Input| {
    let routes = routes(&input.target);
    // A template that could never be an address is refused here already.
    let Ok(table) = routing::compile("routes.yaml", &routes, &|_| None) else { return };
    let event = event(&input.event, input.body.to_bytes());
    let document = match serde_json::from_slice::<Value>(&event.body) {
        Ok(document) => document,
        // JSON that is too much for serde_json's document need not be too much for what reads a few
        // fields of it.
        Err(_) if serde_json::from_slice::<IgnoredAny>(&event.body).is_ok() => return,
        Err(_) => Value::Null,
    };
    let expected = expected(&input.target, |parts, rule| fill(parts, &event, &document, rule));
    let [message] = &table.resolve(&event)[..] else { panic!("one message") };
    assert_eq!(message.address.as_ref().ok(), expected.as_ref());
});

fn expected(target: &Target, fill: impl Fn(&[Filled], Rule) -> Option<String>) -> Option<Address> {
    Some(match target {
        Target::Kafka { topic, key } => {
            let key = match key {
                Some(key) => Some(fill(key, Rule::Key)?.into()),
                None => None,
            };
            Address::Topic { topic: fill(topic, Rule::Kafka)?.into(), key }
        }
        Target::Log { topic } => Address::LogTopic(fill(topic, Rule::Log)?.into()),
        Target::RabbitMq { exchange, routing_key } => Address::Exchange {
            exchange: fill(exchange, Rule::Amqp)?.into(),
            routing_key: fill(routing_key, Rule::Amqp)?.into(),
        },
        Target::Nats { subject } => Address::Subject(fill(subject, Rule::Nats)?.into()),
    })
}

fn routes(target: &Target) -> String {
    let (broker, address) = match target {
        Target::Kafka { topic, key } => {
            let mut address = json!({ "topic": template(topic) });
            if let Some(key) = key {
                address["key"] = template(key).into();
            }
            (json!({ "type": "kafka", "bootstrap": "localhost:9092" }), address)
        }
        Target::Log { topic } => (json!({ "type": "log" }), json!({ "topic": template(topic) })),
        Target::RabbitMq { exchange, routing_key } => (
            json!({ "type": "rabbitmq", "url": "amqp://localhost" }),
            json!({ "exchange": template(exchange), "routing_key": template(routing_key) }),
        ),
        Target::Nats { subject } => (
            json!({ "type": "nats", "url": "nats://localhost" }),
            json!({ "subject": template(subject) }),
        ),
    };
    let mut to = address;
    to["broker"] = "target".into();
    // YAML takes JSON as it is.
    json!({
        "sources": { SOURCE: { "type": "miibo", "path": "/hooks", "secret": "x" } },
        "brokers": { "target": broker },
        "routes": [{ "name": "all", "match": { "source": SOURCE }, "to": [to] }],
    })
    .to_string()
}

fn template(parts: &[Filled]) -> String {
    let mut out = String::new();
    for Filled { part, default, slug } in parts {
        let name = match part {
            Part::Text(text) => {
                let text = text.get().replace('$', "$$").replace('{', "{{").replace('}', "}}");
                out.push_str(&text);
                continue;
            }
            Part::Type => "type".to_owned(),
            Part::Id => "id".to_owned(),
            Part::Source => "source".to_owned(),
            Part::Subject => "subject".to_owned(),
            Part::AgentId => "agentid".to_owned(),
            Part::Header => "headers.X-Name".to_owned(),
            Part::Data(first, more) => {
                let more = more.iter().map(|name| format!("[\"{}\"]", name.get()));
                format!("data.{}{}", first.get(), more.collect::<String>())
            }
        };
        let default = default.map(|text| {
            let text = text.get().replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$");
            format!("|\"{text}\"")
        });
        let slug = if *slug { "|slug" } else { "" };
        out.push_str(&format!("{{{name}{}{slug}}}", default.unwrap_or_default()));
    }
    out
}

fn event(attributes: &Attributes, body: Vec<u8>) -> Event {
    let agent_id = attributes.agent_id.map(|id| ("agentid".into(), id.get().into()));
    Event {
        id: attributes.id.get().into(),
        source: SOURCE.into(),
        kind: attributes.kind.get().into(),
        subject: attributes.subject.map(|subject| subject.get().into()),
        time_ms: 1,
        content_type: None,
        traceparent: None,
        extensions: agent_id.into_iter().collect(),
        headers: attributes
            .header
            .map(|text| ("x-name".into(), text.get().into()))
            .into_iter()
            .collect(),
        body: body.into(),
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Rule {
    Kafka,
    Log,
    Amqp,
    Nats,
    Key,
}

/// The address, if every placeholder can be filled and the broker allows what comes out.
fn fill(parts: &[Filled], event: &Event, document: &Value, rule: Rule) -> Option<String> {
    let mut out = String::new();
    for Filled { part, default, slug } in parts {
        if let Part::Text(text) = part {
            out.push_str(text.get());
            continue;
        }
        let value = value(part, event, document)?.filter(|value| !value.is_empty());
        // Dotted by nature, or by intent.
        let dotted = matches!(part, Part::Type | Part::Source) || value.is_none();
        let value = value.or(default.map(|text| text.get().to_owned()))?;
        let value = if *slug { slug_of(&value) } else { value };
        let escapes = rule == Rule::Nats && (value.contains('.') || value.starts_with('$'));
        if value.is_empty() || escapes && !dotted {
            return None;
        }
        out.push_str(&value);
    }
    allowed(&out, rule).then_some(out)
}

/// What the event holds there; `None` if that is no text, `Some(None)` if it is nothing.
fn value(part: &Part, event: &Event, document: &Value) -> Option<Option<String>> {
    Some(match part {
        Part::Text(text) => Some(text.get().to_owned()),
        Part::Type => Some(event.kind.to_string()),
        Part::Source => Some(SOURCE.to_owned()),
        Part::Id => Some(event.id.to_string()),
        Part::Subject => event.subject.as_ref().map(ToString::to_string),
        Part::AgentId => event.extension("agentid").map(ToString::to_string),
        Part::Header => event.headers.first().map(|(_, value)| value.to_string()),
        Part::Data(first, more) => {
            let mut names = [first].into_iter().chain(more);
            match names.try_fold(document, |value, name| value.get(name.get())) {
                None | Some(Value::Null) => None,
                Some(Value::Array(_) | Value::Object(_)) => return None,
                Some(Value::String(text)) => Some(text.clone()),
                Some(scalar) => Some(scalar.to_string()),
            }
        }
    })
}

fn slug_of(value: &str) -> String {
    let words = value.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    let cut = slug.get(..64).unwrap_or(&slug);
    cut.trim_end_matches('-').to_owned()
}

fn allowed(text: &str, rule: Rule) -> bool {
    let topic = |most: usize| {
        (1..=most).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && text != "."
            && text != ".."
    };
    match rule {
        Rule::Kafka => topic(249),
        Rule::Log => topic(238) && !text.starts_with('.'),
        Rule::Amqp => text.len() <= 255 && !text.chars().any(char::is_control),
        Rule::Nats => {
            let forbidden = |c: char| c == '*' || c == '>' || c.is_whitespace() || c.is_control();
            (1..=1024).contains(&text.len())
                && !text.starts_with('$')
                && text.split('.').all(|token| !token.is_empty())
                && !text.chars().any(forbidden)
        }
        Rule::Key => true,
    }
}
