//! Who follows Standard Webhooks is verified whatever library signed: the published one, Svix's
//! header names, Ed25519; one secret or several; and the same id twice is one event.

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use tempfile::TempDir;

use crate::common::{
    daemon::{Daemon, command},
    log_files,
    raw::{self, Raw},
    sender::{self, Webhook},
};

/// What a source may be given: two secrets of a rotation.
const OLD: &str = "whsec_b2xkIHNlY3JldCBvZiB0aGUgc2hvcA==";
const NEW: &str = "whsec_bmV3IHNlY3JldCBvZiB0aGUgc2hvcA==";

const BODY: &str = r#"{"type":"contact.created","data":{"id":"1"}}"#;

/// A daemon whose source `shop` has these secrets, written as a YAML list.
fn start(secrets: &str) -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let routes = format!(
        r#"
sources:
  shop: {{ type: standard, path: "/hooks/shop/{{type}}", secret: {secrets} }}
brokers: {{ local: {{ type: log }} }}
routes:
  - name: all
    match: {{ source: shop, type: "**" }}
    to: [{{ broker: local, topic: "{{type}}" }}]
"#
    );
    let daemon = Daemon::start(dir.path(), &routes, &[]);
    (dir, daemon)
}

/// A request as the published library signs it.
fn published(secret: &str, id: &str, body: &str, now_s: u64) -> Webhook {
    let library = standardwebhooks::Webhook::new(secret).expect("a secret");
    let now = i64::try_from(now_s).expect("a time of this era");
    let signature = library.sign(id, now, body.as_bytes()).expect("a signature");
    webhook("webhook", id, now_s, &signature, body)
}

/// A request under one family's header names.
fn webhook(family: &str, id: &str, now_s: u64, signature: &str, body: &str) -> Webhook {
    let header = |part: &str, value: &str| (format!("{family}-{part}"), value.to_owned());
    Webhook {
        path: "/hooks/shop/in.path".to_owned(),
        headers: vec![
            header("id", id),
            header("timestamp", &now_s.to_string()),
            header("signature", signature),
        ],
        body: body.to_owned().into(),
    }
}

fn signature(webhook: &Webhook) -> &str {
    &webhook.headers[2].1
}

#[track_caller]
fn ask(daemon: &Daemon, webhook: &Webhook) -> raw::Answer {
    Raw::connect(daemon.listen).ask(raw::request(webhook))
}

/// It is accepted under the id that was signed.
#[track_caller]
fn assert_accepted(daemon: &Daemon, webhook: &Webhook) {
    let answer = ask(daemon, webhook);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("waypost-event-id"), Some(&*webhook.headers[0].1));
}

#[test]
fn the_published_library_is_verified_with_every_secret_of_a_rotation() {
    let (_dir, daemon) = start(&format!("[{OLD}, {NEW}]"));
    let now_s = sender::now_s();
    for (secret, id) in [(OLD, "msg_old"), (NEW, "msg_new")] {
        assert_accepted(&daemon, &published(secret, id, BODY, now_s));
    }
    // During its own rotation a sender signs with both.
    let (old, new) =
        (published("whsec_AAAA", "msg_both", BODY, now_s), published(NEW, "msg_both", BODY, now_s));
    let both = format!("v2,unheard-of {} {}", signature(&old), signature(&new));
    assert_accepted(&daemon, &webhook("webhook", "msg_both", now_s, &both, BODY));

    let events = log_files::wait_for(&daemon.data_dir(), 3);
    for (event, id) in events.iter().zip(["msg_old", "msg_new", "msg_both"]) {
        assert_eq!((&*event.id, &*event.kind), (id, "contact.created"));
        assert_eq!(event.body, BODY.as_bytes());
    }
    assert!(daemon.stop().success());
}

