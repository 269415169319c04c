//! Where the events of one run arrive, and how many did.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, stream};
use lapin::{
    Connection, ConnectionProperties,
    options::{QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable},
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::scene::{Brokers, Scene};
use crate::common::consume;

/// Between two looks at how many have arrived.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long nothing may arrive before a run is a failure.
const STALLED: Duration = Duration::from_secs(60);

/// How long Kafka may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A topic, queue, stream or file of its own for each run.
pub struct Sink {
    name: String,
    /// For `routes.yaml`: the broker, the same broker where nothing listens, and the target's address.
    pub broker: String,
    pub broker_down: String,
    pub address: String,
    kind: Kind,
}

enum Kind {
    /// Nothing ever arrives.
    Nowhere,
    /// Lines counted so far, and where in the file that was.
    Log {
        file: PathBuf,
        counted: u64,
        at: u64,
    },
    Nats(jetstream::Context),
    RabbitMq(Connection),
    Kafka(BaseConsumer),
}

impl Sink {
    /// Creates it; `data_dir` is the daemon's.
    pub async fn create(scene: Scene, brokers: &Brokers, name: &str, data_dir: PathBuf) -> Sink {
        let name = name.to_owned();
        let nowhere = "{ type: nats, url: \"nats://127.0.0.1:1\" }".to_owned();
        match scene {
            Scene::Bare | Scene::Journal => Sink {
                address: format!("subject: {name}"),
                broker: nowhere.clone(),
                broker_down: nowhere,
                kind: Kind::Nowhere,
                name,
            },
            Scene::Log => {
                // Its directory lies where no directory can be, which is as down as a disk can be.
                let file = data_dir.join("log").join(format!("{name}.jsonl"));
                Sink {
                    address: format!("topic: {name}"),
                    broker: "{ type: log, rotate_bytes: 1000000000000 }".to_owned(),
                    broker_down: "{ type: log, dir: /dev/null/log }".to_owned(),
                    kind: Kind::Log { file, counted: 0, at: 0 },
                    name,
                }
            }
            Scene::Nats => {
                let config = stream::Config {
                    name: name.clone(),
                    subjects: vec![name.clone()],
                    ..Default::default()
                };
                consume::create_stream(brokers.nats(), config).await;
                let client = async_nats::connect(brokers.nats()).await.expect("NATS");
                Sink {
                    address: format!("subject: {name}"),
                    broker: format!("{{ type: nats, url: {:?} }}", brokers.nats()),
                    broker_down: nowhere,
                    kind: Kind::Nats(jetstream::new(client)),
                    name,
                }
            }
            Scene::RabbitMq => {
                let mut arguments = FieldTable::default();
                arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
                let url = brokers.rabbitmq();
                consume::declare_queue(url, &name, &name, "#", arguments).await;
                let options = ConnectionProperties::default();
                let connection = Connection::connect(url, options).await.expect("RabbitMQ");
                Sink {
                    address: format!("exchange: {name}, routing_key: \"{{type}}\""),
                    broker: format!("{{ type: rabbitmq, url: {url:?} }}"),
                    broker_down: "{ type: rabbitmq, url: \"amqp://127.0.0.1:1\" }".to_owned(),
                    kind: Kind::RabbitMq(connection),
                    name,
                }
            }
            Scene::Kafka => {
                let bootstrap = brokers.kafka();
                consume::create_topic(bootstrap, &name, PARTITIONS, &[]).await;
                let mut config = ClientConfig::new();
                config.set("bootstrap.servers", bootstrap);
                Sink {
                    address: format!("topic: {name}, key: \"{{data.number}}\""),
                    broker: format!("{{ type: kafka, bootstrap: {bootstrap:?} }}"),
                    broker_down: "{ type: kafka, bootstrap: \"127.0.0.1:1\" }".to_owned(),
                    kind: Kind::Kafka(config.create().expect("a Kafka client")),
                    name,
                }
            }
        }
    }

    /// How many are there now.
    async fn arrived(&mut self) -> u64 {
        let name = &self.name;
        match &mut self.kind {
            Kind::Nowhere => 0,
            Kind::Log { file, counted, at } => {
                *counted += new_lines(file, at);
                *counted
            }
            Kind::Nats(context) => {
                let mut stream = context.get_stream(name).await.expect("the stream");
                stream.info().await.expect("its state").state.messages
            }
            Kind::RabbitMq(connection) => {
                let channel = connection.create_channel().await.expect("a channel");
                let passive = QueueDeclareOptions { passive: true, ..Default::default() };
                let queue =
                    channel.queue_declare(name.as_str().into(), passive, FieldTable::default());
                let count = queue.await.expect("the queue").message_count().into();
                channel.close(200, "counted".into()).await.expect("an orderly end");
                count
            }
            Kind::Kafka(client) => (0..PARTITIONS)
                .map(|partition| {
                    let marks = client.fetch_watermarks(name, partition, ANSWER_WITHIN);
                    let (low, high) = marks.expect("the partition's offsets");
                    (high - low) as u64
                })
                .sum(),
        }
    }

    /// Waits until so many have arrived. More are duplicates, fewer are a loss: both end the run.
    pub async fn wait_for(&mut self, count: u64) {
        let (mut most, mut since) = (0, Instant::now());
        loop {
            let arrived = self.arrived().await;
            assert!(arrived <= count, "{} had {arrived} of {count}: duplicates", self.name);
            if arrived == count {
                return;
            }
            if arrived > most {
                (most, since) = (arrived, Instant::now());
            }
            assert!(since.elapsed() < STALLED, "{} has {arrived} of {count}: lost?", self.name);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Removes what it has stored on the broker.
    pub async fn remove(self) {
        match self.kind {
            Kind::Nowhere | Kind::Log { .. } | Kind::Kafka(_) => {}
            Kind::Nats(context) => {
                context.delete_stream(&self.name).await.expect("to delete the stream");
            }
            Kind::RabbitMq(connection) => {
                let channel = connection.create_channel().await.expect("a channel");
                let options = QueueDeleteOptions::default();
                let deleted = channel.queue_delete(self.name.as_str().into(), options);
                deleted.await.expect("to delete the queue");
                connection.close(200, "done".into()).await.expect("an orderly end");
            }
        }
    }
}

const PARTITIONS: i32 = 3;

/// Whole lines that came since `at`, which moves on.
fn new_lines(path: &PathBuf, at: &mut u64) -> u64 {
    let Ok(mut file) = File::open(path) else { return 0 };
    file.seek(SeekFrom::Start(*at)).expect("to seek");
    let mut buffer = vec![0; 1 << 20];
    let mut lines = 0;
    loop {
        let read = file.read(&mut buffer).expect("to read");
        if read == 0 {
            return lines;
        }
        *at += read as u64;
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}
