//! One connection of HTTP/2, with every limit of the library set.
//!
//! What hyper leaves to us is idleness: a connection without a request under way is closed, whatever
//! frames it sends meanwhile, and so is one that never gets beyond its preface. PINGs of our own
//! would add nothing: requests have deadlines, and the kernel lets go of a peer that acknowledges
//! nothing.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::{Body, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Limits;

/// Requests at once on one connection.
const MAX_STREAMS: u32 = 100;

/// Requests at once that are a connection's own; those beyond are marked [`BeyondShare`]. So one that
/// opens many and finishes none takes nothing from the others' own.
pub const SHARE: usize = 8;

/// In the extensions of a request whose connection has its [`SHARE`] under way already.
#[derive(Clone, Copy, Debug)]
pub struct BeyondShare;

/// Streams that were reset before they were looked at (rapid reset, CVE-2023-44487); one more and the
/// connection is closed.
const MAX_RESET_UNSEEN: usize = 20;

/// Streams that we reset for errors of the peer, over a connection's life; one more and it is closed.
const MAX_RESET_FOR_ERRORS: usize = 64;

/// Largest frame, the least that the protocol allows. With the limit on a head it also bounds the
/// CONTINUATION frames of one: five at 16 KiB.
const MAX_FRAME_BYTES: u32 = 16 << 10;

/// The peer's HPACK table, the protocol's own default.
const HEADER_TABLE_BYTES: u32 = 4 << 10;

/// What a peer may send ahead of us on a stream and on the whole connection. Bodies are taken as they
/// come, so this bounds the memory of one connection rather than its pace.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;

/// Answers waiting to be sent, per stream; ours are far smaller.
const SEND_BUFFER_BYTES: usize = 16 << 10;

/// How long a peer that was told that we close may take to agree.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves until the peer ends it, idles, or `stop`, which lets the requests under way finish.
pub async fn serve<S, H, F, B>(
    stream: S,
    limits: &Limits,
    handler: H,
    stop: &CancellationToken,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let watched = activity.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        if watched.under_way.load(Relaxed) >= SHARE {
            request.extensions_mut().insert(BeyondShare);
        }
        let under_way = UnderWay::begin(watched.clone());
        let response = handler(request);
        async move {
            let response = response.await;
            drop(under_way);
            Ok::<_, Infallible>(response)
        }
    });
    let serving = builder(limits).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = activity.idle_for(limits.head_timeout) => {}
        () = stop.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        ended = serving => ended,
        () = activity.idle_for(GOODBYE) => Ok(()),
    }
}

fn builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_UNSEEN)
        .max_local_error_reset_streams(MAX_RESET_FOR_ERRORS)
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}

/// Whether requests are under way, and since when none is.
struct Activity {
    started: Instant,
    under_way: AtomicUsize,
    /// When the last one ended, milliseconds since `started`.
    ended_ms: AtomicU64,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            started: Instant::now(),
            under_way: AtomicUsize::new(0),
            ended_ms: AtomicU64::new(0),
        }
    }

    /// Returns once no request was under way for this long, counted from now.
    async fn idle_for(&self, wait: Duration) {
        let mut since = Instant::now();
        loop {
            sleep_until(since + wait).await;
            if self.under_way.load(Relaxed) > 0 {
                since = Instant::now();
                continue;
            }
            let ended = self.started + Duration::from_millis(self.ended_ms.load(Relaxed));
            if ended <= since {
                return;
            }
            since = ended;
        }
    }
}

/// A request that is being answered. It counts until it is dropped, which also happens when the peer
/// resets its stream.
struct UnderWay(Arc<Activity>);

impl UnderWay {
    fn begin(activity: Arc<Activity>) -> UnderWay {
        activity.under_way.fetch_add(1, Relaxed);
        UnderWay(activity)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let ended_ms = self.0.started.elapsed().as_millis() as u64;
        self.0.ended_ms.fetch_max(ended_ms, Relaxed);
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{sleep, timeout};

    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn idleness_counts_from_the_end_of_the_last_request() {
        let activity = Arc::new(Activity::new());
        let second = UnderWay::begin(activity.clone());
        drop(UnderWay::begin(activity.clone()));
        let busy = timeout(10 * WAIT, activity.idle_for(WAIT)).await;
        assert!(busy.is_err(), "idle with a request under way");

        let idle = tokio::spawn({
            let activity = activity.clone();
            async move { activity.idle_for(WAIT).await }
        });
        sleep(WAIT / 2).await;
        drop(second);
        sleep(WAIT - Duration::from_secs(1)).await;
        assert!(!idle.is_finished(), "idle too early");
        sleep(WAIT).await;
        assert!(idle.is_finished(), "never idle");
    }
}
