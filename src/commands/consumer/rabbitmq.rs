//! Commands from RabbitMQ: a consumer of a queue with a prefetch of one.
//!
//! The broker gives a message back to the queue when the connection that has it in hand ends, or after
//! its `consumer_timeout` (half an hour by default) without an acknowledgement, which ends the channel.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::StreamExt;
use lapin::{
    Acker, Channel,
    message::Delivery as Message,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Consumer, Trouble, not_connected};
use crate::{
    broker::rabbitmq::{Link, Settings, words},
    commands::delivery::{Binding, Delivery},
    event::Address,
};

/// How long the broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a farewell may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
pub struct RabbitMq {
    settings: Settings,
    queue: ByteString,
    connection: Option<Connection>,
}

struct Connection {
    link: Link,
    deliveries: lapin::Consumer,
    in_hand: Option<Acker>,
    // The client ends a channel that nobody has.
    _channel: Channel,
}

impl RabbitMq {
    pub fn new(settings: Settings, queue: ByteString) -> RabbitMq {
        RabbitMq { settings, queue, connection: None }
    }

    async fn consume(&self, link: &Link) -> lapin::Result<(Channel, lapin::Consumer)> {
        let channel = link.connection.create_channel().await?;
        channel.basic_qos(1, BasicQosOptions::default()).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        // An empty tag: the broker gives one that nobody else has.
        let deliveries =
            channel.basic_consume((&*self.queue).into(), "".into(), options, arguments).await?;
        Ok((channel, deliveries))
    }
}

#[async_trait]
impl Consumer for RabbitMq {
    async fn connect(&mut self) -> Result<(), Trouble> {
        self.connection = None;
        let link =
            Link::of(&self.settings).await.map_err(|error| Trouble::Down(error.to_string()))?;
        let queue = &self.queue;
        let down = |why: String| Trouble::Down(format!("queue {queue}: {why}"));
        let (_channel, deliveries) = match timeout(ANSWER_WITHIN, self.consume(&link)).await {
            Ok(Ok(consuming)) => consuming,
            Ok(Err(error)) => return Err(down(words(&error))),
            Err(_) => {
                let seconds = ANSWER_WITHIN.as_secs();
                return Err(down(format!("the broker did not answer within {seconds} s")));
            }
        };
        self.connection = Some(Connection { link, deliveries, in_hand: None, _channel });
        Ok(())
    }

    async fn next(&mut self) -> Result<Delivery, Trouble> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        let message = next(&mut connection.deliveries).await?;
        connection.in_hand = Some(message.acker.clone());
        Ok(delivery(message, &self.queue))
    }

    async fn hold(&mut self) -> Trouble {
        let Some(connection) = &mut self.connection else { return not_connected() };
        loop {
            match next(&mut connection.deliveries).await {
                // With a prefetch of one there is none; and what there is goes back where it was.
                Ok(message) => give_back(&message.acker).await,
                Err(trouble) => return trouble,
            }
        }
    }

    async fn ack(&mut self) -> Result<(), Trouble> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        let acker = connection.in_hand.take().ok_or_else(not_connected)?;
        match timeout(ANSWER_WITHIN, acker.ack(BasicAckOptions::default())).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Trouble::Down("the channel had ended".to_owned())),
            Ok(Err(error)) => Err(Trouble::Down(words(&error))),
            Err(_) => Err(Trouble::Down("the connection takes nothing".to_owned())),
        }
    }

    async fn let_go(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(acker) = connection.in_hand.take() {
            give_back(&acker).await;
        }
    }

    async fn close(&mut self) {
        self.let_go().await;
        let Some(Connection { link, .. }) = self.connection.take() else { return };
        // Its end gives back what is in hand, whether it is an orderly one or not.
        timeout(CLOSE_WITHIN, link.connection.close(200, "OK".into())).await.ok();
    }
}

async fn next(deliveries: &mut lapin::Consumer) -> Result<Message, Trouble> {
    match deliveries.next().await {
        Some(Ok(message)) => Ok(message),
        Some(Err(error)) => Err(Trouble::Down(words(&error))),
        // The queue was deleted, or the channel closed.
        None => Err(Trouble::Down("the broker has ended the consumer: is the queue there?".into())),
    }
}

async fn give_back(acker: &Acker) {
    let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    // If that fails, the connection has ended and the message is back already.
    timeout(CLOSE_WITHIN, acker.nack(options)).await.ok();
}

fn delivery(message: Message, queue: &ByteString) -> Delivery {
    let properties = &message.properties;
    let table = properties.headers().as_ref().map(FieldTable::inner);
    let headers = table.into_iter().flatten();
    let headers = headers.filter_map(|(name, value)| Some((name.to_string(), text(value)?)));
    let message_id = properties.message_id().as_ref().map(ToString::to_string);
    Delivery {
        binding: Binding::Amqp,
        headers: headers.collect(),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        // The queue gives messages no name of their own.
        place: message_id.clone().unwrap_or_else(|| format!("{queue}/{}", Uuid::now_v7())),
        message_id,
        body: message.data.into(),
        address: Address::Exchange { exchange: "".into(), routing_key: queue.clone() },
    }
}

/// A value that can be an attribute.
fn text(value: &AMQPValue) -> Option<Bytes> {
    match value {
        AMQPValue::LongString(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        AMQPValue::ShortString(text) => Some(Bytes::copy_from_slice(text.as_str().as_bytes())),
        AMQPValue::Boolean(value) => Some(value.to_string().into()),
        AMQPValue::ShortInt(value) => Some(value.to_string().into()),
        AMQPValue::LongInt(value) => Some(value.to_string().into()),
        AMQPValue::LongLongInt(value) => Some(value.to_string().into()),
        _ => None,
    }
}
