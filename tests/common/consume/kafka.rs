use std::collections::BTreeMap;

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{Consumer, StreamConsumer},
    message::{BorrowedMessage, Headers},
};

use super::{Consumed, PATIENCE, Until, collect};

/// Creates a topic with this configuration, such as `("cleanup.policy", "compact")`.
pub async fn create_topic(bootstrap: &str, topic: &str, partitions: i32, config: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        client(bootstrap).create().expect("an admin client");
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (key, value) in config {
        wanted = wanted.set(key, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    let created = admin.create_topics([&wanted], &options).await.expect("an answer");
    for result in created {
        result.unwrap_or_else(|(topic, error)| panic!("topic {topic} was not created: {error}"));
    }
}

/// Everything in the topic, by partition in order. Waits until it is enough.
pub async fn read_topic(
    bootstrap: &str,
    topic: &str,
    until: impl Into<Until<'_>>,
) -> Vec<Consumed> {
    // A group is asked for by the client although partitions are assigned by hand.
    let consumer: StreamConsumer = client(bootstrap)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("the topic's metadata");
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        partitions
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .expect("a partition to read");
    }
    consumer.assign(&partitions).expect("partitions to read");
    collect(until.into(), async || {
        loop {
            // The client goes on by itself after an error of its connection.
            if let Ok(message) = consumer.recv().await {
                return consumed(&message);
            }
        }
    })
    .await
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn consumed(message: &BorrowedMessage<'_>) -> Consumed {
    let headers: BTreeMap<String, Vec<u8>> = message
        .headers()
        .iter()
        .flat_map(|headers| headers.iter())
        .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
        .collect();
    let content_type = headers.get("content-type");
    Consumed {
        address: message.topic().to_owned(),
        key: message.key().map(<[u8]>::to_vec),
        content_type: content_type.map(|value| String::from_utf8_lossy(value).into_owned()),
        headers,
        properties: Default::default(),
        body: message.payload().map(<[u8]>::to_vec),
    }
}
