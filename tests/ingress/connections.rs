//! Connections: how many, for how long, and what goes over one.

use super::*;
use crate::common::log_files;

#[test]
fn whoever_dawdles_is_let_go() {
    let (_dir, daemon) = start(&[
        ("WAYPOST_INGRESS__FIRST_BYTE_TIMEOUT", "2s"),
        ("WAYPOST_INGRESS__HEAD_TIMEOUT", "2s"),
        ("WAYPOST_INGRESS__BODY_TIMEOUT", "2s"),
    ]);
    let request = raw::request(&event(1));

    let mut silent = Raw::connect(daemon.listen);
    let mut half_a_head = Raw::connect(daemon.listen);
    half_a_head.say(&request[..30]);
    let mut idle = Raw::connect(daemon.listen);
    assert_eq!(idle.ask(&request).status, 200);
    let mut half_a_body = Raw::connect(daemon.listen);
    half_a_body.say(&request[..request.len() - 5]);

    silent.assert_closed();
    half_a_head.assert_closed();
    idle.assert_closed();
    assert_eq!(half_a_body.hear().expect("an answer").status, 408);
    half_a_body.assert_closed();

    // A byte now and then buys no more time.
    let mut dripping = Raw::connect(daemon.listen);
    let started = Instant::now();
    while dripping.try_say("G").is_ok() {
        assert!(started.elapsed() < PATIENCE, "a head that drips is never cut off");
        std::thread::sleep(Duration::from_millis(20));
    }
    dripping.assert_closed();
}

#[test]
fn one_connection_too_many_gets_503_and_there_is_room_again_when_one_ends() {
    let (_dir, daemon) = start(&[("WAYPOST_INGRESS__MAX_CONNECTIONS", "4")]);
    let mut served: Vec<Raw> = (0..4).map(|_| Raw::connect(daemon.listen)).collect();
    for (n, connection) in served.iter_mut().enumerate() {
        assert_eq!(connection.ask(raw::request(&event(n))).status, 200);
    }
    // One that says nothing, and one that is quick to speak.
    let mut silent = Raw::connect(daemon.listen);
    assert_busy(&silent.hear().expect("an answer"));
    silent.assert_closed();
    for n in 10..20 {
        let mut quick = Raw::connect(daemon.listen);
        quick.say(raw::request(&event(n)));
        assert_busy(&quick.hear().expect("an answer"));
        quick.assert_closed();
    }
    // Those inside never noticed.
    for (n, connection) in served.iter_mut().enumerate() {
        assert_eq!(connection.ask(raw::request(&event(30 + n))).status, 200);
    }
    served.pop();
    let started = Instant::now();
    while ask(&daemon, raw::request(&event(50))).status != 200 {
        assert!(started.elapsed() < PATIENCE, "there is never room again");
    }
}

#[test]
fn a_connection_carries_many_requests_one_by_one_or_all_at_once() {
    let (_dir, daemon) = start(&[]);
    let mut connection = Raw::connect(daemon.listen);
    let mut ids = Vec::new();
    let mut take = |answer: raw::Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        ids.push(answer.header("waypost-event-id").expect("an id").to_owned());
    };
    for n in 0..3 {
        take(connection.ask(raw::request(&event(n))));
    }
    connection.say((3..6).flat_map(|n| raw::request(&event(n))).collect::<Vec<u8>>());
    for _ in 3..6 {
        take(connection.hear().expect("an answer"));
    }
    for byte in raw::request(&event(6)) {
        connection.say([byte]);
    }
    take(connection.hear().expect("an answer"));
    // A refusal does not cost the connection.
    let elsewhere = Webhook { path: "/elsewhere".to_owned(), ..event(7) };
    assert_eq!(connection.ask(raw::request(&elsewhere)).status, 404);
    take(connection.ask(raw::request(&event(8))));

    let published = log_files::wait_for(&daemon.data_dir(), 8);
    assert_eq!(published.into_iter().map(|event| event.id).collect::<Vec<_>>(), ids);
}

#[test]
fn a_flood_of_connections_leaves_descriptors_for_the_journal_and_the_brokers() {
    let dir = tempfile::tempdir().expect("a directory");
    let routes = format!(
        r#"{SOURCES}
brokers:
  local: {{ type: log }}
routes:
  - name: all
    match: {{ type: "**" }}
    to: [{{ broker: local, topic: "{{type}}" }}]
"#
    );
    // 448 of them are kept for others.
    let daemon = Daemon::start_with_descriptors(dir.path(), &routes, &[], 448 + 40);
    let _operators: Vec<Raw> = (0..200).map(|_| Raw::connect(daemon.admin_listen)).collect();
    let mut flood: Vec<Raw> = (0..400).map(|_| Raw::connect(daemon.listen)).collect();
    // Each event is a topic, and so a file, of its own.
    let event = |n: usize| sender::sonzai(&format!("flooded.{n}"), format!(r#"{{"n":{n}}}"#));
    for (n, connection) in flood.iter_mut().take(40).enumerate() {
        assert_eq!(connection.ask(raw::request(&event(n))).status, 200);
    }
    assert_eq!(log_files::wait_for(&daemon.data_dir(), 40).len(), 40);
    assert!(daemon.log().contains("holds down ingress.max_connections"), "{}", daemon.log());
    let mut refused = Raw::connect(daemon.listen);
    if let Some(answer) = refused.hear() {
        assert_busy(&answer);
    }
    assert!(!daemon.log().contains("cannot accept a connection"), "{}", daemon.log());
    drop(flood);
    let started = Instant::now();
    while Raw::connect(daemon.listen).try_ask(raw::request(&event(50))) != Some(200) {
        assert!(started.elapsed() < PATIENCE, "there is never room again");
    }
}
