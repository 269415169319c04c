//! How a broker is, as far as its dispatcher can tell, and who is told: one log line a change that
//! lasts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytestring::ByteString;
use tokio::time::Instant;

use super::stats::{State, Stats};
use crate::broker::{Flow, Hold};

/// One trouble shows in several ways while it comes about and passes. Another reason for what is
/// known to be wrong is told after this long.
const TELL_AGAIN: Duration = Duration::from_secs(300);

/// How long a broker must have been well again until it is told: one that comes and goes every second
/// is in trouble all that time.
const STEADY: Duration = Duration::from_secs(2);

/// The brokers that are connected and take no messages for now, and why: RabbitMQ's
/// `connection.blocked`.
#[derive(Debug, Default)]
pub struct Holds(Mutex<BTreeMap<ByteString, String>>);

impl Holds {
    /// Why the broker takes nothing for now; `None` while it is not on hold.
    pub fn reason(&self, broker: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(broker).cloned()
    }

    fn set(&self, broker: &ByteString, reason: Option<String>) {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => holds.insert(broker.clone(), reason),
            None => holds.remove(broker),
        };
    }
}

/// See the module.
pub(super) struct Health {
    /// What is wrong, as it shows now.
    trouble: Option<String>,
    /// What was told of it, and when.
    told: Option<(String, Instant)>,
    /// Since when nothing is wrong any more.
    better_since: Option<Instant>,
    is_connected: bool,
    /// The present connection's.
    hold: Option<Hold>,
    /// The reason of the present hold.
    on_hold: bool,
    holds: Arc<Holds>,
    stats: Arc<Stats>,
}

impl Health {
    pub fn new(holds: Arc<Holds>, stats: Arc<Stats>) -> Health {
        Health {
            trouble: None,
            told: None,
            better_since: None,
            is_connected: false,
            hold: None,
            on_hold: false,
            holds,
            stats,
        }
    }

    pub fn is_well(&self) -> bool {
        self.trouble.is_none()
    }

    /// Whether the broker takes messages, as far as is known.
    pub fn is_served(&self) -> bool {
        self.is_connected && self.is_well() && !self.on_hold
    }

