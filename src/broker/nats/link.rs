//! One connection to NATS, for whoever publishes or consumes on it, until it is lost for the first time.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use tokio::time::{Instant, timeout};

use super::{
    super::Error,
    ACK_DEADLINE, Settings, answer,
    health::{Health, Trouble},
    settings::Servers,
};

/// How long `connect` may take in all: names, TCP and handshake with each server in turn.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// How long one server may take of it.
const SERVER_DEADLINE: Duration = Duration::from_secs(4);

/// How often the client asks a silent server whether it is there (the default is a minute). The
/// library gives up after the third unanswered one.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Commands waiting for the client's one task. It drains them in batches; more would only be
/// messages buffered out of the dispatcher's sight.
const COMMAND_QUEUE: usize = 512;

/// A connection, and what it says of itself.
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(super) health: Health,
}

impl Link {
    /// Connects with what the files hold now.
    pub(super) async fn open(servers: &Servers, client_name: &str) -> Result<Link, Error> {
        let health = Health::default();
        let options = secured(servers, options(servers, client_name, health.clone())).await?;
        let connecting = options.connect(&servers.addresses[..]);
        match timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok(client)) => Ok(Link { client, health }),
            Ok(Err(error)) => Err(answer::not_connected(&error, servers)),
            Err(_) => Err(Error::Down(format!(
                "no NATS server at {} finished its handshake within {} s: check that it runs \
                 and answers",
                servers.shown(),
                CONNECT_DEADLINE.as_secs()
            ))),
        }
    }

    /// The same from what `routes.yaml` says.
    pub(crate) async fn of(settings: &Settings) -> Result<Link, Error> {
        let servers = Servers::parse(settings).map_err(|error| Error::Down(error.to_string()))?;
        Link::open(&servers, &settings.client_name).await
    }

    /// Resolves once the connection is lost, or a publish to `subject` is not allowed; with the reason.
    pub(crate) async fn trouble(&self, subject: &str) -> String {
        match self.health.trouble(subject, Instant::now()).await {
            Trouble::Lost(reason) => reason,
            Trouble::Forbidden => {
                format!("this NATS user may not publish to {subject}: allow it")
            }
        }
    }
}

fn options(servers: &Servers, client_name: &str, health: Health) -> ConnectOptions {
    ConnectOptions::new()
        .name(client_name)
        .connection_timeout(SERVER_DEADLINE)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(ACK_DEADLINE))
        .client_capacity(COMMAND_QUEUE)
        // One attempt a server; patience is the caller's.
        .max_reconnects(servers.addresses.len())
        .ignore_discovered_servers()
        .event_callback(move |event| {
            health.saw(&event);
            std::future::ready(())
        })
}

/// The options of a connection, with what the files hold now.
async fn secured(servers: &Servers, options: ConnectOptions) -> Result<ConnectOptions, Error> {
    let servers = servers.clone();
    let secured = tokio::task::spawn_blocking(move || servers.secure(options)).await;
    // Files were well at the start, and may be mended.
    match secured {
        Ok(Ok(options)) => Ok(options),
        Ok(Err(error)) => Err(Error::Down(error.to_string())),
        Err(panic) => Err(Error::Down(format!("preparing a NATS connection: {panic}"))),
    }
}
