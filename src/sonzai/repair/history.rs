//! Agents' histories of notifications: those of every status, the newest 500, not paged.

use super::{Step, TROUBLE_AFTER, Work};
use crate::{
    clock::{now_ms, rfc3339},
    sonzai::client::{AgentNotification, Client, Error, Listed, MAX_AGENT_PAGE},
    source::sonzai::{
        Via,
        polled::{self, AgentItem},
        settings::AGENT_NOTIFICATION,
    },
};

impl Work<'_> {
    /// Repairs from the histories of all agents that are meant.
    pub(super) async fn histories(&mut self) {
        let agents = self.agents().await;
        let (total, mut failed_in_a_row) = (agents.len() as u64, 0);
        for (at, agent) in agents.iter().enumerate() {
            self.listener.progress(Step::History, at as u64, total, &self.summary);
            match history(&self.account.client, agent).await {
                Ok((listed, limit)) => {
                    failed_in_a_row = 0;
                    self.history(agent, listed, limit).await;
                }
                // One that was found is gone since; one that was named is misspelt.
                Err(error) if error.is_gone() && self.request.agents.is_empty() => {
                    let reason = format!("agent {agent}: {error}");
                    self.summary.out_of_reach_because(Step::History, 1, reason);
                }
                Err(error) => {
                    failed_in_a_row += 1;
                    self.trouble(&format!("agent {agent}"), &error);
                    if Self::is_of_all(&error) || failed_in_a_row >= TROUBLE_AFTER {
                        let left = total - at as u64 - 1;
                        self.summary.trouble_because(format!("{left} agents were not looked at"));
                        break;
                    }
                }
            }
            if self.intake.is_full() {
                break;
            }
        }
        self.listener.progress(Step::History, total, total, &self.summary);
    }

    async fn history(&mut self, agent: &str, listed: Listed<AgentNotification>, limit: u32) {
        let Listed { items, unreadable } = listed;
        let is_full = items.len() + unreadable >= limit as usize;
        let oldest_ms = items.iter().filter_map(|item| item.created_ms).min();
        if let Some(oldest_ms) = oldest_ms.filter(|ms| is_full && *ms > self.since_ms) {
            let reason = format!(
                "agent {agent}: its history shows {limit} notifications and no more; those before \
                 {} are not among them",
                rfc3339(oldest_ms)
            );
            self.summary.out_of_reach_because(Step::History, 1, reason);
        }
        if unreadable > 0 {
            let reason =
                format!("agent {agent}: {unreadable} notifications of its history cannot be read");
            self.summary.out_of_reach_because(Step::History, unreadable as u64, reason);
        }
        let since_ms = self.since_ms;
        // One without a time may be young.
        let wanted = items.into_iter().filter(|it| it.created_ms.is_none_or(|ms| ms >= since_ms));
        let poll = self.account.settings.poll.as_ref();
        let kind = poll.map_or(AGENT_NOTIFICATION.into(), |poll| poll.kind.clone());
        let events = self.intake.make(wanted, |source, item| {
            let item = AgentItem {
                message_id: item.id,
                entry: item.raw,
                agent_id: item.agent_id,
                user_id: item.user_id,
                wakeup_id: item.wakeup_id,
            };
            polled::agent_notification(source, item, &kind, now_ms(), Via::Repair)
        });
        self.intake.take(Step::History, events, &mut self.summary).await;
    }
}

/// An agent's history, and how many entries were asked for: fewer, where the answer would be too large.
async fn history(client: &Client, agent: &str) -> Result<(Listed<AgentNotification>, u32), Error> {
    let mut limit = MAX_AGENT_PAGE;
    loop {
        match client.history(agent, limit).await {
            Err(error) if error.is_too_large() && limit > 1 => limit /= 2,
            answer => return answer.map(|listed| (listed, limit)),
        }
    }
}
