//! One instance of every broker for all tests of the process.

use std::{sync::OnceLock, thread};

use super::{
    brokers::{Kafka, Nats, RabbitMq},
    consume,
};

/// The three brokers. Shared ones cannot be killed or paused: a test that does so starts its own.
pub struct Brokers {
    pub kafka: Kafka,
    pub rabbitmq: RabbitMq,
    pub nats: Nats,
}

impl Brokers {
    /// Starts them at the first call; panics, each time, with the reason why one did not start.
    ///
    /// Tests share them, so each uses topics, queues and streams named after itself.
    #[track_caller]
    pub fn shared() -> &'static Brokers {
        static SHARED: OnceLock<Result<Brokers, String>> = OnceLock::new();
        match SHARED.get_or_init(Brokers::try_start) {
            Ok(brokers) => brokers,
            Err(error) => panic!("{error}"),
        }
    }

    /// Makes a topic of three partitions, an exchange with a queue that takes all, and a stream of all
    /// subjects below, each of this name.
    pub async fn make(&self, name: &str) {
        consume::create_topic(self.kafka.bootstrap(), name, 3, &[]).await;
        let url = self.rabbitmq.url();
        consume::declare_queue(url, name, name, "#", Default::default()).await;
        let stream = async_nats::jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![format!("{name}.>")],
            ..Default::default()
        };
        consume::create_stream(self.nats.url(), stream).await;
    }

    /// All at the same time: each spends much of its start waiting.
    fn try_start() -> Result<Brokers, String> {
        thread::scope(|scope| {
            let kafka = scope.spawn(Kafka::try_start);
            let rabbitmq = scope.spawn(RabbitMq::try_start);
            let nats = Nats::try_start()?;
            let panicked = |_| "starting a broker panicked".to_owned();
            let kafka = kafka.join().map_err(panicked)??;
            let rabbitmq = rabbitmq.join().map_err(panicked)??;
            Ok(Brokers { kafka, rabbitmq, nats })
        })
    }
}
