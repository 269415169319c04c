//! Proactive messages, pending in two places until each is taken: as the agent's notification, and as
//! the project's.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde_json::value::RawValue;

use super::options::{MAX_MESSAGES, MAX_MESSAGES_BYTES, MAX_TAKEN_SHOWN};

/// One message. What it is called in each place is its own.
#[derive(Debug)]
pub struct Message {
    pub message_id: String,
    pub notification_id: String,
    pub wakeup_id: Option<String>,
    /// Which agent, from 0.
    pub agent: usize,
    pub user_id: String,
    pub event_type: String,
    pub check_type: String,
    pub intent: Option<String>,
    pub generated_message: String,
    /// The JSON text that the webhook's body is.
    pub payload: Box<RawValue>,
    pub created_ms: u64,
    /// As a project notification.
    pub expires_ms: Option<u64>,
    pub consumed_ms: Option<u64>,
    pub acknowledged_ms: Option<u64>,
}

impl Message {
    /// As an agent's notification.
    pub fn status(&self) -> &'static str {
        if self.consumed_ms.is_some() { "consumed" } else { "pending" }
    }

    fn bytes(&self) -> usize {
        self.payload.get().len() + self.generated_message.len()
    }
}

/// Why a message is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("there is a message or notification with this id already")]
    IdTaken,
    #[error(
        "{MAX_MESSAGES} messages or {MAX_MESSAGES_BYTES} bytes of them are kept, and the oldest is pending"
    )]
    Full,
}

/// What became of a message that was to be consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumed {
    Now,
    Before,
    Unknown,
}

/// Which of a project's notifications.
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'f> {
    /// `Some(None)`: one that is not there.
    pub agent: Option<Option<usize>>,
    pub event_type: Option<&'f str>,
}

impl Filter<'_> {
    fn takes(&self, message: &Message) -> bool {
        self.agent.is_none_or(|agent| agent == Some(message.agent))
            && self.event_type.is_none_or(|event_type| event_type == message.event_type)
    }
}

/// All messages, by the order in which they came.
#[derive(Debug, Default)]
pub struct Messages {
    all: BTreeMap<u64, Message>,
    next: u64,
    bytes: usize,
    by_message: HashMap<String, u64>,
    by_notification: HashMap<String, u64>,
    /// As project notifications.
    pending: BTreeSet<u64>,
    agents: HashMap<usize, Inbox>,
    consumed: VecDeque<String>,
    acknowledged: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Inbox {
    all: BTreeSet<u64>,
    pending: BTreeSet<u64>,
}

impl Messages {
    pub fn add(&mut self, message: Message) -> Result<(), Refused> {
        if self.by_message.contains_key(&message.message_id)
            || self.by_notification.contains_key(&message.notification_id)
        {
            return Err(Refused::IdTaken);
        }
        self.make_room(message.bytes())?;
        let number = self.next;
        self.next += 1;
        self.bytes += message.bytes();
        self.by_message.insert(message.message_id.clone(), number);
        self.by_notification.insert(message.notification_id.clone(), number);
        self.pending.insert(number);
        let inbox = self.agents.entry(message.agent).or_default();
        inbox.all.insert(number);
        inbox.pending.insert(number);
        self.all.insert(number, message);
        Ok(())
    }

    /// Forgets the oldest messages that were taken in either place.
    fn make_room(&mut self, bytes: usize) -> Result<(), Refused> {
        while self.all.len() >= MAX_MESSAGES || self.bytes + bytes > MAX_MESSAGES_BYTES {
            let Some(oldest) = self.all.first_entry() else { return Err(Refused::Full) };
            let message = oldest.get();
            if message.consumed_ms.is_none() && message.acknowledged_ms.is_none() {
                return Err(Refused::Full);
            }
            let (number, message) = oldest.remove_entry();
            self.bytes -= message.bytes();
            self.by_message.remove(&message.message_id);
            self.by_notification.remove(&message.notification_id);
            self.pending.remove(&number);
            if let Some(inbox) = self.agents.get_mut(&message.agent) {
                inbox.all.remove(&number);
                inbox.pending.remove(&number);
            }
        }
        Ok(())
    }

