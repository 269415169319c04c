//! The operators' listener: health, metrics, status, and a live view of what comes out.
//!
//! | page, by GET or HEAD | says |
//! | --- | --- |
//! | `/livez` | that the process answers; depends on nothing |
//! | `/readyz` | whether events can be taken (200 or 503), and why not ([`ready`]) |
//! | `/metrics` | everything counted, for Prometheus ([`metrics`]) |
//! | `/api/status` | everything at a glance, as JSON ([`status`]) |
//! | `/api/config` | the routing table in force and the last attempt to change it ([`config`]) |
//! | `/api/tail` | what comes out, with payloads; wants the [`token`] |
//!
//! `POST /-/reload` reads the routing table again and says what became of it; `POST
//! /api/sonzai/webhooks` shows and changes what is registered at Sonzai ([`Asked`]); `POST
//! /api/sonzai/repair` fetches what an outage lost ([`repair`]); `POST /api/journal/skip` and `POST
//! /api/journal/salvage` mend what a broken disk left ([`journals`]). All want the token, too.
//!
//! Anything that shows payloads or changes something wants the token. Where the listener is on
//! loopback, requests for all but `/livez` must name it by address or as `localhost`: a page in
//! somebody's browser, whose own name was made to lead here, names itself.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    feed::Feed,
    host::names_this_machine,
    sonzai::{
        repair::{self, Repair},
        webhooks::{desk::Refusal, document::Asked},
    },
};

use config::{Outcome, Reloads};

pub mod config;
mod damage;
mod journals;
mod metrics;
mod rates;
mod ready;
mod status;
mod tail;
mod token;
mod view;

pub use damage::{DamageStatus, Region, Unreadable};
pub use journals::{Salvage, SalvageAnswer, SalvagedRecord, Skip, SkipAnswer, Verdict};
pub use rates::Rates;
pub use ready::Reason;
pub use status::{BrokerStatus, CommandStatus, DataDirStatus, HangStatus, SourceStatus, Status};
pub use token::{Error as TokenError, Token};
pub use view::{Broker, Role, View};

/// Connections to the listener at once: operators, probes, scrapers.
pub const MAX_CONNECTIONS: usize = 64;

/// What an operator may send, and how long it may take.
const MAX_BODY_BYTES: usize = 64 << 10;
const BODY_WITHIN: Duration = Duration::from_secs(10);

type Body = BoxBody<Bytes, Infallible>;

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Livez,
    Readyz,
    Metrics,
    Status,
    Config,
    Tail,
    Reload,
    SonzaiWebhooks,
    SonzaiRepair,
    JournalSkip,
    JournalSalvage,
}

const PAGES: [(&str, Page); 11] = [
    ("/livez", Page::Livez),
    ("/readyz", Page::Readyz),
    ("/metrics", Page::Metrics),
    ("/api/status", Page::Status),
    ("/api/config", Page::Config),
    ("/api/tail", Page::Tail),
    ("/-/reload", Page::Reload),
    ("/api/sonzai/webhooks", Page::SonzaiWebhooks),
    ("/api/sonzai/repair", Page::SonzaiRepair),
    ("/api/journal/skip", Page::JournalSkip),
    ("/api/journal/salvage", Page::JournalSalvage),
];

impl Page {
    fn of(path: &str) -> Option<Page> {
        PAGES.iter().find(|(known, _)| *known == path).map(|(_, page)| *page)
    }

    /// Whether it says more than that the process answers.
    fn shows_something(self) -> bool {
        self != Page::Livez
    }

    /// Whether it shows payloads or changes something.
    fn wants_token(self) -> bool {
        match self {
            Page::Livez | Page::Readyz | Page::Metrics | Page::Status | Page::Config => false,
            Page::Tail
            | Page::Reload
            | Page::SonzaiWebhooks
            | Page::SonzaiRepair
            | Page::JournalSkip
            | Page::JournalSalvage => true,
        }
    }

    /// The methods to ask with.
    fn methods(self) -> &'static [Method] {
        match self {
            Page::Reload
            | Page::SonzaiWebhooks
            | Page::SonzaiRepair
            | Page::JournalSkip
            | Page::JournalSalvage => &[Method::POST],
            _ => &[Method::GET, Method::HEAD],
        }
    }
}