#[test]
fn svix_header_names_are_as_good_and_a_mixture_is_not() {
    let (_dir, daemon) = start(NEW);
    let now_s = sender::now_s();
    let right = published(NEW, "msg_1", BODY, now_s);
    let svix = webhook("svix", "msg_1", now_s, signature(&right), BODY);
    assert_accepted(&daemon, &svix);
    for part in 0..3 {
        let mut mixed = right.clone();
        mixed.headers[part] = svix.headers[part].clone();
        assert_eq!(ask(&daemon, &mixed).status, 401, "{mixed:?}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn ed25519_is_verified_beside_a_shared_secret() {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
    let public = BASE64_STANDARD.encode(pair.public_key());
    let (_dir, daemon) = start(&format!("[{OLD}, whpk_{public}]"));
    let now_s = sender::now_s();
    let sign = |id: &str| {
        let signed = format!("{id}.{now_s}.{BODY}");
        format!("v1a,{}", BASE64_STANDARD.encode(pair.sign(signed.as_bytes())))
    };
    let asymmetric = webhook("webhook", "msg_1", now_s, &sign("msg_1"), BODY);
    assert_accepted(&daemon, &asymmetric);
    assert_accepted(&daemon, &published(OLD, "msg_2", BODY, now_s));
    let another_id = webhook("webhook", "msg_3", now_s, &sign("msg_1"), BODY);
    assert_eq!(ask(&daemon, &another_id).status, 401);
    assert!(daemon.stop().success());
}

#[test]
fn what_is_not_signed_now_by_who_has_the_secret_is_answered_401() {
    let (_dir, daemon) = start(NEW);
    let now_s = sender::now_s();
    let right = published(NEW, "msg_1", BODY, now_s);
    let with = |part: usize, value: &str| {
        let mut webhook = right.clone();
        webhook.headers[part].1 = value.to_owned();
        webhook
    };
    let without = |part: usize| {
        let mut webhook = right.clone();
        webhook.headers.remove(part);
        webhook
    };
    let twice = |part: usize| {
        let mut webhook = right.clone();
        webhook.headers.push(webhook.headers[part].clone());
        webhook
    };
    let unverified = [
        published(OLD, "msg_1", BODY, now_s),
        published(NEW, "msg_1", BODY, now_s - 1000),
        published(NEW, "msg_1", BODY, now_s + 1000),
        Webhook { body: "{}".into(), ..right.clone() },
        with(0, "msg_2"),
        with(1, &(now_s + 1).to_string()),
        with(2, &format!("{} ", signature(&right)).repeat(33)),
        with(2, "v1,AAAA"),
    ];
    let each = (0..3).flat_map(|part| [without(part), twice(part)]);
    for webhook in unverified.into_iter().chain(each) {
        let answer = ask(&daemon, &webhook);
        assert_eq!((answer.status, &*answer.body), (401, r#"{"error":"not verified"}"#));
    }
    assert_accepted(&daemon, &right);
    assert_eq!(log_files::wait_for(&daemon.data_dir(), 1).len(), 1);
    assert!(daemon.log().contains("is the clock right?"), "{}", daemon.log());
    assert!(daemon.stop().success());
}

#[test]
fn a_retry_keeps_its_id_and_is_one_event_across_a_restart() {
    let (dir, daemon) = start(NEW);
    let now_s = sender::now_s();
    // A retry is signed anew.
    for late_s in 0..3 {
        assert_accepted(&daemon, &published(NEW, "msg_1", BODY, now_s + late_s));
    }
    let routes = std::fs::read_to_string(dir.path().join("routes.yaml")).expect("routes.yaml");
    assert!(daemon.stop().success());
    let daemon = Daemon::start(dir.path(), &routes, &[]);
    assert_accepted(&daemon, &published(NEW, "msg_1", BODY, now_s + 3));
    assert_accepted(&daemon, &published(NEW, "msg_2", "no JSON", now_s));
    let events = log_files::wait_for(&daemon.data_dir(), 2);
    let told: Vec<_> = events.iter().map(|event| (&*event.id, &*event.topic)).collect();
    assert_eq!(told, [("msg_1", "contact.created"), ("msg_2", "in.path")]);
    assert!(daemon.stop().success());
}

#[test]
fn send_signs_as_the_source_unless_it_has_public_keys_alone() {
    let (_dir, daemon) = start(&format!("[whpk_{}, {NEW}]", BASE64_STANDARD.encode([1; 32])));
    for arguments in [&["send"][..], &["send", "shop", "contact.created"]] {
        let (status, said) = daemon.command(arguments);
        assert!(status.success() && said.starts_with("200 OK  msg_"), "{said}");
    }
    let events = log_files::wait_for(&daemon.data_dir(), 2);
    assert!(events.iter().all(|event| event.kind == "contact.created"), "{events:?}");
    assert_ne!(events[0].id, events[1].id);
    assert!(daemon.stop().success());

    let (dir, daemon) = start(&format!("whpk_{}", BASE64_STANDARD.encode([1; 32])));
    let (status, said) = command(dir.path(), &["send", "shop"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("public keys alone") && said.contains("`whsec_`"), "{said}");
    assert!(daemon.stop().success());
}
