//! HTTP/2 as a weapon: the attacker is sent away, and an honest sender beside it notices nothing.

use super::*;
use crate::common::frames::{self, Answer, END_HEADERS, END_STREAM, Http2};

fn target() -> (TempDir, Daemon) {
    start(&[
        ("WAYPOST_INGRESS__HTTP2", "true"),
        ("WAYPOST_INGRESS__HEAD_TIMEOUT", "2s"),
        ("WAYPOST_INGRESS__BODY_TIMEOUT", "2s"),
    ])
}

/// Says the same again and again until the connection is closed, with an honest request now and
/// then; the error code it was closed with.
#[track_caller]
fn flood(daemon: &Daemon, mut words: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let mut attacker = Http2::connect(daemon.listen);
    let started = Instant::now();
    for n in 0.. {
        if attacker.try_say(words(n)).is_err() {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the attacker is never sent away");
        if n % 500 == 0 {
            assert_eq!(ask(daemon, raw::request(&event(n as usize))).status, 200);
        }
    }
    let code = attacker.closed();
    assert_unharmed(daemon);
    code
}

#[track_caller]
fn assert_unharmed(daemon: &Daemon) {
    assert_eq!(ask(daemon, raw::request(&event(1_000_000))).status, 200);
    let mut honest = Http2::connect(daemon.listen);
    let answer = honest.ask(1, frames::request(1, &event(1_000_001)));
    assert_eq!(answer, Answer::Status(200));
}

fn head() -> Vec<u8> {
    frames::block(&frames::fields(&event(0)))
}

#[test]
fn rapid_reset_is_sent_away() {
    let (_dir, daemon) = target();
    let head = head();
    // Opened and cancelled in one breath, many at once.
    let burst: Vec<u8> = (0..500)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let open = frames::frame(frames::HEADERS, END_HEADERS | END_STREAM, stream, &head);
            let cancel = frames::CANCEL.to_be_bytes();
            [open, frames::frame(frames::RST_STREAM, 0, stream, &cancel)].concat()
        })
        .collect();
    let mut attacker = Http2::connect(daemon.listen);
    // The server may have closed before it is all said.
    attacker.try_say(burst).ok();
    let code = attacker.closed();
    assert!([Some(frames::ENHANCE_YOUR_CALM), None].contains(&code), "{code:?}");
    assert_unharmed(&daemon);
}

#[test]
fn a_head_that_is_continued_for_ever_is_sent_away() {
    let (_dir, daemon) = target();
    let head = head();
    let empty = |n| match n {
        0 => frames::frame(frames::HEADERS, 0, 1, &head),
        _ => frames::frame(frames::CONTINUATION, 0, 1, b""),
    };
    let code = flood(&daemon, empty);
    assert!([Some(frames::ENHANCE_YOUR_CALM), None].contains(&code), "{code:?}");

    let full = vec![("x-filler".to_owned(), "v".repeat(16_000))];
    let full = frames::block(&full);
    let code = flood(&daemon, |n| match n {
        0 => frames::frame(frames::HEADERS, 0, 1, &head),
        _ => frames::frame(frames::CONTINUATION, 0, 1, &full),
    });
    assert_ne!(code, Some(0));
}

#[test]
fn frames_that_ask_for_an_answer_each_are_sent_away() {
    let (_dir, daemon) = target();
    flood(&daemon, |_| frames::frame(frames::PING, 0, 0, b"12345678"));
    flood(&daemon, |_| frames::frame(frames::SETTINGS, 0, 0, b""));
    // Each one costs the server a reset.
    let mut malformed = frames::fields(&event(0));
    malformed.push(("connection".to_owned(), "close".to_owned()));
    let malformed = frames::block(&malformed);
    let code = flood(&daemon, |n| {
        frames::frame(frames::HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &malformed)
    });
    assert!([Some(frames::ENHANCE_YOUR_CALM), None].contains(&code), "{code:?}");
}

#[test]
fn a_body_in_frames_of_nothing_is_sent_away_or_ends_at_its_deadline() {
    let (_dir, daemon) = target();
    let head = head();
    for part in [&b""[..], b"x"] {
        flood(&daemon, |n| match n {
            0 => frames::frame(frames::HEADERS, END_HEADERS, 1, &head),
            _ => frames::frame(frames::DATA, 0, 1, part),
        });
    }
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let (_dir, daemon) = target();
    let head = head();
    let mut greedy = Http2::connect(daemon.listen);
    // The server's SETTINGS count from when they are acknowledged.
    while greedy.next().expect("SETTINGS").kind != frames::SETTINGS {}
    for n in 0..=100 {
        greedy.say(frames::frame(frames::HEADERS, END_HEADERS, 2 * n + 1, &head));
    }
    assert_eq!(greedy.answer(201), Answer::Reset(frames::REFUSED_STREAM));
    assert_unharmed(&daemon);
}

#[test]
fn a_frame_over_the_limit_is_sent_away() {
    let (_dir, daemon) = target();
    let mut attacker = Http2::connect(daemon.listen);
    let open = frames::frame(frames::HEADERS, END_HEADERS, 1, &head());
    attacker.say([open, frames::frame(frames::DATA, 0, 1, &[0; (16 << 10) + 1])].concat());
    assert_eq!(attacker.closed(), Some(frames::FRAME_SIZE_ERROR));
    assert_unharmed(&daemon);
}
