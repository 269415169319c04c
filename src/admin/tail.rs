//! `/api/tail`: what comes out, as a stream of JSON objects, one a line.

use std::convert::Infallible;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::feed::{Feed, Outcome, Told};

/// What is remembered, then what comes, until `stop`.
pub fn lines(
    feed: &Feed,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + use<> {
    let (remembered, watching) = feed.watch();
    let live = stream::unfold(watching, |mut watching| async {
        let line = match watching.recv().await {
            Ok(told) => line(&told),
            Err(RecvError::Lagged(missed)) => json!({ "missed": missed }),
            Err(RecvError::Closed) => return None,
        };
        Some((line, watching))
    });
    let remembered = stream::iter(remembered).map(|told| line(&told));
    let lines = remembered.chain(live).take_until(stop.cancelled_owned());
    lines.map(|line| Ok(Frame::data(format!("{line}\n").into())))
}

/// A settled message.
fn line(told: &Told) -> Value {
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
