//! Events: kept for polling where they are proactive messages, and sent to the webhook of their type.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    Shared,
    bodies::NewWakeup,
    deliver,
    ids::new_id,
    messages::{Message, Refused},
    options::{MAX_DELIVERIES, MAX_DELIVERIES_BYTES, MAX_EMITTED, Options},
    state::{Agents, State},
    wakeups::Wakeup,
};
use crate::clock::now_ms;

/// Types that are proactive messages, unless it is said that they are not.
const PROACTIVE: [&str; 3] = ["on_wakeup_ready", "on_recurring_event_due", "agent.message"];

const ON_WAKEUP_READY: &str = "on_wakeup_ready";

/// How far ahead the wakeups of the start are.
const DAY_MS: u64 = 86_400_000;

/// What is to happen; `POST /-/emit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emit {
    #[serde(rename = "type")]
    pub event_type: String,
    /// By id or name; the first one if left out.
    #[serde(default)]
    pub agent_id: Option<String>,
    #[serde(default)]
    pub user_id: Option<String>,
    /// The webhook's body, byte for byte as it stands in the request; made up if left out.
    #[serde(default)]
    pub payload: Option<Box<RawValue>>,
    /// The same as text, for a body that is no JSON.
    #[serde(default)]
    pub payload_text: Option<String>,
    /// Which ids a body that is made up carries; all if left out.
    #[serde(default)]
    pub ids: Option<Vec<Id>>,
    /// So many events, each with ids of its own.
    #[serde(default)]
    pub count: Option<usize>,
    /// Whether it is kept for polling.
    #[serde(default)]
    pub proactive: Option<bool>,
    /// Whether it is sent to the webhook, where one is registered.
    #[serde(default)]
    pub webhook: Option<bool>,
    #[serde(default)]
    pub generated_message: Option<String>,
    /// Ids of one's own choice, of one event alone.
    #[serde(default)]
    pub message_id: Option<String>,
    #[serde(default)]
    pub notification_id: Option<String>,
    #[serde(default)]
    pub wakeup_id: Option<String>,
}

/// An id that a webhook's body may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Id {
    Wakeup,
    Message,
    Notification,
}

/// What happened.
#[derive(Debug, Serialize)]
pub struct Emitted {
    /// Whether a webhook of the type was there to send it to.
    pub webhook: bool,
    pub events: Vec<Ids>,
}

/// What one event is called.
#[derive(Clone, Debug, Serialize)]
pub struct Ids {
    pub message_id: String,
    pub notification_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wakeup_id: Option<String>,
}

/// Why nothing, or no more, happened.
#[derive(Debug, thiserror::Error)]
pub enum CannotEmit {
    #[error("there is no agent {0}")]
    Agent(String),
    #[error("count: 1 to {MAX_EMITTED}")]
    Count,
    #[error("an id of one's own goes with one event, not with several")]
    IdsOfSeveral,
    #[error("payload and payload_text are the same thing: give one")]
    TwoPayloads,
    #[error("{MAX_DELIVERIES} deliveries or {MAX_DELIVERIES_BYTES} bytes of them are under way")]
    Deliveries,
    #[error("{0}")]
    Kept(#[from] Refused),
}

impl Emit {
    /// One event of this type, made up.
    pub fn of(event_type: &str) -> Emit {
        Emit {
            event_type: event_type.to_owned(),
            agent_id: None,
            user_id: None,
            payload: None,
            payload_text: None,
            ids: None,
            count: None,
            proactive: None,
            webhook: None,
            generated_message: None,
            message_id: None,
            notification_id: None,
            wakeup_id: None,
        }
    }

    fn check(&self) -> Result<usize, CannotEmit> {
        let count = self.count.unwrap_or(1);
        if !(1..=MAX_EMITTED).contains(&count) {
            return Err(CannotEmit::Count);
        }
        let own = [&self.message_id, &self.notification_id, &self.wakeup_id];
        if count > 1 && own.into_iter().any(Option::is_some) {
            return Err(CannotEmit::IdsOfSeveral);
        }
        match self.payload.is_some() && self.payload_text.is_some() {
            true => Err(CannotEmit::TwoPayloads),
            false => Ok(count),
        }
    }

