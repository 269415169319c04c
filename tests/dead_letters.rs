//! What cannot be delivered ends as a dead letter with its reason; everything else is delivered, and
//! no wrong message is blamed.

use std::path::Path;

use crate::common::{
    burst,
    consume::{self, Consumed},
    daemon::Daemon,
    ids::{assert_ids, ids},
    kept::{self, DeadLetter},
    sender::{self, Webhook},
    shared::Brokers,
};

/// Among so many good events there is a guilty one each.
const GOOD_PER_GUILTY: usize = 25;
const GUILTY: usize = 12;
const MIXTURE: usize = GUILTY * (GOOD_PER_GUILTY + 1);

/// Nothing listens there: port 1 is nobody's on loopback.
const NO_RABBITMQ: &str = "amqp://127.0.0.1:1/%2f";
const NO_KAFKA: &str = "127.0.0.1:1";
const NO_NATS: &str = "nats://127.0.0.1:1";

/// Senders at the same time.
const CONNECTIONS: usize = 24;

/// Messages that fail now are tried for this long: soon over, but not before they were parked.
const RETRY_BRIEFLY: (&str, &str) = ("WAYPOST_DISPATCH__RETRY_FOR", "4s");

/// An event of a type, which no other one is equal to.
fn event(kind: &str, n: usize) -> Webhook {
    sender::sonzai(kind, format!(r#"{{"event_type":"{kind}","agent_id":"a{n}","n":{n}}}"#))
}

/// Guilty events among good ones, sent by many at the same time.
struct Mixture {
    good: Vec<String>,
    guilty: Vec<String>,
}

impl Mixture {
    /// Sends one mixture while the broker cannot be reached, so that afterwards all of it is in
    /// flight at once, and one while it can. `routes` makes brokers and routes from the broker's
    /// address.
    async fn send(
        dir: &Path,
        routes: impl Fn(&str) -> String,
        [unreachable, broker]: [&str; 2],
        guilty: impl Fn(usize) -> Webhook,
    ) -> (Daemon, Mixture) {
        let mut mixture = Mixture { good: Vec::new(), guilty: Vec::new() };
        let daemon = Daemon::with_sources(dir, &routes(unreachable), &[RETRY_BRIEFLY]);
        mixture.send_one(&daemon, 0, &guilty).await;
        assert!(daemon.stop().success());
        let daemon = Daemon::with_sources(dir, &routes(broker), &[RETRY_BRIEFLY]);
        mixture.send_one(&daemon, MIXTURE, &guilty).await;
        (daemon, mixture)
    }

    async fn send_one(&mut self, daemon: &Daemon, from: usize, guilty: impl Fn(usize) -> Webhook) {
        let events: Vec<Webhook> = (from..from + MIXTURE)
            .map(|n| if Mixture::is_guilty(n) { guilty(n) } else { event("good", n) })
            .collect();
        let ids = burst::accept_all(daemon.listen, &events, CONNECTIONS).await;
        for (n, id) in (from..).zip(ids) {
            if Mixture::is_guilty(n) {
                self.guilty.push(id);
            } else {
                self.good.push(id);
            }
        }
    }

    fn is_guilty(n: usize) -> bool {
        n % (GOOD_PER_GUILTY + 1) == GOOD_PER_GUILTY / 2
    }

    fn all(&self) -> Vec<String> {
        [&self.good[..], &self.guilty].concat()
    }
}

/// Exactly these events' messages to this broker and address are dead letters, once each, for a
/// reason that says this.
#[track_caller]
fn assert_dead(
    letters: &[DeadLetter],
    events: &[String],
    broker: &str,
    address: Option<&str>,
    reason: &str,
) {
    let letters: Vec<&DeadLetter> = letters.iter().filter(|l| l.broker == broker).collect();
    for letter in &letters {
        assert_eq!(letter.address.as_deref(), address, "{letter:?}");
        assert!(letter.reason.contains(reason), "{letter:?}");
    }
    assert_ids(letters.iter().map(|letter| letter.id.clone()).collect(), events.to_vec());
}

async fn create_stream(url: &str, name: &str) {
    let stream = async_nats::jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        ..Default::default()
    };
    consume::create_stream(url, stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unroutable_rabbitmq_messages_are_found_among_good_ones() {
    let url = Brokers::shared().rabbitmq.url();
    consume::declare_queue(url, "letters-routed", "letters-routed", "#", Default::default()).await;
    // Its one queue takes other keys.
    consume::declare_queue(url, "letters-lonely", "letters-lonely", "x.y", Default::default())
        .await;
    let dir = tempfile::tempdir().expect("a directory");
    let routes = |url: &str| {
        format!(
            r#"
brokers: {{ tasks: {{ type: rabbitmq, url: "{url}" }} }}
routes:
  - name: all
    match: {{ type: "*" }}
    to: [{{ broker: tasks, exchange: letters-routed, routing_key: "{{type}}" }}]
  - name: lonely
    match: {{ type: guilty }}
    to: [{{ broker: tasks, exchange: letters-lonely, routing_key: nobody }}]
"#
        )
    };
    let (daemon, sent) =
        Mixture::send(dir.path(), routes, [NO_RABBITMQ, url], |n| event("guilty", n)).await;
    let routed = consume::read_queue(url, "letters-routed", sent.all().len()).await;
    kept::wait_for_dead_letters(dir.path(), sent.guilty.len()).await;
    assert!(daemon.stop().success());

    assert_ids(ids(&routed, "cloudEvents_id"), sent.all());
    let letters = kept::dead_letters(dir.path());
    assert_dead(&letters, &sent.guilty, "tasks", Some("letters-lonely/nobody"), "unroutable");
    assert_eq!(consume::read_queue(url, "letters-lonely", 0).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_exchange_costs_only_what_is_owed_to_it() {
    let url = Brokers::shared().rabbitmq.url();
    consume::declare_queue(url, "letters-there", "letters-there", "#", Default::default()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let routes = |url: &str| {
        format!(
            r#"
brokers: {{ tasks: {{ type: rabbitmq, url: "{url}" }} }}
routes:
  - name: all
    match: {{ type: "*" }}
    to: [{{ broker: tasks, exchange: letters-there, routing_key: "{{type}}" }}]
  - name: missing
    match: {{ type: guilty }}
    to: [{{ broker: tasks, exchange: letters-missing, routing_key: "{{type}}" }}]
"#
        )
    };
    let (daemon, sent) =
        Mixture::send(dir.path(), routes, [NO_RABBITMQ, url], |n| event("guilty", n)).await;
    let there = consume::read_queue(url, "letters-there", sent.all().len()).await;
    kept::wait_for_dead_letters(dir.path(), sent.guilty.len()).await;
    assert!(daemon.stop().success());

    assert_ids(ids(&there, "cloudEvents_id"), sent.all());
    let letters = kept::dead_letters(dir.path());
    let address = Some("letters-missing/guilty");
    assert_dead(&letters, &sent.guilty, "tasks", address, "no exchange \"letters-missing\"");
    assert!(letters.iter().all(|letter| letter.attempts >= 5), "{letters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_kafkas_limit_does_not_take_its_batch_along() {
    const MAX_MESSAGE_BYTES: usize = 3000;
    let bootstrap = Brokers::shared().kafka.bootstrap();
    let limit = MAX_MESSAGE_BYTES.to_string();
    // The limit is one of batches: good messages that wait together are above it, too.
    consume::create_topic(bootstrap, "letters-small", 2, &[("max.message.bytes", &limit)]).await;
    consume::create_topic(bootstrap, "letters-any", 1, &[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let routes = |bootstrap: &str| {
        format!(
            r#"
brokers: {{ stream: {{ type: kafka, bootstrap: "{bootstrap}" }} }}
routes:
  - name: all
    match: {{ type: "*" }}
    to:
      - {{ broker: stream, topic: letters-small, key: "{{data.agent_id}}" }}
      - {{ broker: stream, topic: letters-any }}
"#
        )
    };
    let fat = |n| {
        let text = "x".repeat(MAX_MESSAGE_BYTES + 1);
        sender::sonzai("fat", format!(r#"{{"agent_id":"a{n}","text":"{text}"}}"#))
    };
    let (daemon, sent) = Mixture::send(dir.path(), routes, [NO_KAFKA, bootstrap], fat).await;
    let small = consume::read_topic(bootstrap, "letters-small", sent.good.len()).await;
    let any = consume::read_topic(bootstrap, "letters-any", sent.all().len()).await;
    kept::wait_for_dead_letters(dir.path(), sent.guilty.len()).await;
    assert!(daemon.stop().success());

    assert_ids(ids(&small, "ce_id"), sent.good.clone());
    assert_ids(ids(&any, "ce_id"), sent.all());
    let letters = kept::dead_letters(dir.path());
    assert_dead(&letters, &sent.guilty, "stream", Some("letters-small"), "max.message.bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_kafka_topic_costs_only_what_is_owed_to_it() {
    let bootstrap = Brokers::shared().kafka.bootstrap();
    consume::create_topic(bootstrap, "letters-there", 2, &[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let routes = |bootstrap: &str| {
        format!(
            r#"
brokers: {{ stream: {{ type: kafka, bootstrap: "{bootstrap}" }} }}
routes:
  - name: all
    match: {{ type: "*" }}
    to: [{{ broker: stream, topic: letters-there }}]
  - name: missing
    match: {{ type: guilty }}
    to: [{{ broker: stream, topic: letters-missing }}]
"#
        )
    };
    let (daemon, sent) =
        Mixture::send(dir.path(), routes, [NO_KAFKA, bootstrap], |n| event("guilty", n)).await;
    let there = consume::read_topic(bootstrap, "letters-there", sent.all().len()).await;
    kept::wait_for_dead_letters(dir.path(), sent.guilty.len()).await;
    assert!(daemon.stop().success());

    assert_ids(ids(&there, "ce_id"), sent.all());
    let letters = kept::dead_letters(dir.path());
    assert_dead(&letters, &sent.guilty, "stream", Some("letters-missing"), "create it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_subject_without_a_stream_costs_only_what_is_owed_to_it() {
    let url = Brokers::shared().nats.url();
    create_stream(url, "letters-heard").await;
    let dir = tempfile::tempdir().expect("a directory");
    let routes = |url: &str| {
        format!(
            r#"
brokers: {{ live: {{ type: nats, url: "{url}" }} }}
routes:
  - name: all
    match: {{ type: "*" }}
    to: [{{ broker: live, subject: "letters-heard.{{type}}" }}]
  - name: unheard
    match: {{ type: guilty }}
    to: [{{ broker: live, subject: letters-unheard.x }}]
"#
        )
    };
    let (daemon, sent) =
        Mixture::send(dir.path(), routes, [NO_NATS, url], |n| event("guilty", n)).await;
    let heard = consume::read_stream(url, "letters-heard", sent.all().len()).await;
    kept::wait_for_dead_letters(dir.path(), sent.guilty.len()).await;
    assert!(daemon.stop().success());

    assert_ids(ids(&heard, "ce-id"), sent.all());
    let letters = kept::dead_letters(dir.path());
    let (address, reason) = (Some("letters-unheard.x"), "no stream takes subject");
    assert_dead(&letters, &sent.guilty, "live", address, reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_to_two_subjects_of_one_stream_arrives_twice() {
    let url = Brokers::shared().nats.url();
    create_stream(url, "letters-twice").await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(
        dir.path(),
        &format!(
            r#"
brokers: {{ live: {{ type: nats, url: "{url}" }} }}
routes:
  - name: both
    match: {{ type: "*" }}
    to:
      - {{ broker: live, subject: letters-twice.one }}
      - {{ broker: live, subject: letters-twice.two }}
  - name: one of them again
    match: {{ type: "*" }}
    to: [{{ broker: live, subject: letters-twice.one }}]
"#
        ),
        &[],
    );
    let events: Vec<Webhook> = (0..20).map(|n| event("good", n)).collect();
    let sent = burst::accept_all(daemon.listen, &events, CONNECTIONS).await;
    let arrived = consume::read_stream(url, "letters-twice", 2 * sent.len()).await;
    assert!(daemon.stop().success());
    for subject in ["letters-twice.one", "letters-twice.two"] {
        let to: Vec<Consumed> = arrived.iter().filter(|m| m.address == subject).cloned().collect();
        assert_ids(ids(&to, "ce-id"), sent.clone());
    }
    assert_eq!(arrived.len(), 2 * sent.len());
    assert_eq!(kept::dead_letters(dir.path()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_addressed_is_a_dead_letter_and_its_other_targets_are_served() {
    let url = Brokers::shared().nats.url();
    create_stream(url, "letters-other").await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(
        dir.path(),
        &format!(
            r#"
brokers:
  live: {{ type: nats, url: "{url}" }}
  local: {{ type: log }}
routes:
  - name: unfillable
    match: {{ type: unfillable }}
    to:
      - {{ broker: local, topic: "agents-{{data.nickname}}" }}
      - {{ broker: live, subject: letters-other.x }}
  - name: forbidden
    match: {{ type: forbidden }}
    to:
      - {{ broker: live, subject: "letters-other.{{data.place}}" }}
      - {{ broker: local, topic: other }}
"#
        ),
        &[],
    );
    let unfillable = [r#"{"agent_id":"a"}"#, r#"{"nickname":null}"#, "no JSON", "[]"]
        .map(|body| sender::sonzai("unfillable", body));
    let forbidden = [r#"{"place":"a.b"}"#, r#"{"place":">"}"#, r#"{"place":"a b"}"#]
        .map(|body| sender::sonzai("forbidden", body));
    let untaken = [event("untaken", 1), event("untaken", 2)];
    let unfillable = burst::accept_all(daemon.listen, &unfillable, 4).await;
    let forbidden = burst::accept_all(daemon.listen, &forbidden, 4).await;
    let untaken = burst::accept_all(daemon.listen, &untaken, 4).await;
    let other = consume::read_stream(url, "letters-other", unfillable.len()).await;
    kept::wait_for_logged(dir.path(), "other", forbidden.len()).await;
    kept::wait_for_dead_letters(dir.path(), 9).await;
    assert!(daemon.stop().success());

    assert_ids(ids(&other, "ce-id"), unfillable.clone());
    assert_ids(kept::logged(dir.path(), "other"), forbidden.clone());
    let letters = kept::dead_letters(dir.path());
    assert_dead(&letters, &unfillable, "local", None, "{data.nickname} cannot be filled");
    assert_dead(&letters, &forbidden, "live", None, "");
    assert_dead(&letters, &untaken, "unrouted", None, r#"no route takes type "untaken""#);
    let reason = |id: &String| {
        let letter = letters.iter().find(|letter| letter.id == *id).expect("a dead letter");
        letter.reason.as_str()
    };
    assert!(reason(&unfillable[2]).contains("not JSON"), "{letters:?}");
    assert!(reason(&forbidden[0]).contains("dot"), "{letters:?}");
    assert!(reason(&forbidden[1]).contains("not allowed"), "{letters:?}");
    assert_eq!(letters.len(), 9);
}

/// Routes of the test below, with and without the brokers that go.
fn routes_with_and_without(nats: &str, unreachable: &str) -> [String; 2] {
    let local = "local: { type: log }";
    let to_local = "{ broker: local, topic: stays }";
    let routes = |brokers: &str, targets: &str| {
        format!(
            "brokers: {{ {local}{brokers} }}\n\
             routes: [{{ name: all, match: {{ type: '*' }}, to: [{to_local}{targets}] }}]\n"
        )
    };
    let brokers = format!(
        r#", lost: {{ type: kafka, bootstrap: "{unreachable}" }}, deaf: {{ type: nats, url: "{nats}" }}"#
    );
    let targets = ", { broker: lost, topic: letters-lost }, \
                   { broker: deaf, subject: letters-deaf.x }";
    [routes(&brokers, targets), routes("", "")]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_broker_was_owed_becomes_dead_letters_and_pins_nothing() {
    const EVENTS: usize = 40;
    let [with, without] = routes_with_and_without(Brokers::shared().nats.url(), NO_KAFKA);
    let dir = tempfile::tempdir().expect("a directory");
    let small = [("WAYPOST_JOURNAL__SEGMENT_BYTES", "8192")];
    let daemon = Daemon::with_sources(dir.path(), &with, &small);
    let events: Vec<Webhook> = (0..EVENTS).map(|n| event("good", n)).collect();
    let sent = burst::accept_all(daemon.listen, &events, CONNECTIONS).await;
    kept::wait_for_logged(dir.path(), "stays", EVENTS).await;
    // One broker's are parked by now, the other's still wait in the main journal.
    kept::eventually("parked", || kept::parked(dir.path(), "deaf").len() >= EVENTS).await;
    assert!(daemon.stop().success());
    assert_eq!(kept::dead_letters(dir.path()), []);
    assert!(segments(dir.path()) > 1, "the test needs a journal of several segments");

    let daemon = Daemon::with_sources(dir.path(), &without, &small);
    kept::wait_for_dead_letters(dir.path(), 2 * EVENTS).await;
    kept::eventually("the journal is freed", || segments(dir.path()) == 1).await;
    // Nobody owes them anything any more, and what comes now is delivered.
    let later = burst::accept_all(daemon.listen, &[event("good", EVENTS)], 1).await;
    kept::wait_for_logged(dir.path(), "stays", EVENTS + 1).await;
    assert!(daemon.stop().success());
    let letters = kept::dead_letters(dir.path());
    for (broker, address) in [("lost", "letters-lost"), ("deaf", "letters-deaf.x")] {
        let reason = format!("broker `{broker}` is not in the routing table");
        assert_dead(&letters, &sent, broker, Some(address), &reason);
    }
    assert_eq!(letters.len(), 2 * EVENTS);
    assert_ids(kept::logged(dir.path(), "stays"), [sent, later].concat());

    // A further start finds it done.
    let daemon = Daemon::with_sources(dir.path(), &without, &small);
    assert!(daemon.stop().success());
    assert_eq!(kept::dead_letters(dir.path()), letters);
}

/// How many segments the main journal has.
fn segments(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("data/journal")).expect("the journal");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    names.filter(|name| name.ends_with(".seg")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_survives_kill_nine() {
    let routes = "brokers: { local: { type: log } }\nroutes: []\n";
    let dir = tempfile::tempdir().expect("a directory");
    let mut sent = Vec::new();
    for round in 0..4 {
        let daemon = Daemon::with_sources(dir.path(), routes, &[]);
        let events: Vec<Webhook> = (0..10).map(|n| event("untaken", 10 * round + n)).collect();
        sent.extend(burst::accept_all(daemon.listen, &events, 10).await);
        // Killed at once, or once they are there: what was there once stays.
        if round % 2 == 1 {
            kept::wait_for_dead_letters(dir.path(), sent.len()).await;
        }
        let before = kept::dead_letters(dir.path());
        daemon.kill();
        let after = kept::dead_letters(dir.path());
        assert_eq!(after[..before.len()], before);
    }
    let daemon = Daemon::with_sources(dir.path(), routes, &[]);
    let found = || {
        // A crash may write one again whose cursor was not saved yet.
        let mut ids: Vec<String> =
            kept::dead_letters(dir.path()).into_iter().map(|l| l.id).collect();
        ids.sort();
        ids.dedup();
        ids
    };
    kept::eventually("every dead letter", || found().len() >= sent.len()).await;
    assert!(daemon.stop().success());
    assert_ids(found(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_message_is_delivered_once_its_stream_exists() {
    // More than are under way at a time: they may not keep newer ones waiting after a restart.
    const WAITING: usize = 12;
    const WINDOW: (&str, &str) = ("WAYPOST_DISPATCH__WINDOW_MESSAGES", "4");
    let url = Brokers::shared().nats.url();
    create_stream(url, "letters-early").await;
    let dir = tempfile::tempdir().expect("a directory");
    let routes = format!(
        r#"
brokers: {{ live: {{ type: nats, url: "{url}" }} }}
routes:
  - {{ name: early, match: {{ type: early }}, to: [{{ broker: live, subject: letters-early.x }}] }}
  - {{ name: late, match: {{ type: late }}, to: [{{ broker: live, subject: letters-late.x }}] }}
"#
    );
    let daemon = Daemon::with_sources(dir.path(), &routes, &[WINDOW]);
    let late: Vec<Webhook> = (0..WAITING).map(|n| event("late", n)).collect();
    let late = burst::accept_all(daemon.listen, &late, 4).await;
    let is_parked = |id: &String| kept::parked(dir.path(), "live").contains(id);
    kept::eventually("parked", || late.iter().all(is_parked)).await;
    let mut early = burst::accept_all(daemon.listen, &[event("early", 0)], 1).await;
    consume::read_stream(url, "letters-early", 1).await;

    // Parked is parked: across an orderly end, and across a crash. The others go their way.
    assert!(daemon.stop().success());
    let daemon = Daemon::with_sources(dir.path(), &routes, &[WINDOW]);
    early.extend(burst::accept_all(daemon.listen, &[event("early", 1)], 1).await);
    consume::read_stream(url, "letters-early", 2).await;
    daemon.kill();
    let daemon = Daemon::with_sources(dir.path(), &routes, &[WINDOW]);
    early.extend(burst::accept_all(daemon.listen, &[event("early", 2)], 1).await);
    let passed = consume::read_stream(url, "letters-early", 3).await;
    assert_ids(ids(&passed, "ce-id"), early);

    create_stream(url, "letters-late").await;
    let arrived = consume::read_stream(url, "letters-late", WAITING).await;
    assert!(daemon.stop().success());
    assert_ids(ids(&arrived, "ce-id"), late);
    assert_eq!(kept::dead_letters(dir.path()), []);
}
