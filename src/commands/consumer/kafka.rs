//! Commands from Kafka: a member of a consumer group that commits an offset once its command is done.
//!
//! Each partition is gone through in order. While a command is in hand, the other partitions are
//! paused and the client goes on being polled: a member that is not would be taken for dead, and hold
//! up the group's rebalances. Of what comes all the same nothing is lost: it waits in `ahead`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use bytestring::ByteString;
use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{
        BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, StreamConsumer,
    },
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    types::RDKafkaRespErr,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{Consumer, Trouble, not_connected};
use crate::{
    broker::kafka::{ClientWords, Settings, explain},
    commands::delivery::{Binding, Delivery},
    event::Address,
};

/// How long a broker may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a commit may take; a coordinator may move meanwhile.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// How long a farewell may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How long a command may be in hand before the partitions are paused: most are done sooner, and what
/// was fetched ahead is then still there.
const PAUSE_AFTER: Duration = Duration::from_secs(1);

/// Most messages that are kept although they came unasked.
const MAX_AHEAD: usize = 256;

/// See the module.
pub struct Kafka {
    settings: Settings,
    topic: ByteString,
    group: ByteString,
    connection: Option<Connection>,
}

struct Connection {
    consumer: Arc<StreamConsumer<Context>>,
    ahead: VecDeque<(Place, Delivery)>,
    in_hand: Option<Place>,
    is_paused: bool,
}

/// Where a message lies, and in which of our times with that partition it came.
#[derive(Clone, Copy, Debug)]
struct Place {
    partition: i32,
    offset: i64,
    time: u64,
}

impl Kafka {
    pub fn new(settings: Settings, topic: ByteString, group: ByteString) -> Kafka {
        Kafka { settings, topic, group, connection: None }
    }
}

#[async_trait]
impl Consumer for Kafka {
    async fn connect(&mut self) -> Result<(), Trouble> {
        self.close().await;
        let (settings, topic, group) =
            (self.settings.clone(), self.topic.clone(), self.group.clone());
        let opened = spawn_blocking(move || open(&settings, &topic, &group)).await;
        let consumer = opened.map_err(|panic| Trouble::Down(panic.to_string()))?;
        let consumer = Arc::new(consumer.map_err(Trouble::Down)?);
        let (ahead, in_hand, is_paused) = Default::default();
        self.connection = Some(Connection { consumer, ahead, in_hand, is_paused });
        Ok(())
    }

    async fn next(&mut self) -> Result<Delivery, Trouble> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        connection.resume()?;
        loop {
            let (place, delivery) = match connection.ahead.pop_front() {
                Some(ahead) => ahead,
                None => match connection.consumer.recv().await {
                    Ok(message) => connection.received(&message),
                    Err(error) => {
                        let trouble = trouble(&error, &connection.consumer, &self.settings);
                        trouble.map_or(Ok(()), Err)?;
                        continue;
                    }
                },
            };
            // Another has it by now, or it comes again.
            if connection.is_ours(place) {
                connection.in_hand = Some(place);
                return Ok(delivery);
            }
        }
    }

    async fn hold(&mut self) -> Trouble {
        let Some(connection) = &mut self.connection else { return not_connected() };
        let Some(place) = connection.in_hand else { return not_connected() };
        sleep(PAUSE_AFTER).await;
        let mut changes = connection.consumer.context().changes.subscribe();
        loop {
            if !connection.is_ours(place) {
                return Trouble::Moved;
            }
            if let Err(trouble) = connection.pause() {
                return trouble;
            }
            let consumer = connection.consumer.clone();
            tokio::select! {
                message = consumer.recv() => match message {
                    Ok(message) => {
                        let ahead = connection.received(&message);
                        connection.ahead.push_back(ahead);
                    }
                    // What it means shows when the offset is committed.
                    Err(error) => tracing::debug!(%error, "a Kafka consumer"),
                },
                // Its source lives as long as the consumer.
                changed = changes.changed() => drop(changed),
            }
            if connection.ahead.len() > MAX_AHEAD {
                return Trouble::Down("Kafka sends messages although it is told to pause".into());
            }
        }
    }

    async fn ack(&mut self) -> Result<(), Trouble> {
        let connection = self.connection.as_mut().ok_or_else(not_connected)?;
        let place = connection.in_hand.take().ok_or_else(not_connected)?;
        if !connection.is_ours(place) {
            return Err(Trouble::Moved);
        }
        let mut done = TopicPartitionList::new();
        let next = Offset::Offset(place.offset + 1);
        done.add_partition_offset(&self.topic, place.partition, next).map_err(down)?;
        let consumer = connection.consumer.clone();
        let commit = spawn_blocking(move || consumer.commit(&done, CommitMode::Sync));
        match timeout(COMMIT_WITHIN, commit).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::IllegalGeneration
                    | RDKafkaErrorCode::UnknownMemberId
                    | RDKafkaErrorCode::RebalanceInProgress,
                ) => Err(Trouble::Moved),
                _ => Err(Trouble::Down(format!("an offset was not committed: {error}"))),
            },
            Ok(Err(panic)) => Err(Trouble::Down(panic.to_string())),
            Err(_) => Err(Trouble::Down("the commit of an offset was not answered".to_owned())),
        }
    }

    /// What is not committed comes again after the next connect; there is nothing to be said.
    async fn let_go(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.in_hand = None;
        }
    }

    async fn close(&mut self) {
        let Some(Connection { consumer, .. }) = self.connection.take() else { return };
        // It leaves the group, for which it asks the broker.
        let left = spawn_blocking(move || drop(consumer));
        if timeout(CLOSE_WITHIN, left).await.is_err() {
            tracing::debug!("a Kafka consumer takes long to leave its group");
        }
    }
}

