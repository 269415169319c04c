//! The producer's settings: what an operator says, and what keeps the promise.

use std::time::Duration;

use rdkafka::{ClientConfig, config::RDKafkaLogLevel};
use secrecy::ExposeSecret;

use super::{
    super::tls,
    security::{self, Sasl},
};

/// How to reach a cluster. Prints no secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `host:port`, several separated by commas; the port defaults to 9092.
    pub bootstrap: String,
    /// The name the brokers log and count this producer under.
    pub client_id: String,
    /// `None`: in the clear.
    pub tls: Option<tls::Settings>,
    /// `None`: without a name, or by the certificate that `tls` shows.
    pub sasl: Option<Sasl>,
}

/// Why settings cannot work.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("bootstrap names no broker: give host:port, several separated by commas")]
    NoBroker,
    #[error("not a list of addresses of brokers: give host:port, several separated by commas")]
    /// It is not repeated: a secret may have been put there.
    Address,
    #[error("sasl: user and password hold no NUL character")]
    Nul,
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// How long librdkafka tries to deliver one message before it reports it as timed out.
///
/// Finite, because librdkafka retries "not enough replicas" and a missing leader without ever
/// saying so: without a limit one sick partition would look like a dead cluster. Long enough for a
/// leader election and a rolling restart. A message that timed out may have been written; it is
/// published again under the same `ce_id`. Idempotence survives it (librdkafka raises its epoch).
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a leader may wait for its replicas before it answers.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(8);

/// When a silent connection is given up (librdkafka's default is a minute). Above
/// `REPLICATION_TIMEOUT`, or the client would drop connections on which an answer is due.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an unknown topic may be one that is just being created. Its messages fail after this;
/// librdkafka's default equals our `DELIVERY_TIMEOUT` and would blur the two.
const TOPIC_PROPAGATION: Duration = Duration::from_secs(5);

/// How often topics are looked up again; bounds how long a topic created late stays unknown.
const TOPIC_REFRESH: Duration = Duration::from_secs(30);

/// Bound of librdkafka's queue (its default is 1 GiB). Above any window of messages in flight; a
/// single message larger than this could never be enqueued.
const QUEUE_KBYTES: u64 = 128 * 1024;

/// The client's own limit for one message: its maximum, so that the topic's limit decides.
const MESSAGE_MAX_BYTES: u64 = 1_000_000_000;

/// Bytes after which a batch takes no further message; a larger message makes a batch by itself.
/// Far below the limit of any usual topic (1 MB by default, and librdkafka's batches are as large),
/// since a broker refuses a batch over the limit with every innocent message in it.
pub const BATCH_BYTES: usize = 64 * 1024;

/// Longest pause between two attempts to reach a broker; the default of 10 s would eat a third of
/// `DELIVERY_TIMEOUT` after a restart.
const RECONNECT_MAX: Duration = Duration::from_secs(2);

/// How long a member of a group may be silent until the others take over its partitions: what follows a
/// crash waits for it (the default is 45 s). librdkafka keeps it alive by itself meanwhile.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(3);

/// What a consumer may fetch ahead of what it is at. One is under way at a time.
const AHEAD_KBYTES: u64 = 1024;

impl Settings {
    /// Says what is wrong before librdkafka would merely log it. Reads no file.
    pub fn check(&self) -> Result<(), SettingsError> {
        let mut brokers =
            self.bootstrap.split(',').map(str::trim).filter(|b| !b.is_empty()).peekable();
        if brokers.peek().is_none() {
            return Err(SettingsError::NoBroker);
        }
        if brokers.any(|broker| !is_address(broker)) {
            return Err(SettingsError::Address);
        }
        let credentials = self.sasl.iter().flat_map(|sasl| [&sasl.user, &sasl.password]);
        match credentials.into_iter().any(|text| text.expose_secret().contains('\0')) {
            true => Err(SettingsError::Nul),
            false => Ok(()),
        }
    }

