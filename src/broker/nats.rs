//! NATS, through JetStream only: a message counts as confirmed when a stream has stored it.
//!
//! One [`Connection`] is one client, and it is used until it is lost for the first time. The
//! library would reconnect by itself, for ever, and meanwhile take messages and say nothing; here
//! the first disconnect resolves everything in flight as [`Error::Down`], and the dispatcher asks
//! for a new connection. What the old one may still deliver late carries the same `Nats-Msg-Id`,
//! and the stream drops one of the two.

mod answer;
mod durability;
mod health;
mod link;
mod login;
mod message;
mod settings;
mod streams;

use std::{sync::Arc, time::Duration};

use async_nats::{
    ConnectOptions,
    connection::State,
    jetstream::{
        self,
        context::{PublishAckFuture, PublishErrorKind},
        message::PublishMessage,
    },
};
use async_trait::async_trait;
use bytestring::ByteString;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use self::link::Link;
use self::{
    durability::Durability,
    health::{Health, Trouble},
    settings::Servers,
    streams::{
        Silence::{self, Unanswered, Unclaimed},
        Streams,
    },
};
pub use self::{
    login::{Login, LoginError},
    settings::{Settings, SettingsError},
};
use super::{Broker, Confirmation, Error, Publication};
use crate::event::Address;

/// How long a stream may take to confirm, from hand-over. Above the three pings that find a dead
/// server, and above an election within a stream.
const ACK_DEADLINE: Duration = Duration::from_secs(20);

/// How long `publish` waits for the client to take a message; it does not when the socket is stuck.
const HAND_OVER_DEADLINE: Duration = Duration::from_secs(5);

/// Acknowledgements awaited at once; above any window of messages in flight.
const MAX_UNCONFIRMED: usize = 8192;

/// A NATS server or cluster to publish to.
pub struct Nats {
    client_name: String,
    servers: Servers,
    durability: Arc<Durability>,
    connection: Option<Arc<Connection>>,
}

struct Connection {
    client: async_nats::Client,
    context: jetstream::Context,
    health: Health,
    streams: Streams,
    durability: Arc<Durability>,
}

impl Nats {
    /// Checks the settings and the files that they name; connects to nothing. Errors never show the
    /// URL.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let servers = Servers::parse(&settings)?;
        servers.secure(ConnectOptions::new())?;
        let Settings { client_name, .. } = settings;
        Ok(Self { client_name, servers, durability: Arc::default(), connection: None })
    }
}

#[async_trait]
impl Broker for Nats {
    async fn connect(&mut self) -> Result<(), Error> {
        self.connection = None;
        let Link { client, health } = Link::open(&self.servers, &self.client_name).await?;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(ACK_DEADLINE)
            .ack_timeout(ACK_DEADLINE)
            .max_ack_inflight(MAX_UNCONFIRMED)
            .build(client.clone());
        self.connection = Some(Arc::new(Connection {
            client,
            streams: Streams::new(context.clone()),
            context,
            health,
            durability: self.durability.clone(),
        }));
        Ok(())
    }

    async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Error> {
        let Address::Subject(subject) = &publication.address else {
            return Err(Error::Refused(format!("{} is not a NATS subject", publication.address)));
        };
        let to = message::subject(subject)?;
        let Some(connection) = &self.connection else {
            return Err(Error::Down("not connected to NATS".into()));
        };
        connection.check_up()?;
        let message = PublishMessage::build()
            .payload(publication.payload())
            .headers(message::headers(publication)?)
            .message_id(message::id(publication));
        let handed_over = Instant::now();
        let sending = connection.context.send_publish(to, message);
        let ack = match timeout(HAND_OVER_DEADLINE, sending).await {
            Ok(Ok(ack)) => ack,
            Ok(Err(error)) => return Err(answer::not_sent(&error, subject)),
            Err(_) => {
                return Err(Error::Down(format!(
                    "the NATS connection took no message for {} s",
                    HAND_OVER_DEADLINE.as_secs()
                )));
            }
        };
        let in_flight =
            InFlight { connection: connection.clone(), subject: subject.clone(), handed_over };
        Ok(in_flight.confirmed(ack).boxed())
    }

    async fn close(&mut self, deadline: Duration) {
        let Some(connection) = self.connection.take() else { return };
        // Every acknowledgement that is awaited, or that the library still awaits for a dropped one.
        if timeout(deadline, connection.context.wait_for_acks()).await.is_err() {
            tracing::debug!("NATS was closed with messages in flight");
        }
    }
}

impl Connection {
    /// While disconnected, the library would buffer a message and say `Ok`.
    fn check_up(&self) -> Result<(), Error> {
        if let Some(error) = self.health.lost() {
            return Err(error);
        }
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err(health::disconnected()),
        }
    }
}

/// A message that was handed to the client.
struct InFlight {
    connection: Arc<Connection>,
    subject: ByteString,
    handed_over: Instant,
}

impl InFlight {
    async fn confirmed(self, ack: PublishAckFuture) -> Result<(), Error> {
        let Connection { context, health, durability, .. } = &*self.connection;
        let acknowledged = timeout_at(self.handed_over + ACK_DEADLINE, ack.into_future());
        let ack = tokio::select! {
            biased;
            ack = acknowledged => ack,
            trouble = health.trouble(&self.subject, self.handed_over) => {
                return Err(self.explain(trouble));
            }
        };
        match ack {
            // Also where `duplicate` is set: the id names this very message, so the stream has it.
            Ok(Ok(ack)) => {
                health.confirmed();
                Durability::used(durability, context, ack.stream);
                Ok(())
            }
            Ok(Err(error)) => match error.kind() {
                PublishErrorKind::StreamNotFound => Err(self.ask_streams(Unclaimed).await),
                PublishErrorKind::TimedOut => Err(self.ask_streams(Unanswered).await),
                _ => Err(answer::not_acknowledged(&error, &self.subject)),
            },
            Err(_) => Err(self.ask_streams(Unanswered).await),
        }
    }

    /// Why no stream confirmed it, in the words of the JetStream API.
    async fn ask_streams(&self, silence: Silence) -> Error {
        let Connection { health, streams, .. } = &*self.connection;
        let unanswered = matches!(silence, Unanswered) && health.unanswered();
        let asked = Instant::now();
        let trouble = tokio::select! {
            biased;
            answer = streams.takes(&self.subject) => {
                let others_pass = match silence {
                    Unclaimed => health.confirms_since(self.handed_over),
                    Unanswered => unanswered,
                };
                return streams::verdict(answer, &self.subject, silence, others_pass);
            }
            trouble = health.trouble(streams::LOOKUP, asked) => trouble,
        };
        match (trouble, silence) {
            (Trouble::Lost(reason), _) => Error::Down(reason),
            (Trouble::Forbidden, Unclaimed) => Error::Failed(format!(
                "no stream answered for subject {}, and this user may not ask which one takes it: \
                 create a stream, or allow publishing to {}",
                self.subject,
                streams::LOOKUP
            )),
            (Trouble::Forbidden, Unanswered) => {
                streams::unanswered("a stream", &self.subject, unanswered)
            }
        }
    }

    fn explain(&self, trouble: Trouble) -> Error {
        match trouble {
            Trouble::Lost(reason) => Error::Down(reason),
            Trouble::Forbidden => Error::Failed(format!(
                "subject {}: this NATS user may not publish to it: allow it",
                self.subject
            )),
        }
    }
}
