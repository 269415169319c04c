//! What the connection says of itself, outside any answer: that it is lost, or that a subject is
//! forbidden. NATS reports a forbidden publish only so; the publish itself is never answered.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_nats::{Event, ServerError};
use tokio::{sync::watch, time::Instant};

use super::super::Error;

/// Refusals remembered. More at once than this only means that some wait for their deadline.
const MAX_FORBIDDEN: usize = 64;

/// A confirmation this recent shows that JetStream stores messages: half of the time after which an
/// unanswered one is given up, so that it came while that one was already waiting.
const RECENT: Duration = Duration::from_secs(super::ACK_DEADLINE.as_secs() / 2);

/// Unanswered publishes after which the connection is given up. The library keeps each of them in
/// memory (about 350 bytes) until it ends.
const MAX_UNANSWERED: u32 = 2000;

/// Shared by the connection, its event callback and its confirmations.
#[derive(Clone, Default)]
pub struct Health(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: watch::Sender<State>,
    confirmed_at: Mutex<Option<Instant>>,
    unanswered: AtomicU32,
}

#[derive(Default)]
struct State {
    lost: Option<String>,
    forbidden: VecDeque<(Instant, String)>,
}

/// Why an answer will not come.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    Lost(String),
    Forbidden,
}

impl Health {
    /// Takes in an event of the library.
    pub fn saw(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => self.lose(disconnected().to_string()),
            Event::ServerError(ServerError::Other(text)) => match forbidden(text) {
                Some(Forbidden::Publish(subject)) => self.forbid(subject),
                Some(Forbidden::Subscribe(subject)) => self.lose(format!(
                    "this NATS user may not subscribe to {subject}, where confirmations arrive: allow it"
                )),
                None => tracing::debug!("NATS server: {text}"),
            },
            other => tracing::debug!("NATS: {other}"),
        }
    }

    /// The error that ended this connection, if one did.
    pub fn lost(&self) -> Option<Error> {
        self.0.state.borrow().lost.clone().map(Error::Down)
    }

    /// Resolves when a publish to `subject`, made at or after `since`, will not be answered.
    pub async fn trouble(&self, subject: &str, since: Instant) -> Trouble {
        let mut changes = self.0.state.subscribe();
        // The sender lives in `self`, so waiting cannot fail; if it did, nothing can be answered.
        let trouble = match changes.wait_for(|state| state.trouble(subject, since).is_some()).await
        {
            Ok(state) => state.trouble(subject, since),
            Err(_) => None,
        };
        trouble.unwrap_or_else(|| Trouble::Lost(disconnected().to_string()))
    }

    /// Notes that a stream has confirmed a message.
    pub fn confirmed(&self) {
        *self.confirmed_at() = Some(Instant::now());
    }

    /// Whether a stream has confirmed a message at or after `since`.
    pub fn confirms_since(&self, since: Instant) -> bool {
        self.confirmed_at().is_some_and(|at| at >= since)
    }

    /// Notes that a publish was not answered. Says whether another was confirmed in the meantime.
    pub fn unanswered(&self) -> bool {
        let unanswered = self.0.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        if unanswered >= MAX_UNANSWERED {
            self.lose(format!("{unanswered} messages were not answered on this NATS connection"));
        }
        self.confirmed_at().is_some_and(|at| at.elapsed() < RECENT)
    }

    fn confirmed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        // A poisoned lock only means that another thread panicked; a time has no invariant.
        self.0.confirmed_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, reason: String) {
        self.0.state.send_modify(|state| {
            state.lost.get_or_insert(reason);
        });
    }

    fn forbid(&self, subject: &str) {
        self.0.state.send_modify(|state| {
            if state.forbidden.len() >= MAX_FORBIDDEN {
                state.forbidden.pop_front();
            }
            state.forbidden.push_back((Instant::now(), subject.to_owned()));
        });
    }
}

impl State {
    fn trouble(&self, subject: &str, since: Instant) -> Option<Trouble> {
        if let Some(reason) = &self.lost {
            return Some(Trouble::Lost(reason.clone()));
        }
        let forbidden = self.forbidden.iter().any(|(at, s)| *at >= since && s == subject);
        forbidden.then_some(Trouble::Forbidden)
    }
}

pub fn disconnected() -> Error {
    Error::Down("the NATS server has closed the connection or stopped answering".into())
}

#[derive(Debug, PartialEq, Eq)]
enum Forbidden<'a> {
    Publish(&'a str),
    Subscribe(&'a str),
}

/// Reads `Permissions Violation for Publish to "subject"` and its counterpart for subscriptions.
fn forbidden(text: &str) -> Option<Forbidden<'_>> {
    let rest = text.strip_prefix("Permissions Violation for ")?;
    let quoted = |rest: &'_ str| {
        let start = rest.find('"')? + 1;
        let end = rest[start..].find('"')? + start;
        Some((start, end))
    };
    if let Some(rest) = rest.strip_prefix("Publish to ") {
        let (start, end) = quoted(rest)?;
        return Some(Forbidden::Publish(&rest[start..end]));
    }
    let rest = rest.strip_prefix("Subscription to ")?;
    let (start, end) = quoted(rest)?;
    Some(Forbidden::Subscribe(&rest[start..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permissions_violation_names_its_subject() {
        let cases = [
            ("Permissions Violation for Publish to \"a.b\"", Some(Forbidden::Publish("a.b"))),
            (
                "Permissions Violation for Subscription to \"_INBOX.x.*\" using queue \"q\"",
                Some(Forbidden::Subscribe("_INBOX.x.*")),
            ),
            ("Permissions Violation for Publish to a.b", None),
            ("Stale Connection", None),
        ];
        for (text, expected) in cases {
            assert_eq!(forbidden(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_lost_connection_resolves_everything_in_flight() {
        let health = Health::default();
        let waiting = health.trouble("a", Instant::now());
        health.saw(&Event::Disconnected);
        assert!(matches!(waiting.await, Trouble::Lost(_)));
        assert!(matches!(health.lost(), Some(Error::Down(_))));
    }

    #[test]
    fn a_connection_with_too_many_unanswered_publishes_is_given_up() {
        let health = Health::default();
        assert!(!health.unanswered(), "nothing was confirmed so far");
        health.confirmed();
        assert!(health.unanswered());
        assert_eq!(health.lost(), None);
        for _ in 0..MAX_UNANSWERED {
            health.unanswered();
        }
        assert!(matches!(health.lost(), Some(Error::Down(_))));
    }

    #[tokio::test]
    async fn a_refusal_counts_for_its_subject_and_for_what_was_sent_before_it() {
        let health = Health::default();
        let before = Instant::now();
        let text = "Permissions Violation for Publish to \"a\"".to_owned();
        health.saw(&Event::ServerError(ServerError::Other(text)));
        assert_eq!(health.trouble("a", before).await, Trouble::Forbidden);
        let state = health.0.state.borrow();
        assert_eq!(state.trouble("b", before), None);
        let later = Instant::now() + std::time::Duration::from_secs(1);
        assert_eq!(state.trouble("a", later), None);
    }
}
