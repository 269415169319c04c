//! A connection whose socket we can shut ourselves.
//!
//! The client runs a thread for each connection. During the handshake no heartbeat watches it, and
//! when the caller gives up waiting the thread stays, blocked on a peer that may never speak again:
//! every attempt on a frozen broker would leak one. Holding the socket, too, we end the thread by
//! shutting it.

use std::{
    io,
    net::{Shutdown, TcpStream},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    tcp::{AMQPUriTcpExt, RustlsConnector},
    uri::{AMQPScheme, AMQPUri},
};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

/// Name and version told to the broker, for those who look at its list of connections.
const PRODUCT: &str = "waypost";

/// Shuts a connection's socket when dropped.
#[derive(Default)]
pub struct Wire(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Connecting,
    Open(TcpStream),
    Shut,
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(socket) = std::mem::replace(&mut *state, State::Shut)
            && let Err(error) = socket.shutdown(Shutdown::Both)
        {
            // The peer may have closed first; the client's thread has ended then.
            tracing::debug!(%error, "the socket was shut already");
        }
    }
}

/// Connects, with `tls` if given; `timeout_each` bounds the handshakes of TCP and TLS, so that the
/// client's thread gives up soon after its caller. Dropping the [`Wire`] at any time ends the thread.
pub async fn connect(
    uri: AMQPUri,
    tls: Option<ClientConfig>,
    wire: &Wire,
    timeout_each: Duration,
) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default()
        .with_connection_name(PRODUCT.into())
        .with_client_property("product".into(), PRODUCT.into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let state = Arc::clone(&wire.0);
    let runtime = lapin::runtime::default_runtime()?;
    let dialler = runtime.clone();
    let tls = tls.map(RustlsConnector::from);
    let dial = async move |uri: AMQPUri, _| {
        // The socket is taken while there is one to be had; TLS is put on it below.
        let plain = AMQPUri { scheme: AMQPScheme::AMQP, ..uri };
        let stream = timeout(timeout_each, plain.connect_async(&dialler))
            .await
            .map_err(io::Error::from)??;
        if let AsyncTcpStream::Plain(stream) = &stream {
            let socket = stream.get_ref().as_fd().try_clone_to_owned()?.into();
            open(&state, socket)?;
        }
        let Some(connector) = &tls else { return Ok(stream) };
        let secured = stream.into_rustls(connector, &plain.authority.host);
        Ok(timeout(timeout_each, secured).await.map_err(io::Error::from)??)
    };
    Connection::connector(uri, runtime, dial, properties).await
}

/// Keeps the socket, unless the caller has given up meanwhile.
fn open(state: &Mutex<State>, socket: TcpStream) -> io::Result<()> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    if let State::Shut = *state {
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    *state = State::Open(socket);
    Ok(())
}
