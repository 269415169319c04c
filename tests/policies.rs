//! What a source says of duplicates and of events that nobody wants.

use tempfile::TempDir;

use crate::common::{burst, daemon::Daemon, kept, operator::Scrape, sender};

/// miibo with these settings, everything of one type to a file.
fn start(policies: &str) -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &file(policies), &[]);
    (dir, daemon)
}

fn file(policies: &str) -> String {
    format!(
        r#"
sources:
  miibo: {{ type: miibo, path: /hooks/miibo, secret: "${{MIIBO_SECRET}}"{policies} }}
brokers:
  local: {{ type: log }}
routes:
  - name: utterances
    match: {{ type: miibo.user_utterance }}
    to: [{{ broker: local, topic: all }}]
"#
    )
}

fn utterance(n: usize) -> sender::Webhook {
    sender::miibo(format!(r#"{{"webhookType":"user_utterance","n":{n}}}"#))
}

fn response(n: usize) -> sender::Webhook {
    sender::miibo(format!(r#"{{"webhookType":"agent_response","n":{n}}}"#))
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_bodies_are_one_event_where_the_source_says_so() {
    let (dir, daemon) = start(", dedupe: body");
    let same = vec![utterance(1); 40];
    let answers = burst::accept_all(daemon.listen, &same, 20).await;
    assert_eq!(answers.len(), 40);
    burst::accept_all(daemon.listen, &[utterance(2)], 1).await;
    kept::wait_for_logged(dir.path(), "all", 2).await;
    assert_eq!(kept::appended(dir.path()).len(), 2);
    assert_eq!(Scrape::of(&daemon).get(r#"waypost_duplicates_total{source="miibo"}"#), 39.0);

    // Also after a restart: the keys are in the journal.
    assert!(daemon.stop().success());
    let daemon = Daemon::start(dir.path(), &file(", dedupe: body"), &[]);
    burst::accept_all(daemon.listen, &[utterance(1), utterance(2), utterance(3)], 1).await;
    kept::wait_for_logged(dir.path(), "all", 3).await;
    assert_eq!(Scrape::of(&daemon).get(r#"waypost_duplicates_total{source="miibo"}"#), 2.0);
    assert!(daemon.stop().success());
    assert_eq!(kept::logged(dir.path(), "all").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_bodies_are_two_events_otherwise() {
    let (dir, daemon) = start("");
    burst::accept_all(daemon.listen, &vec![utterance(1); 2], 1).await;
    kept::wait_for_logged(dir.path(), "all", 2).await;
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_is_answered_and_counted_and_leaves_no_trace() {
    let (dir, daemon) = start(", dedupe: body, unrouted: drop");
    burst::accept_all(daemon.listen, &vec![response(1); 30], 15).await;
    burst::accept_all(daemon.listen, &[utterance(1)], 1).await;
    kept::wait_for_logged(dir.path(), "all", 1).await;
    let scrape = Scrape::of(&daemon);
    let dropped = r#"waypost_events_unrouted_dropped_total{source="miibo"}"#;
    assert_eq!(scrape.get(dropped), 30.0);
    assert_eq!(scrape.get(r#"waypost_duplicates_total{source="miibo"}"#), 0.0);
    assert_eq!(scrape.get("waypost_dedupe_keys"), 2.0, "of the one that was kept");
    assert_eq!(kept::appended(dir.path()).len(), 1);
    assert!(daemon.stop().success());
    assert_eq!(kept::dead_letters(dir.path()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_dropped_is_a_dead_letter() {
    let (dir, daemon) = start("");
    burst::accept_all(daemon.listen, &[response(1)], 1).await;
    kept::wait_for_dead_letters(dir.path(), 1).await;
    let [letter] = &kept::dead_letters(dir.path())[..] else { panic!("one dead letter") };
    assert!(letter.reason.contains("no route takes type"), "{letter:?}");
    assert!(daemon.stop().success());
}
