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
    Kafka { topic: Vec<Part<'a>>, key: Option<Vec<Part<'a>>> },
    Log { topic: Vec<Part<'a>> },
    RabbitMq { exchange: Vec<Part<'a>>, routing_key: Vec<Part<'a>> },
    Nats { subject: Vec<Part<'a>> },
}

#[derive(Arbitrary, Debug)]
enum Part<'a> {
    Text(Text<'a>),
    Type,
    Id,
    Source,
    Subject,
    AgentId,
    Data(Name, Vec<Name>),
}

#[derive(Arbitrary, Debug)]
struct Attributes<'a> {
    id: Text<'a>,
    kind: Text<'a>,
    subject: Option<Text<'a>>,
    agent_id: Option<Text<'a>>,
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

fn expected(target: &Target, fill: impl Fn(&[Part], Rule) -> Option<String>) -> Option<Address> {
    Some(match target {
        Target::Kafka { topic, key } => {
            let key = match key {
                Some(key) => Some(fill(key, Rule::Key)?.into()),
                None => None,
            };
            Address::Topic { topic: fill(topic, Rule::Kafka)?.into(), key }
        }
        Target::Log { topic } => {
            Address::Topic { topic: fill(topic, Rule::Log)?.into(), key: None }
        }
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

fn template(parts: &[Part]) -> String {
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => {
                let text = text.get().replace('$', "$$").replace('{', "{{").replace('}', "}}");
                out.push_str(&text);
            }
            Part::Type => out.push_str("{type}"),
            Part::Id => out.push_str("{id}"),
            Part::Source => out.push_str("{source}"),
            Part::Subject => out.push_str("{subject}"),
            Part::AgentId => out.push_str("{agentid}"),
            Part::Data(first, more) => {
                out.push_str("{data");
                for name in [first].into_iter().chain(more) {
                    out.push('.');
                    out.push_str(name.get());
                }
                out.push('}');
            }
        }
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
        headers: Vec::new(),
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
fn fill(parts: &[Part], event: &Event, document: &Value, rule: Rule) -> Option<String> {
    let mut out = String::new();
    for part in parts {
        let value = match part {
            Part::Text(text) => {
                out.push_str(text.get());
                continue;
            }
            // Dotted by nature.
            Part::Type => {
                out.push_str(&event.kind);
                continue;
            }
            Part::Source => {
                out.push_str(SOURCE);
                continue;
            }
            Part::Id => event.id.to_string(),
            Part::Subject => event.subject.as_ref()?.to_string(),
            Part::AgentId => event.extension("agentid")?.to_string(),
            Part::Data(first, more) => {
                let mut names = [first].into_iter().chain(more);
                match names.try_fold(document, |value, name| value.get(name.get()))? {
                    Value::String(text) => text.clone(),
                    Value::Null | Value::Array(_) | Value::Object(_) => return None,
                    scalar => scalar.to_string(),
                }
            }
        };
        let escapes = rule == Rule::Nats && (value.contains('.') || value.starts_with('$'));
        if value.is_empty() || escapes {
            return None;
        }
        out.push_str(&value);
    }
    allowed(&out, rule).then_some(out)
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
