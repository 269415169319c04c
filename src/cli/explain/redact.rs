//! The last look at what is shown: values that nobody may see are taken out, wherever they came from.
//!
//! What is shown is made without them. But a sender may put a credential into a header of any name, or
//! a secret into its body, from where it would come into an address.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{
    document::{AddressShown, EventShown, Explanation, MessageShown, Reason, Recorded, Request},
    raw::RawRequest,
};
use crate::{routing::Secrets, source::sounds_secret};

const REDACTED: &str = "[redacted]";

/// Shorter secrets of a source, and what of a request is no credential but a word, are not looked for.
const MIN_BYTES: usize = 4;
const MIN_HEADER_BYTES: usize = 5;
/// Shorter parts of values, and shorter values within our own words, are not looked for: they would be
/// found everywhere.
const MIN_PART_BYTES: usize = 16;
const MIN_IN_WORDS_BYTES: usize = 8;

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
        let in_parts = in_parts.filter(|value| value.len() >= MIN_HEADER_BYTES);
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

    /// Takes them out of every text that came from outside. Names and words of our own stay.
    pub fn explanation(&self, explanation: &mut Explanation) {
        let Explanation { request, source, verdict, event, recorded, routes, .. } = explanation;
        if let Some(Request { method, path, notes, .. }) = request {
            [method, path].into_iter().for_each(|text| self.text(text));
            notes.iter_mut().for_each(|note| self.words(note));
        }
        source.iter_mut().flat_map(|source| &mut source.path_type).for_each(|text| self.text(text));
        verdict.reasons.iter_mut().for_each(|reason| self.reason(reason));
        event.iter_mut().for_each(|event| self.event(event));
        recorded.iter_mut().for_each(|recorded| self.recorded(recorded));
        for route in routes {
            route.condition.iter_mut().for_each(|text| self.text(text));
            route.why.iter_mut().for_each(|why| self.reason(why));
            route.messages.iter_mut().for_each(|message| self.message(message));
        }
    }

    fn event(&self, event: &mut EventShown) {
        let EventShown {
            id,
            source: _,
            r#type,
            subject,
            time: _,
            content_type,
            extensions,
            headers,
            ..
        } = event;
        let given = [subject, content_type].into_iter().flatten();
        given
            .chain([id, r#type])
            .chain(headers.iter_mut().flatten())
            .for_each(|text| self.text(text));
        *extensions = std::mem::take(extensions)
            .into_iter()
            .map(|(mut name, mut value)| {
                self.text(&mut name);
                if let Value::String(text) = &mut value {
                    self.text(text);
                }
                (name, value)
            })
            .collect();
    }

    fn recorded(&self, recorded: &mut Recorded) {
        let Recorded { messages, only_then, only_now, dead_letters, .. } = recorded;
        for message in messages.iter_mut().chain(only_then).chain(only_now) {
            self.message(message);
        }
        for letter in dead_letters {
            self.words(&mut letter.reason);
            self.message(&mut letter.message);
        }
    }

    fn message(&self, MessageShown { address, headers, .. }: &mut MessageShown) {
        match address {
            AddressShown::Topic { topic, key } => {
                [topic].into_iter().chain(key).for_each(|text| self.text(text));
            }
            AddressShown::Exchange { exchange, routing_key } => {
                [exchange, routing_key].into_iter().for_each(|text| self.text(text));
            }
            AddressShown::Subject { subject } => self.text(subject),
            AddressShown::Cannot { cannot } => self.words(cannot),
        }
        headers.iter_mut().flatten().for_each(|text| self.text(text));
    }

    fn reason(&self, reason: &mut Reason) {
        self.words(&mut reason.message);
    }

    fn text(&self, text: &mut String) {
        self.longer(text, 0);
    }

    /// Words of ours that may quote some from outside.
    fn words(&self, text: &mut String) {
        self.longer(text, MIN_IN_WORDS_BYTES);
    }

    fn longer(&self, text: &mut String, min_bytes: usize) {
        for value in self.0.iter().map(|value| value.expose_secret()) {
            if value.len() >= min_bytes && text.contains(value) {
                *text = text.replace(value, REDACTED);
            }
        }
    }
}
