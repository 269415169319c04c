//! Sample bodies, one for each type that Sonzai and miibo document, and Standard Webhooks' example.

use crate::source::Provider;

/// A body and the type it stands for.
pub struct Sample {
    pub name: &'static str,
    pub body: &'static str,
}

macro_rules! sample {
    ($name:literal) => {
        Sample { name: $name, body: include_str!(concat!("samples/", $name, ".json")) }
    };
}

/// Sonzai's documented event types. The bodies follow its guide's examples.
const SONZAI: [Sample; 6] = [
    sample!("agent.message"),
    sample!("agent.mood_change"),
    sample!("agent.memory_added"),
    sample!("agent.breakthrough"),
    sample!("agent.wakeup"),
    sample!("agent.consolidation"),
];

/// miibo's webhook types.
const MIIBO: [Sample; 3] =
    [sample!("user_utterance"), sample!("agent_response"), sample!("function_calling")];

/// The specification's own example.
const STANDARD: [Sample; 1] = [sample!("contact.created")];

/// The samples of a provider; the first is the default.
pub fn of(provider: &Provider) -> &'static [Sample] {
    match provider {
        Provider::Sonzai(_) => &SONZAI,
        Provider::Miibo(_) => &MIIBO,
        Provider::Standard(_) => &STANDARD,
    }
}
