//! One connection of HTTP/1.1.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{Limits, MAX_HEADERS};

/// Serves until the peer ends it, dawdles, or `stop`, which lets the request under way finish.
pub async fn serve<S, H, F, B>(
    stream: S,
    limits: &Limits,
    handler: H,
    stop: &CancellationToken,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let service = service_fn(move |request| {
        let response = handler(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    // hyper's own limit on headers is ours, and set by hand it costs every request an allocation.
    const { assert!(MAX_HEADERS == 100) };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head_bytes)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        // First, so that what comes after it is answered as the connection's last.
        biased;
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        ended = &mut serving => ended,
    }
}
