//! Whatever a routes.yaml holds, reading it ends in words, and no literal secret is among them.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use waypost::{routing, secret::Env};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// A file of its own.
    text: &'a str,
    /// What stands within the secrets of a file that is otherwise right.
    secret: &'a str,
    /// What happens to the text of a file with secrets.
    edit: Edit<'a>,
}

/// One slip; with two of them a secret can come to stand where nobody could know it for one.
#[derive(Arbitrary, Debug)]
enum Edit<'a> {
    /// A line with a secret, where it belongs or not.
    Line { at: u8, indent: u8, key: Key, value: Value },
    /// A character beside a secret is removed, or text is put in.
    Slip { at: u16, remove: bool, with: &'a str },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Key {
    Secret,
    Token,
    Password,
    Misspelt,
    Unknown,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Value {
    Text,
    Bare,
    Key,
    Listed,
    Anchor,
    Tag,
    Url,
}

/// In every secret, and in nothing else.
const SIGN: &str = "hunter2hunter2";

/// It wherever one can stand.
const SECRETS: &str = r#"sources:
  shop: { type: standard, path: /hooks/shop, secret: whsec_hunter2hunter2 }
  chat:
    type: miibo
    path: /hooks/chat
    secret:
      - "hunter2hunter2"
      - hunter2hunter2
  sonzai:
    type: sonzai
    path: /hooks/sonzai/{type}
    api: { url: "https://u:hunter2hunter2@localhost", key: hunter2hunter2 }
    register: { public_url: "https://localhost", types: [agent.message] }
    poll: { agents: all }
brokers:
  stream:
    type: kafka
    bootstrap: localhost:9092
    sasl: { mechanism: plain, user: waypost, password: hunter2hunter2 }
  tasks: { type: rabbitmq, url: "amqp://waypost:hunter2hunter2@localhost/%2f" }
  live: { type: nats, url: nats://localhost, token: hunter2hunter2 }
routes:
  - name: all
    match: { type: "**" }
    retry: { for: 1h }
    to:
      - { broker: stream, topic: events }
"#;

impl Edit<'_> {
    fn apply(&self) -> String {
        match self {
            Edit::Line { at, indent, key, value } => {
                let mut lines: Vec<String> = SECRETS.lines().map(str::to_owned).collect();
                let at = usize::from(*at) % (lines.len() + 1);
                let margin = " ".repeat(usize::from(*indent) % 12);
                lines.insert(at, format!("{margin}{}: {}", key.get(), value.get()));
                lines.join("\n")
            }
            Edit::Slip { at, remove, with } => {
                let mut at = usize::from(*at) % SECRETS.len();
                // Beside a word, not in it: it could be a secret.
                let in_word = |at: usize| SECRETS[..at].ends_with(char::is_alphanumeric);
                while in_word(at) {
                    at -= 1;
                }
                let (before, rest) = SECRETS.split_at(at);
                let remove = *remove && !rest.starts_with(char::is_alphanumeric);
                // A word before a secret could be a key's whose value is shown.
                let with: String = with.chars().filter(|c| !c.is_alphanumeric()).take(1).collect();
                format!("{before}{with}{}", &rest[usize::from(remove)..])
            }
        }
    }
}

impl Key {
    fn get(self) -> &'static str {
        match self {
            Key::Secret => "secret",
            Key::Token => "token",
            Key::Password => "password",
            Key::Misspelt => "secrt",
            Key::Unknown => "x",
        }
    }
}

impl Value {
    fn get(self) -> &'static str {
        match self {
            Value::Text => "hunter2hunter2",
            Value::Bare => "{hunter2hunter2}",
            Value::Key => "{ hunter2hunter2: x }",
            Value::Listed => "[{ hunter2hunter2: x }, [hunter2hunter2]]",
            Value::Anchor => "&hunter2hunter2 x",
            Value::Tag => "!hunter2hunter2 x",
            Value::Url => "amqp://u:hunter2hunter2",
        }
    }
}

fuzz_target!(|input: Input| {
    told(input.text);
    let edited = input.edit.apply();
    let said = told(&edited);
    assert!(!said.contains(SIGN), "{edited}\n{said}");
    let secret = format!("{SIGN}{}{SIGN}", input.secret);
    let file = json!({
        "sources": {
            "shop": { "type": "standard", "path": "/hooks/shop", "secret": ["x", secret] },
            "chat": { "type": "miibo", "path": "/hooks/chat", "secret": secret },
            "sonzai": {
                "type": "sonzai",
                "path": "/hooks/sonzai",
                "secrets": { "*": secret },
                "authorization": secret,
                "api": { "url": format!("https://{secret}@localhost"), "key": secret },
                "register": { "public_url": format!("https://u:{secret}@localhost"), "types": ["a"] },
                "poll": { "agents": "all" },
            },
        },
        "brokers": {
            "stream": {
                "type": "kafka",
                "bootstrap": format!("u:{secret}@localhost"),
                "sasl": { "mechanism": "plain", "user": "u", "password": secret },
            },
            "tasks": { "type": "rabbitmq", "url": format!("amqp://u:{SIGN}@localhost/{}", input.secret) },
            "live": { "type": "nats", "url": "nats://localhost", "token": secret, "password": secret },
        },
        "routes": [],
        "commands": { "a": { "source": "sonzai", "from": { "broker": "live", "subject": "a" } } },
    });
    // JSON is YAML.
    let told = told(&file.to_string());
    assert!(!told.contains(SIGN), "{told}");
});

/// Everything that is said of a file, with an environment and without.
fn told(text: &str) -> String {
    let env: Env = &|name| (name == "S").then(|| "whsec_MDEyMzQ1Njc4OWFiY2RlZg==".to_owned());
    let problems = [None, Some(env)].map(|env| routing::examine("routes.yaml", text, env).problems);
    let words = problems.iter().flatten().map(|problem| {
        let document = serde_json::to_string(problem).expect("a problem is JSON");
        format!("{problem}\n{document}\n")
    });
    words.collect()
}
