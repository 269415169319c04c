use futures_util::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    message::Delivery,
    options::{
        BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};

use super::{Consumed, Until, collect};

/// Declares a durable topic exchange and a durable queue, and binds one to the other. `arguments`
/// are the queue's, such as `x-queue-type`.
pub async fn declare_queue(
    url: &str,
    exchange: &str,
    queue: &str,
    binding_key: &str,
    arguments: FieldTable,
) {
    let (_connection, channel) = channel(url).await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let no_arguments = FieldTable::default;
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, no_arguments())
        .await
        .expect("the exchange");
    channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .expect("the queue");
    let (queue, exchange, binding_key) = (queue.into(), exchange.into(), binding_key.into());
    channel
        .queue_bind(queue, exchange, binding_key, QueueBindOptions::default(), no_arguments())
        .await
        .expect("the binding");
}

/// Everything in the queue. Waits until it is enough; they are not acknowledged, so the queue
/// takes them back when the connection ends.
pub async fn read_queue(url: &str, queue: &str, until: impl Into<Until<'_>>) -> Vec<Consumed> {
    let (connection, channel) = channel(url).await;
    // Without a prefetch a quorum queue delivers 2,000 messages and then waits for acknowledgements.
    let qos = channel.basic_qos(u16::MAX, BasicQosOptions::default());
    qos.await.expect("a prefetch");
    let mut deliveries = channel
        .basic_consume(
            queue.into(),
            "tests".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("a consumer");
    let taken = collect(until.into(), async || {
        let delivery = deliveries.next().await.expect("a consumer does not end");
        consumed(delivery.expect("a delivery"))
    })
    .await;
    connection.close(200, "read".into()).await.expect("an orderly end");
    taken
}

async fn channel(url: &str) -> (Connection, Channel) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("a connection to rabbitmq");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

fn consumed(delivery: Delivery) -> Consumed {
    let table = delivery.properties.headers().clone().unwrap_or_default();
    let headers = table.inner().iter();
    Consumed {
        address: format!("{}/{}", delivery.exchange, delivery.routing_key),
        key: None,
        headers: headers.map(|(name, value)| (name.to_string(), bytes(value))).collect(),
        content_type: delivery.properties.content_type().as_ref().map(ToString::to_string),
        properties: delivery.properties,
        body: Some(delivery.data),
    }
}

/// A header's bytes where it is text, else what it is.
fn bytes(value: &AMQPValue) -> Vec<u8> {
    match value {
        AMQPValue::LongString(text) => text.as_bytes().to_vec(),
        AMQPValue::ShortString(text) => text.as_str().as_bytes().to_vec(),
        other => format!("{other:?}").into_bytes(),
    }
}