    fn ids(&self) -> Ids {
        let is_wakeup = self.event_type == ON_WAKEUP_READY;
        let wakeup_id = || is_wakeup.then(|| new_id("wakeup"));
        Ids {
            message_id: self.message_id.clone().unwrap_or_else(|| new_id("msg")),
            notification_id: self.notification_id.clone().unwrap_or_else(|| new_id("notif")),
            wakeup_id: self.wakeup_id.clone().or_else(wakeup_id),
        }
    }

    /// The webhook's body, and the same as a notification holds it.
    fn payload(&self, made_up: impl FnOnce() -> Value) -> (Bytes, Box<RawValue>) {
        if let Some(payload) = &self.payload {
            return (payload.get().to_owned().into(), payload.clone());
        }
        if let Some(text) = &self.payload_text {
            let is_json = RawValue::from_string(text.clone());
            return (text.clone().into(), is_json.unwrap_or_else(|_| raw(&json!(text))));
        }
        let payload = raw(&made_up());
        (payload.get().to_owned().into(), payload)
    }
}

/// What an event is about.
struct About<'a> {
    event_type: &'a str,
    agent: usize,
    user_id: &'a str,
    check_type: &'a str,
    intent: &'a str,
    generated_message: &'a str,
    ids: &'a Ids,
    /// Those that a body shows.
    shown: &'a [Id],
}

/// Makes events happen.
pub(super) fn emit(shared: &Arc<Shared>, emit: Emit) -> Result<Emitted, CannotEmit> {
    let count = emit.check()?;
    let mut state = shared.lock();
    let agent = match &emit.agent_id {
        None => 0,
        Some(name) => state.agents.find(name).ok_or_else(|| CannotEmit::Agent(name.to_owned()))?,
    };
    let mut emitted = Emitted { webhook: false, events: Vec::with_capacity(count) };
    for _ in 0..count {
        let ids = emit.ids();
        emitted.webhook = one(shared, &mut state, &emit, agent, ("proactive", "say hello"), &ids)?;
        emitted.events.push(ids);
    }
    Ok(emitted)
}

/// Makes one event happen; whether a webhook was there for it.
fn one(
    shared: &Arc<Shared>,
    state: &mut State,
    emit: &Emit,
    agent: usize,
    (check_type, intent): (&str, &str),
    ids: &Ids,
) -> Result<bool, CannotEmit> {
    let event_type = &emit.event_type;
    let is_sent = emit.webhook.unwrap_or(true) && state.webhooks.get(event_type).is_some();
    let user_id = emit.user_id.as_deref().unwrap_or("user-1");
    let generated_message = emit.generated_message.as_deref().unwrap_or("How did it go today?");
    let shown = emit.ids.as_deref().unwrap_or(&[Id::Wakeup, Id::Message, Id::Notification]);
    let about =
        About { event_type, agent, user_id, check_type, intent, generated_message, ids, shown };
    let (body, payload) = emit.payload(|| about.payload());
    if is_sent && !state.deliveries.begin(body.len()) {
        return Err(CannotEmit::Deliveries);
    }
    if emit.proactive.unwrap_or_else(|| PROACTIVE.contains(&event_type.as_str())) {
        let added = state.messages.add(about.message(payload, &shared.options, now_ms()));
        if added.is_err() && is_sent {
            state.deliveries.over(body.len());
        }
        added?;
    }
    if is_sent {
        deliver::start(shared, event_type.to_owned(), body);
    }
    Ok(is_sent)
}

