//! Serves HTTP/1.1 on a listener, within limits, until told to stop.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{clock::now_ms, quiet::Quiet};

mod load;

pub use load::Load;

/// Most headers in one request; hyper's default, named here because it is part of the promise.
const MAX_HEADERS: usize = 100;

/// How long to wait after a failed accept: usually file descriptors have run out, and only time
/// brings some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answer to a connection over the limit, written without reading anything.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
                      content-type: application/json\r\ncontent-length: 32\r\n\r\n\
                      {\"error\":\"too many connections\"}";

/// Connections over the limit that get this answer at one time; a flood beyond is just closed.
const MAX_REFUSALS: usize = 64;

/// How long one of them may take to hear it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a peer may leave what we sent unacknowledged, or refuse to read it.
const STALLED: Duration = Duration::from_secs(30);

/// What one connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    pub max_head_bytes: usize,
    pub first_byte_timeout: Duration,
    /// Also closes an idle connection.
    pub head_timeout: Duration,
}

/// Accepts until `stop`, then lets every connection finish the request it is in. Returns when no
/// connection is left; the caller bounds the wait by dropping this, which closes the rest.
pub async fn serve<H, F, B>(
    listener: TcpListener,
    limits: Limits,
    load: Arc<Load>,
    handler: H,
    stop: CancellationToken,
) where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
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
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = accept(&listener, &trouble) => accepted,
        };
        let abort = abort.clone();
        if let Ok(place) = places.clone().try_acquire_owned() {
            let (load, handler, stop) = (load.clone(), handler.clone(), stop.clone());
            let serving = connection(stream, limits, load, handler, stop, place);
            connections.spawn(async move { abort.run_until_cancelled(serving).await });
            continue;
        }
        load.shed.inc();
        if let Ok(place) = refusals.clone().try_acquire_owned() {
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

/// Says that there is no room, and hears the other side out: closing on words not yet read would
/// reset the connection and take the answer back.
async fn refuse(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    let refusing = timeout(REFUSAL_TIMEOUT, async {
        stream.write_all(BUSY).await?;
        stream.shutdown().await?;
        let mut unheard = [0; 4096];
        while stream.read(&mut unheard).await? > 0 {}
        io::Result::Ok(())
    });
    // A peer that is gone, or goes on for ever, needs no answer.
    let refused = refusing.await.map_err(io::Error::from).flatten();
    tracing::debug!(?refused, "over the limit on connections");
}

async fn connection<H, F, B>(
    stream: TcpStream,
    limits: Limits,
    load: Arc<Load>,
    handler: H,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let _open = load.opened();
    if let Err(error) = greet(&stream, limits.first_byte_timeout, &stop).await {
        load.failed(&error);
        tracing::debug!(%error, "a connection ended before its first byte");
        return;
    }
    let service = service_fn(move |request| {
        let response = handler(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head_bytes)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended.map_err(io::Error::other) {
        load.failed(&error);
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Waits for the first byte: hyper's own deadline starts only after it.
async fn greet(stream: &TcpStream, wait: Duration, stop: &CancellationToken) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A peer that takes no answer is let go by the kernel; hyper would wait for ever.
    let stalled_ms = u32::try_from(STALLED.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(stream, stalled_ms)?;
    tokio::select! {
        ready = timeout(wait, stream.readable()) => ready?,
        () = stop.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}
