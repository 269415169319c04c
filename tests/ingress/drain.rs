//! The end: what is under way is finished, what comes after is told to come again.

use std::{fs, net::SocketAddr};

use super::*;
use crate::common::{
    frames::{self, Answer, END_HEADERS, END_STREAM, Http2},
    log_files,
};

#[test]
fn a_drain_finishes_the_request_under_way_and_takes_no_other() {
    let (_dir, daemon) = start(&[]);
    let mut idle = Raw::connect(daemon.listen);
    assert_eq!(idle.ask(raw::request(&event(1))).status, 200);
    let mut silent = Raw::connect(daemon.listen);
    let webhook = event(2);
    let length = format!("content-length: {}", webhook.body.len());
    let (first, second) = webhook.body.split_at(10);
    let mut half = Raw::connect(daemon.listen);
    assert_eq!(half.ask(raw::head(&webhook, &[&length, "expect: 100-continue"])).status, 100);
    half.say(first);

    daemon.terminate();
    idle.assert_closed();
    silent.assert_closed();
    await_drain(&daemon);
    let answer = half.ask(second);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    half.assert_closed();

    let data_dir = daemon.data_dir();
    assert!(daemon.ended().success());
    let published = log_files::read(&data_dir);
    let bodies: Vec<&[u8]> = published.iter().map(|event| &event.body[..]).collect();
    assert_eq!(bodies, [&event(1).body[..], &webhook.body[..]]);
}

#[test]
fn what_comes_on_an_open_connection_after_the_drain_began_is_told_to_come_again() {
    let (_dir, daemon) = start(&[]);
    let request = raw::request(&event(1));
    let (first, second) = request.split_at(30);
    let socket = raw::socket(daemon.listen).expect("a connection");
    let own = socket.local_addr().expect("its address");
    let mut half_a_head = Raw::over(socket);
    half_a_head.say(first);
    // One of which nothing was read is closed without a word, like any that is silent.
    await_read(&daemon, own);

    daemon.terminate();
    await_drain(&daemon);
    let answer = half_a_head.ask(second);
    assert_busy(&answer);
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    half_a_head.assert_closed();
    assert!(daemon.ended().success());
}

#[test]
fn requests_are_taken_until_the_drains_delay_is_over() {
    let (_dir, daemon) = start(&[("WAYPOST_SHUTDOWN__DELAY", "600s")]);
    let mut kept = Raw::connect(daemon.listen);
    assert_eq!(kept.ask(raw::request(&event(1))).status, 200);
    daemon.terminate();
    let started = Instant::now();
    while !daemon.log().contains("draining") {
        assert!(started.elapsed() < PATIENCE, "the drain does not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(kept.ask(raw::request(&event(2))).status, 200);
    assert_eq!(ask(&daemon, raw::request(&event(3))).status, 200);
}

#[test]
fn a_drain_over_http2_finishes_the_streams_under_way_and_takes_no_other() {
    let (_dir, daemon) = start(&[("WAYPOST_INGRESS__HTTP2", "true")]);
    let mut connection = Http2::connect(daemon.listen);
    let webhook = event(1);
    let head = frames::block(&frames::fields(&webhook));
    connection.say(frames::frame(frames::HEADERS, END_HEADERS, 1, &head));
    assert_eq!(connection.ask(3, frames::request(3, &event(2))), Answer::Status(200));

    daemon.terminate();
    await_drain(&daemon);
    while !connection.going_away {
        connection.next().expect("a GOAWAY");
    }
    // Sent before the GOAWAY was heard, as it were: it is answered, or it never existed.
    connection.say(frames::request(5, &event(3)));
    connection.say(frames::frame(frames::DATA, END_STREAM, 1, &webhook.body));
    assert_eq!(connection.answer(1), Answer::Status(200));
    let late = connection.answer(5);
    assert!([Answer::Status(503), Answer::Closed].contains(&late), "{late:?}");
    connection.closed();

    let data_dir = daemon.data_dir();
    assert!(daemon.ended().success());
    let published = log_files::read(&data_dir);
    let mut bodies: Vec<&[u8]> = published.iter().map(|event| &event.body[..]).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [&webhook.body[..], &event(2).body[..]]);
}

/// Waits until the daemon has read all that was said on the connection from this address.
fn await_read(daemon: &Daemon, from: SocketAddr) {
    let shown = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
    let ends = [shown(daemon.listen), shown(from)];
    let started = Instant::now();
    loop {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets");
        let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut queues =
            fields.filter(|fields| fields[1..3] == ends).map(|fields| fields[4].to_owned());
        // What is not sent yet, and what is not read yet.
        if queues.next().is_some_and(|queues| queues.ends_with(":00000000")) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "the daemon does not read");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the daemon listens no more.
#[track_caller]
pub(super) fn await_drain(daemon: &Daemon) {
    let started = Instant::now();
    while Raw::try_connect(daemon.listen).is_ok() {
        assert!(started.elapsed() < PATIENCE, "connections are still taken");
    }
}
