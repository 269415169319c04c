//! Notifications: listed, perhaps from a cache, and taken; an agent's and the project's.

use http::StatusCode;

use super::{
    super::{
        answers::{
            Acknowledged, AgentNotification, Notifications, ProjectNotification,
            ProjectNotifications, Reply, Success,
        },
        bodies,
        checks::Query,
        messages::{Consumed, Filter, Message},
        problem::Problem,
        state::{Agents, State},
    },
    Call, DEFAULT_LIST, MAX_AGENT_LIST, count,
};
use crate::clock::rfc3339;

/// Most notifications of a project in a list, from the document.
const MAX_PROJECT_LIST: i64 = 200;

impl Call<'_> {
    pub(super) fn agent_notifications(
        &self,
        state: &mut State,
        mut query: Query,
    ) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_AGENT_LIST);
        query.done()?;
        let agent = self.agent(state)?;
        Ok(self.cached(state, Some(agent), |state| {
            let status = query.text("status").unwrap_or("pending");
            let listed = state.messages.of_agent(agent, Some(status), query.text("user_id"));
            self.notifications(listed.take(count(limit, DEFAULT_LIST)))
        }))
    }

    pub(super) fn history(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_AGENT_LIST);
        query.done()?;
        let agent = self.agent(state)?;
        let listed = state.messages.history(agent);
        Ok(self.notifications(listed.take(count(limit, DEFAULT_LIST))))
    }

    pub(super) fn consume(&self, state: &mut State) -> Result<Reply, Problem> {
        let agent = self.agent(state)?;
        let message_id = &self.resource.message;
        let message = state.messages.of_message(message_id);
        let holds = message.is_some_and(|m| state.stubborn.holds(m, &Agents::id(m.agent)));
        let name = "ConsumeNotificationOutputBody";
        if holds {
            let nothing = Success { success: false };
            return state.stubborn.problem().map_or(Ok(self.shapes.top(name, nothing)), Err);
        }
        match state.messages.consume(agent, message_id, self.now_ms) {
            Consumed::Now => {
                state.caches.invalidate(agent);
                Ok(self.shapes.top(name, Success { success: true }))
            }
            Consumed::Before => {
                Err(Problem::new(StatusCode::CONFLICT, "notification was consumed already"))
            }
            Consumed::Unknown => Err(Problem::not_found("notification")),
        }
    }

    pub(super) fn project_notifications(
        &self,
        state: &mut State,
        mut query: Query,
    ) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_PROJECT_LIST);
        query.done()?;
        Ok(self.cached(state, None, |state| {
            let filter = filter(state, &query);
            let listed = state.messages.of_project(filter).take(count(limit, DEFAULT_LIST));
            let listed: Vec<_> = listed
                .map(|message| ProjectNotification {
                    notification_id: &message.notification_id,
                    project_id: &state.project,
                    agent_id: Agents::id(message.agent),
                    user_id: &message.user_id,
                    event_type: &message.event_type,
                    payload: &message.payload,
                    status: "pending",
                    created_at: rfc3339(message.created_ms),
                    expires_at: message.expires_ms.map(rfc3339),
                })
                .collect();
            let count = listed.len();
            let notifications = self.shapes.list(listed);
            let page = ProjectNotifications { notifications, count };
            self.shapes.top("ProjectNotificationsListOutputBody", page)
        }))
    }

    pub(super) fn acknowledge(&self, state: &mut State) -> Result<Reply, Problem> {
        let ids = bodies::notification_ids(self.request.headers, self.request.body)?;
        let State { messages, stubborn, .. } = state;
        let holds = |id: &str| {
            let message = messages.of_notification(id);
            message.is_some_and(|m| stubborn.holds(m, &Agents::id(m.agent)))
        };
        let (held, free): (Vec<_>, Vec<_>) = ids.iter().partition(|id| holds(id));
        match stubborn.problem() {
            // A batch is refused as a whole.
            Some(problem) if !held.is_empty() => Err(problem),
            _ => {
                let free = free.into_iter();
                let taken = free.filter(|id| messages.acknowledge(id, self.now_ms)).count();
                let name = "AcknowledgeProjectNotificationsOutputBody";
                Ok(self.shapes.top(name, Acknowledged { acknowledged: taken }))
            }
        }
    }

    pub(super) fn acknowledge_all(
        &self,
        state: &mut State,
        query: &Query,
    ) -> Result<Reply, Problem> {
        let filter = filter(state, query);
        let ids = state.messages.of_project(filter).map(|message| message.notification_id.clone());
        let ids: Vec<String> = ids.collect();
        let messages = &mut state.messages;
        let taken = ids.iter().filter(|id| messages.acknowledge(id, self.now_ms)).count();
        let name = "AcknowledgeAllProjectNotificationsOutputBody";
        Ok(self.shapes.top(name, Acknowledged { acknowledged: taken }))
    }

    fn notifications<'m>(&self, listed: impl Iterator<Item = &'m Message>) -> Reply {
        let listed = listed.map(|message| AgentNotification {
            message_id: &message.message_id,
            agent_id: Agents::id(message.agent),
            user_id: &message.user_id,
            check_type: &message.check_type,
            intent: message.intent.as_deref(),
            generated_message: &message.generated_message,
            status: message.status(),
            wakeup_id: message.wakeup_id.as_deref(),
            created_at: rfc3339(message.created_ms),
            consumed_at: message.consumed_ms.map(rfc3339),
        });
        let notifications = self.shapes.list(listed);
        self.shapes.top("ProactiveNotificationsResponse", Notifications { notifications })
    }

    /// The list of this target as it was a while ago, or as it is.
    fn cached(
        &self,
        state: &mut State,
        agent: Option<usize>,
        list: impl FnOnce(&State) -> Reply,
    ) -> Reply {
        let target = self.request.target.to_string();
        if let Some(reply) = state.caches.get(&target, self.now) {
            return reply;
        }
        let reply = list(state);
        let fresh_for = self.shared.options.cache;
        state.caches.put(target, agent, reply.clone(), self.now, fresh_for);
        reply
    }
}

fn filter<'q>(state: &State, query: &'q Query) -> Filter<'q> {
    Filter {
        agent: query.text("agent_id").map(|agent| state.agents.find(agent)),
        event_type: query.text("event_type"),
    }
}
