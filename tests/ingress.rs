//! What comes in over the wire, and what it gets: statuses, limits, and nothing unverified.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::common::{
    daemon::{ALL_TO_FILES as ROUTES, Daemon, SOURCES},
    raw::{self, Raw},
    sender::{self, Webhook},
};

mod bodies;
mod certificate;
mod connections;
mod drain;
mod floods;
mod heads;
mod http2;
mod secrets;
mod signatures;
mod tls;

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(settings: &[(&str, &str)]) -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ROUTES}"), settings);
    (dir, daemon)
}

/// An event of its own for each `n`.
fn event(n: usize) -> Webhook {
    sender::miibo(format!(r#"{{"webhookType":"user_utterance","n":{n}}}"#))
}

/// The n-th event, made this long.
fn event_of(n: usize, len: usize) -> Webhook {
    sender::miibo(format!("{n:0len$}"))
}

/// One request on a connection of its own.
#[track_caller]
fn ask(daemon: &Daemon, request: impl AsRef<[u8]>) -> raw::Answer {
    Raw::connect(daemon.listen).ask(request)
}

#[track_caller]
fn assert_busy(answer: &raw::Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("a JSON body");
    assert!(body["error"].is_string(), "{body}");
}

/// Requests that nobody who knows the secret sent just now.
fn unverified() -> Vec<(&'static str, Webhook)> {
    let sonzai = || sender::sonzai("agent.message", r#"{"agent_id":"a1"}"#);
    let miibo = || event(1);
    let signature = |webhook: &Webhook| webhook.headers[0].1.clone();
    let with = |mut webhook: Webhook, value: &str| {
        webhook.headers[0].1 = value.to_owned();
        webhook
    };
    let again = |mut webhook: Webhook, value: &str| {
        webhook.headers.push((webhook.headers[0].0.clone(), value.to_owned()));
        webhook
    };
    let unsigned = |mut webhook: Webhook| {
        webhook.headers.remove(0);
        webhook
    };
    let flipped = |webhook: &Webhook| {
        let mut text = signature(webhook);
        let last = if text.pop() == Some('0') { '1' } else { '0' };
        text.push(last);
        text
    };
    let (s, m, now_s) = (sonzai(), miibo(), sender::now_s());
    vec![
        ("no signature", unsigned(sonzai())),
        ("no signature, miibo", unsigned(miibo())),
        ("empty", with(sonzai(), "")),
        ("empty, miibo", with(miibo(), "")),
        ("wrong in one digit", with(sonzai(), &flipped(&s))),
        ("wrong in one digit, miibo", with(miibo(), &flipped(&m))),
        ("not hex", with(sonzai(), &format!("t={now_s},v1={}", "x".repeat(64)))),
        ("not hex, miibo", with(miibo(), &"x".repeat(64))),
        ("too short, miibo", with(miibo(), &signature(&m)[..62])),
        ("too long, miibo", with(miibo(), &format!("{}00", signature(&m)))),
        ("the other's", with(miibo(), &signature(&s))),
        ("twice the right one", again(sonzai(), &signature(&s))),
        ("twice the right one, miibo", again(miibo(), &signature(&m))),
        ("a right and a wrong one", again(sonzai(), &flipped(&s))),
        ("two times", with(sonzai(), &format!("t={now_s},{}", signature(&s)))),
        ("another body", Webhook { body: "{}".into(), ..sonzai() }),
        ("another body, miibo", Webhook { body: "{}".into(), ..miibo() }),
        ("no body", Webhook { body: "".into(), ..miibo() }),
        ("too old", sender::sonzai_at("agent.message", "{}", now_s - 1000)),
        ("from the future", sender::sonzai_at("agent.message", "{}", now_s + 1000)),
        ("from 1970", sender::sonzai_at("agent.message", "{}", 0)),
    ]
}
