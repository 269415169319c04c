//! A message as a broker gave it to us.

use bytes::Bytes;

use crate::event::Address;

/// How the CloudEvents attributes of a message in binary mode are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Headers `ce_id`; values are UTF-8.
    Kafka,
    /// Entries `cloudEvents_id` or `cloudEvents:id` of the headers table (and `ce-id`, which gateways
    /// write); values are text.
    Amqp,
    /// Headers `ce-id`; values are percent-encoded.
    Nats,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub binding: Binding,
    /// Headers that hold text or bytes, by the name that they came with.
    pub headers: Vec<(String, Bytes)>,
    pub content_type: Option<String>,
    /// The id that the broker's protocol has for a message: AMQP's `message_id`, `Nats-Msg-Id`.
    pub message_id: Option<String>,
    pub body: Bytes,
    /// What the broker knows it by, such as `STREAM/42`; the same at each delivery where the broker
    /// has such a thing.
    pub place: String,
    /// Where a message must be sent to come to the same consumer.
    pub address: Address,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A message of these headers and body, as NATS gives it.
    pub fn delivery(headers: &[(&str, &str)], body: &str) -> Delivery {
        Delivery {
            binding: Binding::Nats,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value.as_bytes())))
                .collect(),
            content_type: None,
            message_id: None,
            body: Bytes::copy_from_slice(body.as_bytes()),
            place: "COMMANDS/42".to_owned(),
            address: Address::Subject("commands.wakeups".into()),
        }
    }
}
