//! A call: attempts until one succeeds, or none may.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::Full;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{
    Client, SetupError,
    answer::Unreadable,
    error::{Error, Why},
    exchange::{Failure, Telling},
    retry,
    target::Target,
};

const OURSELVES: &str = concat!("waypost/", env!("CARGO_PKG_VERSION"));

const JSON: &str = "application/json";

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The API's key, and as a header.
pub struct Key {
    secret: SecretString,
    header: HeaderValue,
}

impl Key {
    pub fn new(secret: &SecretString) -> Result<Key, SetupError> {
        let key = secret.expose_secret();
        // Anything else came with it by mistake: a line break, quotes from a shell, a whole sentence.
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SetupError::Key);
        }
        let text = Zeroizing::new(format!("Bearer {key}"));
        let mut header = HeaderValue::from_str(&text).map_err(|_| SetupError::Key)?;
        header.set_sensitive(true);
        Ok(Key { secret: secret.clone(), header })
    }
}

/// What is asked for.
pub struct Call<'c> {
    method: Method,
    target: Target,
    body: Option<Bytes>,
    /// The same over all attempts.
    idempotency_key: Option<String>,
    /// Beside the key: what must not be shown, should the answer repeat it.
    secret: Option<&'c SecretString>,
    scope: Option<&'static str>,
}

impl<'c> Call<'c> {
    pub fn get(target: Target) -> Call<'c> {
        Call::new(Method::GET, target)
    }

    pub fn delete(target: Target) -> Call<'c> {
        Call::new(Method::DELETE, target)
    }

    pub fn post(target: Target) -> Call<'c> {
        Call::new(Method::POST, target).idempotent(Uuid::now_v7().simple().to_string())
    }

    pub fn put(target: Target) -> Call<'c> {
        Call::new(Method::PUT, target).idempotent(Uuid::now_v7().simple().to_string())
    }

    fn new(method: Method, target: Target) -> Call<'c> {
        Call { method, target, body: None, idempotency_key: None, secret: None, scope: None }
    }

    /// Sets what tells the API that two requests mean the same.
    pub fn idempotent(self, key: String) -> Call<'c> {
        Call { idempotency_key: Some(key), ..self }
    }

    /// Sends JSON. It is zeroed when it was sent.
    pub fn json(self, body: &impl Serialize) -> Call<'c> {
        let mut json = Zeroizing::new(Vec::with_capacity(ROOM_BYTES));
        serde_json::to_writer(&mut *json, body)
            .expect("texts, numbers and lists of them are JSON, and a vector takes all");
        Call { body: Some(Bytes::from_owner(json)), ..self }
    }

    /// Names what is sent and must not be shown.
    pub fn hiding(self, secret: Option<&'c SecretString>) -> Call<'c> {
        Call { secret, ..self }
    }

    /// Names the scope that the key needs.
    pub fn needing(self, scope: &'static str) -> Call<'c> {
        Call { scope: Some(scope), ..self }
    }

    fn changes(&self) -> bool {
        self.method != Method::GET
    }
}

/// Room for a body: one that grows leaves copies behind that nobody zeroes, and those with a secret are
/// smaller than this.
const ROOM_BYTES: usize = 4 << 10;

impl Client {
    /// Makes a call and reads its answer.
    pub(super) async fn call<T>(
        &self,
        call: Call<'_>,
        read: impl Fn(&Bytes) -> Result<T, Unreadable>,
    ) -> Result<T, Error> {
        let (limits, stats) = (&self.0.limits, &self.0.stats);
        let changes = call.changes();
        let mut uncertain = false;
        let mut attempts = 0;
        loop {
            let request = self.request(&call);
            let request = request.map_err(|why| Error { why, attempts, uncertain })?;
            self.0.pace.turn().await;
            attempts += 1;
            let began = Instant::now();
            let answered = self.attempt(request, &call, &read).await;
            stats.time.observe_time(began.elapsed());
            let Failure { why, may_have_acted } = match answered {
                Ok(answer) => {
                    stats.ok.inc();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            uncertain |= changes && may_have_acted;
            let pause =
                retry::pause(&why, changes, attempts, limits.max_attempts, limits.max_pause);
            let Some(pause) = pause else {
                why.count(stats);
                return Err(Error { why, attempts, uncertain });
            };
            stats.retried.inc();
            tracing::debug!(
                host = self.0.base.host,
                attempt = attempts,
                ?pause,
                "a call of Sonzai's API is tried again: {why}"
            );
            sleep(pause).await;
        }
    }

    async fn attempt<T>(
        &self,
        request: Request<Full<Bytes>>,
        call: &Call<'_>,
        read: impl Fn(&Bytes) -> Result<T, Unreadable>,
    ) -> Result<T, Failure> {
        let secrets: Vec<&SecretString> =
            [&self.0.key.secret].into_iter().chain(call.secret).collect();
        let telling = Telling { secrets: &secrets, scope: call.scope };
        let bytes = self.0.exchange.once(request, &telling).await?;
        read(&bytes).map_err(|cause| {
            let (host, cause) = (self.0.base.host.clone(), cause.to_string());
            Failure { why: Why::Malformed { host, cause }, may_have_acted: true }
        })
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, Why> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(self.0.base.join(&call.target)?)
            .header(AUTHORIZATION, &self.0.key.header)
            .header(ACCEPT, JSON)
            .header(USER_AGENT, OURSELVES);
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, JSON);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header(IDEMPOTENCY_KEY, key);
        }
        // All but the caller's idempotency key was checked before.
        let unfit = |_| Why::Unaskable("the idempotency key holds what no header can".to_owned());
        request.body(Full::new(call.body.clone().unwrap_or_default())).map_err(unfit)
    }
}
