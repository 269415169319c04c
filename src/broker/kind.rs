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

    /// Whether an address is one on such a broker. Topics of the `log` broker were once written like
    /// Kafka's, see [`Address::Topic`].
    pub fn takes(self, address: &Address) -> bool {
        match address {
            Address::Topic { .. } => matches!(self, Kind::Kafka | Kind::Log),
            Address::LogTopic(_) => self == Kind::Log,
            Address::Exchange { .. } => self == Kind::RabbitMq,
            Address::Subject(_) => self == Kind::Nats,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_for_one_type_but_what_was_written_before_those_of_log_were_told_apart() {
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
