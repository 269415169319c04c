//! Nothing unverified gets in, and nobody learns why.

use waypost::signature;

use super::*;
use crate::common::{daemon::MIIBO_SECRET, log_files};

#[test]
fn what_is_not_verified_gets_one_constant_401_and_is_no_event() {
    let (_dir, daemon) = start(&[]);
    let mut answers = Vec::new();
    for (what, webhook) in unverified() {
        let mut answer = ask(&daemon, raw::request(&webhook));
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        answer.headers.retain(|(name, _)| name != "date");
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");

    // What is sent last is published last.
    let last = event(2);
    assert_eq!(ask(&daemon, raw::request(&last)).status, 200);
    let published = log_files::wait_for(&daemon.data_dir(), 1);
    assert_eq!(published.iter().map(|event| &event.body[..]).collect::<Vec<_>>(), [&last.body[..]]);
    let (_, dead_letters) = daemon.command(&["dead-letters", "list"]);
    assert_eq!(dead_letters, "no dead letters\n");
}

#[test]
fn a_registered_authorization_is_demanded_beside_the_signature() {
    let dir = tempfile::tempdir().expect("a directory");
    let sources = r#"
sources:
  sonzai:
    type: sonzai
    path: /hooks/sonzai
    secrets: { "*": "${SONZAI_SECRET}" }
    authorization: "${AUTHORIZATION}"
"#;
    let settings = [("AUTHORIZATION", "Bearer of good news")];
    let daemon = Daemon::start(dir.path(), &format!("{sources}{ROUTES}"), &settings);
    let send = |values: &[&str]| {
        let mut webhook = sender::sonzai("-", "{}");
        webhook.path = "/hooks/sonzai".to_owned();
        let headers = values.iter().map(|v| ("authorization".to_owned(), (*v).to_owned()));
        webhook.headers.extend(headers);
        ask(&daemon, raw::request(&webhook)).status
    };
    assert_eq!(send(&[]), 401);
    assert_eq!(send(&["Bearer of bad news"]), 401);
    assert_eq!(send(&["Bearer of good news", "Bearer of good news"]), 401);
    assert_eq!(send(&["Bearer of good news"]), 200);
}

#[test]
fn an_unknown_path_is_404_and_a_bad_signature_is_401_however_they_are_mixed() {
    let (_dir, daemon) = start(&[]);
    let (good, mut bad) = (event(1), event(1));
    bad.headers[0].1 = "00".repeat(32);
    for (webhook, path, status) in [
        (&good, "/hooks/none", 404),
        (&bad, "/hooks/none", 404),
        (&bad, "/hooks/miibo", 401),
        (&bad, "/hooks/sonzai/agent.message", 401),
        (&good, "/hooks/sonzai/agent.message", 401),
    ] {
        let webhook = Webhook { path: path.to_owned(), ..webhook.clone() };
        assert_eq!(ask(&daemon, raw::request(&webhook)).status, status, "{path}");
    }
}

#[test]
fn during_a_rotation_every_secret_is_good_and_no_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let sources = r#"
sources:
  miibo: { type: miibo, path: /hooks/miibo, secret: ["${OLDEST}", "${MIIBO_SECRET}", "${NEWEST}"] }
"#;
    let settings = [("OLDEST", "oldest-secret"), ("NEWEST", "newest-secret")];
    let daemon = Daemon::start(dir.path(), &format!("{sources}{ROUTES}"), &settings);
    for (n, (secret, status)) in [
        ("oldest-secret", 200),
        (MIIBO_SECRET, 200),
        ("newest-secret", 200),
        ("retired-secret", 401),
    ]
    .into_iter()
    .enumerate()
    {
        let mut webhook = event(n);
        let key = signature::miibo::key(secret).expect("a key");
        webhook.headers[0].1 = signature::miibo::sign(&key, &webhook.body);
        assert_eq!(ask(&daemon, raw::request(&webhook)).status, status, "{secret}");
    }
}

#[test]
fn one_right_signature_among_32_is_enough_and_more_are_not_looked_at() {
    let (_dir, daemon) = start(&[]);
    let wrong = |count: usize| format!(",v1={}", "0".repeat(64)).repeat(count);
    for (before, padding, status) in [(31, 0, 200), (32, 0, 401), (0, 3900, 200), (0, 4096, 401)] {
        let mut webhook = sender::sonzai("agent.message", format!("{{\"n\":{before}{padding}}}"));
        let right = webhook.headers[0].1.clone();
        let (time, right) = right.split_once(',').expect("two parts");
        let padding = format!(",x={}", "x".repeat(padding));
        webhook.headers[0].1 = format!("{time}{}{padding},{right}", wrong(before));
        let answer = ask(&daemon, raw::request(&webhook));
        assert_eq!(answer.status, status, "{before} before, {} bytes", webhook.headers[0].1.len());
    }
}

#[test]
fn a_replay_inside_the_window_is_answered_like_the_first_and_is_no_event() {
    let (_dir, daemon) = start(&[]);
    let webhook = sender::sonzai("agent.message", r#"{"agent_id":"a1"}"#);
    let first = ask(&daemon, raw::request(&webhook));
    assert_eq!(first.status, 200, "{first:?}");
    for _ in 0..3 {
        let again = ask(&daemon, raw::request(&webhook));
        let id = |answer: &raw::Answer| answer.header("waypost-event-id").map(str::to_owned);
        assert_eq!((again.status, id(&again)), (200, id(&first)));
    }
    // What is sent last is published last.
    assert_eq!(ask(&daemon, raw::request(&event(1))).status, 200);
    assert_eq!(log_files::wait_for(&daemon.data_dir(), 2).len(), 2);
}

#[test]
fn a_right_signature_with_a_stale_time_is_told_apart_in_the_log_alone() {
    let (_dir, daemon) = start(&[]);
    let stale = sender::sonzai_at("agent.message", "{}", sender::now_s() - 1000);
    assert_eq!(ask(&daemon, raw::request(&stale)).status, 401);
    assert!(daemon.log().contains("is the clock right?"), "{}", daemon.log());
}
