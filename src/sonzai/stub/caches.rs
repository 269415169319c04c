//! Lists that are answered again for a while, whatever was taken meanwhile.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::{
    answers::Reply,
    options::{MAX_CACHED_BYTES, MAX_CACHED_LISTS},
};

#[derive(Debug, Default)]
pub struct Caches(HashMap<String, Cached>);

#[derive(Debug)]
struct Cached {
    until: Instant,
    /// Whose list it is, from 0; `None` for a project's.
    agent: Option<usize>,
    reply: Reply,
}

impl Caches {
    /// The list of this target, while it is fresh.
    pub fn get(&self, target: &str, now: Instant) -> Option<Reply> {
        let cached = self.0.get(target).filter(|cached| cached.until > now)?;
        Some(cached.reply.clone())
    }

    pub fn put(
        &mut self,
        target: String,
        agent: Option<usize>,
        reply: Reply,
        now: Instant,
        fresh_for: Duration,
    ) {
        if fresh_for.is_zero() {
            return;
        }
        self.0.retain(|_, cached| cached.until > now);
        let bytes: usize = self.0.values().map(|cached| cached.reply.body.len()).sum();
        if self.0.len() < MAX_CACHED_LISTS && bytes + reply.body.len() <= MAX_CACHED_BYTES {
            self.0.insert(target, Cached { until: now + fresh_for, agent, reply });
        }
    }

    /// Forgets an agent's lists.
    pub fn invalidate(&mut self, agent: usize) {
        self.0.retain(|_, cached| cached.agent != Some(agent));
    }
}
