//! The last look at what is shown: values that nobody may see are taken out, wherever they came from.
//!
//! What is shown is made without them. But a sender may put a credential into a header of any name, or
//! a secret into its body, from where it would come into an address.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::raw::RawRequest;
use crate::{routing::Secrets, source::sounds_secret};

const REDACTED: &str = "[redacted]";

/// Shorter values, and parts of values, are not looked for: they would be found everywhere.
const MIN_BYTES: usize = 4;
const MIN_PART_BYTES: usize = 16;

/// The values that are taken out.
pub struct Redact(Vec<SecretString>);

impl Redact {
    /// Of a request and of the source that is to take it, as far as they are known.
    pub fn of(raw: Option<&RawRequest>, secrets: Option<&Secrets>) -> Redact {
        let mut values = Vec::new();
        let headers = raw.into_iter().flat_map(|raw| &raw.head.headers);
        let headers = headers.filter(|(name, _)| sounds_secret(name.as_str()));
        let authorization = secrets.and_then(|secrets| secrets.authorization.as_ref());
        let in_parts = headers.filter_map(|(_, value)| value.to_str().ok());
        for value in in_parts.chain(authorization.map(|value| value.expose_secret())) {
            // `Bearer x` and `t=1,v1=x` are no less secret without what stands in front.
            let parts = value.split([' ', ',', '=']).filter(|part| part.len() >= MIN_PART_BYTES);
            values.extend(parts.chain([value]));
        }
        for (_, text) in secrets.into_iter().flat_map(|secrets| &secrets.signing) {
            let text = text.expose_secret();
            values.extend(text.strip_prefix("whsec_").into_iter().chain([text]));
        }
        values.retain(|value| value.len() >= MIN_BYTES);
        // What holds another one goes first.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Redact(values.into_iter().map(SecretString::from).collect())
    }

    pub fn text(&self, mut text: String) -> String {
        for value in &self.0 {
            if text.contains(value.expose_secret()) {
                text = text.replace(value.expose_secret(), REDACTED);
            }
        }
        text
    }

    /// The same for every text in a document, names included.
    pub fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(members) => {
                members.into_iter().map(|(name, v)| (self.text(name), self.value(v))).collect()
            }
            other => other,
        }
    }
}
