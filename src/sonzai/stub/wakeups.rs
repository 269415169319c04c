//! Wakeups: scheduled, and executed once they are due.

use std::collections::{BTreeSet, HashMap};

use super::{bodies::NewWakeup, options::MAX_WAKEUPS};

#[derive(Debug)]
pub struct Wakeup {
    pub id: String,
    /// Which agent, from 0.
    pub agent: usize,
    pub new: NewWakeup,
    pub created_ms: u64,
    pub executed_ms: Option<u64>,
}

impl Wakeup {
    pub fn status(&self) -> &'static str {
        if self.executed_ms.is_some() { "executed" } else { "pending" }
    }
}

/// [`MAX_WAKEUPS`] are there.
#[derive(Debug, thiserror::Error)]
#[error("{MAX_WAKEUPS} wakeups are kept, and no more")]
pub struct Full;

#[derive(Debug, Default)]
pub struct Wakeups {
    all: Vec<Wakeup>,
    of_agents: HashMap<usize, Vec<usize>>,
    /// Those that are pending, by time.
    due: BTreeSet<(u64, usize)>,
}

impl Wakeups {
    pub fn add(&mut self, wakeup: Wakeup) -> Result<&Wakeup, Full> {
        if self.all.len() == MAX_WAKEUPS {
            return Err(Full);
        }
        let number = self.all.len();
        self.of_agents.entry(wakeup.agent).or_default().push(number);
        self.due.insert((wakeup.new.scheduled_ms, number));
        self.all.push(wakeup);
        Ok(&self.all[number])
    }

    /// An agent's, oldest first.
    pub fn of_agent(&self, agent: usize) -> impl Iterator<Item = &Wakeup> {
        self.of_agents.get(&agent).into_iter().flatten().map(|number| &self.all[*number])
    }

    /// Executes the next one that is due.
    pub fn execute_due(&mut self, now_ms: u64) -> Option<&Wakeup> {
        let (_, number) = *self.due.first().filter(|(due_ms, _)| *due_ms <= now_ms)?;
        self.due.pop_first();
        let wakeup = &mut self.all[number];
        wakeup.executed_ms = Some(now_ms);
        Some(wakeup)
    }

    /// The latest first.
    pub fn latest(&self) -> impl Iterator<Item = &Wakeup> {
        self.all.iter().rev()
    }

    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn pending(&self) -> usize {
        self.due.len()
    }
}
