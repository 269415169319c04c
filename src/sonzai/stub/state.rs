//! What a stand-in remembers.

use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{
    caches::Caches,
    faults::Faults,
    messages::Messages,
    options::{MAX_DELIVERIES, MAX_DELIVERIES_BYTES, MAX_SHOWN, Options},
    rate::Rate,
    requests::Requests,
    stubborn::Stubborn,
    wakeups::Wakeups,
    webhooks::Webhooks,
};
use crate::clock::rfc3339;

#[derive(Debug)]
pub struct State {
    pub project: String,
    pub agents: Agents,
    pub started_ms: u64,
    pub webhooks: Webhooks,
    pub messages: Messages,
    pub wakeups: Wakeups,
    pub caches: Caches,
    pub rate: Option<Rate>,
    pub faults: Faults,
    pub stubborn: Stubborn,
    pub requests: Requests,
    pub deliveries: Deliveries,
}

/// Deliveries that are under way or wait for their next attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deliveries {
    pub count: usize,
    /// Of their bodies.
    pub bytes: usize,
}

impl Deliveries {
    /// Whether there is room for one more; it then has it until it is over.
    pub fn begin(&mut self, bytes: usize) -> bool {
        let has_room = self.count < MAX_DELIVERIES && self.bytes + bytes <= MAX_DELIVERIES_BYTES;
        if has_room {
            self.count += 1;
            self.bytes += bytes;
        }
        has_room
    }

    pub fn over(&mut self, bytes: usize) {
        self.count -= 1;
        self.bytes -= bytes;
    }
}

impl State {
    /// Without anything that has happened.
    pub fn new(options: &Options, now_ms: u64) -> State {
        State {
            project: options.project.clone(),
            agents: Agents(options.agents),
            started_ms: now_ms,
            webhooks: Webhooks::default(),
            messages: Messages::default(),
            wakeups: Wakeups::default(),
            caches: Caches::default(),
            rate: options.rate.map(|per_second| Rate::new(per_second, Instant::now())),
            faults: Faults::default(),
            stubborn: Stubborn::default(),
            requests: Requests::default(),
            deliveries: Deliveries::default(),
        }
    }

    /// For `GET /-/state`.
    pub fn shown(&mut self, now_ms: u64) -> Value {
        self.messages.expire(now_ms);
        let (consumed, acknowledged) = self.messages.taken();
        let counts = self.messages.pending_of_agents();
        let agents: Map<String, Value> =
            counts.map(|(agent, count)| (Agents::id(agent), count.into())).collect();
        let webhooks = self.webhooks.all().map(|(event_type, webhook)| {
            json!({
                "event_type": event_type,
                "webhook_url": webhook.url,
                "has_auth_header": webhook.authorization.is_some(),
                "secrets": webhook.secrets,
            })
        });
        let attempts = self.webhooks.attempts().take(MAX_SHOWN).map(|(_, attempt)| {
            json!({
                "attempt_id": attempt.id,
                "event_type": attempt.event_type,
                "webhook_url": attempt.url,
                "attempt_number": attempt.number,
                "status": attempt.status(),
                "response_code": attempt.response_code,
                "error_message": attempt.error,
                "created_at": rfc3339(attempt.created_ms),
            })
        });
        let wakeups = self.wakeups.latest().take(MAX_SHOWN).map(|wakeup| {
            json!({
                "wakeup_id": wakeup.id,
                "agent_id": Agents::id(wakeup.agent),
                "user_id": wakeup.new.user_id,
                "check_type": wakeup.new.check_type,
                "intent": wakeup.new.intent,
                "scheduled_at": rfc3339(wakeup.new.scheduled_ms),
                "status": wakeup.status(),
            })
        });
        json!({
            "project": self.project,
            "agents": self.agents.0,
            "messages": self.messages.count(),
            "pending": { "project": self.messages.pending_of_project(), "agents": agents },
            "taken": { "consumed": consumed, "acknowledged": acknowledged },
            "webhooks": webhooks.collect::<Vec<_>>(),
            "deliveries_under_way": self.deliveries.count,
            "attempts_made": self.webhooks.attempts_made(),
            "attempts": attempts.collect::<Vec<_>>(),
            "wakeups_made": self.wakeups.count(),
            "wakeups_pending": self.wakeups.pending(),
            "wakeups": wakeups.collect::<Vec<_>>(),
            "faults": self.faults.shown(),
        })
    }
}

/// So many agents: `agent-1`, named `Luna 1`, and so on. They are known by their number, from 0.
#[derive(Clone, Copy, Debug)]
pub struct Agents(pub usize);

impl Agents {
    pub fn id(agent: usize) -> String {
        format!("agent-{}", agent + 1)
    }

    pub fn name(agent: usize) -> String {
        format!("Luna {}", agent + 1)
    }

    /// The one of this id or name.
    pub fn find(self, id_or_name: &str) -> Option<usize> {
        let number = id_or_name.strip_prefix("agent-").or(id_or_name.strip_prefix("Luna "))?;
        let agent = number.parse::<usize>().ok()?.checked_sub(1)?;
        let known = [Agents::id(agent), Agents::name(agent)];
        (agent < self.0 && known.iter().any(|known| known == id_or_name)).then_some(agent)
    }

    /// Those whose id or name holds a text, whatever its case.
    pub fn search(self, text: &str) -> impl Iterator<Item = usize> {
        let text = text.to_lowercase();
        (0..self.0).filter(move |agent| {
            [Agents::id(*agent), Agents::name(*agent)]
                .iter()
                .any(|known| known.to_lowercase().contains(&text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_found_by_id_or_name_and_by_nothing_else() {
        for (name, agent) in [
            ("agent-1", Some(0)),
            ("Luna 3", Some(2)),
            ("agent-4", None),
            ("agent-0", None),
            ("agent-01", None),
            ("agent-+1", None),
            ("luna 1", None),
            ("", None),
        ] {
            assert_eq!(Agents(3).find(name), agent, "{name}");
        }
    }
}
