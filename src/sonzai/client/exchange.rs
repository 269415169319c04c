//! One request and its answer, on a connection of the pool, within a time and a size.

use std::{error, iter, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use secrecy::{SecretString, zeroize::Zeroizing};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::rustls::{
    self, CertificateError::UnknownIssuer, ClientConfig, RootCertStore, crypto::ring,
};

use super::{
    error::{Refusal, Why},
    problem, retry,
};
use crate::{certificates, clock};

/// How long a connection is kept that nobody uses. Load balancers close theirs after a minute.
const IDLE: Duration = Duration::from_secs(30);

/// How many such connections are kept.
const MAX_IDLE: usize = 8;

/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Largest part of an error answer that is read, in bytes.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// Room for an answer that does not say how large it is: one that grows leaves copies behind that
/// nobody zeroes, and what holds a secret is smaller than this.
const ROOM_BYTES: usize = 8 << 10;

const REQUEST_ID: &str = "x-request-id";

/// Talks to one host.
pub struct Exchange {
    http: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// For words.
    pub host: String,
    pub timeout: Duration,
    pub max_answer_bytes: usize,
}

/// An attempt that failed.
pub struct Failure {
    pub why: Why,
    /// Whether the other side may have done what it was asked to.
    pub may_have_acted: bool,
}

/// What an error answer is told with.
pub struct Telling<'t> {
    /// What must not be shown, should the answer repeat it.
    pub secrets: &'t [&'t SecretString],
    pub scope: Option<&'static str>,
}

impl Exchange {
    pub fn new(
        roots: RootCertStore,
        host: String,
        timeout: Duration,
        max_answer_bytes: usize,
    ) -> Exchange {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        // The scheme is https as a rule; whether it may be, the base URL has decided.
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(connector);
        Exchange { http, host, timeout, max_answer_bytes }
    }

    /// Sends a request and reads a successful answer whole.
    pub async fn once(
        &self,
        mut request: Request<Full<Bytes>>,
        telling: &Telling<'_>,
    ) -> Result<Bytes, Failure> {
        let until = Instant::now() + self.timeout;
        let connection = capture_connection(&mut request);
        let head = match timeout_at(until, self.http.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.unanswered(&error)),
            Err(_) => {
                let may_have_acted = connection.connection_metadata().is_some();
                return Err(Failure { why: self.late(), may_have_acted });
            }
        };
        let status = head.status();
        if status.is_redirection() {
            let why = Why::Redirected { host: self.host.clone(), status };
            return Err(Failure { why, may_have_acted: false });
        }
        if !status.is_success() {
            return Err(self.refused(head, until, telling).await);
        }
        // It has acted, whatever becomes of its answer.
        let whole = match timeout_at(until, self.whole(head)).await {
            Ok(whole) => whole,
            Err(_) => Err(self.late()),
        };
        whole.map_err(|why| Failure { why, may_have_acted: true })
    }

    /// The body of an answer, zeroed when the last part of it is dropped.
    async fn whole(&self, answer: Response<Incoming>) -> Result<Bytes, Why> {
        let limit = self.max_answer_bytes;
        let (head, mut body) = answer.into_parts();
        let announced = content_length(&head.headers);
        if announced.is_some_and(|bytes| bytes > limit) {
            return Err(Why::TooLarge { limit });
        }
        let room = announced.unwrap_or(ROOM_BYTES).min(limit);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.cut(&error))?;
            let Ok(data) = frame.into_data() else { continue };
            if data.len() > limit - bytes.len() {
                return Err(Why::TooLarge { limit });
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from_owner(bytes))
    }

    /// An answer of 4xx or 5xx. What can be read of its body in time is read.
    async fn refused(
        &self,
        answer: Response<Incoming>,
        until: Instant,
        telling: &Telling<'_>,
    ) -> Failure {
        let (head, mut body) = answer.into_parts();
        let mut bytes = Vec::new();
        while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
            let Ok(data) = frame.into_data() else { continue };
            let room = MAX_PROBLEM_BYTES - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
            if bytes.len() == MAX_PROBLEM_BYTES {
                break;
            }
        }
        let request_id = head.headers.get(REQUEST_ID);
        let request_id = request_id.map(|id| String::from_utf8_lossy(id.as_bytes()));
        Failure {
            // What a status below 500 refuses was not done; above, it may have gone wrong half-way.
            may_have_acted: head.status.is_server_error(),
            why: Why::Refused(Box::new(Refusal {
                host: self.host.clone(),
                status: head.status,
                words: problem::words(&head.headers, &bytes, telling.secrets),
                is_problem: problem::is_one(&head.headers, &bytes),
                request_id: request_id.map(|id| problem::shown(&id, telling.secrets)),
                retry_after: retry::retry_after(&head.headers, clock::now_ms()),
                scope: telling.scope,
            })),
        }
    }

    /// No head of an answer came.
    fn unanswered(&self, error: &legacy::Error) -> Failure {
        let host = self.host.clone();
        if error.is_connect() {
            let cause = format!("{}{}", words(error), advice(error));
            return Failure { why: Why::Unreachable { host, cause }, may_have_acted: false };
        }
        match error::Error::source(error).and_then(|cause| cause.downcast_ref::<hyper::Error>()) {
            // The connection was closed before the request was begun.
            Some(cause) if cause.is_canceled() => {
                let why = Why::Unreachable { host, cause: words(cause) };
                Failure { why, may_have_acted: false }
            }
            Some(cause) if cause.is_parse() => {
                let cause = format!("it is not HTTP/1.1: {}", words(cause));
                Failure { why: Why::Malformed { host, cause }, may_have_acted: true }
            }
            _ => Failure { why: self.cut(error), may_have_acted: true },
        }
    }

    fn cut(&self, error: &(dyn error::Error + 'static)) -> Why {
        Why::Cut { host: self.host.clone(), cause: words(error) }
    }

    fn late(&self) -> Why {
        Why::Late { host: self.host.clone(), within: self.timeout }
    }
}

/// What an answer's head says of its size.
fn content_length(headers: &HeaderMap) -> Option<usize> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    // What is larger than can be counted is larger than may be.
    value.to_str().ok().map(|text| text.parse().unwrap_or(usize::MAX))
}

/// An error and its causes, each once; the outermost of the client's own says only that it failed.
fn words(error: &(dyn error::Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |error| error.source());
    let mut words: Vec<String> = Vec::new();
    for cause in causes.filter(|cause| !cause.is::<legacy::Error>()) {
        let cause = problem::shown(&cause.to_string(), &[]);
        if !words.iter().any(|word| word.contains(&cause)) {
            words.push(cause);
        }
    }
    words.join(": ")
}

/// What to do about a certificate.
fn advice(error: &legacy::Error) -> &'static str {
    use rustls::Error::{InvalidCertificate, InvalidMessage};

    match certificates::tls_cause(error) {
        Some(InvalidCertificate(UnknownIssuer)) => "; name the file of its CA in api.ca",
        Some(InvalidCertificate(own)) if certificates::is_an_authoritys_own(own) => {
            "; it shows an authority's own certificate (CA:TRUE)"
        }
        Some(InvalidMessage(_)) => "; if it speaks plain HTTP, write http:// in api.url",
        _ => "",
    }
}
