//! RabbitMQ over AMQP 0-9-1, with publisher confirms.
//!
//! A message is confirmed only when the broker has routed it to a queue and acknowledged it:
//! `confirm.select`, persistent, `mandatory`. What can go wrong with one message, and how the
//! others are spared:
//!
//! - **Nothing is bound**: the broker returns the message and then acknowledges it. The client
//!   library hands the return to whichever confirmation resolves next, so a verdict is only given
//!   when it is certain; [`ledger`] says when and why, [`confirmer`] how.
//! - **No such exchange**: the broker closes the channel, which fails everything in flight. So the
//!   [`exchanges`] are asked for first, on channels of their own.
//! - **Too large, forbidden**: the broker closes the channel, too. It says why, and [`lessons`]
//!   remembers it, so that the republish does not run into it again.
//! - **Any other objection**: the outcome of all that was in flight is unknown (*down*), and after
//!   the reconnect that many messages go one at a time: the one that closes the channel alone is
//!   the guilty one.
//!
//! While the broker has an alarm (memory, disk) it reads from no connection that publishes and says
//! so: the session is on [`Hold`], and nothing in flight is given up as long as heartbeats show that
//! the broker is there. Messages wait for their turn in the [`queue`], never in `publish`, which
//! therefore does not wait for the broker at all.
//!
//! The client's own recovery stays off: it rejects what is in flight and republishes nothing. Every
//! wait has a limit of ours, and a connection that is given up has its socket shut ([`wire`]).
//!
//! ```text
//! RabbitMq ─ owns ─ Session ─ orders ─► Confirmer (task) ─ frames ─► client's thread ─► broker
//!    ▲                                      │  a queue, then one future a publish, one waker each
//!    └── Outcome: why it ended, lessons ────┘
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;

pub(crate) use self::link::Link;
pub use self::settings::{Login, Settings, SettingsError};
use self::{lessons::Lessons, session::Session, settings::Endpoint};
use super::{Broker, Confirmation, Error, Hold, Publication, tls};

mod confirmer;
mod exchanges;
mod fault;
mod ledger;
mod lessons;
mod link;
mod message;
mod queue;
mod session;
mod settings;
mod wire;
mod woken;

/// Publishes to one RabbitMQ broker.
pub struct RabbitMq {
    endpoint: Endpoint,
    session: Option<Session>,
    lessons: Arc<Mutex<Lessons>>,
    /// How many messages the next session publishes one at a time.
    careful: usize,
}

impl RabbitMq {
    /// Checks the settings and the files that they name; connects to nothing. The error does not
    /// repeat the URL.
    pub fn new(settings: Settings) -> Result<RabbitMq, SettingsError> {
        let endpoint = Endpoint::parse(&settings)?;
        endpoint.tls.as_ref().map(tls::Settings::client_config).transpose()?;
        Ok(RabbitMq { endpoint, session: None, lessons: Arc::default(), careful: 0 })
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq").field("connected", &self.session.is_some()).finish()
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn connect(&mut self) -> Result<(), Error> {
        if let Some(session) = self.session.take() {
            self.careful = session.suspects();
        }
        let lessons = Arc::clone(&self.lessons);
        let session = Session::open(&self.endpoint, lessons, self.careful).await?;
        self.session = Some(session);
        Ok(())
    }

    async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Error> {
        match &mut self.session {
            Some(session) => session.publish(publication).await,
            None => Err(Error::Down("not connected".to_owned())),
        }
    }

    fn hold(&self) -> Option<Hold> {
        self.session.as_ref().map(Session::hold)
    }

    async fn close(&mut self, deadline: Duration) {
        if let Some(session) = self.session.take() {
            session.close(deadline).await;
        }
    }
}

/// A client error in words fit for an operator, without the user's name.
pub(crate) fn words(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => {
            lessons::for_operators(error.get_message().as_str())
        }
        _ => error.to_string(),
    }
}
