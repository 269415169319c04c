//! A subject, queue or topic of a real broker, from which a daemon takes commands.

use std::{collections::BTreeMap, time::Duration};

use async_nats::jetstream::{self, consumer::pull, stream};
use lapin::{
    BasicProperties, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

use crate::common::{consume, sinks::Addresses};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nats,
    RabbitMq,
    Kafka,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Nats, Kind::RabbitMq, Kind::Kafka];
}

/// See the module. The command's name is `wakeups`.
pub struct Place {
    pub kind: Kind,
    /// The test's own.
    name: String,
    brokers: Addresses,
    /// Of a topic. What is left is asked only of the first one.
    pub partitions: i32,
}

/// A message as a producer sends it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// CloudEvents attributes, without a prefix.
    pub attributes: BTreeMap<&'static str, String>,
    pub body: String,
}

impl Place {
    /// At brokers that tests share; nothing is made yet. `name` is the test's own.
    pub fn shared(kind: Kind, name: &str) -> Place {
        Place::at(Addresses::shared(), kind, name)
    }

    /// The same at such brokers, of which only the one that it is about counts.
    pub fn at(brokers: Addresses, kind: Kind, name: &str) -> Place {
        Place { kind, name: format!("commands-{name}"), brokers, partitions: 1 }
    }

    /// Makes the stream, queue or topic.
    pub async fn make(&self) {
        let (name, Addresses { kafka, rabbitmq, nats }) = (&self.name, &self.brokers);
        match self.kind {
            Kind::Nats => {
                let (name, subjects) = (name.clone(), vec![format!("{name}.>")]);
                let config = stream::Config { name, subjects, ..Default::default() };
                consume::create_stream(nats, config).await;
            }
            Kind::RabbitMq => {
                consume::declare_queue(rabbitmq, name, name, "#", FieldTable::default()).await;
            }
            Kind::Kafka => consume::create_topic(kafka, name, self.partitions, &[]).await,
        }
    }

    /// Lets what was in the hands of a daemon that died come again soon.
    pub async fn be_given_again_soon(&self) {
        if self.kind == Kind::Nats {
            self.make_consumer(-1).await;
        }
    }

    /// Makes or changes NATS's consumer as an operator may: with less patience for one that says
    /// nothing, and so many times that a message is given out (-1: without end).
    pub async fn make_consumer(&self, max_deliver: i64) {
        let config = pull::Config {
            durable_name: Some("waypost-wakeups".to_owned()),
            filter_subject: format!("{}.wakeups", self.name),
            ack_wait: Duration::from_secs(1),
            max_ack_pending: 1,
            max_deliver,
            ..pull::Config::default()
        };
        let stream = jetstream::new(nats(&self.brokers).await).get_stream(&self.name).await;
        stream.expect("the stream").create_consumer(config).await.expect("the consumer");
    }

    /// The parts `brokers:` and `commands:` of a routing table.
    pub fn routes(&self) -> String {
        let (name, Addresses { kafka, rabbitmq, nats }) = (&self.name, &self.brokers);
        let (broker, from) = match self.kind {
            Kind::Nats => {
                (format!("{{ type: nats, url: \"{nats}\" }}"), format!("subject: {name}.wakeups"))
            }
            Kind::RabbitMq => {
                (format!("{{ type: rabbitmq, url: \"{rabbitmq}\" }}"), format!("queue: {name}"))
            }
            Kind::Kafka => {
                (format!("{{ type: kafka, bootstrap: \"{kafka}\" }}"), format!("topic: {name}"))
            }
        };
        format!(
            "brokers:\n  local: {{ type: log }}\n  from: {broker}\n\
             commands:\n  wakeups: {{ source: sonzai, from: {{ broker: from, {from} }} }}\n"
        )
    }

    /// Where its messages lie, as a dead letter shows it.
    pub fn address(&self) -> String {
        match self.kind {
            Kind::Nats => format!("{}.wakeups", self.name),
            Kind::RabbitMq => format!("/{}", self.name),
            Kind::Kafka => self.name.clone(),
        }
    }

    /// Sends messages, and returns once the broker has them all.
    pub async fn send(&self, messages: &[Sent]) {
        match self.kind {
            Kind::Nats => self.send_to_nats(messages).await,
            Kind::RabbitMq => self.send_to_rabbitmq(messages).await,
            Kind::Kafka => self.send_to_kafka(messages).await,
        }
    }

