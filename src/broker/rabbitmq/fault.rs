//! Why a session ends.

use super::{confirmer::CONFIRM, queue::PROBE, words};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the connection failed: {}", words(.0))]
    Client(lapin::Error),
    /// The broker or the client did what the protocol rules out.
    #[error("the connection is out of step: {0}")]
    Protocol(&'static str),
    #[error("no confirmation within {} s", CONFIRM.as_secs())]
    Unconfirmed,
    #[error("the broker did not answer within {} s whether an exchange exists", PROBE.as_secs())]
    Unanswered,
}

impl Fault {
    /// Whether this is the broker's own word.
    pub fn explains(&self) -> bool {
        matches!(self, Fault::Client(error) if error.is_amqp_error())
    }

    /// Whether this only says that the channel is of no use, and a reason may follow.
    pub fn may_be_explained(&self) -> bool {
        let Fault::Client(error) = self else { return false };
        matches!(
            error.kind(),
            lapin::ErrorKind::InvalidChannelState(..)
                | lapin::ErrorKind::InvalidConnectionState(..)
                | lapin::ErrorKind::InvalidChannel(..)
        )
    }

    /// Whether the broker owes an answer.
    pub fn is_overdue(&self) -> bool {
        matches!(self, Fault::Unconfirmed | Fault::Unanswered)
    }
}