/// Answers operators. A cheap handle.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    view: Arc<View>,
    feed: Feed,
    token: Token,
    /// Whether only this machine can reach the listener.
    on_loopback: bool,
    reloads: Reloads,
    /// Held by whoever salvages: one at a time, so that what it takes in memory is bounded.
    salvaging: Semaphore,
    /// Ends the streams, which would hold up a drain for ever.
    stop: CancellationToken,
}

impl Admin {
    pub fn new(
        view: Arc<View>,
        feed: Feed,
        token: Token,
        on_loopback: bool,
        reloads: Reloads,
        stop: CancellationToken,
    ) -> Admin {
        let salvaging = Semaphore::new(1);
        Admin(Arc::new(Inner { view, feed, token, on_loopback, reloads, salvaging, stop }))
    }

    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let (method, headers) = (request.method(), request.headers());
        let Some(page) = Page::of(request.uri().path()) else {
            let pages = PAGES.map(|(path, _)| path).join(", ");
            return refused(StatusCode::NOT_FOUND, &format!("no such page; there are {pages}"));
        };
        if self.0.on_loopback && page.shows_something() && !names_this_machine(headers) {
            return refused(StatusCode::MISDIRECTED_REQUEST, "ask for localhost, or by address");
        }
        if !page.methods().contains(method) {
            return not_allowed(page.methods());
        }
        let head = method == Method::HEAD;
        if page.wants_token() && !self.0.token.is_in(headers) {
            return unauthorized();
        }
        match page {
            // Otherwise its stream would begin, and nobody would read it.
            Page::Tail if head => with_type(NDJSON, Body::default()),
            page => self.show(page, request.into_body()).await,
        }
    }

    async fn show(self, page: Page, body: Incoming) -> Response<Body> {
        match page {
            Page::Livez => text("text/plain", "ok\n".into()),
            Page::Readyz => self.look(readiness).await,
            Page::Metrics => {
                self.look(|view| text(metrics::CONTENT_TYPE, metrics::page(view))).await
            }
            Page::Status => self.look(|view| text(JSON, line(json!(view.status())))).await,
            Page::Config => text(JSON, line(json!(self.0.view.config.facts()))),
            Page::Reload => self.reload().await,
            Page::SonzaiWebhooks => self.sonzai_webhooks(body).await,
            Page::SonzaiRepair => self.sonzai_repair(body).await,
            Page::JournalSkip => self.journal_skip(body).await,
            Page::JournalSalvage => self.journal_salvage(body).await,
            Page::Tail => {
                let lines = tail::lines(&self.0.feed, self.0.stop.clone());
                with_type(NDJSON, BoxBody::new(StreamBody::new(lines)))
            }
        }
    }

    /// Reads the routing table again; on an error the answer is 422 with every problem.
    async fn reload(self) -> Response<Body> {
        let Some(attempt) = self.0.reloads.ask().await else {
            let words = "too many ask for a reload, or the daemon is ending; ask again";
            return refused(StatusCode::SERVICE_UNAVAILABLE, words);
        };
        let mut response = text(JSON, line(json!(attempt)));
        if attempt.outcome == Outcome::Rejected {
            *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        }
        response
    }

    /// Answers what is asked about webhooks at Sonzai; 422 for what cannot be done as things are.
    async fn sonzai_webhooks(self, body: Incoming) -> Response<Body> {
        let example = r#"{"action": "list"}"#;
        let asked: Asked = match read(body, MAX_BODY_BYTES, example).await {
            Ok(asked) => asked,
            Err(refused) => return refused,
        };
        match self.0.view.sonzai.webhooks(asked).await {
            Ok(answer) => text(JSON, line(json!(answer))),
            Err(refusal) => impossible(refusal),
        }
    }

    /// Repairs from Sonzai's history: a line of JSON now and then, the last one the summary. It ends
    /// with whoever asked.
    async fn sonzai_repair(self, body: Incoming) -> Response<Body> {
        let example = r#"{"since_seconds": 7200}"#;
        let request: repair::Request = match read(body, MAX_BODY_BYTES, example).await {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let sonzai = &self.0.view.sonzai;
        let account = match sonzai.account(request.source.as_deref()) {
            Ok(account) => account,
            Err(refusal) => return impossible(refusal),
        };
        let repair = match Repair::begin(sonzai.clone(), account, request) {
            Ok(repair) => repair,
            Err(error) => return refused(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
        };
        let (listener, lines) = repair::Listener::channel();
        drop(sonzai.spawn(repair.run(listener)));
        let lines = stream::unfold(lines, |mut lines| async {
            let next = line(json!(lines.recv().await?));
            Some((Ok(Frame::data(Bytes::from(next))), lines))
        });
        with_type(NDJSON, BoxBody::new(StreamBody::new(lines)))
    }

    /// Looks on a thread that may block: a disk that hangs is to hold up nobody else.
    async fn look(self, look: fn(&Arc<View>) -> Response<Body>) -> Response<Body> {
        let looked = tokio::task::spawn_blocking(move || look(&self.0.view)).await;
        looked.unwrap_or_else(|error| {
            tracing::error!(%error, "an operator's request failed");
            refused(StatusCode::INTERNAL_SERVER_ERROR, "see the daemon's log")
        })
    }
}

/// What an operator sends, or why it is refused; `example` is what it may look like.
async fn read<T: DeserializeOwned>(
    body: Incoming,
    max_bytes: usize,
    example: &str,
) -> Result<T, Response<Body>> {
    let body = match timeout(BODY_WITHIN, Limited::new(body, max_bytes).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => {
            let words = format!("send at most {max_bytes} bytes, and all of them");
            return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, &words));
        }
        Err(_) => return Err(refused(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
    };
    serde_json::from_slice(&body).map_err(|error| {
        let words = format!("{error}; send JSON like {example}");
        refused(StatusCode::BAD_REQUEST, &words)
    })
}

fn impossible(refusal: Refusal) -> Response<Body> {
    match refusal {
        Refusal::Impossible(words) => refused(StatusCode::UNPROCESSABLE_ENTITY, &words),
        Refusal::Busy(words) => refused(StatusCode::SERVICE_UNAVAILABLE, words),
    }
}

/// The answer of `/readyz`; brokers are listed, and do not count.
fn readiness(view: &Arc<View>) -> Response<Body> {
    let reasons = view.not_ready();
    let brokers = view.brokers.load();
    let brokers = brokers.iter().filter(|broker| broker.role.is_there()).map(|broker| {
        let condition = broker.stats.condition();
        json!({
            "name": &*broker.name,
            "state": condition.state,
            "trouble": condition.trouble,
        })
    });
    let brokers: Vec<serde_json::Value> = brokers.collect();
    let ready = reasons.is_empty();
    let body = json!({ "ready": ready, "reasons": reasons, "brokers": brokers });
    let mut response = text(JSON, line(body));
    if !ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

fn unauthorized() -> Response<Body> {
    let words = "this page wants the token: send `Authorization: Bearer` with what is in \
                 admin.token in the daemon's data directory";
    let mut response = refused(StatusCode::UNAUTHORIZED, words);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn not_allowed(methods: &[Method]) -> Response<Body> {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let words = format!("ask with {}", names.join(" or "));
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, &words);
    if let Ok(allow) = HeaderValue::from_str(&names.join(", ")) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

fn refused(status: StatusCode, words: &str) -> Response<Body> {
    let mut response = text(JSON, line(json!({ "error": words })));
    *response.status_mut() = status;
    response
}

fn line(value: serde_json::Value) -> String {
    format!("{value}\n")
}

fn text(content_type: &'static str, body: String) -> Response<Body> {
    with_type(content_type, Full::new(Bytes::from(body)).boxed())
}

fn with_type(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_found_by_its_path_alone() {
        for (path, page) in PAGES {
            assert_eq!(Page::of(path), Some(page));
            assert_eq!(Page::of(&format!("{path}/")), None);
        }
    }
}