    /// What is wrong.
    pub fn reason(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether the broker is connected and takes nothing for now.
    pub fn is_on_hold(&self) -> bool {
        self.on_hold
    }

    /// A connection was made.
    pub fn connected(&mut self, broker: &ByteString, hold: Option<Hold>) {
        (self.is_connected, self.hold) = (true, hold);
        // One that has ended already says so again.
        let _ended = self.note_flow(broker);
        self.show();
    }

    /// Nothing is to be published. With a connection that is all that can be said for the broker, and
    /// it is enough.
    pub fn owes_nothing(&mut self) {
        if self.is_connected {
            self.better();
        }
    }

    /// The connection is gone, and its hold with it.
    pub fn disconnected(&mut self, broker: &ByteString, reason: String) {
        (self.is_connected, self.hold) = (false, None);
        self.set_hold(broker, None);
        self.trouble(broker, reason);
    }

    /// Another client goes on: what was wrong with the last one says nothing of it.
    pub fn renewed(&mut self, broker: &ByteString) {
        (self.is_connected, self.hold) = (false, None);
        (self.trouble, self.told, self.better_since) = (None, None, None);
        self.set_hold(broker, None);
        self.stats.stands(State::Connecting, None);
    }

    pub fn trouble(&mut self, broker: &ByteString, reason: String) {
        let known = self
            .told
            .as_ref()
            .is_some_and(|(told, at)| *told == reason || at.elapsed() < TELL_AGAIN);
        if known {
            tracing::debug!(%broker, %reason, "the broker is still in trouble");
        } else {
            tracing::warn!(%broker, %reason, "the broker is in trouble; its messages wait");
            self.told = Some((reason.clone(), Instant::now()));
        }
        (self.trouble, self.better_since) = (Some(reason), None);
        self.show();
    }

    /// The broker has confirmed a message.
    pub fn better(&mut self) {
        if self.trouble.is_some() && !self.on_hold && self.better_since.is_none() {
            self.better_since = Some(Instant::now());
            self.show();
        }
    }

    /// Once a tick: the broker is well again once that has lasted.
    pub fn look(&mut self, broker: &ByteString) {
        if self.better_since.is_some_and(|since| since.elapsed() >= STEADY) {
            (self.trouble, self.told, self.better_since) = (None, None, None);
            tracing::info!(%broker, "the broker is well again");
        }
    }

    /// Waits until the connection has something to say of itself; for ever where it never has.
    /// Cancel-safe.
    pub async fn flow_changed(&mut self) {
        match &mut self.hold {
            // An error is news as well: see `note_flow`.
            Some(hold) => hold.changed().await.unwrap_or_default(),
            None => std::future::pending().await,
        }
    }

    /// Takes in what the connection says now; the error is why it has ended.
    pub fn note_flow(&mut self, broker: &ByteString) -> Result<(), String> {
        let Some(hold) = &mut self.hold else { return Ok(()) };
        let is_left = hold.has_changed().is_err();
        let flow = hold.borrow_and_update().clone();
        let reason = match flow {
            Flow::Ended(reason) => {
                // Never old news.
                hold.mark_changed();
                return Err(reason);
            }
            _ if is_left => return Err("the connection has ended".to_owned()),
            Flow::OnHold(reason) => Some(reason),
            Flow::Open => None,
        };
        if let Some(reason) = &reason {
            self.trouble(broker, reason.clone());
        }
        let has_ended = self.on_hold && reason.is_none();
        self.set_hold(broker, reason);
        if has_ended {
            self.better();
        }
        self.show();
        Ok(())
    }

    /// Shows how the broker stands. One on hold is connected and takes nothing, which is as good as
    /// down for its messages; one that is better is taken at its word before that has lasted.
    fn show(&self) {
        let works = self.is_connected && !self.on_hold;
        let is_better = works && self.better_since.is_some();
        match self.trouble.as_deref().filter(|_| !is_better) {
            Some(reason) => self.stats.stands(State::Down, Some(reason)),
            None if self.is_connected => self.stats.stands(State::Connected, None),
            // It connects for the first time.
            None => {}
        }
    }

    fn set_hold(&mut self, broker: &ByteString, reason: Option<String>) {
        self.on_hold = reason.is_some();
        self.holds.set(broker, reason);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::watch, time::advance};

    use super::*;

    const BROKER: ByteString = ByteString::from_static("b");

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_comes_and_goes_is_in_trouble_until_that_has_ended() {
        let mut health = Health::new(Arc::default(), Arc::new(Stats::new()));
        for _ in 0..10 {
            health.trouble(&BROKER, "gone".to_owned());
            advance(STEADY / 4).await;
            health.better();
            advance(STEADY / 2).await;
            health.better();
            health.look(&BROKER);
            assert!(!health.is_well());
        }
        advance(STEADY).await;
        health.look(&BROKER);
        assert!(health.is_well());
    }

    #[tokio::test(start_paused = true)]
    async fn another_reason_for_the_same_trouble_is_told_after_a_while() {
        let mut health = Health::new(Arc::default(), Arc::new(Stats::new()));
        let told = |health: &Health| health.told.clone().map(|(reason, _)| reason);
        for (reason, expected) in [("silent", "silent"), ("refused", "silent")] {
            health.trouble(&BROKER, reason.to_owned());
            assert_eq!(told(&health).as_deref(), Some(expected));
            assert_eq!(health.reason(), Some(reason), "but it is known");
        }
        advance(TELL_AGAIN).await;
        health.trouble(&BROKER, "refused".to_owned());
        assert_eq!(told(&health).as_deref(), Some("refused"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_known_as_long_as_its_connection_lasts() {
        let holds = Arc::<Holds>::default();
        let mut health = Health::new(holds.clone(), Arc::new(Stats::new()));
        let (say, hold) = watch::channel(Flow::Open);
        health.connected(&BROKER, Some(hold));
        say.send_replace(Flow::OnHold("low on memory".to_owned()));
        health.flow_changed().await;
        health.note_flow(&BROKER).unwrap();
        assert!(health.is_on_hold());
        assert_eq!(holds.reason("b").as_deref(), Some("low on memory"));
        // What was sent before may be confirmed meanwhile.
        health.better();
        advance(STEADY).await;
        health.look(&BROKER);
        assert!(!health.is_well());
        health.disconnected(&BROKER, "gone".to_owned());
        assert!(!health.is_on_hold());
        assert_eq!(holds.reason("b"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_hold_is_the_end_of_the_trouble() {
        let mut health = Health::new(Arc::default(), Arc::new(Stats::new()));
        let (say, hold) = watch::channel(Flow::OnHold("low on memory".to_owned()));
        health.connected(&BROKER, Some(hold));
        assert!(health.is_on_hold() && !health.is_well());
        say.send_replace(Flow::Open);
        health.note_flow(&BROKER).unwrap();
        advance(STEADY).await;
        health.look(&BROKER);
        assert!(health.is_well());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_connection_is_not_the_end_of_its_hold() {
        for is_said in [true, false] {
            let mut health = Health::new(Arc::default(), Arc::new(Stats::new()));
            let (say, hold) = watch::channel(Flow::OnHold("low on memory".to_owned()));
            health.connected(&BROKER, Some(hold));
            if is_said {
                say.send_replace(Flow::Ended("gone".to_owned()));
            }
            drop(say);
            health.flow_changed().await;
            health.note_flow(&BROKER).unwrap_err();
            advance(STEADY).await;
            health.look(&BROKER);
            assert!(!health.is_well());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_ended_at_once_says_so() {
        let mut health = Health::new(Arc::default(), Arc::new(Stats::new()));
        let (_say, hold) = watch::channel(Flow::Ended("gone".to_owned()));
        health.connected(&BROKER, Some(hold));
        health.flow_changed().await;
        assert_eq!(health.note_flow(&BROKER), Err("gone".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_shown_is_how_the_broker_is() {
        let stats = Arc::new(Stats::new());
        let mut health = Health::new(Arc::default(), stats.clone());
        let shown = || (stats.condition().state, stats.condition().trouble);
        assert_eq!(shown(), (State::Connecting, None));
        health.connected(&BROKER, None);
        assert_eq!(shown(), (State::Connected, None));
        health.disconnected(&BROKER, "gone".to_owned());
        health.connected(&BROKER, None);
        assert_eq!(shown(), (State::Down, Some("gone".to_owned())), "nothing is confirmed yet");
        health.better();
        assert_eq!(shown(), (State::Connected, None));
        health.disconnected(&BROKER, "gone again".to_owned());
        assert_eq!(shown(), (State::Down, Some("gone again".to_owned())));
        health.owes_nothing();
        assert_eq!(shown().0, State::Down, "there is no connection");
        health.connected(&BROKER, None);
        health.owes_nothing();
        assert_eq!(shown(), (State::Connected, None));
    }
}
