//! Sample bodies, one for each type that Sonzai and miibo document, and Standard Webhooks' example.

use std::borrow::Cow;

use uuid::Uuid;

use crate::source::Provider;

/// A body and the type it stands for.
pub struct Sample {
    pub name: &'static str,
    pub body: &'static str,
    /// What it is known by, where its body says so.
    id: Option<&'static str>,
}

macro_rules! sample {
    ($name:literal) => {
        Sample { name: $name, body: include_str!(concat!("samples/", $name, ".json")), id: None }
    };
    ($name:literal, $id:literal) => {
        Sample { id: Some($id), ..sample!($name) }
    };
}

impl Sample {
    /// The body as one of its own: with the same id it would be a retry of the last.
    pub fn as_another(&self, id: Uuid) -> Cow<'static, str> {
        let body = self.body.trim_end();
        match self.id {
            Some(own) => body.replace(own, &id.simple().to_string()).into(),
            None => body.into(),
        }
    }
}

/// Sonzai's documented event types. The bodies follow its guide's examples.
const SONZAI: [Sample; 6] = [
    sample!("agent.message", "msg_1001"),
    sample!("agent.mood_change"),
    sample!("agent.memory_added"),
    sample!("agent.breakthrough"),
    sample!("agent.wakeup", "wk_31"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_that_carries_an_id_is_another_each_time() {
        for sample in &SONZAI {
            let carries = ["message_id", "wakeup_id", "notification_id"];
            let carries = carries.iter().any(|name| sample.body.contains(name));
            let [one, other] = [1, 2].map(|n| sample.as_another(Uuid::from_u128(n)));
            assert_eq!(one != other, carries, "{}", sample.name);
        }
    }
}
