//! Looks past a page of a project's items that cannot be taken.
//!
//! The list is not paged: what is pending beyond the first page shows once that is taken. Where it
//! cannot be, the rest is listed by type and by agent, each by itself. What even that does not
//! show is told.

use std::{collections::BTreeSet, sync::Arc};

use super::{Poller, list::List, look::Next};

/// Types that Sonzai's guides name: one that was never registered nor seen may lie behind a full page.
const IN_THE_GUIDES: [&str; 12] = [
    "on_wakeup_ready",
    "on_recurring_event_due",
    "on_diary_generated",
    "on_personality_updated",
    "on_mood_updated",
    "on_breakthrough_detected",
    "agent.message",
    "agent.mood_change",
    "agent.memory_added",
    "agent.breakthrough",
    "agent.wakeup",
    "agent.consolidation",
];

impl Poller {
    /// See the module. Costs a request for each agent, so without success it is done seldom.
    pub(super) async fn look_around(&self, project: &str) {
        if self.clock.now_ms() < self.state().around_not_before_ms {
            return;
        }
        let before = self.cycle.stats.taken.get() + self.cycle.stats.appended.get();
        let hidden = self.count_hidden(project).await;
        let after = self.cycle.stats.taken.get() + self.cycle.stats.appended.get();
        let pause = match after > before {
            true => self.poll.every,
            false => self.limits.slow_every,
        };
        let mut state = self.state();
        state.hidden = hidden;
        state.around_not_before_ms = self.clock.now_ms() + pause.as_millis() as u64;
    }

    /// Looks at all parts of a project's list; how many of them show no end.
    async fn count_hidden(&self, project: &str) -> u64 {
        let project: Arc<str> = project.into();
        let part = |agent: Option<&Arc<str>>, kind: Option<&Arc<str>>| List::Project {
            project: project.clone(),
            agent: agent.cloned(),
            kind: kind.cloned(),
        };
        let types = self.types();
        let mut hidden = 0;
        for kind in &types {
            let shows_no_end = self.visit(&part(None, Some(kind))).await == Next::Behind;
            // What belongs to no agent shows nowhere else.
            hidden += u64::from(shows_no_end);
        }
        for agent in &self.found(Some(&project)).await.agents {
            if self.visit(&part(Some(agent), None)).await != Next::Behind {
                continue;
            }
            for kind in &types {
                let shows_no_end = self.visit(&part(Some(agent), Some(kind))).await == Next::Behind;
                hidden += u64::from(shows_no_end);
            }
        }
        hidden
    }

    /// The types that are registered, those that were seen, and those that may be.
    fn types(&self) -> BTreeSet<Arc<str>> {
        let registered = self.register.iter().flat_map(|register| &register.types);
        let mut types: BTreeSet<Arc<str>> = registered.map(|kind| Arc::from(&**kind)).collect();
        types.extend(self.cycle.memory().types().map(|kind| Arc::from(&**kind)));
        types.extend(IN_THE_GUIDES.map(Arc::from));
        types
    }
}
