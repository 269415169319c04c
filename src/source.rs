//! A source: a configured sender. It verifies a request and builds the event, one file a provider.
//!
//! An enum, not a trait: the providers differ in what a request means, not in who calls them.

use std::{borrow::Cow, mem::discriminant, sync::Arc};

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, HeaderName, header};
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    dedupe::{self, Keys},
    event::Event,
    quiet::Quiet,
    signature,
};

pub mod miibo;
pub mod sonzai;
pub mod standard;
mod stats;

pub use miibo::Miibo;
pub use sonzai::Sonzai;
pub use standard::Standard;
pub use stats::{Answers, MAX_SECRETS, Stats};

/// The type of an event whose body does not say it and whose path does not either.
pub const UNPARSED: &str = "unparsed";

/// Longest text that becomes an attribute of an event, in bytes. Identifiers and types are far
/// shorter; anything longer stays in the body alone, where it cannot burst a broker's header.
const MAX_ATTRIBUTE_BYTES: usize = 1024;

/// A configured sender.
#[derive(Debug)]
pub struct Source {
    pub name: ByteString,
    pub provider: Provider,
    pub dedupe: Dedupe,
    pub unrouted: Unrouted,
    pub stats: Arc<Stats>,
    unsigned: Quiet,
    stale: Quiet,
    unauthorized: Quiet,
    changing: Quiet,
}

/// By what two events of a source are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dedupe {
    /// By their id.
    #[default]
    Id,
    /// By their id, or by an equal body under the same type.
    Body,
}

/// What becomes of a source's events that no route takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unrouted {
    /// They are kept as dead letters.
    #[default]
    DeadLetter,
    /// They are counted and leave no other trace.
    Drop,
}

/// How a source verifies and reads its requests.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there are few sources, each made once a table")]
pub enum Provider {
    Sonzai(Sonzai),
    Miibo(Miibo),
    Standard(Standard),
}

/// A request on a source's path, read but not yet trusted.
pub struct Request<'r> {
    /// The event type in the path, where the source's path has one.
    pub path_type: Option<&'r str>,
    pub headers: &'r HeaderMap,
    /// The raw body.
    pub body: Bytes,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// A verified request.
#[derive(Debug)]
pub struct Received {
    pub event: Event,
    /// What makes another event the same.
    pub known_by: Keys,
    /// Which secret verified it.
    pub key: Verifier,
    /// Whether the body names another event type than the path.
    pub type_disputed: bool,
}

/// Which secret verified a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// One of the file: its index in its list.
    Listed(usize),
    /// The one that the API gave.
    Stored,
    /// One that the API gave before that, and that is still valid for a while.
    Replaced,
}

impl Received {
    /// Of a provider whose events are known by their id alone.
    fn by_id(event: Event, key: usize, type_disputed: bool) -> Received {
        let known_by = Keys::known_by(dedupe::of_id(&event.source, &event.id));
        Received { event, known_by, key: Verifier::Listed(key), type_disputed }
    }
}

/// What a request would be known by, had it been verified.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'c> {
    /// Where the provider sends one.
    pub id: &'c str,
    /// Unix seconds.
    pub timestamp_s: u64,
}

/// Why a request is not an event. The sender learns none of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error(transparent)]
    Signature(#[from] signature::Error),
    #[error("the Authorization header is not the one that was registered")]
    Authorization,
    /// Whether it is one cannot be told before a secret is in force that is being changed, or that
    /// there is none of yet.
    #[error("no signature matches any secret, and one is being changed or is not there yet")]
    Changing,
}

impl Source {
    pub fn new(name: ByteString, provider: Provider) -> Source {
        let (dedupe, unrouted, stats) = Default::default();
        let (unsigned, stale, unauthorized, changing) = Default::default();
        Source { name, provider, dedupe, unrouted, stats, unsigned, stale, unauthorized, changing }
    }

    /// Counts on where `before`, which it takes the place of, does; unless that was another
    /// provider's.
    pub fn inherit(&mut self, before: &Source) {
        if discriminant(&self.provider) == discriminant(&before.provider) {
            self.stats = Arc::clone(&before.stats);
        }
    }

    /// How many requests each of its secrets has verified: those of its file by their index in the
    /// longest list, and those that the API gave.
    pub fn verified(&self) -> impl Iterator<Item = (Cow<'static, str>, u64)> {
        let listed = self.stats.verified().take(self.provider.secrets()).enumerate();
        let listed = listed.map(|(index, count)| (index.to_string().into(), count));
        let has_stored = self.provider.has_stored();
        listed.chain(self.stats.verified_by_stored().filter(move |_| has_stored))
    }

