//! The bodies of failed attempts at a webhook. The platform makes up to four of an event: each distinct
//! body counts once.

use bytes::Bytes;
use rustc_hash::FxHashSet;

use super::{Step, Work};
use crate::{
    clock::now_ms,
    dedupe::{self, Key},
    event::Event,
    sonzai::{
        client::{Attempt, Attempts, Client, Error},
        poller::deliveries,
    },
    source::sonzai::{polled, settings::Scope},
};

/// Attempts of a page; halved while answers are too large.
const PAGE: u32 = 500;

/// Pages that are read of one webhook.
const MAX_PAGES: usize = 2000;

impl Work<'_> {
    /// Repairs from the failed attempts at all webhooks that are meant.
    pub(super) async fn attempts(&mut self) {
        let Some((scope, types)) = self.webhooks().await else { return };
        let total = types.len() as u64;
        for (at, event_type) in types.iter().enumerate() {
            self.listener.progress(Step::Attempts, at as u64, total, &self.summary);
            match self.of_type(&scope, event_type, (at as u64, total)).await {
                Ok(()) => {}
                // It is not registered there.
                Err(error) if error.is_gone() => {}
                Err(error) => {
                    self.trouble(&format!("attempts at {event_type}"), &error);
                    if Self::is_of_all(&error) {
                        break;
                    }
                }
            }
            if self.intake.is_full() {
                break;
            }
        }
        self.listener.progress(Step::Attempts, total, total, &self.summary);
    }

    /// Reads back, page by page, until all of one is older than is asked for.
    async fn of_type(
        &mut self,
        scope: &Scope,
        event_type: &str,
        (done, total): (u64, u64),
    ) -> Result<(), Error> {
        let (mut cursor, mut page_size) = (None, PAGE);
        let mut seen = FxHashSet::default();
        for _ in 0..MAX_PAGES {
            let client = &self.account.client;
            let page = page(client, scope, event_type, &mut page_size, cursor.as_deref()).await?;
            let Attempts { attempts, unreadable, next_cursor } = page;
            if unreadable > 0 {
                let reason = format!("{unreadable} attempts at {event_type} cannot be read");
                self.summary.out_of_reach_because(Step::Attempts, unreadable as u64, reason);
            }
            let is_through = is_behind(&attempts, self.since_ms);
            self.admit_failed(event_type, attempts, &mut seen).await;
            self.listener.progress(Step::Attempts, done, total, &self.summary);
            match next_cursor {
                Some(next) if !is_through && !self.intake.is_full() => cursor = Some(next),
                _ => return Ok(()),
            }
        }
        let reason = format!(
            "{event_type} has more than {MAX_PAGES} pages of attempts; older ones were not looked at"
        );
        self.summary.out_of_reach_because(Step::Attempts, 1, reason);
        Ok(())
    }

    async fn admit_failed(
        &mut self,
        event_type: &str,
        attempts: Vec<Attempt>,
        seen: &mut FxHashSet<Key>,
    ) {
        let (mut missing, mut unreadable) = (0, 0);
        let since_ms = self.since_ms;
        let wanted = |attempt: &Attempt| {
            let young = attempt.created_ms.is_none_or(|ms| ms >= since_ms);
            young && deliveries::failed(attempt)
        };
        let mut bodies: Vec<Bytes> = Vec::new();
        for attempt in attempts.into_iter().filter(wanted) {
            match attempt.request_body {
                Some(body) => {
                    if seen.insert(dedupe::of_parts(&[b"attempt", &body])) {
                        bodies.push(body);
                    }
                }
                None if attempt.unreadable_body => unreadable += 1,
                None => missing += 1,
            }
        }
        for (count, why) in [
            (missing, "have no body: what they were to bring is not kept"),
            (unreadable, "have a body that cannot be read"),
        ] {
            if count > 0 {
                let reason = format!("{count} failed attempts at {event_type} {why}");
                self.summary.out_of_reach_because(Step::Attempts, count, reason);
            }
        }
        let mut events = self.intake.make(bodies, |source, body| {
            polled::failed_attempt(source, event_type, body, now_ms())
        });
        events.retain(|(event, _)| self.is_wanted(event));
        // The oldest first: the list begins with the newest.
        events.reverse();
        self.intake.take(Step::Attempts, events, &mut self.summary).await;
    }

    /// Whether an event is of the agents that are meant.
    fn is_wanted(&self, event: &Event) -> bool {
        let agents = &self.request.agents;
        let of = event.extension("agentid");
        agents.is_empty() || of.is_some_and(|of| agents.iter().any(|agent| **agent == **of))
    }
}

/// Whether what follows this page is older than is asked for: all of it is, and the newest came first.
/// That they do, nobody promises.
fn is_behind(attempts: &[Attempt], since_ms: u64) -> bool {
    let mut times = attempts.iter().filter_map(|attempt| attempt.created_ms);
    let (first, newest) = (times.clone().next(), times.clone().max());
    first >= times.next_back() && newest.is_some_and(|ms| ms < since_ms)
}

/// A page of attempts, smaller than `page_size` from now on where its answer would be too large.
async fn page(
    client: &Client,
    scope: &Scope,
    event_type: &str,
    page_size: &mut u32,
    cursor: Option<&str>,
) -> Result<Attempts, Error> {
    loop {
        match client.attempts(scope, event_type, *page_size, cursor).await {
            Err(error) if error.is_too_large() && *page_size > 1 => *page_size /= 2,
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_behind_a_page_is_looked_at_unless_it_is_older_for_sure() {
        let at = |created_ms: Option<u64>| Attempt {
            attempt_id: String::new(),
            event_type: String::new(),
            webhook_url: String::new(),
            response_code: 0,
            attempt_number: 1,
            status: String::new(),
            created_ms,
            created_at: String::new(),
            error_message: None,
            request_body: None,
            unreadable_body: false,
            duration_ms: None,
        };
        for (times, expected) in [
            (&[Some(9), Some(8)][..], true),
            (&[Some(9), None, Some(9)], true),
            (&[Some(10), Some(8)], false),
            // Out of order, and the oldest first.
            (&[Some(9), Some(12), Some(8)], false),
            (&[Some(8), Some(9)], false),
            (&[None], false),
            (&[], false),
        ] {
            let attempts: Vec<Attempt> = times.iter().map(|ms| at(*ms)).collect();
            assert_eq!(is_behind(&attempts, 10), expected, "{times:?}");
        }
    }
}
