//! Commands from NATS: a durable pull consumer of the stream that takes the subject.
//!
//! The server remembers how far the consumer is. It gives out one message, and the next only after
//! that one is acknowledged, which it confirms in turn.

use std::time::Duration;

use async_nats::jetstream::{
    self, AckKind, Message,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    context::{Context, ContextBuilder, GetStreamByNameErrorKind},
};
use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use super::{Consumer, Trouble, not_connected};
use crate::{
    broker::nats::{Link, Settings},
    commands::delivery::{Binding, Delivery},
    event::Address,
};

/// How long the server waits for a word on a message before it gives it out again: what follows a
/// crash waits for it.
const ACK_WAIT: Duration = Duration::from_secs(15);

/// How often it gets one. An operator's own consumer may have a shorter wait, of which this is at most
/// a third.
const WORD_EVERY: Duration = Duration::from_secs(5);

/// How long one question for a message stands at the server.
const ASK_FOR: Duration = Duration::from_secs(30);

/// How long any other answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a farewell may take.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
pub struct Nats {
    settings: Settings,
    subject: ByteString,
    group: ByteString,
    connection: Option<Connection>,
}

struct Connection {
    link: Link,
    consumer: PullConsumer,
    /// Where messages are asked for, as a refusal to be asked names it.
    asks: String,
    word_every: Duration,
    in_hand: Option<Message>,
}

impl Nats {
    pub fn new(settings: Settings, subject: ByteString, group: ByteString) -> Nats {
        Nats { settings, subject, group, connection: None }
    }

    async fn consumer(&self, context: &Context) -> Result<PullConsumer, String> {
        let (subject, group) = (&*self.subject, &*self.group);
        let stream = context.stream_by_subject(subject).await.map_err(|error| match error.kind() {
            GetStreamByNameErrorKind::NotFound => {
                format!("no stream takes subject {subject}: create one, or correct `subject`")
            }
            _ => format!(
                "JetStream does not answer ({error}): is it enabled on the server, and for this account?"
            ),
        })?;
        let config = pull::Config {
            durable_name: Some(group.to_owned()),
            filter_subject: subject.to_owned(),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_ack_pending: 1,
            ..pull::Config::default()
        };
        let known = context.get_consumer_from_stream::<pull::Config, _, _>(group, &stream).await;
        let consumer = match known {
            Ok(consumer) => consumer,
            // Strictly: one that is there, and was not found for another reason, stays as it is.
            Err(_) => {
                let created = context.create_consumer_strict_on_stream(config, &stream).await;
                created.map_err(|error| {
                    format!("consumer {group} of stream {stream} cannot be made: {error}")
                })?
            }
        };
        let config = &consumer.cached_info().config;
        let takes = &config.filter_subject;
        let fault = if config.ack_policy != AckPolicy::Explicit {
            "does not want each message acknowledged"
        } else if config.max_deliver > 0 {
            // It would be gone, and nobody told.
            "drops what it has given out `max_deliver` times"
        } else if *takes != *subject && !takes.is_empty() {
            "takes another subject"
        } else {
            return Ok(consumer);
        };
        Err(format!(
            "consumer {group} of stream {stream} {fault}: change that, or give the command another \
             `group`"
        ))
    }
}

#[async_trait]
impl Consumer for Nats {
    async fn connect(&mut self) -> Result<(), Trouble> {
        self.connection = None;
        let link =
            Link::of(&self.settings).await.map_err(|error| Trouble::Down(error.to_string()))?;
        let context = ContextBuilder::new().timeout(ANSWER_WITHIN).build(link.client.clone());
        // Each of its few questions has its own limit.
        let consumer = tokio::select! {
            consumer = self.consumer(&context) => consumer.map_err(Trouble::Down)?,
            reason = link.trouble("") => return Err(Trouble::Down(reason)),
        };
        let info = consumer.cached_info();
        let asks = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", info.stream_name, info.name);
        let word_every = WORD_EVERY.min(info.config.ack_wait / 3).max(Duration::from_millis(100));
        self.connection = Some(Connection { link, consumer, asks, word_every, in_hand: None });
        Ok(())
    }

    async fn next(&mut self) -> Result<Delivery, Trouble> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        let Connection { link, consumer, asks, in_hand, .. } = connection;
        let asked = async {
            loop {
                let ask = consumer.batch().max_messages(1).expires(ASK_FOR).messages();
                let mut answers = ask.await.map_err(|error| error.to_string())?;
                if let Some(answer) = answers.next().await {
                    return answer.map_err(|error| error.to_string());
                }
            }
        };
        let message = tokio::select! {
            biased;
            message = asked => message.map_err(Trouble::Down)?,
            reason = link.trouble(asks) => return Err(Trouble::Down(reason)),
        };
        let delivery = delivery(&message);
        *in_hand = Some(message);
        Ok(delivery)
    }

    async fn hold(&mut self) -> Trouble {
        let Some(Connection { link, asks, word_every, in_hand, .. }) = &self.connection else {
            return not_connected();
        };
        let words = async {
            loop {
                sleep(*word_every).await;
                let Some(message) = in_hand else { return "no message is in hand".to_owned() };
                if let Err(error) = message.ack_with(AckKind::Progress).await {
                    return error.to_string();
                }
            }
        };
        tokio::select! {
            reason = words => Trouble::Down(reason),
            reason = link.trouble(asks) => Trouble::Down(reason),
        }
    }

    async fn ack(&mut self) -> Result<(), Trouble> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        let message = connection.in_hand.take().ok_or_else(not_connected)?;
        match timeout(ANSWER_WITHIN, message.double_ack()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Trouble::Down(format!("an acknowledgement failed: {error}"))),
            Err(_) => Err(Trouble::Down("an acknowledgement was not confirmed".to_owned())),
        }
    }

    async fn let_go(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let Some(message) = connection.in_hand.take() else { return };
        // Otherwise it comes again all the same, once the server has waited long enough.
        let farewell = async {
            message.ack_with(AckKind::Nak(None)).await.ok();
            connection.link.client.flush().await.ok();
        };
        timeout(FLUSH_WITHIN, farewell).await.ok();
    }

    async fn close(&mut self) {
        self.let_go().await;
        self.connection = None;
    }
}

fn delivery(message: &jetstream::Message) -> Delivery {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    let headers: Vec<(String, Bytes)> = headers
        .filter_map(|(name, values)| Some((name.to_string(), values.last()?)))
        .map(|(name, value)| (name, Bytes::copy_from_slice(value.as_str().as_bytes())))
        .collect();
    let text = |wanted: &str| {
        let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        header.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let place = match message.info() {
        Ok(info) => format!("{}/{}", info.stream, info.stream_sequence),
        Err(_) => message.subject.to_string(),
    };
    Delivery {
        binding: Binding::Nats,
        content_type: text("content-type"),
        message_id: text("Nats-Msg-Id"),
        headers,
        body: message.payload.clone(),
        place,
        address: Address::Subject(message.subject.as_str().into()),
    }
}
