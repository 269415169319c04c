//! Whatever is given to be explained: nothing panics, the verdict is the ingress's, and no secret is
//! shown. What was signed and then changed as bodies are changed on their way is found out.

#![no_main]

use std::{convert::Infallible, sync::LazyLock};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use waypost::{
    cli::explain::{explain, parse},
    routing::{self, Table},
    signature::{miibo, sonzai, standard},
    source,
};
use waypost_fuzz::Json;

const SECRETS: [&str; 3] =
    ["whsec_sonzai-secret-text", "miibo-secret-text", "whsec_c3RhbmRhcmQgc2VjcmV0IHRleHQ="];

const ROUTES: &str = r#"
sources:
  sonzai: { type: sonzai, path: "/sonzai/{type}", secrets: { a: whsec_of-another, "*": whsec_sonzai-secret-text } }
  miibo: { type: miibo, path: /miibo, secret: [miibo-secret-text, another-secret-text] }
  shop: { type: standard, path: /shop, secret: "whsec_c3RhbmRhcmQgc2VjcmV0IHRleHQ=" }
brokers:
  local: { type: log }
  live: { type: nats, url: "nats://127.0.0.1:1" }
routes:
  - name: conditional
    match: { source: [sonzai, shop] }
    when: data.a > 1 || headers["x-a"] == id
    to:
      - { broker: live, subject: "a.{data.b|none}.{type}.{subject|slug}" }
      - { broker: local, topic: "{headers.x-a}" }
  - name: rest
    match: { otherwise: true }
    to: [{ broker: local, topic: "{type}" }]
"#;

static TABLE: LazyLock<Table> =
    LazyLock::new(|| routing::compile("routes.yaml", ROUTES, &|_| None).expect("a table"));

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    at_s: u32,
    request: Request<'a>,
}

#[derive(Arbitrary, Debug)]
enum Request<'a> {
    /// Anything at all.
    Raw(&'a [u8]),
    /// Signed rightly, then changed.
    Signed { scheme: Scheme, signed_at_s: u32, body: Json<'a>, change: Change<'a> },
    /// Headers of any value.
    Claimed { scheme: Scheme, values: [&'a str; 3], body: Json<'a> },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Scheme {
    Sonzai,
    Miibo,
    Standard,
}

#[derive(Arbitrary, Debug, PartialEq)]
enum Change<'a> {
    Nothing,
    NewlineAdded,
    LineEnds,
    Body(&'a [u8]),
}

fuzz_target!(|input: Input| {
    let (text, changed) = match &input.request {
        Request::Raw(text) => (text.to_vec(), true),
        Request::Signed { scheme, signed_at_s, body, change } => {
            let body = body.to_bytes();
            let headers = sign(*scheme, &body, *signed_at_s);
            let changed = change.of(&body);
            (written(*scheme, &headers, &changed), changed != body)
        }
        Request::Claimed { scheme, values, body } => {
            let names = names(*scheme).into_iter();
            let headers: Vec<_> =
                names.zip(values).map(|(name, value)| (name, value.to_string())).collect();
            (written(*scheme, &headers, &body.to_bytes()), true)
        }
    };
    let Ok(raw) = parse(&text) else { return };
    let at_ms = u64::from(input.at_s) * 1000;
    let secrets = |source: &str| {
        let secrets = routing::secrets(ROUTES, source, &|_| None).expect("secrets of the table");
        Ok::<_, Infallible>(Some(secrets))
    };
    let explanation =
        explain(&TABLE, &raw, at_ms, 1 << 20, secrets).unwrap_or_else(|never| match never {});
    let document = serde_json::to_value(&explanation).expect("a document");
    let shown = format!("{document}{explanation}");
    assert!(SECRETS.iter().all(|secret| !shown.contains(secret)), "{shown}");

    let Some((source, path_type)) = TABLE.source(raw.head.uri.path()) else { return };
    let request = source::Request {
        path_type,
        headers: &raw.head.headers,
        body: raw.body.clone(),
        now_ms: at_ms,
    };
    let accepted = source.judge(request).is_ok();
    let code = document["verdict"]["reasons"][0]["code"].as_str().unwrap_or_default();
    if code != "refused-early" {
        assert_eq!(document["verdict"]["outcome"] == "accepted", accepted, "{document}");
    }
    if let Request::Signed { change, .. } = &input.request {
        // Whatever the clock says, and unless it is no body that is known.
        let known = !changed || *change == Change::NewlineAdded || *change == Change::LineEnds;
        assert!(!known || document["verdict"]["secret"].is_string(), "{document}");
    }
});

impl Change<'_> {
    fn of(&self, body: &[u8]) -> Vec<u8> {
        match self {
            Change::Nothing => body.to_vec(),
            Change::NewlineAdded => [body, b"\n"].concat(),
            Change::LineEnds if body.contains(&b'\r') => body.to_vec(),
            Change::LineEnds => {
                body.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..])
            }
            Change::Body(other) => other.to_vec(),
        }
    }
}

fn names(scheme: Scheme) -> [&'static str; 3] {
    match scheme {
        Scheme::Sonzai => [sonzai::HEADER, "authorization", "x-a"],
        Scheme::Miibo => [miibo::HEADER, "content-length", "x-a"],
        Scheme::Standard => ["webhook-id", "webhook-timestamp", "webhook-signature"],
    }
}

fn sign(scheme: Scheme, body: &[u8], at_s: u32) -> Vec<(&'static str, String)> {
    let at_s = at_s.into();
    match scheme {
        Scheme::Sonzai => {
            let key = sonzai::key(SECRETS[0]).expect("a key");
            vec![(sonzai::HEADER, sonzai::sign(&key, body, at_s))]
        }
        Scheme::Miibo => {
            let key = miibo::key(SECRETS[1]).expect("a key");
            vec![(miibo::HEADER, miibo::sign(&key, body))]
        }
        Scheme::Standard => {
            let key = standard::key(SECRETS[2]).expect("a key");
            standard::sign(&key, "msg_1", body, at_s).expect("a shared key").into()
        }
    }
}

fn written(scheme: Scheme, headers: &[(&'static str, String)], body: &[u8]) -> Vec<u8> {
    let path = match scheme {
        Scheme::Sonzai => "/sonzai/b",
        Scheme::Miibo => "/miibo",
        Scheme::Standard => "/shop",
    };
    let mut text = format!("POST {path} HTTP/1.1\r\n").into_bytes();
    for (name, value) in headers {
        text.extend(format!("{name}: {value}\r\n").bytes());
    }
    text.extend(b"\r\n");
    text.extend(body);
    text
}
