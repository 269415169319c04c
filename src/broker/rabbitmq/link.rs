//! One connection to RabbitMQ, for whoever publishes or consumes on it.

use std::time::Duration;

use lapin::Connection;
use tokio::time::timeout;

use super::{
    Settings,
    settings::Endpoint,
    wire::{self, Wire},
};
use crate::broker::Error;

/// How long TCP, TLS and AMQP handshakes may take together.
const CONNECT: Duration = Duration::from_secs(10);

/// Seconds between heartbeats unless the URL says otherwise. The client notices a dead peer after
/// twice as long; its default would take two minutes.
const HEARTBEAT: u16 = 10;

/// A connection. Dropping it shuts its socket.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(super) wire: Wire,
}

impl Link {
    /// Connects, with what the files hold now.
    pub(super) async fn open(endpoint: &Endpoint) -> Result<Link, Error> {
        let mut uri = endpoint.uri.clone();
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        let tls = match &endpoint.tls {
            Some(tls) => Some(tls.prepare().await?),
            None => None,
        };
        let wire = Wire::default();
        let why = match timeout(CONNECT, wire::connect(uri, tls, &wire, CONNECT)).await {
            Ok(Ok(connection)) => return Ok(Link { connection, wire }),
            Ok(Err(error)) => endpoint.why(&error),
            Err(_) => silent("finish the handshake", CONNECT),
        };
        Err(Error::Down(format!("{}: {why}", endpoint.shown())))
    }

    /// The same from what `routes.yaml` says.
    pub(crate) async fn of(settings: &Settings) -> Result<Link, Error> {
        let endpoint = Endpoint::parse(settings).map_err(|error| Error::Down(error.to_string()))?;
        Link::open(&endpoint).await
    }
}

pub(super) fn silent(what: &str, limit: Duration) -> String {
    format!("the broker did not {what} within {} s", limit.as_secs())
}
