//! Agents, in pages, and their wakeups.

use super::{
    super::{
        answers::{self, Agent, AgentsPage, Reply, Scheduled},
        bodies::NewWakeup,
        checks::{Query, cursor},
        ids::new_id,
        problem::Problem,
        state::{Agents, State},
        wakeups::Wakeup,
    },
    Call, DEFAULT_LIST, MAX_AGENT_LIST, count, full,
};
use crate::clock::rfc3339;

/// Most agents in a page, from the document.
const MAX_AGENTS_PAGE: i64 = 100;
/// How many there are where nothing is said.
const DEFAULT_AGENTS_PAGE: usize = 30;

impl Call<'_> {
    pub(super) fn agents(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let size = query.integer("page_size", None, MAX_AGENTS_PAGE);
        let from = query.cursor().unwrap_or(0);
        query.done()?;
        if query.text("project_id").is_some_and(|project| project != state.project) {
            return Err(Problem::not_found("project"));
        }
        let size = count(size.filter(|size| *size > 0), DEFAULT_AGENTS_PAGE);
        let search = query.text("search").unwrap_or_default();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let mut found = state.agents.search(search).skip(from);
        let page: Vec<usize> = found.by_ref().take(size).collect();
        let has_more = found.next().is_some();
        let counts = query.text("include_count") == Some("true");
        let total_count = if counts { state.agents.search(search).count() } else { 0 };
        let created_at = rfc3339(state.started_ms);
        let items = page.into_iter().map(|agent| Agent {
            agent_id: Agents::id(agent),
            name: Agents::name(agent),
            project_id: &state.project,
            tenant_id: "tenant-1",
            owner_user_id: "owner-1",
            instance_count: 1,
            is_active: true,
            created_at: &created_at,
        });
        let next_cursor = has_more.then(|| cursor((from + size) as u64));
        let items = self.shapes.list(items);
        let page = AgentsPage { items, has_more, total_count, next_cursor };
        Ok(self.shapes.top("PaginatedAgentsResponse", page))
    }

    pub(super) fn wakeups(&self, state: &State, mut query: Query) -> Result<Reply, Problem> {
        let limit = query.integer("limit", Some(1), MAX_AGENT_LIST);
        query.done()?;
        let agent = self.agent(state)?;
        let status = query.text("status");
        let wanted = |wakeup: &&Wakeup| status.is_none_or(|status| status == wakeup.status());
        let listed = state.wakeups.of_agent(agent).filter(wanted).take(count(limit, DEFAULT_LIST));
        let listed = listed.map(|wakeup| answers::Wakeup {
            wakeup_id: &wakeup.id,
            agent_id: Agents::id(wakeup.agent),
            user_id: &wakeup.new.user_id,
            check_type: &wakeup.new.check_type,
            intent: &wakeup.new.intent,
            occasion: wakeup.new.occasion.as_deref(),
            interest_topic: wakeup.new.interest_topic.as_deref(),
            event_description: wakeup.new.event_description.as_deref(),
            scheduled_at: rfc3339(wakeup.new.scheduled_ms),
            status: wakeup.status(),
            created_at: rfc3339(wakeup.created_ms),
            executed_at: wakeup.executed_ms.map(rfc3339),
        });
        let wakeups = self.shapes.list(listed);
        Ok(self.shapes.top("WakeupsResponse", answers::Wakeups { wakeups }))
    }

    pub(super) fn schedule(&self, state: &mut State) -> Result<Reply, Problem> {
        let new = NewWakeup::read(self.request.headers, self.request.body, self.now_ms)?;
        let (id, created_ms) = (new_id("wakeup"), self.now_ms);
        let wakeup = Wakeup { id, agent: self.agent(state)?, new, created_ms, executed_ms: None };
        let wakeup = state.wakeups.add(wakeup).map_err(full)?;
        let scheduled_at = rfc3339(wakeup.new.scheduled_ms);
        let scheduled = Scheduled { wakeup_id: wakeup.id.clone(), scheduled_at };
        Ok(self.shapes.top("ScheduleWakeupOutputBody", scheduled))
    }
}
