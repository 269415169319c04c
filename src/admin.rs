//! The operators' listener: `/livez`, and `/api/tail`, a stream of what comes out.
//!
//! Health of brokers, metrics, status and everything that changes something belong here too.

use std::convert::Infallible;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::feed::{Feed, Outcome, Told};

type Body = BoxBody<Bytes, Infallible>;

/// Answers operators. A cheap handle.
#[derive(Clone)]
pub struct Admin {
    feed: Feed,
    /// Ends the streams, which would hold up a drain for ever.
    stop: CancellationToken,
}

impl Admin {
    pub fn new(feed: Feed, stop: CancellationToken) -> Admin {
        Admin { feed, stop }
    }

    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/livez") => text(StatusCode::OK, "text/plain", "ok\n".into()),
            (&Method::GET, "/api/tail") => self.tail(),
            _ => {
                let body = "{\"error\":\"no such page; there are /livez and /api/tail\"}\n";
                text(StatusCode::NOT_FOUND, "application/json", body.into())
            }
        }
    }

    /// One JSON object a line: what is remembered, then what comes.
    fn tail(self) -> Response<Body> {
        let (remembered, watching) = self.feed.watch();
        let live = stream::unfold(watching, |mut watching| async {
            let line = match watching.recv().await {
                Ok(told) => told_line(&told),
                Err(RecvError::Lagged(missed)) => json!({ "missed": missed }),
                Err(RecvError::Closed) => return None,
            };
            Some((line, watching))
        });
        let remembered = stream::iter(remembered).map(|told| told_line(&told));
        let lines = remembered.chain(live).take_until(self.stop.cancelled_owned());
        let mut response = Response::new(BoxBody::new(StreamBody::new(frames(lines))));
        set_content_type(&mut response, "application/x-ndjson");
        response
    }
}

fn frames(
    lines: impl Stream<Item = Value> + Send + Sync,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync {
    lines.map(|line| Ok(Frame::data(format!("{line}\n").into())))
}

/// A settled message as `waypost tail` gets it.
fn told_line(told: &Told) -> Value {
    let event = &told.event;
    let attributes = event.attributes().map(|(name, value)| (name.to_owned(), value.to_string()));
    let attributes: Map<String, Value> = attributes.map(|(k, v)| (k, v.into())).collect();
    let (outcome, reason) = match &told.outcome {
        Outcome::Confirmed => ("confirmed", None),
        Outcome::Parked(reason) => ("parked", Some(&**reason)),
        Outcome::DeadLetter(reason) => ("dead letter", Some(&**reason)),
    };
    let mut line = json!({
        "outcome": outcome,
        "reason": reason,
        "route": &*told.message.route,
        "broker": &*told.message.broker,
        "address": told.message.address.as_ref().ok().map(ToString::to_string),
        "event": attributes,
        "truncated": told.truncated,
    });
    match std::str::from_utf8(&event.body) {
        Ok(body) => line["body"] = body.into(),
        Err(_) => line["body_base64"] = STANDARD.encode(&event.body).into(),
    }
    line
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    set_content_type(&mut response, content_type);
    response
}

fn set_content_type(response: &mut Response<Body>, content_type: &'static str) {
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
}
