//! librdkafka's error codes, told apart: the cluster's trouble, the message's, or for good.

use rdkafka::error::RDKafkaErrorCode::{self, *};

use super::super::Error;

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
        MessageSizeTooLarge | MessageBatchTooLarge | InvalidMessageSize => Error::Refused(format!(
            "topic {topic}: {code}: raise its max.message.bytes, or route it elsewhere"
        )),
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

/// Whether a broker may have said this of a batch because of one message in it.
pub fn concerns_batch(code: RDKafkaErrorCode) -> bool {
    code == InvalidDifferentRecord || matches!(error(code, "", None), Error::Refused(_))
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
    fn a_refused_batch_is_taken_apart_and_nothing_else_is() {
        for code in [MessageSizeTooLarge, InvalidRecord, InvalidDifferentRecord, PolicyViolation] {
            assert!(concerns_batch(code), "{code:?}");
        }
        for code in [UnknownTopic, MessageTimedOut, PurgeInflight, TopicAuthorizationFailed] {
            assert!(!concerns_batch(code), "{code:?}");
        }
    }

    #[test]
    fn the_connection_trouble_is_in_the_words() {
        let error = error(AllBrokersDown, "t", Some("Connection refused".into()));
        assert!(error.to_string().contains("Connection refused"), "{error}");
    }
}
