//! What takes messages from a broker, one at a time.
//!
//! # Contract
//!
//! - [`Consumer::connect`] makes a fresh connection and drops any old one, with whatever was in hand
//!   on it: that comes again. It bounds its own time.
//! - [`Consumer::next`] waits for a message, which is then *in hand*. At most one is.
//! - While one is in hand and its work goes on, [`Consumer::hold`] is polled: it keeps the broker from
//!   taking the message for lost, and resolves only if that happened all the same.
//! - [`Consumer::ack`] says that the one in hand is done, and returns once the broker has confirmed that
//!   (AMQP confirms none: it is sent);
//!   [`Consumer::let_go`] gives it back, so that it comes again.
//! - After [`Trouble::Down`] the next call is `connect`. After [`Trouble::Moved`] it is `next`, on the
//!   same connection: two members of a group that each came anew would take turns in taking each
//!   other's message away.

use async_trait::async_trait;

use super::delivery::Delivery;
use crate::routing::{BrokerKind, CommandFrom as From};

mod kafka;
mod nats;
mod rabbitmq;

/// Why nothing more comes of a connection, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Something is wrong.
    Down(String),
    /// The message in hand is another consumer's now, which nobody need look into.
    Moved,
}

/// See the module.
#[async_trait]
pub trait Consumer: Send {
    async fn connect(&mut self) -> Result<(), Trouble>;
    async fn next(&mut self) -> Result<Delivery, Trouble>;
    async fn hold(&mut self) -> Trouble;
    async fn ack(&mut self) -> Result<(), Trouble>;
    async fn let_go(&mut self);
    async fn close(&mut self);
}

/// The consumer of such messages on such a broker; `None` where that broker has none to take.
pub fn of(broker: &BrokerKind, from: &From) -> Option<Box<dyn Consumer>> {
    Some(match (broker, from) {
        (BrokerKind::Nats(settings), From::Nats { subject, group }) => {
            Box::new(nats::Nats::new(settings.clone(), subject.clone(), group.clone()))
        }
        (BrokerKind::RabbitMq(settings), From::RabbitMq { queue }) => {
            Box::new(rabbitmq::RabbitMq::new(settings.clone(), queue.clone()))
        }
        (BrokerKind::Kafka(settings), From::Kafka { topic, group }) => {
            Box::new(kafka::Kafka::new(settings.clone(), topic.clone(), group.clone()))
        }
        _ => return None,
    })
}

fn not_connected() -> Trouble {
    Trouble::Down("not connected".to_owned())
}
