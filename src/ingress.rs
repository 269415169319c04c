//! Receives webhooks: finds the source, reads the body within limits, and hands the event over to be
//! admitted. What can go wrong is a [`Rejection`], which alone knows statuses and words.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, header, request::Parts};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit as Room, Semaphore},
    time::timeout,
};

use crate::{
    admit::{Admit, Outcome},
    clock::now_ms,
    meter::{Counter, Histogram},
    quiet::Quiet,
    routing::Table,
    server::BeyondShare,
    source::{self, Answers, Source},
};

mod head;
mod rejection;

pub use head::check as check_head;
pub use rejection::Rejection;

/// The header that carries the event's id in the answer.
pub const EVENT_ID: &str = "waypost-event-id";

/// What one request may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_body_bytes: usize,
    /// All bodies being read or committed.
    pub max_in_flight_bytes: usize,
    /// Over all connections, those beyond their connection's share ([`BeyondShare`]): one of HTTP/2
    /// carries many. How many connections there are bounds the others.
    pub max_further_requests: usize,
    /// In one request.
    pub max_headers: usize,
    pub body_timeout: Duration,
}

/// Receives requests. A cheap handle.
#[derive(Clone)]
pub struct Ingress(Arc<Inner>);

struct Inner {
    table: Arc<ArcSwap<Table>>,
    admit: Admit,
    limits: Limits,
    /// A permit a byte of body.
    bytes: Arc<Semaphore>,
    /// A permit a request beyond its connection's share.
    further_requests: Semaphore,
    draining: AtomicBool,
    not_admitted: Quiet,
    stats: Stats,
}

/// What is counted here; the sources count what is theirs.
#[derive(Debug)]
pub struct Stats {
    /// From a request's head to its answer.
    pub took: Histogram,
    begun: Counter,
    ended: Counter,
    /// To requests on no source's path.
    pub strangers: Answers,
}

/// A request that is not answered yet; dropped, it is, or its sender went away.
struct UnderWay<'s>(&'s Stats);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.ended.inc();
    }
}

impl Stats {
    fn new() -> Stats {
        let (begun, ended, strangers) = Default::default();
        Stats { took: Histogram::of_times(), begun, ended, strangers }
    }

    fn begin(&self) -> UnderWay<'_> {
        self.begun.inc();
        UnderWay(self)
    }

    fn under_way(&self) -> u64 {
        // In this order, so that never more have ended than began.
        let ended = self.ended.get();
        self.begun.get().saturating_sub(ended)
    }
}

impl Ingress {
    pub fn new(table: Arc<ArcSwap<Table>>, admit: Admit, limits: Limits) -> Ingress {
        Ingress(Arc::new(Inner {
            table,
            admit,
            limits,
            bytes: Arc::new(Semaphore::new(limits.max_in_flight_bytes)),
            further_requests: Semaphore::new(limits.max_further_requests),
            draining: AtomicBool::new(false),
            not_admitted: Quiet::default(),
            stats: Stats::new(),
        }))
    }

    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Of all bodies being read or committed.
    pub fn in_flight_bytes(&self) -> usize {
        self.0.limits.max_in_flight_bytes.saturating_sub(self.0.bytes.available_permits())
    }

    /// Requests that are not answered yet.
    pub fn in_flight_requests(&self) -> u64 {
        self.0.stats.under_way()
    }

    /// Refuses what comes from now on, on whatever connection; what is under way is finished.
    pub fn drain(&self) {
        self.0.draining.store(true, Relaxed);
    }

    /// Answers one request.
    pub async fn receive(self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let _under_way = self.0.stats.begin();
        let started = Instant::now();
        let (head, body) = request.into_parts();
        // The request finishes on the table it began with.
        let table = self.0.table.load_full();
        let found = table.source(head.uri.path());
        let response = match self.0.receive(&table, found, &head, body).await {
            Ok(id) => accepted(&id),
            Err(rejection) => rejection.into_response(),
        };
        let Stats { took, strangers, .. } = &self.0.stats;
        found.map_or(strangers, |(source, _)| &source.stats.answers).count(response.status());
        took.observe_time(started.elapsed());
        response
    }
}

/// A source, and the event type that the path names.
type Found<'f> = Option<(&'f Arc<Source>, Option<&'f str>)>;

impl Inner {
    /// Returns the event's id once the event is durable.
    async fn receive(
        &self,
        table: &Arc<Table>,
        found: Found<'_>,
        head: &Parts,
        body: Incoming,
    ) -> Result<String, Rejection> {
        if self.draining.load(Relaxed) {
            return Err(Rejection::Draining);
        }
        let further = head.extensions.get::<BeyondShare>();
        let place = further.map(|_| self.further_requests.try_acquire()).transpose();
        let _place = place.map_err(|_| Rejection::Busy)?;
        let (source, path_type) = found.ok_or(Rejection::NoSuchSource)?;
        if head.method != Method::POST {
            return Err(Rejection::Method);
        }
        head::check(head, self.limits.max_headers)?;
        let (body, room) = timeout(self.limits.body_timeout, self.read(body))
            .await
            .map_err(|_| Rejection::BodyTimeout)??;
        source.stats.body_bytes.add(body.len() as u64);
        let now_ms = now_ms();
        let request = source::Request { path_type, headers: &head.headers, body, now_ms };
        let received = source.receive(request).map_err(|rejection| {
            source.log(&rejection, now_ms);
            Rejection::from(rejection)
        })?;
        // Until the event is durable, nobody may take it that no more comes of this table.
        let room = (room, table.clone());
        let admitted = self.admit.admit(table, received.known_by, received.event, room).await;
        let admitted = admitted.inspect_err(|error| {
            if let Some(more) = self.not_admitted.speaks(now_ms) {
                tracing::warn!(%error, more, "an event is refused for now");
            }
        })?;
        match admitted.outcome {
            Outcome::Appended => {}
            Outcome::Duplicate => source.stats.duplicates.inc(),
            Outcome::Dropped => source.stats.unrouted_dropped.inc(),
        }
        tracing::debug!(event = %admitted.id, outcome = ?admitted.outcome, "accepted");
        Ok(admitted.id.to_string())
    }

    /// The raw body, with the room it takes of all bytes in flight: what is announced counts
    /// against the limit at once, but only what has arrived takes room. A body that arrives in a
    /// piece is not copied.
    async fn read(&self, mut body: Incoming) -> Result<(Bytes, Room), Rejection> {
        let max = self.limits.max_body_bytes;
        if body.size_hint().lower() > max as u64 {
            return Err(Rejection::BodyTooLarge);
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        let mut room = self.room(0)?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Rejection::BodyIncomplete)?;
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + rest.len() + data.len() > max {
                return Err(Rejection::BodyTooLarge);
            }
            room.merge(self.room(data.len())?);
            if first.is_empty() && rest.is_empty() {
                first = data;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&std::mem::take(&mut first));
                }
                rest.extend_from_slice(&data);
            }
        }
        Ok((if rest.is_empty() { first } else { rest.freeze() }, room))
    }

    fn room(&self, bytes: usize) -> Result<Room, Rejection> {
        // A frame is far below 4 GiB: it came out of the connection's buffer.
        self.bytes.clone().try_acquire_many_owned(bytes as u32).map_err(|_| Rejection::Busy)
    }
}

fn accepted(id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    match header::HeaderValue::from_str(id) {
        Ok(id) => drop(headers.insert(EVENT_ID, id)),
        Err(_) => tracing::warn!(id, "the event's id cannot stand in a header"),
    }
    response
}