    /// The librdkafka configuration of a producer that loses nothing it has confirmed. Blocks.
    pub(super) fn producer(&self) -> Result<ClientConfig, tls::Error> {
        let mut config = self.client()?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", millis(DELIVERY_TIMEOUT))
            .set("request.timeout.ms", millis(REPLICATION_TIMEOUT))
            .set("topic.metadata.propagation.max.ms", millis(TOPIC_PROPAGATION))
            .set("topic.metadata.refresh.interval.ms", millis(TOPIC_REFRESH))
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES.to_string())
            .set("message.max.bytes", MESSAGE_MAX_BYTES.to_string())
            .set("batch.size", BATCH_BYTES.to_string())
            // Keys land on the partition where Java producers put them.
            .set("partitioner", "murmur2_random");
        Ok(config)
    }

    /// As [`producer`](Self::producer), with each message in a batch of its own.
    pub(super) fn lone_producer(&self) -> Result<ClientConfig, tls::Error> {
        let mut config = self.producer()?;
        config.set("batch.num.messages", "1");
        Ok(config)
    }

    /// The librdkafka configuration of a member of a group that commits by itself what is done, and
    /// nothing else. Blocks while files are read.
    pub(crate) fn consumer(&self, group: &str) -> Result<ClientConfig, tls::Error> {
        let mut config = self.client()?;
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false")
            .set("session.timeout.ms", millis(SESSION_TIMEOUT))
            .set("heartbeat.interval.ms", millis(HEARTBEAT_INTERVAL))
            .set("topic.metadata.refresh.interval.ms", millis(TOPIC_REFRESH))
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", AHEAD_KBYTES.to_string());
        Ok(config)
    }

    /// What every client of this cluster needs, the one that reads topic settings included. Blocks
    /// while files are read.
    pub(super) fn client(&self) -> Result<ClientConfig, tls::Error> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", &self.client_id)
            .set("socket.timeout.ms", millis(SOCKET_TIMEOUT))
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", millis(RECONNECT_MAX))
            .set("log.connection.close", "false")
            .set_log_level(RDKafkaLogLevel::Info);
        security::secure(&mut config, self.tls.as_ref(), self.sasl.as_ref())?;
        Ok(config)
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// `host`, `host:port` or `[v6]:port`.
fn is_address(broker: &str) -> bool {
    let (host, port) = match broker.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (broker, None),
    };
    let host_is_sane = !host.is_empty()
        && !host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '@');
    host_is_sane && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::kafka::Mechanism;

    fn settings(bootstrap: &str) -> Settings {
        let bootstrap = bootstrap.to_owned();
        Settings { bootstrap, client_id: "waypost".into(), tls: None, sasl: None }
    }

    fn sasl(mechanism: Mechanism, password: &str) -> Option<Sasl> {
        Some(Sasl { mechanism, user: "me".into(), password: password.into() })
    }

    #[test]
    fn an_unusable_bootstrap_is_named() {
        for good in ["localhost:9092", "localhost", "a:1, b:2,", "[::1]:9092"] {
            assert!(settings(good).check().is_ok(), "{good:?}");
        }
        for (bootstrap, expected) in [("", "names no broker"), (" , ", "names no broker")] {
            let error = settings(bootstrap).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{bootstrap:?}: {error}");
        }
        for bad in ["a:1,b:x", "a:0", "a:70000", ":9092", "http://a:1", "user@a:1"] {
            let error = settings(bad).check().unwrap_err();
            assert!(matches!(error, SettingsError::Address), "{bad:?}: {error}");
            assert!(!error.to_string().contains(bad), "it may hold a password: {error}");
        }
    }

    #[test]
    fn a_password_that_librdkafka_cannot_take_is_refused_without_being_shown() {
        let settings = Settings { sasl: sasl(Mechanism::Plain, "hunter\0two"), ..settings("a") };
        let printed = format!("{settings:?} {}", settings.check().unwrap_err());
        assert!(printed.contains("NUL") && !printed.contains("hunter"), "{printed}");
    }

    #[test]
    fn librdkafka_accepts_every_setting() {
        let plain = [settings("127.0.0.1:1")];
        let with_sasl = Mechanism::ALL.map(|mechanism| Settings {
            tls: Some(tls::Settings::default()),
            sasl: sasl(mechanism, "p"),
            ..settings("127.0.0.1:1")
        });
        for settings in plain.iter().chain(&with_sasl) {
            let consumer = settings.consumer("g");
            for config in
                [settings.client(), settings.producer(), settings.lone_producer(), consumer]
            {
                config.unwrap().create_native_config().expect("known keys, values in range");
            }
        }
    }
}
