//! Sends events to webhooks: signed, to this machine alone, again after what Sonzai tries again after.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use secrecy::ExposeSecret;
use tokio::{sync::Semaphore, time::timeout};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, crypto::ring};

use super::{
    Shared,
    ids::new_id,
    options::{MAX_DELIVERIES_AT_ONCE, MAX_DELIVERY_ANSWER_BYTES},
    webhooks::{Attempt, Webhook},
};
use crate::{certificates, clock::now_ms, host, signature::sonzai, small_file};

/// Attempts in all that an event gets (from Sonzai's demo).
const ATTEMPTS: u32 = 4;

/// Why deliveries cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("cannot read {path}: {cause}", path = .path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{path} {cause}", path = .path.display())]
    Authorities { path: PathBuf, cause: certificates::Error },
    #[error("{0}")]
    Tls(#[from] rustls::Error),
}

/// Posts over HTTP and HTTPS.
pub struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    at_once: Semaphore,
}

impl Client {
    /// Reads the CA's file, so blocks shortly.
    pub fn new(ca: Option<&Path>, timeout: Duration) -> Result<Client, SetupError> {
        let roots = match ca {
            Some(file) => authorities(file)?,
            // Without any, https fails and says so in its attempt.
            None => certificates::system_authorities().unwrap_or_else(|_| RootCertStore::empty()),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
        let inner = legacy::Client::builder(TokioExecutor::new()).build(connector.build());
        Ok(Client { inner, timeout, at_once: Semaphore::new(MAX_DELIVERIES_AT_ONCE) })
    }
}

fn authorities(file: &Path) -> Result<RootCertStore, SetupError> {
    let path = || file.to_owned();
    let text =
        small_file::read(file).map_err(|cause| SetupError::Unreadable { path: path(), cause })?;
    certificates::authorities(&text)
        .map_err(|cause| SetupError::Authorities { path: path(), cause })
}

/// Delivers an event in the background. The caller has counted it among the deliveries.
pub(super) fn start(shared: &Arc<Shared>, event_type: String, body: Bytes) {
    let delivering = shared.clone();
    shared.spawn(async move {
        let bytes = body.len();
        deliver(&delivering, &event_type, body).await;
        delivering.lock().deliveries.over(bytes);
    });
}

/// Tries until it is taken, refused, or has been tried often enough, each time with the webhook as it
/// is then. One that was deleted meanwhile gets no more.
async fn deliver(shared: &Shared, event_type: &str, body: Bytes) {
    let mut delay = shared.options.retry_delay;
    let mut first_signature = None;
    for number in 1..=ATTEMPTS {
        let Ok(_permit) = shared.deliveries.at_once.acquire().await else { return };
        let Some(webhook) = shared.lock().webhooks.get(event_type).cloned() else { return };
        let repeated = first_signature.take().filter(|_| !shared.options.resign);
        let signature = repeated.unwrap_or_else(|| sign(&webhook, &body));
        let (created_ms, started) = (now_ms(), Instant::now());
        let outcome = post(&shared.deliveries, &webhook, &signature, body.clone()).await;
        first_signature = Some(signature);
        let again = outcome.is_worth_another();
        let (response_code, error, response_body) = outcome.told();
        shared.lock().webhooks.record(Attempt {
            id: new_id("attempt"),
            event_type: event_type.to_owned(),
            url: webhook.url,
            response_code,
            duration_ms: started.elapsed().as_millis() as u64,
            number,
            delivered: (200..300).contains(&response_code),
            created_ms,
            error,
            request_body: body.clone(),
            response_body,
        });
        if !again || number == ATTEMPTS {
            return;
        }
        drop(_permit);
        tokio::time::sleep(delay).await;
        delay = delay.saturating_mul(2);
    }
}

fn sign(webhook: &Webhook, body: &[u8]) -> String {
    // Secrets of our own making are not empty; a header that does not verify stands for one.
    let key = sonzai::key(webhook.secret.expose_secret());
    key.map(|key| sonzai::sign(&key, body, now_ms() / 1000)).unwrap_or_default()
}

/// How an attempt ended.
enum Outcome {
    Answered(StatusCode, Bytes),
    /// No connection, or no answer on it.
    Failed(String),
    /// Not even tried.
    Refused(String),
}

impl Outcome {
    fn is_worth_another(&self) -> bool {
        match self {
            Outcome::Answered(status, _) => status.is_server_error(),
            Outcome::Failed(_) => true,
            Outcome::Refused(_) => false,
        }
    }

    /// The status, what went wrong, and the answer.
    fn told(self) -> (u16, Option<String>, Option<Bytes>) {
        match self {
            Outcome::Answered(status, body) => {
                let error = (!status.is_success()).then(|| format!("answered {status}"));
                (status.as_u16(), error, Some(body))
            }
            Outcome::Failed(error) | Outcome::Refused(error) => (0, Some(error), None),
        }
    }
}

async fn post(client: &Client, webhook: &Webhook, signature: &str, body: Bytes) -> Outcome {
    let uri = match webhook.url.parse::<Uri>() {
        Ok(uri) if is_loopback(&uri) => uri,
        Ok(_) => {
            let why = "this stand-in delivers to loopback only (127.0.0.1, [::1] or localhost)";
            return Outcome::Refused(why.into());
        }
        Err(error) => return Outcome::Refused(format!("webhook_url is no URL: {error}")),
    };
    let mut request = Request::post(uri)
        .header(header::CONTENT_TYPE, "application/json")
        .header(sonzai::HEADER, signature);
    if let Some(authorization) = &webhook.authorization {
        request = request.header(header::AUTHORIZATION, authorization.expose_secret());
    }
    let request = match request.body(Full::new(body)) {
        Ok(request) => request,
        // Names no value, so no secret either.
        Err(error) => return Outcome::Refused(format!("it cannot be sent: {error}")),
    };
    let answer = async {
        let answer = client.inner.request(request).await.map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            format!("{error}{}", cause.unwrap_or_default())
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_DELIVERY_ANSWER_BYTES).collect().await;
        // The status counts, whatever becomes of the rest.
        Ok((status, body.map(|body| body.to_bytes()).unwrap_or_default()))
    };
    match timeout(client.timeout, answer).await {
        Ok(Ok((status, body))) => Outcome::Answered(status, body),
        Ok(Err(error)) => Outcome::Failed(error),
        Err(_) => Outcome::Failed(format!("no answer within {:?}", client.timeout)),
    }
}

/// Whether a URL can lead nowhere but to this machine.
fn is_loopback(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(host::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_that_lead_to_this_machine_are_delivered_to() {
        for (url, expected) in [
            ("http://127.0.0.1:8080/hooks", true),
            ("http://127.8.8.8/", true),
            ("https://localhost/hooks", true),
            ("http://LOCALHOST:1/", true),
            ("http://[::1]:8080/", true),
            ("http://10.0.0.1/", false),
            ("http://0.0.0.0/", false),
            ("http://hooks.example.com/", false),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
            ("ftp://127.0.0.1/", false),
            ("/hooks", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
