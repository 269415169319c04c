//! The types of brokers.

use serde::{Deserialize, Serialize};

use crate::event::Address;

/// What `type:` says of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Kafka,
    RabbitMq,
    Nats,
    Log,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kafka => "kafka",
            Kind::RabbitMq => "rabbitmq",
            Kind::Nats => "nats",
            Kind::Log => "log",
        }
    }

    /// On which an address is.
    pub fn of(address: &Address) -> Kind {
        match address {
            Address::Topic { .. } => Kind::Kafka,
            Address::LogTopic(_) => Kind::Log,
            Address::Exchange { .. } => Kind::RabbitMq,
            Address::Subject(_) => Kind::Nats,
        }
    }

    /// Whether an address that may be an old one is on such a broker: topics of the `log` broker were
    /// once written like Kafka's, see [`Address::Topic`].
    pub fn takes(self, address: &Address) -> bool {
        Kind::of(address) == self || self == Kind::Log && matches!(address, Address::Topic { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_on_one_type_but_those_of_log_were_once_not_told_apart() {
        let topic = || "t".into();
        let all = [Kind::Kafka, Kind::RabbitMq, Kind::Nats, Kind::Log];
        for (address, kinds) in [
            (Address::Topic { topic: topic(), key: None }, &[Kind::Kafka, Kind::Log][..]),
            (Address::LogTopic(topic()), &[Kind::Log]),
            (Address::Exchange { exchange: topic(), routing_key: topic() }, &[Kind::RabbitMq]),
            (Address::Subject(topic()), &[Kind::Nats]),
        ] {
            let takers: Vec<Kind> = all.into_iter().filter(|kind| kind.takes(&address)).collect();
            assert_eq!(takers, kinds, "{address:?}");
        }
    }
}