    /// Logs why a request is not an event, each reason by itself. A right signature with a stale time
    /// may be our clock, and then every request is refused.
    pub fn log(&self, rejection: &Rejection, now_ms: u64) {
        let source = &self.name;
        match rejection {
            Rejection::Signature(signature::Error::Expired { .. }) => {
                if let Some(more) = self.stale.speaks(now_ms) {
                    tracing::warn!(%source, %rejection, more, "not accepted; is the clock right?");
                }
            }
            Rejection::Signature(_) => {
                if let Some(more) = self.unsigned.speaks(now_ms) {
                    tracing::info!(%source, %rejection, more, "a request is not accepted");
                }
            }
            Rejection::Changing => {
                if let Some(more) = self.changing.speaks(now_ms) {
                    tracing::warn!(%source, %rejection, more, "a request is to come again");
                }
            }
            Rejection::Authorization => {
                if let Some(more) = self.unauthorized.speaks(now_ms) {
                    tracing::info!(%source, %rejection, more, "a request is not accepted");
                }
            }
        }
    }

    /// Verifies the request over its raw bytes, then builds the event; counts the verdict.
    pub fn receive(&self, request: Request) -> Result<Received, Rejection> {
        let verdict = self.judge(request);
        self.stats.count(&verdict);
        verdict
    }

    /// The verdict of [`receive`](Self::receive).
    pub fn judge(&self, request: Request) -> Result<Received, Rejection> {
        let mut received = match &self.provider {
            Provider::Sonzai(sonzai) => sonzai.receive(&self.name, request),
            Provider::Miibo(miibo) => miibo.receive(&self.name, request),
            Provider::Standard(standard) => standard.receive(&self.name, request),
        }?;
        self.also_known_by_body(&received.event, &mut received.known_by);
        Ok(received)
    }

    /// Adds what its `dedupe` asks for beyond its provider's own rule.
    fn also_known_by_body(&self, event: &Event, keys: &mut Keys) {
        if self.dedupe == Dedupe::Body {
            keys.also_known_by(dedupe::of_body(&event.source, &event.kind, &event.body));
        }
    }

    /// The event that the request would be if it were verified. Nothing is: this is for explaining,
    /// and must never be admitted.
    pub fn suppose(&self, request: Request, claim: Claim) -> Event {
        let facts = match &self.provider {
            Provider::Sonzai(_) => sonzai::facts(&self.name, &request, claim.timestamp_s).0,
            Provider::Miibo(_) => miibo::facts(&request),
            Provider::Standard(_) => standard::facts(claim.id, &request).0,
        };
        event(&self.name, request, facts)
    }
}

impl Provider {
    /// What `type:` says.
    pub fn name(&self) -> &'static str {
        match self {
            Provider::Sonzai(_) => "sonzai",
            Provider::Miibo(_) => "miibo",
            Provider::Standard(_) => "standard",
        }
    }

    /// How many secrets its longest list holds.
    fn secrets(&self) -> usize {
        match self {
            Provider::Sonzai(sonzai) => sonzai.secrets(),
            Provider::Miibo(miibo) => miibo.keys.len(),
            Provider::Standard(standard) => standard.keys.len(),
        }
    }
}

impl Provider {
    /// Whether secrets may verify its requests that are not in its file.
    fn has_stored(&self) -> bool {
        matches!(self, Provider::Sonzai(sonzai)
            if sonzai.settings.register.is_some() || !sonzai.keyring.load().is_empty())
    }
}

/// The headers that make a body a request of this source, as its provider would send it now.
pub type Signed = Vec<(HeaderName, String)>;

/// Why a source's secrets cannot sign a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotSign {
    #[error("it has no secret for this type")]
    NoSecret,
    #[error(
        "routes.yaml has no secret for this type, and none that Sonzai gave was found: those are in the \
         daemon's data directory (name it with --data-dir, and run this as the daemon's user), once \
         `waypost sonzai webhooks sync` has registered the webhook"
    )]
    OnlyRegistered,
    #[error("it has public keys alone, which sign nothing; add a `whsec_` secret beside them")]
    PublicKeys,
}

impl Source {
    /// Signs `body` as the provider would, with the first secret for `event_type`; `id` makes it an
    /// event of its own where the sender says which it is.
    pub fn sign(
        &self,
        event_type: Option<&str>,
        body: &[u8],
        now_s: u64,
        id: Uuid,
    ) -> Result<Signed, CannotSign> {
        match &self.provider {
            Provider::Sonzai(sonzai) => {
                sonzai.sign(event_type, body, now_s).map_err(|why| match why {
                    CannotSign::NoSecret if sonzai.settings.register.is_some() => {
                        CannotSign::OnlyRegistered
                    }
                    why => why,
                })
            }
            Provider::Miibo(miibo) => miibo.sign(body),
            Provider::Standard(standard) => standard.sign(body, now_s, id),
        }
    }
}

/// What each provider finds out about an event by itself.
struct Facts {
    id: ByteString,
    kind: ByteString,
    subject: Option<ByteString>,
    extensions: Vec<(ByteString, ByteString)>,
}

/// Joins a provider's facts with what every request has.
fn event(source: &ByteString, request: Request, facts: Facts) -> Event {
    let text =
        |name: HeaderName| request.headers.get(name).and_then(|v| attribute(v.to_str().ok()?));
    Event {
        id: facts.id,
        source: source.clone(),
        kind: facts.kind,
        subject: facts.subject,
        time_ms: request.now_ms,
        content_type: text(header::CONTENT_TYPE),
        traceparent: text(HeaderName::from_static("traceparent")),
        extensions: facts.extensions,
        headers: public_headers(request.headers),
        body: request.body,
    }
}

