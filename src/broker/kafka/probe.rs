//! A message timed out: is it the cluster, or only this topic?
//!
//! librdkafka retries a sick partition in silence and says "timed out" in the end, as it does when
//! every broker is gone. So the cluster is asked: if it does not answer, it is down; if it does, and
//! the topic is unwell or other messages pass, it is the message's trouble.

use std::{
    collections::HashMap,
    sync::Weak,
    time::{Duration, Instant},
};

use bytestring::ByteString;
use rdkafka::{
    error::RDKafkaErrorCode,
    metadata::{Metadata, MetadataTopic},
    producer::Producer as _,
};
use tokio::sync::Mutex;

use super::{
    super::Error,
    classify,
    client::{self, Producer},
    config::DELIVERY_TIMEOUT,
};

/// How long the cluster has to answer.
const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// How long an answer stands: a window's messages time out together, and one question is enough.
const ANSWER_LASTS: Duration = Duration::from_secs(5);

/// Topics remembered; beyond it the oldest answers are forgotten, at the price of asking again.
const MAX_TOPICS: usize = 256;

pub struct Probe {
    producer: Weak<Producer>,
    // Held while asking, so that at most one question is under way.
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    no_answer: Option<(Instant, String)>,
    topics: HashMap<ByteString, (Instant, Topic)>,
}

/// What the cluster says about a topic.
#[derive(Clone, Debug, PartialEq)]
enum Topic {
    Error(RDKafkaErrorCode),
    NoLeader { partition: i32 },
    OutOfSync { partition: i32, in_sync: usize, replicas: usize },
    Well,
}

impl Probe {
    pub fn new(producer: Weak<Producer>) -> Self {
        Self { producer, answers: Mutex::default() }
    }

    /// Why a message to `topic` timed out. `others_pass`: the cluster took one a short while ago.
    pub async fn judge(&self, topic: &ByteString, others_pass: bool) -> Error {
        let mut answers = self.answers.lock().await;
        if let Some(error) = answers.standing(topic) {
            return verdict(error, topic, others_pass);
        }
        let answer = self.ask(topic.clone()).await;
        answers.keep(topic, &answer);
        verdict(answer, topic, others_pass)
    }

    /// Why the producer takes nothing any more, if it has met a fatal error.
    pub async fn fatal(&self) -> Option<String> {
        let producer = self.producer.clone();
        // On the blocking pool, where the last reference to a producer may end.
        let asked = tokio::task::spawn_blocking(move || client::fatal(&*producer.upgrade()?));
        asked.await.unwrap_or_else(|panic| Some(panic.to_string()))
    }

    async fn ask(&self, topic: ByteString) -> Result<Topic, String> {
        let producer = self.producer.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let producer = producer.upgrade().ok_or("the Kafka producer has ended")?;
            let metadata = producer.client().fetch_metadata(Some(&topic), PROBE_DEADLINE);
            metadata.map(|metadata| state(&metadata)).map_err(|error| error.to_string())
        });
        asked.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

impl Answers {
    fn standing(&self, topic: &ByteString) -> Option<Result<Topic, String>> {
        if let Some((at, reason)) = &self.no_answer
            && at.elapsed() < ANSWER_LASTS
        {
            return Some(Err(reason.clone()));
        }
        let (at, topic) = self.topics.get(topic)?;
        (at.elapsed() < ANSWER_LASTS).then(|| Ok(topic.clone()))
    }

    fn keep(&mut self, topic: &ByteString, answer: &Result<Topic, String>) {
        match answer {
            Err(reason) => self.no_answer = Some((Instant::now(), reason.clone())),
            Ok(state) => {
                if self.topics.len() >= MAX_TOPICS {
                    self.topics.clear();
                }
                self.topics.insert(topic.clone(), (Instant::now(), state.clone()));
            }
        }
    }
}

fn state(metadata: &Metadata) -> Topic {
    match metadata.topics().first() {
        Some(topic) => topic_state(topic),
        None => Topic::Error(RDKafkaErrorCode::UnknownTopic),
    }
}

fn topic_state(topic: &MetadataTopic) -> Topic {
    if let Some(error) = topic.error() {
        return Topic::Error(error.into());
    }
    let partitions = topic.partitions();
    if let Some(partition) = partitions.iter().find(|p| p.leader() < 0) {
        return Topic::NoLeader { partition: partition.id() };
    }
    match partitions.iter().find(|p| p.isr().len() < p.replicas().len()) {
        Some(partition) => Topic::OutOfSync {
            partition: partition.id(),
            in_sync: partition.isr().len(),
            replicas: partition.replicas().len(),
        },
        None => Topic::Well,
    }
}

fn verdict(answer: Result<Topic, String>, topic: &str, others_pass: bool) -> Error {
    let seconds = DELIVERY_TIMEOUT.as_secs();
    match answer {
        Err(reason) => Error::Down(format!("Kafka confirmed nothing for {seconds} s: {reason}")),
        Ok(Topic::Error(code)) => classify::error(code, topic, None),
        Ok(Topic::NoLeader { partition }) => Error::Failed(format!(
            "topic {topic}: not confirmed within {seconds} s: partition {partition} has no leader"
        )),
        Ok(Topic::OutOfSync { partition, in_sync, replicas }) => Error::Failed(format!(
            "topic {topic}: not confirmed within {seconds} s: {in_sync} of {replicas} replicas of \
             partition {partition} are in sync; min.insync.replicas may want more"
        )),
        Ok(Topic::Well) if others_pass => Error::Failed(format!(
            "topic {topic}: not confirmed within {seconds} s while other messages were"
        )),
        Ok(Topic::Well) => Error::Down(format!(
            "Kafka answers, but has confirmed nothing for {seconds} s (topic {topic})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_or_a_cluster_that_takes_nothing_is_down() {
        let sick = Topic::OutOfSync { partition: 0, in_sync: 1, replicas: 3 };
        let cases = [
            (Err("timed out".to_owned()), true, "down"),
            (Err("timed out".to_owned()), false, "down"),
            (Ok(Topic::Well), false, "down"),
            (Ok(Topic::Well), true, "failed"),
            (Ok(Topic::NoLeader { partition: 1 }), false, "failed"),
            (Ok(sick), false, "failed"),
            (Ok(Topic::Error(RDKafkaErrorCode::UnknownTopicOrPartition)), false, "failed"),
            (Ok(Topic::Error(RDKafkaErrorCode::InvalidTopic)), false, "refused"),
        ];
        for (answer, others_pass, expected) in cases {
            let found = match verdict(answer.clone(), "t", others_pass) {
                Error::Down(_) => "down",
                Error::Failed(_) => "failed",
                Error::Refused(_) => "refused",
            };
            assert_eq!(found, expected, "{answer:?}, others pass: {others_pass}");
        }
    }
}
