//! librdkafka's error codes, told apart: the cluster's trouble, the message's, or for good.

use rdkafka::error::RDKafkaErrorCode::{self, *};

use super::{super::Error, config::BATCH_BYTES};

/// What an error code says about a message to `topic`. `trouble` is the last connection trouble.
pub fn error(code: RDKafkaErrorCode, topic: &str, trouble: Option<String>) -> Error {
    match code {
        // This connection or the whole cluster.
        BrokerTransportFailure
        | AllBrokersDown
        | BrokerDestroy
        | DestroyBroker
        | Resolve
        | NetworkException
        | OperationTimedOut
        | RequestTimedOut
        | TimedOutQueue
        | QueueFull
        | BrokerNotAvailable
        | Authentication
        | SaslAuthenticationFailed
        | SSL
        | UnsupportedSASLMechanism
        | IllegalSASLState => down(code, trouble),
        // This producer: only a fresh one helps.
        Fatal
        | PurgeQueue
        | PurgeInflight
        | State
        | Fenced
        | ProducerFenced
        | UnknownProducerId
        | OutOfOrderSequenceNumber
        | InvalidProducerEpoch
        | InvalidProducerIdMapping
        | GaplessGuarantee
        | CriticalSystemResource
        | RebootstrapRequired => down(code, trouble),
        ClusterAuthorizationFailed => Error::Down(format!(
            "Kafka: {code}: an idempotent producer needs the right IdempotentWrite on the cluster, \
             or Write on its topics"
        )),
        // This message, for good.
        MessageSizeTooLarge | MessageBatchTooLarge | InvalidMessageSize => {
            too_large(topic, usize::MAX)
        }
        InvalidRecord => Error::Refused(format!(
            "topic {topic}: {code} (a compacted topic takes no message without a key)"
        )),
        InvalidTopic
        | InvalidMessage
        | BadMessage
        | InvalidTimestamp
        | PolicyViolation
        | InvalidArgument
        | UnsupportedForMessageFormat => Error::Refused(format!("topic {topic}: {code}")),
        // This message, now: the topic may be created, allowed, or get well.
        UnknownTopic | UnknownTopicOrPartition | UnknownTopicId | UnknownPartition => {
            Error::Failed(format!("topic {topic}: {code}: create it, or correct the route"))
        }
        TopicAuthorizationFailed => {
            Error::Failed(format!("topic {topic}: {code}: allow Write on it"))
        }
        // What is not known is the message's: a guess the other way would stop every message.
        code => Error::Failed(format!("topic {topic}: {code}")),
    }
}

/// A batch was larger than the topic takes. Whose fault that is depends on what shared the batch:
/// a message that fills one by itself was alone.
pub fn too_large(topic: &str, body_bytes: usize) -> Error {
    let text = format!(
        "topic {topic}: {MessageSizeTooLarge}: raise its max.message.bytes, or route it elsewhere"
    );
    if body_bytes >= BATCH_BYTES { Error::Refused(text) } else { Error::Failed(text) }
}

fn down(code: RDKafkaErrorCode, trouble: Option<String>) -> Error {
    match trouble {
        Some(trouble) => Error::Down(format!("Kafka: {code} ({trouble})")),
        None => Error::Down(format!("Kafka: {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Class {
        Down,
        Failed,
        Refused,
    }

    fn class(error: Error) -> Class {
        match error {
            Error::Down(_) => Class::Down,
            Error::Failed(_) => Class::Failed,
            Error::Refused(_) => Class::Refused,
        }
    }

    #[test]
    fn a_message_is_never_blamed_for_the_cluster_nor_the_cluster_for_a_message() {
        let cases = [
            (BrokerTransportFailure, Class::Down),
            (AllBrokersDown, Class::Down),
            (RequestTimedOut, Class::Down),
            (Fatal, Class::Down),
            (PurgeQueue, Class::Down),
            (PurgeInflight, Class::Down),
            (QueueFull, Class::Down),
            (ClusterAuthorizationFailed, Class::Down),
            (OutOfOrderSequenceNumber, Class::Down),
            (MessageSizeTooLarge, Class::Refused),
            (InvalidRecord, Class::Refused),
            (InvalidTopic, Class::Refused),
            (PolicyViolation, Class::Refused),
            (InvalidDifferentRecord, Class::Failed),
            (UnknownTopic, Class::Failed),
            (UnknownTopicOrPartition, Class::Failed),
            (UnknownPartition, Class::Failed),
            (TopicAuthorizationFailed, Class::Failed),
            (NotEnoughReplicas, Class::Failed),
            (NotEnoughReplicasAfterAppend, Class::Failed),
            (KafkaStorageError, Class::Failed),
            (Unknown, Class::Failed),
        ];
        for (code, expected) in cases {
            assert_eq!(class(error(code, "t", None)), expected, "{code:?}");
        }
    }

    #[test]
    fn only_a_message_that_filled_its_batch_is_refused_as_too_large() {
        assert_eq!(class(too_large("t", BATCH_BYTES)), Class::Refused);
        assert_eq!(class(too_large("t", BATCH_BYTES - 1)), Class::Failed);
    }

    #[test]
    fn the_connection_trouble_is_in_the_words() {
        let error = error(AllBrokersDown, "t", Some("Connection refused".into()));
        assert!(error.to_string().contains("Connection refused"), "{error}");
    }
}
