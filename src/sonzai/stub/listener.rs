//! Connections and requests, and the answers that do not come as they should.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use uuid::Uuid;

use super::{
    Shared,
    answers::Reply,
    api, control,
    faults::{Fault, Kind},
    options::{MAX_BODY_BYTES, MAX_CONNECTIONS, READ_WITHIN},
    problem::Problem,
};
use crate::clock::now_ms;

/// After a failed accept: usually file descriptors have run out, and only time brings some back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The connection ends here, on purpose.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
struct Cut;

type Body = BoxBody<Bytes, Cut>;

/// Accepts until the stand-in ends.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let serving = shared.clone();
                shared.spawn(async move {
                    connection(stream, serving).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Only a peer that is gone already can make it fail.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(shared.clone(), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(status) => {
            let problem = Problem::new(status, "the request's body is too large or did not come");
            return Ok(response(problem.reply(&shared.base)));
        }
    };
    let (method, target, headers) = (&head.method, &head.uri, &head.headers);
    if control::is_path(target.path()) {
        return Ok(response(control::answer(&shared, method, target.path(), headers, &body)));
    }
    let (mut under_way, fault) = {
        let mut state = shared.lock();
        let number = state.requests.arrived(method, target, headers, &body, now_ms());
        let fault = state.faults.strike(method, &target.to_string());
        (UnderWay { shared: &shared, number, status: None }, fault)
    };
    let request = api::Request { method, target, headers, body: &body };
    let real = || api::answer(&shared, &request);
    let answered = match fault {
        None => Ok(response(real())),
        Some(fault) => at_fault(fault, &shared, real).await,
    };
    under_way.status = answered.as_ref().ok().map(|response| response.status().as_u16());
    answered
}

/// A request that is not over: however it ends, it is noted.
struct UnderWay<'s> {
    shared: &'s Shared,
    number: u64,
    status: Option<u16>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.shared.lock().requests.over(self.number, self.status);
    }
}

async fn read(body: Incoming) -> Result<Bytes, StatusCode> {
    let read = timeout(READ_WITHIN, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// Answers as the fault has it. `real` does what the request asks for.
async fn at_fault(
    fault: Fault,
    shared: &Shared,
    real: impl FnOnce() -> Reply,
) -> Result<Response<Body>, Cut> {
    if let Kind::Delay(time) = fault.kind {
        tokio::time::sleep(time).await;
    }
    let (real, status) = match fault.effect {
        true => {
            let reply = real();
            let status = reply.status;
            (reply, status)
        }
        false => (Reply::nothing(), StatusCode::OK),
    };
    match fault.kind {
        Kind::Delay(_) => Ok(response(real)),
        Kind::Status(status, retry_after) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let problem = Problem::new(status, "this stand-in was told to refuse it");
            let retry_after = retry_after.and_then(|value| HeaderValue::from_str(&value).ok());
            let problem = match retry_after {
                Some(value) => problem.with(header::RETRY_AFTER, value),
                None => problem,
            };
            Ok(response(problem.reply(&shared.base)))
        }
        Kind::Redirect(url) => {
            let mut reply = Reply::nothing();
            reply.status = StatusCode::TEMPORARY_REDIRECT;
            reply.headers.extend(HeaderValue::from_str(&url).ok().map(|v| (header::LOCATION, v)));
            Ok(response(reply))
        }
        Kind::Hang(time) => {
            tokio::time::sleep(time).await;
            Err(Cut)
        }
        Kind::Cut => Err(Cut),
        Kind::Slow(pause, chunk) => Ok(slowly(real, pause, chunk)),
        Kind::Truncated => Ok(truncated(real)),
        Kind::Malformed => {
            let half = real.body.slice(..real.body.len().div_ceil(2));
            Ok(response(made_up(status, "application/json", half)))
        }
        Kind::Html => {
            let page = "<!DOCTYPE html>\n<title>Back soon</title>\n<h1>We are working on it</h1>\n";
            Ok(response(made_up(StatusCode::OK, "text/html", page.into())))
        }
        Kind::Huge(bytes) => Ok(huge(bytes)),
    }
}

fn made_up(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    Reply { status, content_type: Some(content_type), headers: Vec::new(), body }
}

/// A few bytes at a time.
fn slowly(mut reply: Reply, pause: Duration, chunk: usize) -> Response<Body> {
    let rest = std::mem::take(&mut reply.body);
    let len = rest.len();
    let pieces = stream::unfold(rest, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        let piece = rest.split_to(chunk.min(rest.len()));
        Some((Ok(Frame::data(piece)), rest))
    });
    streamed(reply, len, BoxBody::new(StreamBody::new(pieces)))
}

/// JSON around so many bytes, made while they are sent.
fn huge(bytes: usize) -> Response<Body> {
    const BEGIN: &[u8] = b"{\"notifications\":[],\"padding\":\"";
    const PADDING: &[u8] = &[b'x'; 64 << 10];
    const END: &[u8] = b"\"}";
    let whole = stream::repeat(PADDING).take(bytes / PADDING.len());
    let rest = [&PADDING[..bytes % PADDING.len()], END];
    let pieces = stream::iter([BEGIN]).chain(whole).chain(stream::iter(rest));
    let frames = pieces.map(|piece| Ok(Frame::data(Bytes::from_static(piece))));
    let reply = made_up(StatusCode::OK, "application/json", Bytes::new());
    streamed(reply, BEGIN.len() + bytes + END.len(), BoxBody::new(StreamBody::new(frames)))
}

/// Half of the body that was promised.
fn truncated(mut reply: Reply) -> Response<Body> {
    let body = std::mem::take(&mut reply.body);
    let half = body.slice(..body.len() / 2);
    // What has been written goes out only where the rest is waited for.
    let end = stream::once(async {
        tokio::task::yield_now().await;
        Err(Cut)
    });
    let pieces = stream::iter([Ok(Frame::data(half))]).chain(end);
    streamed(reply, body.len(), BoxBody::new(StreamBody::new(pieces)))
}

fn streamed(reply: Reply, len: usize, body: Body) -> Response<Body> {
    let mut response = response(reply);
    *response.body_mut() = body;
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    response
}

fn response(reply: Reply) -> Response<Body> {
    let Reply { status, content_type, headers, body } = reply;
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let into = response.headers_mut();
    into.extend(headers.into_iter().map(|(name, value)| (Some(name), value)));
    if let Some(content_type) = content_type {
        into.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if let Ok(id) = HeaderValue::from_str(&Uuid::now_v7().to_string()) {
        into.insert(REQUEST_ID, id);
    }
    response
}
