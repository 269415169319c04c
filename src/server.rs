//! Serves HTTP on a listener, within limits, until told to stop: HTTP/1.1 always, HTTP/2 where it is
//! switched on, over TLS where there is a certificate.
//!
//! A connection is first told by its opening bytes ([`preface`], or the TLS handshake), within a
//! deadline; then [`http1`] or [`http2`] has it until it ends.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{clock::now_ms, quiet::Quiet};

mod http1;
mod http2;
mod load;
mod preface;
mod refusal;
pub mod tls;

pub use http2::{BeyondShare, SHARE};
pub use load::Load;

use preface::Version;
use refusal::Refusal;
use tls::{Accepted, Tls};

/// Most headers in one request; part of the promise, so named rather than left to a default.
pub const MAX_HEADERS: usize = 100;

/// How long to wait after a failed accept: usually file descriptors have run out, and only time
/// brings some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections over the limit that are told so at one time, on each listener; a flood beyond is just
/// closed.
pub const MAX_REFUSALS: usize = 64;

/// How long a peer may leave what we sent unacknowledged, or refuse to read it.
const STALLED: Duration = Duration::from_secs(30);

/// What one connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub max_head_bytes: usize,
    /// Up to the first byte, or the end of the TLS handshake.
    pub first_byte_timeout: Duration,
    /// Also closes an idle connection.
    pub head_timeout: Duration,
}

/// What a listener speaks beside plain HTTP/1.1.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    /// Then nothing is spoken in plain.
    pub tls: Option<Arc<Tls>>,
    /// By prior knowledge. Over TLS the certificate's owner offers it (ALPN).
    pub http2: bool,
}

/// Accepts until `stop`, then lets every connection finish the requests it is in. Returns when no
/// connection is left; the caller bounds the wait by dropping this, which closes the rest.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    transport: Transport,
    limits: Limits,
    load: Arc<Load>,
    handler: H,
    stop: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let connections = TaskTracker::new();
    let trouble = Quiet::default();
    // Ends every connection when this future is dropped.
    let abort = CancellationToken::new();
    let _abort_on_drop = abort.clone().drop_guard();
    let server = Arc::new(Server { transport, limits, load, handler, stop });
    loop {
        let stream = tokio::select! {
            biased;
            () = server.stop.cancelled() => break,
            accepted = accept(&listener, &trouble) => accepted,
        };
        let abort = abort.clone();
        if let Ok(place) = places.clone().try_acquire_owned() {
            let serving = server.clone().connection(stream, place);
            connections.spawn(async move { abort.run_until_cancelled(serving).await });
            continue;
        }
        server.load.shed.inc();
        if server.transport.tls.is_some() {
            // Closed without a word: a handshake costs more than all that it could tell.
            tracing::debug!("over the limit on connections");
        } else if let Ok(place) = refusals.clone().try_acquire_owned() {
            let refusing = refuse(stream, place);
            connections.spawn(async move { abort.run_until_cancelled(refusing).await });
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn accept(listener: &TcpListener, trouble: &Quiet) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => {
                if let Some(more) = trouble.speaks(now_ms()) {
                    tracing::warn!(%error, more, "cannot accept a connection");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn refuse(stream: TcpStream, _place: OwnedSemaphorePermit) {
    let refused = refusal::send(stream, Refusal::Busy).await;
    tracing::debug!(?refused, "over the limit on connections");
}

/// What all connections of a listener share.
struct Server<H> {
    transport: Transport,
    limits: Limits,
    load: Arc<Load>,
    handler: H,
    stop: CancellationToken,
}

impl<H, F, B> Server<H>
where
    H: Fn(Request<Incoming>) -> F + Clone,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    async fn connection(self: Arc<Self>, stream: TcpStream, _place: OwnedSemaphorePermit) {
        let _open = self.load.opened();
        if let Err(error) = self.converse(stream).await {
            self.load.failed(&error);
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn converse(&self, stream: TcpStream) -> io::Result<()> {
        tune(&stream)?;
        let Some(tls) = &self.transport.tls else {
            let version = self.greet(preface::version(&stream, self.transport.http2)).await?;
            return self.speak(version, stream).await;
        };
        match self.greet(tls.accept(stream)).await? {
            Accepted::Tls(version, stream) => self.speak(version, stream).await,
            Accepted::PlainHttp(stream) => refusal::send(stream, Refusal::PlainHttp).await,
        }
    }

    /// Bounds the time until it is known what a peer speaks.
    async fn greet<T>(&self, opening: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            opened = timeout(self.limits.first_byte_timeout, opening) => opened?,
            () = self.stop.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn speak<S>(&self, version: Version, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (limits, handler) = (&self.limits, self.handler.clone());
        let ended = match version {
            Version::Http1 => http1::serve(stream, limits, handler, &self.stop).await,
            Version::Http2 => http2::serve(stream, limits, handler, &self.stop).await,
        };
        ended.map_err(io::Error::other)
    }
}

/// Answers go out at once, and a peer that takes none is let go by the kernel: hyper would wait for
/// ever.
fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stalled_ms = u32::try_from(STALLED.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, stalled_ms)?)
}