    async fn send_to_nats(&self, messages: &[Sent]) {
        let context = jetstream::new(nats(&self.brokers).await);
        for Sent { attributes, body } in messages {
            let mut headers = async_nats::HeaderMap::new();
            for (name, value) in attributes {
                headers.insert(format!("ce-{name}"), value.as_str());
            }
            let (subject, body) = (self.address(), body.clone().into());
            let sent = context.publish_with_headers(subject, headers, body).await;
            sent.expect("to send").await.expect("it is stored");
        }
    }

    async fn send_to_rabbitmq(&self, messages: &[Sent]) {
        let (_connection, channel) = rabbitmq(&self.brokers).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        for Sent { attributes, body } in messages {
            let mut headers = FieldTable::default();
            for (name, value) in attributes {
                let value = AMQPValue::LongString(value.as_str().into());
                headers.insert(format!("cloudEvents:{name}").into(), value);
            }
            let properties = BasicProperties::default().with_headers(headers).with_delivery_mode(2);
            let (queue, options) = (self.name.as_str().into(), BasicPublishOptions::default());
            let sent =
                channel.basic_publish("".into(), queue, options, body.as_bytes(), properties);
            sent.await.expect("to send").await.expect("it is confirmed");
        }
    }

    async fn send_to_kafka(&self, messages: &[Sent]) {
        let producer: FutureProducer = kafka(&self.brokers).create().expect("a producer");
        for Sent { attributes, body } in messages {
            let names = attributes.iter().map(|(name, value)| (format!("ce_{name}"), value));
            let headers = names.fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key: &key, value: Some(value) })
            });
            let record = FutureRecord::<(), _>::to(&self.name).payload(body).headers(headers);
            producer.send(record, Duration::from_secs(30)).await.expect("to send");
        }
    }

    /// How many messages are not acknowledged, delivered or not. RabbitMQ counts those in hand only
    /// once their consumer is gone.
    pub async fn left(&self) -> u64 {
        match self.kind {
            Kind::Nats => {
                let stream = jetstream::new(nats(&self.brokers).await).get_stream(&self.name).await;
                let stream = stream.expect("the stream");
                let consumer = stream.get_consumer::<pull::Config>("waypost-wakeups").await;
                let mut consumer = consumer.expect("the consumer");
                let info = consumer.info().await.expect("its state");
                info.num_pending + info.num_ack_pending as u64
            }
            Kind::RabbitMq => {
                let (_connection, channel) = rabbitmq(&self.brokers).await;
                let passive = QueueDeclareOptions { passive: true, ..Default::default() };
                let name = self.name.as_str().into();
                let queue = channel.queue_declare(name, passive, FieldTable::default()).await;
                queue.expect("the queue").message_count().into()
            }
            Kind::Kafka => {
                let (name, brokers) = (self.name.clone(), self.brokers.clone());
                let left = move || kafka_left(&brokers, &name);
                tokio::task::spawn_blocking(left).await.expect("an answer")
            }
        }
    }
}

fn kafka_left(brokers: &Addresses, topic: &str) -> u64 {
    let within = Duration::from_secs(30);
    let consumer: BaseConsumer =
        kafka(brokers).set("group.id", "waypost-wakeups").create().expect("a consumer");
    let (low, high) = consumer.fetch_watermarks(topic, 0, within).expect("its watermarks");
    let mut asked = TopicPartitionList::new();
    asked.add_partition(topic, 0);
    let committed = consumer.committed_offsets(asked, within).expect("its offset");
    let next = match committed.find_partition(topic, 0).expect("the partition").offset() {
        Offset::Offset(next) => next,
        _ => low,
    };
    (high - next) as u64
}

async fn nats(brokers: &Addresses) -> async_nats::Client {
    async_nats::connect(&brokers.nats).await.expect("a connection to nats")
}

async fn rabbitmq(brokers: &Addresses) -> (lapin::Connection, lapin::Channel) {
    let url = &brokers.rabbitmq;
    let connection = lapin::Connection::connect(url, ConnectionProperties::default()).await;
    let connection = connection.expect("a connection to rabbitmq");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

fn kafka(brokers: &Addresses) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers.kafka);
    config
}