/// An event's type: the verified body's where it names one, else the path's; and whether the body
/// names another than the path.
fn kind(in_body: Option<ByteString>, in_path: Option<&str>) -> (ByteString, bool) {
    match (in_body, in_path) {
        (Some(body), Some(path)) if body != path => {
            tracing::debug!(
                path_type = path, body_type = ?body,
                "a verified body names another event type than its path; the body's counts"
            );
            (body, true)
        }
        (Some(body), _) => (body, false),
        (None, Some(path)) => (path.into(), false),
        (None, None) => (ByteString::from_static(UNPARSED), false),
    }
}

/// Text that may stand in a CloudEvents attribute: not empty, bounded, no control characters.
fn attribute(text: &str) -> Option<ByteString> {
    is_attribute(text).then(|| text.into())
}

fn is_attribute(text: &str) -> bool {
    let fits = !text.is_empty() && text.len() <= MAX_ATTRIBUTE_BYTES;
    // Nearly all of it is ASCII, which is looked through faster as bytes.
    let plain = || text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    fits && (plain() || !text.contains(char::is_control))
}

/// The headers that may be kept with an event: no credentials, no signatures, nothing that belongs
/// to the connection, and nothing that is an attribute already.
///
/// All of them share one buffer: an event is short-lived, and each string of its own would cost an
/// allocation.
fn public_headers(headers: &HeaderMap) -> Vec<(ByteString, ByteString)> {
    let public = || {
        let all = headers.iter().filter(|(name, _)| is_public(name.as_str()));
        all.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    };
    let bytes = public().map(|(name, value)| name.len() + value.len()).sum();
    let mut all = String::with_capacity(bytes);
    public().for_each(|(name, value)| all.extend([name, value]));
    let mut rest = ByteString::from(all);
    let mut take = |len| {
        let (taken, left) = rest.split_at(len);
        rest = left;
        taken
    };
    public().map(|(name, value)| (take(name.len()), take(value.len()))).collect()
}

/// Whether a header of this lower-case name can be kept with an event.
pub fn keeps_header(name: &str) -> bool {
    matches!(name, "content-type" | "traceparent") || is_public(name)
}

fn is_public(name: &str) -> bool {
    const ELSEWHERE: [&str; 7] = [
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "traceparent",
        "transfer-encoding",
    ];
    !ELSEWHERE.contains(&name) && !sounds_secret(name)
}

/// Whether a header's name says that its value is nobody's business. Looked for in one pass: every
/// request brings several headers.
pub fn sounds_secret(name: &str) -> bool {
    const SECRET: [&[u8]; 8] =
        [b"auth", b"cookie", b"signature", b"hmac", b"secret", b"token", b"api-key", b"apikey"];
    let begins = |rest: &[u8]| match rest[0] {
        b'a' | b'c' | b's' | b'h' | b't' => SECRET.iter().any(|part| rest.starts_with(part)),
        _ => false,
    };
    let name = name.as_bytes();
    (0..name.len()).any(|at| begins(&name[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_signatures_are_not_kept_with_the_event() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "sonzai-signature",
            "x-hmac",
            "x-api-key",
            "x-auth-token",
            "webhook-signature",
            "host",
        ] {
            headers.insert(HeaderName::from_static(name), "v".parse().unwrap());
        }
        headers.insert("user-agent", "sonzai/1".parse().unwrap());
        headers.insert("x-request-id", "r1".parse().unwrap());
        let kept = public_headers(&headers);
        let names: Vec<&str> = kept.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["user-agent", "x-request-id"]);
    }

    #[test]
    fn who_has_registered_secrets_alone_is_told_where_they_are() {
        use self::sonzai::settings::{Register, Scope};
        let why = |register| {
            let mut sonzai = Sonzai::default();
            sonzai.settings.register = register;
            let source = Source::new("sonzai".into(), Provider::Sonzai(sonzai));
            source.sign(Some("agent.message"), b"{}", 0, Uuid::nil()).unwrap_err()
        };
        assert_eq!(why(None), CannotSign::NoSecret);
        let register = Register {
            public_url: "https://hooks.example.com".to_owned(),
            scope: Scope::Tenant,
            types: vec!["agent.message".to_owned()],
        };
        assert_eq!(why(Some(register)), CannotSign::OnlyRegistered);
    }

    #[test]
    fn text_that_could_break_a_header_is_no_attribute() {
        assert_eq!(attribute("agent.message").as_deref(), Some("agent.message"));
        assert_eq!(attribute("日本").as_deref(), Some("日本"));
        let long = "x".repeat(MAX_ATTRIBUTE_BYTES + 1);
        for text in ["", "a\r\nb", "a\0", "\u{85}", &long] {
            assert_eq!(attribute(text), None);
        }
    }
}
