use std::collections::BTreeMap;

use async_nats::{
    Client,
    jetstream::{self, consumer::pull::OrderedConfig, stream},
};
use futures_util::StreamExt;

use super::{Consumed, Until, collect};

/// A stream of this name for the subjects that begin with it.
pub fn stream_of(name: &str) -> stream::Config {
    let subjects = vec![format!("{name}.>")];
    stream::Config { name: name.to_owned(), subjects, ..stream::Config::default() }
}

/// Creates a stream; `config` says its name, its subjects and what else a test wants of it.
pub async fn create_stream(url: &str, config: stream::Config) {
    create_stream_by(connect(url).await, config).await;
}

/// The same, with a client that the server knows.
pub async fn create_stream_by(client: Client, config: stream::Config) {
    let name = config.name.clone();
    let created = jetstream::new(client).create_stream(config).await;
    created.unwrap_or_else(|error| panic!("stream {name} was not created: {error}"));
}

/// Deletes a stream and all that is known of it.
pub async fn delete_stream(url: &str, name: &str) {
    let deleted = jetstream::new(connect(url).await).delete_stream(name).await;
    deleted.unwrap_or_else(|error| panic!("stream {name} was not deleted: {error}"));
}

/// Everything in the stream, in order. Waits until it is enough.
pub async fn read_stream(url: &str, stream: &str, until: impl Into<Until<'_>>) -> Vec<Consumed> {
    read_stream_by(connect(url).await, stream, until).await
}

/// The same, with a client that the server knows.
pub async fn read_stream_by(
    client: Client,
    stream: &str,
    until: impl Into<Until<'_>>,
) -> Vec<Consumed> {
    let stream = jetstream::new(client).get_stream(stream).await.expect("the stream");
    let consumer = stream.create_consumer(OrderedConfig::default()).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages");
    collect(until.into(), async || {
        let message = messages.next().await.expect("an ordered consumer does not end");
        consumed(&message.expect("a message"))
    })
    .await
}

async fn connect(url: &str) -> Client {
    async_nats::connect(url).await.expect("a connection to nats")
}

fn consumed(message: &jetstream::Message) -> Consumed {
    let headers: BTreeMap<String, Vec<u8>> = message
        .headers
        .iter()
        .flat_map(|headers| headers.iter())
        .filter_map(|(name, values)| Some((name, values.last()?)))
        .map(|(name, value)| (name.to_string(), value.as_str().as_bytes().to_vec()))
        .collect();
    let content_type = headers.get("content-type");
    Consumed {
        address: message.subject.to_string(),
        key: None,
        content_type: content_type.map(|value| String::from_utf8_lossy(value).into_owned()),
        headers,
        properties: Default::default(),
        body: Some(message.payload.to_vec()),
    }
}
