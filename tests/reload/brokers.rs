//! What a reload does to the brokers: what did not change is not touched, what did goes on without
//! loss, what is removed gets what it was owed, and then its end.

use std::path::Path;

use async_nats::jetstream::stream;

use super::{accepted, eventually, reload, replace, to_topic, with};
use crate::common::{
    brokers::Nats,
    consume,
    daemon::Daemon,
    kept,
    operator::{self, Scrape, await_metrics},
    raw::{self, Raw},
    sender,
};

/// A server with a stream of this name for all subjects below it.
async fn nats(stream: &str) -> Nats {
    let nats = Nats::start();
    create(&nats, stream).await;
    nats
}

async fn create(nats: &Nats, name: &str) {
    let subjects = vec![format!("{name}.>")];
    let config = stream::Config { name: name.to_owned(), subjects, ..Default::default() };
    consume::create_stream(nats.url(), config).await;
}

fn live(nats: &Nats, more: &str) -> String {
    format!(r#"live: {{ type: nats, url: "{}"{more} }}"#, nats.url())
}

fn to(subject: &str) -> String {
    format!("{{ broker: live, subject: {subject} }}")
}

async fn arrived(nats: &Nats, stream: &str, at_least: usize) -> Vec<String> {
    let messages = consume::read_stream(nats.url(), stream, at_least).await;
    messages.iter().map(|message| message.header("ce-id").expect("an id").to_owned()).collect()
}

fn connections(daemon: &Daemon, broker: &str) -> f64 {
    let series = format!("waypost_broker_connections_total{{broker=\"{broker}\"}}");
    Scrape::of(daemon).get(&series)
}

fn broker_names(daemon: &Daemon) -> Vec<String> {
    let (_, status) = operator::json(daemon, "/api/status");
    let brokers = status["brokers"].as_array().expect("brokers").iter();
    let name = |broker: &serde_json::Value| {
        let text = |field: &str| broker[field].as_str().expect("text").to_owned();
        format!("{}:{}", text("name"), text("type"))
    };
    brokers.map(name).collect()
}

fn dead_letters(dir: &Path) -> Vec<String> {
    kept::dead_letters(dir).into_iter().map(|letter| letter.reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_did_not_change_keeps_its_connection() {
    let nats = nats("same").await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &with(&live(&nats, ""), &to("same.a")), &[]);
    let mut ids = vec![accepted(&daemon, 0)];
    arrived(&nats, "same", 1).await;
    for (n, policy) in ["", ", retry: { for: 1m }", ", drain: { for: 1m }"].iter().enumerate() {
        let text = with(&live(&nats, policy), &to(&format!("same.b{n}")));
        reload(&daemon, dir.path(), &text);
        ids.push(accepted(&daemon, n + 1));
    }
    assert_eq!(arrived(&nats, "same", ids.len()).await, ids);
    assert_eq!(connections(&daemon, "live"), 1.0);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_url_changed_goes_on_there_without_loss() {
    let (mut one, other) = (nats("urls").await, nats("urls").await);
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &with(&live(&one, ""), &to("urls.a")), &[]);
    let first = accepted(&daemon, 0);
    assert_eq!(arrived(&one, "urls", 1).await, [first]);
    // Owed while the first is down: the other one gets it, in order.
    one.kill();
    let waiting: Vec<String> = (1..20).map(|n| accepted(&daemon, n)).collect();
    reload(&daemon, dir.path(), &with(&live(&other, ""), &to("urls.a")));
    assert_eq!(arrived(&other, "urls", waiting.len()).await, waiting);
    assert_eq!(connections(&daemon, "live"), 2.0);
    assert_eq!(broker_names(&daemon), ["live:nats", "unrouted:unrouted"]);
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_broker_gets_what_it_is_owed_and_resumes_when_it_comes_back() {
    let mut nats = nats("back").await;
    let dir = tempfile::tempdir().expect("a directory");
    let text = with(&live(&nats, ""), &to("back.a"));
    let daemon = Daemon::start(dir.path(), &text, &[]);
    nats.kill();
    let mut owed: Vec<String> = (0..5).map(|n| accepted(&daemon, n)).collect();
    reload(&daemon, dir.path(), &to_topic("elsewhere"));
    assert_eq!(broker_names(&daemon), ["live:removed", "local:log", "unrouted:unrouted"]);
    let elsewhere = accepted(&daemon, 5);
    // It drains once the broker is back, and then it is gone.
    nats.restart();
    assert_eq!(arrived(&nats, "back", owed.len()).await, owed);
    await_metrics(&daemon, "the end of the broker", |scrape| !scrape.text.contains("\"live\""));
    assert_eq!(broker_names(&daemon), ["local:log", "unrouted:unrouted"]);
    assert_eq!(kept::logged(dir.path(), "elsewhere"), [elsewhere]);
    // Back under its name it goes on where it was: nothing comes twice.
    reload(&daemon, dir.path(), &text);
    owed.push(accepted(&daemon, 6));
    assert_eq!(arrived(&nats, "back", owed.len()).await, owed);
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_broker_is_owed_at_the_end_of_its_time_becomes_dead_letters() {
    let nats = Nats::start();
    let dir = tempfile::tempdir().expect("a directory");
    // There is no stream: all is being retried or parked.
    let text = with(&live(&nats, ", drain: { for: 1s }"), &to("nowhere.a"));
    let small = [("WAYPOST_JOURNAL__SEGMENT_BYTES", "8192")];
    let daemon = Daemon::start(dir.path(), &text, &small);
    for n in 0..30 {
        accepted(&daemon, n);
    }
    reload(&daemon, dir.path(), &to_topic("elsewhere"));
    await_metrics(&daemon, "the end of the broker", |scrape| !scrape.text.contains("\"live\""));
    let reason =
        "broker `live` was removed from routes.yaml, and its time to drain (drain.for) is over";
    assert_eq!(dead_letters(dir.path()), [reason; 30]);
    // It pins nothing any more.
    let journal = dir.path().join("data/journal");
    let segments = || {
        let files = std::fs::read_dir(&journal).expect("the journal");
        files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "seg")).count()
    };
    eventually("the journal is freed", || segments() == 1);
    assert!(daemon.log().contains("dead_letters=30"), "{}", daemon.log());
    assert!(daemon.stop().success());
    // And not after the next start either, which has nothing to tell of it.
    let daemon = Daemon::start(dir.path(), &to_topic("elsewhere"), &small);
    await_metrics(&daemon, "the end of the broker", |scrape| !scrape.text.contains("\"live\""));
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), [reason; 30]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_while_it_drains_loses_nothing() {
    let mut nats = nats("soon").await;
    let dir = tempfile::tempdir().expect("a directory");
    let text = with(&live(&nats, ""), &to("soon.a"));
    let daemon = Daemon::start(dir.path(), &text, &[]);
    nats.kill();
    let mut owed: Vec<String> = (0..5).map(|n| accepted(&daemon, n)).collect();
    reload(&daemon, dir.path(), &to_topic("elsewhere"));
    reload(&daemon, dir.path(), &text);
    owed.push(accepted(&daemon, 5));
    eventually("the other is gone", || broker_names(&daemon) == ["live:nats", "unrouted:unrouted"]);
    nats.restart();
    assert_eq!(arrived(&nats, "soon", owed.len()).await, owed);
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_of_another_type_takes_over_after_what_the_old_one_was_owed() {
    let mut nats = nats("types").await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &with(&live(&nats, ""), &to("types.a")), &[]);
    nats.kill();
    let owed: Vec<String> = (0..5).map(|n| accepted(&daemon, n)).collect();
    reload(&daemon, dir.path(), &with("live: { type: log }", "{ broker: live, topic: types }"));
    let later: Vec<String> = (5..10).map(|n| accepted(&daemon, n)).collect();
    assert_eq!(broker_names(&daemon), ["live:nats", "unrouted:unrouted"], "as yet");
    nats.restart();
    assert_eq!(arrived(&nats, "types", owed.len()).await, owed);
    kept::wait_for_logged(dir.path(), "types", later.len()).await;
    assert_eq!(kept::logged(dir.path(), "types"), later);
    assert_eq!(broker_names(&daemon), ["live:log", "unrouted:unrouted"]);
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_removed_before_its_new_type_had_its_turn_loses_nothing() {
    let mut nats = nats("gone").await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &with(&live(&nats, ""), &to("gone.a")), &[]);
    nats.kill();
    let first: Vec<String> = (0..5).map(|n| accepted(&daemon, n)).collect();
    reload(
        &daemon,
        dir.path(),
        &with("live: { type: log, dir: gone }", "{ broker: live, topic: gone }"),
    );
    let then: Vec<String> = (5..10).map(|n| accepted(&daemon, n)).collect();
    reload(&daemon, dir.path(), &to_topic("elsewhere"));
    assert_eq!(broker_names(&daemon), ["live:removed", "local:log", "unrouted:unrouted"]);
    nats.restart();
    assert_eq!(arrived(&nats, "gone", first.len()).await, first);
    await_metrics(&daemon, "the end of the broker", |scrape| !scrape.text.contains("\"live\""));
    assert_eq!(kept::logged_in(&dir.path().join("gone"), "gone"), then);
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn back_at_its_first_type_a_broker_delivers_to_each_what_was_accepted_for_it() {
    let (mut one, other) = (nats("again").await, nats("again").await);
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &with(&live(&one, ""), &to("again.a")), &[]);
    one.kill();
    let first: Vec<String> = (0..5).map(|n| accepted(&daemon, n)).collect();
    reload(&daemon, dir.path(), &with("live: { type: log }", "{ broker: live, topic: again }"));
    let then: Vec<String> = (5..10).map(|n| accepted(&daemon, n)).collect();
    // No request runs on the first table any more, which is looked for once a second.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    reload(&daemon, dir.path(), &with(&live(&other, ""), &to("again.a")));
    let last: Vec<String> = (10..15).map(|n| accepted(&daemon, n)).collect();
    one.restart();
    assert_eq!(arrived(&one, "again", first.len()).await, first);
    assert_eq!(arrived(&other, "again", last.len()).await, last);
    assert_eq!(kept::logged(dir.path(), "again"), then);
    assert!(daemon.stop().success());
    assert_eq!(dead_letters(dir.path()), [""; 0]);
}

#[test]
fn a_broker_of_a_table_that_could_not_be_put_in_force_leaves_no_cursor_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let good = to_topic("good");
    let daemon = Daemon::start(dir.path(), &good, &[]);
    // The last step that can fail does.
    let last_good = daemon.data_dir().join("routes.last-good.yaml");
    std::fs::remove_file(&last_good).expect("to remove a file");
    std::fs::create_dir(&last_good).expect("to create a directory");
    let text = with(
        "local: { type: log }, more: { type: log, dir: more }",
        "{ broker: local, topic: good }, { broker: more, topic: more }",
    );
    replace(&dir.path().join("routes.yaml"), &text);
    let cursors = || {
        let files = std::fs::read_dir(daemon.data_dir().join("journal/cursors")).expect("cursors");
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (status, output) = daemon.command(&["reload"]);
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("cannot keep it as the last good one"), "{output}");
    assert_eq!(cursors(), ["local", "unrouted"]);
    accepted(&daemon, 0);
    std::fs::remove_dir(&last_good).expect("to remove a directory");
    reload(&daemon, dir.path(), &text);
    assert_eq!(cursors(), ["local", "more", "unrouted"]);
    assert!(daemon.stop().success());
    assert_eq!(kept::logged_in(&dir.path().join("more"), "more"), [""; 0], "it is owed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_moves_from_a_dead_broker_to_a_live_one() {
    let mut nats = nats("moves").await;
    let dir = tempfile::tempdir().expect("a directory");
    let both = |target: &str| with(&format!("{}, local: {{ type: log }}", live(&nats, "")), target);
    let (dead, alive) = (both(&to("moves.a")), both("{ broker: local, topic: moves }"));
    let daemon = Daemon::start(dir.path(), &dead, &[]);
    nats.kill();
    let before: Vec<String> = (0..5).map(|n| accepted(&daemon, n)).collect();
    reload(&daemon, dir.path(), &alive);
    let after: Vec<String> = (5..10).map(|n| accepted(&daemon, n)).collect();
    kept::wait_for_logged(dir.path(), "moves", after.len()).await;
    assert_eq!(kept::logged(dir.path(), "moves"), after);
    // What was owed to it stays owed to it.
    nats.restart();
    assert_eq!(arrived(&nats, "moves", before.len()).await, before);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routes_own_patience_comes_before_its_brokers() {
    let nats = Nats::start();
    let dir = tempfile::tempdir().expect("a directory");
    let text = |retry: &str| {
        with(&live(&nats, ", retry: { for: 1h }"), &to("nowhere.a"))
            .replace("name: all,", &format!("name: all,{retry}"))
    };
    let daemon = Daemon::start(dir.path(), &text(""), &[]);
    let id = accepted(&daemon, 0);
    eventually("it is parked", || kept::parked(dir.path(), "live").contains(&id));
    assert_eq!(dead_letters(dir.path()), [""; 0]);
    // Changed by a reload, without a word to the broker.
    reload(&daemon, dir.path(), &text(" retry: { for: 0s },"));
    kept::wait_for_dead_letters(dir.path(), 1).await;
    assert_eq!(connections(&daemon, "live"), 1.0);
    assert!(daemon.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_refuses_or_gives_up_the_oldest() {
    let mut nats = nats("full").await;
    nats.kill();
    let dir = tempfile::tempdir().expect("a directory");
    let text = |when_full: &str| {
        let more = format!(", backlog: {{ max_bytes: 128KiB }}, when_full: {when_full}");
        with(&live(&nats, &more), &to("full.a"))
    };
    let daemon =
        Daemon::start(dir.path(), &text("refuse"), &[("WAYPOST_JOURNAL__SEGMENT_BYTES", "16384")]);
    let body = |n: usize| format!("{{\"n\":{n},\"pad\":\"{}\"}}", "x".repeat(4 << 10));
    let post = |n| Raw::connect(daemon.listen).ask(raw::request(&sender::miibo(body(n)))).status;
    let mut n = 0;
    let mut next = || {
        n += 1;
        post(n)
    };
    eventually("it is refused", || next() == 503);
    // The bound itself changes nothing for those that are in; what is to become of them does.
    reload(&daemon, dir.path(), &text("dead_letter_oldest"));
    eventually("it is taken again", || next() == 200);
    eventually("the oldest make room", || {
        assert!([200, 503].contains(&next()));
        dead_letters(dir.path()).len() >= 20
    });
    nats.restart();
    let accepted = Scrape::of(&daemon).get("waypost_journal_appended_records_total") as usize;
    await_metrics(&daemon, "all is settled", |scrape| {
        let series = |name: &str| scrape.get(&format!("waypost_broker_{name}{{broker=\"live\"}}"));
        series("confirmed_total") + series("dead_letters_total") == accepted as f64
    });
    let letters = kept::dead_letters(dir.path());
    let reason = "its broker's backlog was full (when_full: dead_letter_oldest)";
    assert!(letters.iter().all(|letter| letter.reason == reason), "{letters:?}");
    let arrived = arrived(&nats, "full", accepted - letters.len()).await;
    let mut all: Vec<String> = letters.into_iter().map(|letter| letter.id).collect();
    assert!(all.iter().all(|id| !arrived.contains(id)), "each is one or the other");
    all.extend(arrived);
    // The oldest are given up on, and the order of the others is kept: together they are all, in order.
    all.dedup();
    assert_eq!(all.len(), accepted);
    assert!(daemon.stop().success());
}