impl About<'_> {
    fn message(self, payload: Box<RawValue>, options: &Options, now_ms: u64) -> Message {
        let Ids { message_id, notification_id, wakeup_id } = self.ids.clone();
        let lifetime_ms = options.expire.map(|expire| expire.as_millis() as u64);
        Message {
            message_id,
            notification_id,
            wakeup_id,
            agent: self.agent,
            user_id: self.user_id.to_owned(),
            event_type: self.event_type.to_owned(),
            check_type: self.check_type.to_owned(),
            intent: Some(self.intent.to_owned()),
            generated_message: self.generated_message.to_owned(),
            payload,
            created_ms: now_ms,
            expires_ms: lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms)),
            consumed_ms: None,
            acknowledged_ms: None,
        }
    }

    /// The body as Sonzai's guide and demo have it: `on_wakeup_ready` names no type, others do.
    fn payload(&self) -> Value {
        let agent_id = Agents::id(self.agent);
        let mut body = match self.event_type {
            ON_WAKEUP_READY => json!({
                "wakeup": {
                    "agent_id": agent_id,
                    "user_id": self.user_id,
                    "check_type": self.check_type,
                    "intent": self.intent,
                },
                "memory_context": {},
                "has_energy": true,
                "generated_message": self.generated_message,
            }),
            event_type => json!({
                "event_type": event_type,
                "data": {
                    "agent_id": agent_id,
                    "user_id": self.user_id,
                    "content": self.generated_message,
                },
            }),
        };
        let member = if self.event_type == ON_WAKEUP_READY { "wakeup" } else { "data" };
        if let (Some(wakeup_id), true) = (&self.ids.wakeup_id, self.shows(Id::Wakeup)) {
            body[member]["wakeup_id"] = json!(wakeup_id);
        }
        let top: &mut Map<String, Value> = match &mut body {
            Value::Object(top) => top,
            _ => return body,
        };
        if self.shows(Id::Message) {
            top.insert("message_id".into(), json!(self.ids.message_id));
        }
        if self.shows(Id::Notification) {
            top.insert("notification_id".into(), json!(self.ids.notification_id));
        }
        body
    }

    fn shows(&self, id: Id) -> bool {
        self.shown.contains(&id)
    }
}

/// What is pending at the start.
pub(super) fn first(state: &mut State, options: &Options, now_ms: u64) {
    for agent in 0..options.agents {
        for _ in 0..options.notifications {
            // There is room: the options were checked, and the ids are new.
            let _ = state.messages.add(first_message(options, agent, now_ms));
        }
        for _ in 0..options.wakeups {
            let _ = state.wakeups.add(first_wakeup(agent, now_ms));
        }
    }
}

fn first_message(options: &Options, agent: usize, now_ms: u64) -> Message {
    let ids = Emit::of(ON_WAKEUP_READY).ids();
    let about = About {
        event_type: ON_WAKEUP_READY,
        agent,
        user_id: "user-1",
        check_type: "interest_followup",
        intent: "ask how the day went",
        generated_message: "Hi! How was your day?",
        ids: &ids,
        shown: &[Id::Wakeup, Id::Message, Id::Notification],
    };
    let payload = raw(&about.payload());
    about.message(payload, options, now_ms)
}

fn first_wakeup(agent: usize, now_ms: u64) -> Wakeup {
    Wakeup {
        id: new_id("wakeup"),
        agent,
        new: NewWakeup {
            user_id: "user-1".into(),
            check_type: "interest_followup".into(),
            intent: "ask how the day went".into(),
            occasion: None,
            interest_topic: None,
            event_description: None,
            scheduled_ms: now_ms + DAY_MS,
        },
        created_ms: now_ms,
        executed_ms: None,
    }
}

/// Executes wakeups as they become due, until the stand-in ends.
pub(super) async fn due_wakeups(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.options.tick).await;
        let mut state = shared.lock();
        while let Some(wakeup) = state.wakeups.execute_due(now_ms()) {
            let emit = Emit {
                user_id: Some(wakeup.new.user_id.clone()),
                wakeup_id: Some(wakeup.id.clone()),
                ..Emit::of(ON_WAKEUP_READY)
            };
            let (agent, ids) = (wakeup.agent, emit.ids());
            let check_type = wakeup.new.check_type.clone();
            let intent = wakeup.new.intent.clone();
            let fired = one(&shared, &mut state, &emit, agent, (&check_type, &intent), &ids);
            if let Err(error) = fired {
                tracing::warn!(%error, "a due wakeup made no event");
            }
        }
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    // A value prints as JSON, so it is JSON; `null` stands for what cannot happen.
    RawValue::from_string(value.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}
