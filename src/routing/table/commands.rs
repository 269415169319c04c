//! What `commands:` compiles to.

use bytestring::ByteString;

/// Commands that are taken from a broker and carried out through a source's API. Equal ones are the
/// same consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    pub name: ByteString,
    /// A Sonzai source whose settings have an `api`.
    pub source: ByteString,
    pub broker: ByteString,
    pub from: From,
}

/// Where at the broker they are taken from; which of these, the broker's type says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// `group`: the name of the durable consumer, of the stream that takes the subject.
    Nats {
        subject: ByteString,
        group: ByteString,
    },
    RabbitMq {
        queue: ByteString,
    },
    Kafka {
        topic: ByteString,
        group: ByteString,
    },
}
