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
}

/// In every secret, and in nothing else.
const SIGN: &str = "hunter2hunter2";

fuzz_target!(|input: Input| {
    told(input.text);
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
