//! Events that came by no webhook of their own: notifications that were polled, and failed attempts
//! at a webhook that were fetched again. Each is the event that its webhook would have been.
//!
//! Nothing here was signed: it came from Sonzai's API, over TLS.

use bytes::Bytes;
use bytestring::ByteString;

use super::{
    Facts, extensions,
    identity::{Identity, Via},
    payload::Payload,
};
use crate::{
    dedupe::Keys,
    event::Event,
    source::{Source, attribute, kind},
};

/// What every payload of Sonzai's is.
const CONTENT_TYPE: &str = "application/json";

/// A notification of a project's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectItem {
    pub notification_id: ByteString,
    pub event_type: ByteString,
    /// As it stands in the list, byte for byte: what the webhook's body would be.
    pub payload: Bytes,
    pub agent_id: Option<ByteString>,
    pub user_id: Option<ByteString>,
    pub project_id: Option<ByteString>,
}

/// A notification of an agent's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentItem {
    pub message_id: ByteString,
    /// The whole entry as it stands in the list, byte for byte.
    pub entry: Bytes,
    pub agent_id: Option<ByteString>,
    pub user_id: Option<ByteString>,
    pub wakeup_id: Option<ByteString>,
}

/// The event that a project's notification is, and what it is known by.
pub fn project_notification(
    source: &Source,
    item: ProjectItem,
    now_ms: u64,
    via: Via,
) -> (Event, Keys) {
    let payload = Payload::read(&item.payload);
    let (kind, _) = kind(payload.event_type(), item_type(&item.event_type));
    let mut ids = payload.ids();
    ids.notification = Some((&*item.notification_id).into());
    let Identity { id, known_by } =
        Identity::of_project(&source.name, &item.notification_id, &kind, &ids);
    let members = [&item.agent_id, &item.user_id, &item.project_id];
    let facts = Facts::new(id, kind, extensions(&payload, members, via));
    drop(payload);
    event(source, facts, item.payload, now_ms, known_by)
}

/// The event that an agent's notification is, and what it is known by. `event_type` is what such
/// ones become, which they do not say.
pub fn agent_notification(
    source: &Source,
    item: AgentItem,
    event_type: &ByteString,
    now_ms: u64,
    via: Via,
) -> (Event, Keys) {
    let payload = Payload::read(&item.entry);
    let mut ids = payload.ids();
    ids.notification = None;
    ids.message = Some((&*item.message_id).into());
    if let Some(wakeup) = &item.wakeup_id {
        ids.wakeup = Some((&**wakeup).into());
    }
    let Identity { id, known_by } =
        Identity::of_agent(&source.name, &item.message_id, event_type, &ids);
    let members = [&item.agent_id, &item.user_id, &None];
    let facts = Facts::new(id, event_type.clone(), extensions(&payload, members, via));
    drop(payload);
    event(source, facts, item.entry, now_ms, known_by)
}

/// The event that a webhook of this type and body would have been, had one of its attempts not
/// failed, and what it is known by.
pub fn failed_attempt(
    source: &Source,
    event_type: &str,
    body: Bytes,
    now_ms: u64,
) -> (Event, Keys) {
    let payload = Payload::read(&body);
    let (kind, _) = kind(payload.event_type(), item_type(event_type));
    let Identity { id, known_by } =
        Identity::of_attempt(&source.name, &kind, &body, &payload.ids());
    let facts = Facts::new(id, kind, extensions(&payload, [&None; 3], Via::Repair));
    drop(payload);
    event(source, facts, body, now_ms, known_by)
}

/// The type that an item names beside its payload, if it can be one.
fn item_type(text: &str) -> Option<&str> {
    Some(text).filter(|text| attribute(text).is_some())
}

fn event(source: &Source, facts: Facts, body: Bytes, now_ms: u64, mut keys: Keys) -> (Event, Keys) {
    let event = Event {
        id: facts.id,
        source: source.name.clone(),
        kind: facts.kind,
        subject: facts.subject,
        time_ms: now_ms,
        content_type: Some(ByteString::from_static(CONTENT_TYPE)),
        traceparent: None,
        extensions: facts.extensions,
        headers: Vec::new(),
        body,
    };
    source.also_known_by_body(&event, &mut keys);
    (event, keys)
}

#[cfg(test)]
mod tests;
