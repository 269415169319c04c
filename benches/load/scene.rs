//! What is measured side by side, and the brokers that it takes.

use std::fmt;

use crate::common::brokers::{Access, Kafka, Nats, RabbitMq};

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scene {
    /// A hyper server that only verifies.
    Bare,
    /// Waypost whose broker is down: it accepts and journals, and keeps trying to connect.
    Journal,
    /// Waypost to its embedded broker.
    Log,
    /// Waypost to JetStream, file storage, synced as the server does by itself.
    Nats,
    /// Waypost to a durable quorum queue, confirmed and persistent.
    #[value(name = "rabbitmq")]
    RabbitMq,
    /// Waypost to Kafka, acks=all, idempotent.
    Kafka,
}

impl Scene {
    /// Whether what is acknowledged arrives somewhere.
    pub fn delivers(self) -> bool {
        !matches!(self, Scene::Bare | Scene::Journal)
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scene::Bare => "bare server",
            Scene::Journal => "journal",
            Scene::Log => "log",
            Scene::Nats => "nats",
            Scene::RabbitMq => "rabbitmq",
            Scene::Kafka => "kafka",
        })
    }
}

/// The real brokers that the chosen scenes need.
pub struct Brokers {
    nats: Option<Nats>,
    rabbitmq: Option<RabbitMq>,
    kafka: Option<Kafka>,
}

impl Brokers {
    pub fn start(scenes: &[Scene]) -> Brokers {
        let wanted = |scene| scenes.contains(&scene);
        Brokers {
            nats: wanted(Scene::Nats).then(|| {
                let as_it_comes = Access { syncs_later: true, ..Access::default() };
                Nats::start_with(&as_it_comes).unwrap_or_else(|error| panic!("{error}"))
            }),
            rabbitmq: wanted(Scene::RabbitMq).then(RabbitMq::start),
            kafka: wanted(Scene::Kafka).then(Kafka::start),
        }
    }

    pub fn nats(&self) -> &str {
        self.nats.as_ref().expect("NATS runs for its scene").url()
    }

    pub fn rabbitmq(&self) -> &str {
        self.rabbitmq.as_ref().expect("RabbitMQ runs for its scene").url()
    }

    pub fn kafka(&self) -> &str {
        self.kafka.as_ref().expect("Kafka runs for its scene").bootstrap()
    }
}
