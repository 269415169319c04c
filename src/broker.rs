//! A broker publishes a message once and says what became of it. Patience (retries, backoff,
//! parking, giving up) is the dispatcher's alone.
//!
//! # Contract
//!
//! - [`Broker::connect`] builds a fresh connection and drops any old one, with everything in flight
//!   on it. It bounds its own time.
//! - [`Broker::publish`] is called from one task, in order. It hands the message to the client,
//!   bounded in time, and returns a [`Confirmation`] that resolves once the broker has taken
//!   responsibility for the message, or with the reason why not. The confirmation's deadline runs
//!   from the hand-over, not from the first poll, and it never stays pending for ever; the time of a
//!   [`Hold`] does not count.
//! - After an [`Error::Down`] the dispatcher drops every confirmation of this connection, calls
//!   `connect` until it succeeds, and publishes again what was unconfirmed.
//!
//! A client is built from settings that were checked, and from files that were read, at the start;
//! `connect` reads the files again. [`tls`] and [`material`] are what the clients have in common there.

mod absent;
pub mod cloudevents;
pub mod kafka;
mod kind;
pub mod log;
pub mod material;
pub mod nats;
mod publication;
pub mod rabbitmq;
pub mod tls;

pub use absent::Absent;
pub use kind::Kind;
pub use publication::Publication;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// Why a message was not confirmed. The text is for operators and never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The broker is unreachable or unwell; says nothing about the message.
    #[error("{0}")]
    Down(String),
    /// This message could not be taken, perhaps only now.
    #[error("{0}")]
    Failed(String),
    /// This message can never go: too large, forbidden, unroutable.
    #[error("{0}")]
    Refused(String),
}

/// Resolves when the broker has confirmed the message or it is known why not.
pub type Confirmation = BoxFuture<'static, Result<(), Error>>;

/// What a connection says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// Messages are taken.
    #[default]
    Open,
    /// None are taken for now, and why, although the broker is well enough to say so. What is in
    /// flight stays so, and is confirmed once the hold has ended.
    OnHold(String),
    /// The connection has ended, and why; said after every verdict on what was in flight.
    Ended(String),
}

impl Flow {
    /// Why none are taken for now.
    pub fn on_hold(&self) -> Option<&str> {
        match self {
            Flow::OnHold(reason) => Some(reason),
            Flow::Open | Flow::Ended(_) => None,
        }
    }
}

/// The [`Flow`] of one connection. That its source is gone means that the connection has ended, too.
pub type Hold = watch::Receiver<Flow>;

/// A connection that publishes messages; see the module's contract.
#[async_trait]
pub trait Broker: Send {
    /// Builds a fresh connection, dropping the old one. The error says what to check.
    async fn connect(&mut self) -> Result<(), Error>;

    /// Hands the message to the client, in order, and returns its confirmation.
    async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Error>;

    /// Whether there is anything to connect to; what is not there is never told to be connected.
    fn is_there(&self) -> bool {
        true
    }

    /// What the present connection says of itself; `None` for brokers that only answer messages.
    fn hold(&self) -> Option<Hold> {
        None
    }

    /// Ends the connection, waiting at most `deadline` for what is in flight.
    async fn close(&mut self, deadline: Duration);
}