    /// An agent's, oldest first; those of one status, or all.
    pub fn of_agent<'m>(
        &'m self,
        agent: usize,
        status: Option<&'m str>,
        user: Option<&'m str>,
    ) -> impl Iterator<Item = &'m Message> {
        let inbox = self.agents.get(&agent);
        let numbers = inbox.into_iter().flat_map(move |inbox| match status {
            Some("pending") => inbox.pending.iter(),
            _ => inbox.all.iter(),
        });
        let messages = numbers.filter_map(|number| self.all.get(number));
        let wanted = move |message: &&Message| {
            status.is_none_or(|status| message.status() == status)
                && user.is_none_or(|user| message.user_id == user)
        };
        messages.filter(wanted)
    }

    /// An agent's of all statuses, newest first.
    pub fn history(&self, agent: usize) -> impl Iterator<Item = &Message> {
        let numbers = self.agents.get(&agent).into_iter().flat_map(|inbox| inbox.all.iter().rev());
        numbers.filter_map(|number| self.all.get(number))
    }

    /// The project's that are pending, oldest first.
    pub fn of_project<'m>(&'m self, filter: Filter<'m>) -> impl Iterator<Item = &'m Message> {
        let messages = self.pending.iter().filter_map(|number| self.all.get(number));
        messages.filter(move |message| filter.takes(message))
    }

    /// Where a message is.
    pub fn of_message(&self, message_id: &str) -> Option<&Message> {
        self.all.get(self.by_message.get(message_id)?)
    }

    /// Where a notification is.
    pub fn of_notification(&self, notification_id: &str) -> Option<&Message> {
        self.all.get(self.by_notification.get(notification_id)?)
    }

    pub fn consume(&mut self, agent: usize, message_id: &str, now_ms: u64) -> Consumed {
        let number = self.by_message.get(message_id);
        let found = number.and_then(|number| Some((*number, self.all.get_mut(number)?)));
        let Some((number, message)) = found.filter(|(_, message)| message.agent == agent) else {
            return Consumed::Unknown;
        };
        if message.consumed_ms.is_some() {
            return Consumed::Before;
        }
        message.consumed_ms = Some(now_ms);
        if let Some(inbox) = self.agents.get_mut(&agent) {
            inbox.pending.remove(&number);
        }
        remember(&mut self.consumed, message_id);
        Consumed::Now
    }

    /// Whether it was pending until now.
    pub fn acknowledge(&mut self, notification_id: &str, now_ms: u64) -> bool {
        let Some(number) = self.by_notification.get(notification_id) else { return false };
        let was_pending = self.pending.remove(number);
        if was_pending {
            if let Some(message) = self.all.get_mut(number) {
                message.acknowledged_ms = Some(now_ms);
            }
            remember(&mut self.acknowledged, notification_id);
        }
        was_pending
    }

    /// Project notifications that were not taken in time are no more.
    pub fn expire(&mut self, now_ms: u64) {
        // All live equally long, so the oldest goes first.
        while let Some(oldest) = self.pending.first() {
            let expires_ms = self.all.get(oldest).and_then(|message| message.expires_ms);
            if expires_ms.is_none_or(|expires_ms| expires_ms > now_ms) {
                return;
            }
            self.pending.pop_first();
        }
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn pending_of_project(&self) -> usize {
        self.pending.len()
    }

    /// Agents that have any pending, and how many.
    pub fn pending_of_agents(&self) -> impl Iterator<Item = (usize, usize)> {
        let counts = self.agents.iter().map(|(agent, inbox)| (*agent, inbox.pending.len()));
        counts.filter(|(_, count)| *count > 0)
    }

    /// The ids of what was taken, in order: consumed messages, acknowledged notifications.
    pub fn taken(&self) -> (&VecDeque<String>, &VecDeque<String>) {
        (&self.consumed, &self.acknowledged)
    }
}

fn remember(taken: &mut VecDeque<String>, id: &str) {
    if taken.len() == MAX_TAKEN_SHOWN {
        taken.pop_front();
    }
    taken.push_back(id.to_owned());
}