/// Starts a consumer once a broker has answered for the topic. Blocks.
fn open(settings: &Settings, topic: &str, group: &str) -> Result<StreamConsumer<Context>, String> {
    let config = settings.consumer(group).map_err(|error| error.to_string())?;
    let created: Result<StreamConsumer<Context>, _> =
        config.create_with_context(Context::default());
    let consumer = created.map_err(|error| match error {
        // Its own words show the value, which may be a secret.
        KafkaError::ClientConfig(_, why, setting, _) => {
            format!("the Kafka client could not be started: {setting}: {why}")
        }
        error => format!("the Kafka client could not be started: {error}"),
    })?;
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_WITHIN).map_err(|_| {
        let words = explain(consumer.context().words.trouble().as_deref(), settings);
        format!("no Kafka broker at {} answered{words}", settings.bootstrap)
    })?;
    let listed = metadata.topics().iter().find(|listed| listed.name() == topic);
    let error =
        listed.map_or(Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART), |t| t.error());
    if let Some(error) = error {
        return Err(refused(error.into(), topic));
    }
    consumer.subscribe(&[topic]).map_err(|error| error.to_string())?;
    Ok(consumer)
}

fn refused(code: RDKafkaErrorCode, topic: &str) -> String {
    match code {
        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
            format!("topic {topic} is not there: create it, or correct `topic`")
        }
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            format!("this user may not read topic {topic}: allow Read and Describe")
        }
        code => format!("topic {topic}: {code}"),
    }
}

/// What an error of the consumer means; `None` where the client goes on by itself and nothing need be
/// told.
fn trouble(
    error: &KafkaError,
    consumer: &StreamConsumer<Context>,
    settings: &Settings,
) -> Option<Trouble> {
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    let words = match code {
        // "All brokers down" follows the reason of each.
        Some(
            Code::BrokerTransportFailure
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::PollExceeded
            | Code::PartitionEOF,
        ) => return None,
        Some(Code::AllBrokersDown | Code::Authentication | Code::SSL) => {
            let words = explain(consumer.context().words.trouble().as_deref(), settings);
            format!("no Kafka broker at {} answered{words}", settings.bootstrap)
        }
        Some(Code::GroupAuthorizationFailed) => {
            "this user may not be a member of the group: allow Read on it".to_owned()
        }
        Some(code) => format!("the Kafka consumer failed: {code}"),
        None => format!("the Kafka consumer failed: {error}"),
    };
    Some(Trouble::Down(words))
}

fn down(error: KafkaError) -> Trouble {
    Trouble::Down(error.to_string())
}

impl Connection {
    fn is_ours(&self, place: Place) -> bool {
        self.consumer.context().ours().get(&place.partition) == Some(&place.time)
    }

    fn received(&self, message: &BorrowedMessage<'_>) -> (Place, Delivery) {
        let (partition, offset) = (message.partition(), message.offset());
        let time = self.consumer.context().ours().get(&partition).copied().unwrap_or_default();
        (Place { partition, offset, time }, delivery(message))
    }

    fn pause(&mut self) -> Result<(), Trouble> {
        let assigned = self.consumer.assignment().map_err(down)?;
        self.consumer.pause(&assigned).map_err(down)?;
        self.is_paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Trouble> {
        if self.is_paused {
            let assigned = self.consumer.assignment().map_err(down)?;
            self.consumer.resume(&assigned).map_err(down)?;
            self.is_paused = false;
        }
        Ok(())
    }
}

/// What librdkafka calls back into.
#[derive(Default)]
struct Context {
    words: ClientWords,
    /// Our partitions, each with the count of assignments at which it became ours.
    ours: Mutex<HashMap<i32, u64>>,
    changes: watch::Sender<u64>,
}

impl Context {
    fn ours(&self) -> MutexGuard<'_, HashMap<i32, u64>> {
        // Every change is one call, so a panic elsewhere leaves it whole.
        self.ours.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.words.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let time = *self.changes.borrow() + 1;
                let mut ours = self.ours();
                ours.extend(partitions.elements().iter().map(|part| (part.partition(), time)));
            }
            Rebalance::Revoke(partitions) => {
                let mut ours = self.ours();
                for part in partitions.elements() {
                    ours.remove(&part.partition());
                }
            }
            Rebalance::Error(error) => tracing::debug!(%error, "a Kafka group is not rebalanced"),
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// One that was paused when it was taken from us is paused when it is given back.
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance
            && let Err(error) = consumer.resume(partitions)
        {
            tracing::warn!(%error, "partitions of a Kafka topic stay paused");
        }
        // Whoever holds a command pauses these, too.
        self.changes.send_modify(|changes| *changes += 1);
    }
}

fn delivery(message: &BorrowedMessage<'_>) -> Delivery {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers: Vec<(String, Bytes)> = headers
        .map(|header| (header.key.to_owned(), header.value.unwrap_or_default()))
        .map(|(name, value)| (name, Bytes::copy_from_slice(value)))
        .collect();
    let content_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let key = message.key().and_then(|key| std::str::from_utf8(key).ok()).map(Into::into);
    Delivery {
        binding: Binding::Kafka,
        content_type: content_type.map(|(_, value)| String::from_utf8_lossy(value).into_owned()),
        headers,
        message_id: None,
        body: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        place: format!("{}/{}/{}", message.topic(), message.partition(), message.offset()),
        address: Address::Topic { topic: message.topic().into(), key },
    }
}
