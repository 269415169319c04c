//! HTTP/2: off by default; where it is on, what holds for HTTP/1.1 holds there too.

use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::*;
use crate::common::{
    frames::{self, Answer, END_HEADERS, END_STREAM, Fields, Http2, PREFACE},
    log_files,
};

const ON: (&str, &str) = ("WAYPOST_INGRESS__HTTP2", "true");

#[test]
fn http2_is_off_unless_switched_on() {
    let (_dir, daemon) = start(&[]);
    let mut preface = Http2::connect(daemon.listen);
    assert_eq!(preface.answer(1), Answer::Closed);
    assert_eq!(ask(&daemon, raw::request(&event(1))).status, 200);
}

#[test]
fn many_streams_at_once_are_answered_each_with_its_own_event_beside_http1() {
    let (_dir, daemon) = start(&[ON]);
    let mut connection = Http2::connect(daemon.listen);
    let streams: Vec<u32> = (0..100).map(|n| 2 * n + 1).collect();
    connection.say(
        streams
            .iter()
            .flat_map(|stream| frames::request(*stream, &event(*stream as usize)))
            .collect::<Vec<u8>>(),
    );
    for stream in &streams {
        assert_eq!(connection.answer(*stream), Answer::Status(200), "{stream}");
    }
    assert_eq!(ask(&daemon, raw::request(&event(0))).status, 200);
    let published = log_files::wait_for(&daemon.data_dir(), streams.len() + 1);
    let mut bodies: Vec<&[u8]> = published.iter().map(|event| &event.body[..]).collect();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), streams.len() + 1);
}

#[test]
fn a_stream_gets_the_status_that_a_request_of_http1_would() {
    let (_dir, daemon) = start(&[ON]);
    let good = event(1);
    let with = |fields: &[(&str, &str)]| -> Fields {
        let further = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        frames::fields(&good).into_iter().chain(further).collect()
    };
    let without = |name: &str| -> Fields {
        frames::fields(&good).into_iter().filter(|(found, _)| found != name).collect()
    };
    let replaced = |name: &str, value: &str| -> Fields {
        let replace = |(found, old): (String, String)| match found == name {
            true => (found, value.to_owned()),
            false => (found, old),
        };
        frames::fields(&good).into_iter().map(replace).collect()
    };
    let named = |count: usize| -> Fields {
        let further = (0..count).map(|n| (format!("x-{n}"), "v".to_owned()));
        frames::fields(&good).into_iter().chain(further).collect()
    };
    let long = "v".repeat(17 << 10);
    let hosted = |mut fields: Fields, hosts: &[&str]| {
        fields.extend(hosts.iter().map(|host| ("host".to_owned(), (*host).to_owned())));
        fields
    };
    let protocol_error = Answer::Reset(frames::PROTOCOL_ERROR);
    for (what, fields, expected) in [
        ("good", frames::fields(&good), Answer::Status(200)),
        ("unsigned", without("x-hmac"), Answer::Status(401)),
        ("elsewhere", replaced(":path", "/elsewhere"), Answer::Status(404)),
        ("dots", replaced(":path", "/hooks/./miibo"), Answer::Status(404)),
        ("doubled", replaced(":path", "//hooks/miibo"), Answer::Status(404)),
        ("GET", replaced(":method", "GET"), Answer::Status(405)),
        ("CONNECT", replaced(":method", "CONNECT"), protocol_error),
        ("no authority, no host", without(":authority"), Answer::Status(400)),
        ("a host alone", hosted(without(":authority"), &["a"]), Answer::Status(200)),
        ("two hosts alone", hosted(without(":authority"), &["a", "a"]), Answer::Status(400)),
        ("the same host", with(&[("host", "waypost.test")]), Answer::Status(200)),
        ("another host", with(&[("host", "a")]), Answer::Status(400)),
        ("encoded", with(&[("content-encoding", "gzip")]), Answer::Status(415)),
        ("not encoded", with(&[("content-encoding", "identity")]), Answer::Status(200)),
        // Content type and signature are two.
        ("100 headers", named(98), Answer::Status(200)),
        ("101 headers", named(99), Answer::Status(431)),
        ("a large head", with(&[("x-long", &long)]), Answer::Status(431)),
        ("connection", with(&[("connection", "close")]), protocol_error),
        ("chunked", with(&[("transfer-encoding", "chunked")]), protocol_error),
        ("te", with(&[("te", "gzip")]), protocol_error),
        ("upper case", with(&[("X-Upper", "v")]), Answer::GoAway(frames::PROTOCOL_ERROR)),
        ("no method", without(":method"), protocol_error),
        ("no path", without(":path"), protocol_error),
        ("a late pseudo header", with(&[(":path", "/hooks/miibo")]), protocol_error),
        ("wrongly long", with(&[("content-length", "3")]), protocol_error),
    ] {
        let mut connection = Http2::connect(daemon.listen);
        let block = frames::block(&fields);
        let (first, rest) = block.split_at(block.len().min(16 << 10));
        let rest_flags = if rest.is_empty() { END_HEADERS } else { 0 };
        let mut request = frames::frame(frames::HEADERS, rest_flags, 1, first);
        if !rest.is_empty() {
            request.extend(frames::frame(frames::CONTINUATION, END_HEADERS, 1, rest));
        }
        request.extend(frames::frame(frames::DATA, END_STREAM, 1, &good.body));
        assert_eq!(connection.ask(1, request), expected, "{what}");
    }
}

#[test]
fn a_refused_stream_does_not_cost_the_connection() {
    let (_dir, daemon) = start(&[ON]);
    let mut connection = Http2::connect(daemon.listen);
    let elsewhere = Webhook { path: "/elsewhere".to_owned(), ..event(1) };
    assert_eq!(connection.ask(1, frames::request(1, &elsewhere)), Answer::Status(404));
    let mut malformed = frames::fields(&event(2));
    malformed.push(("connection".to_owned(), "close".to_owned()));
    let request = frames::with_body(3, &malformed, b"");
    assert_eq!(connection.ask(3, request), Answer::Reset(frames::PROTOCOL_ERROR));
    // What is sent for nothing is given back to the window of the whole connection, many times over.
    let large = Webhook { path: "/elsewhere".to_owned(), ..event_of(3, 60_000) };
    for stream in (5..45).step_by(2) {
        let answer = connection.ask(stream, frames::request(stream, &large));
        assert_eq!(answer, Answer::Status(404), "{stream}");
    }
    assert_eq!(connection.ask(45, frames::request(45, &event(4))), Answer::Status(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_larger_than_the_windows_arrive_whole_beside_each_other() {
    let (_dir, daemon) = start(&[ON]);
    let socket = TcpStream::connect(daemon.listen).await.expect("a connection");
    let client = http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await;
    let (sender, connection) = client.expect("HTTP/2");
    tokio::spawn(connection);
    let webhooks: Vec<Webhook> =
        (0..4).map(|n| sender::miibo(n.to_string().repeat(2 << 20))).collect();
    let answers = webhooks.iter().map(|webhook| {
        let mut request = Request::post(format!("http://waypost.test{}", webhook.path));
        for (name, value) in &webhook.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(webhook.body.clone())).expect("a request");
        let mut sender = sender.clone();
        async move { sender.send_request(request).await.expect("an answer").status() }
    });
    let answers = futures_util::future::join_all(answers).await;
    assert!(answers.iter().all(|status| status.as_u16() == 200), "{answers:?}");
    let mut published = log_files::wait_for(&daemon.data_dir(), webhooks.len());
    published.sort_by(|a, b| a.body.cmp(&b.body));
    let arrived = published.iter().map(|published| &published.body[..]);
    assert!(arrived.eq(webhooks.iter().map(|webhook| &webhook.body[..])), "other bodies");
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_announcement_or_midway() {
    let (_dir, daemon) = start(&[ON, ("WAYPOST_INGRESS__MAX_BODY_BYTES", "1000")]);
    let mut connection = Http2::connect(daemon.listen);
    let mut fields = frames::fields(&event(1));
    let head = |fields: &Fields, stream| {
        frames::frame(frames::HEADERS, END_HEADERS, stream, &frames::block(fields))
    };
    // One that would never end.
    connection.say(head(&fields, 1));
    for _ in 0..3 {
        connection.say(frames::frame(frames::DATA, 0, 1, &[b'x'; 400]));
    }
    assert_eq!(connection.answer(1), Answer::Status(413));
    fields.push(("content-length".to_owned(), "1001".to_owned()));
    assert_eq!(connection.ask(3, head(&fields, 3)), Answer::Status(413));
    let at_the_limit = event_of(2, 1000);
    assert_eq!(connection.ask(5, frames::request(5, &at_the_limit)), Answer::Status(200));
}

#[test]
fn whoever_dawdles_on_http2_is_let_go() {
    let (_dir, daemon) = start(&[
        ON,
        ("WAYPOST_INGRESS__FIRST_BYTE_TIMEOUT", "2s"),
        ("WAYPOST_INGRESS__HEAD_TIMEOUT", "2s"),
        ("WAYPOST_INGRESS__BODY_TIMEOUT", "3s"),
    ]);
    let webhook = event(1);
    let head = frames::block(&frames::fields(&webhook));
    let saying = |words: &[u8]| {
        let mut connection = Http2::over(Raw::connect(daemon.listen));
        connection.say(words);
        connection
    };
    let opening = frames::opening();
    let half_a_head = frames::frame(frames::HEADERS, 0, 1, &head[..20]);
    let whole_head = frames::frame(frames::HEADERS, END_HEADERS, 1, &head);

    let words: [&[u8]; 6] =
        [b"P", b"PRI", &PREFACE[..10], PREFACE, &opening, &[&opening[..], &half_a_head].concat()];
    let mut silent: Vec<Http2> = words.iter().map(|words| saying(words)).collect();
    let mut no_body = saying(&[&opening[..], &whole_head].concat());
    let mut idle = Http2::connect(daemon.listen);
    assert_eq!(idle.ask(1, frames::request(1, &webhook)), Answer::Status(200));
    // One that does not even agree to be closed.
    let mut rude = Http2::connect(daemon.listen);
    assert_eq!(rude.ask(1, frames::request(1, &event(2))), Answer::Status(200));
    rude.polite = false;
    // And one that takes no body (SETTINGS_INITIAL_WINDOW_SIZE = 0), so that its stream never ends.
    let no_window = frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut stingy = saying(&[&opening[..], &no_window].concat());
    assert_eq!(stingy.ask(1, frames::request(1, &event(3))), Answer::Status(200));

    for connection in &mut silent {
        connection.closed();
    }
    assert_eq!(no_body.answer(1), Answer::Status(408));
    no_body.closed();
    assert_eq!(idle.closed(), Some(0));
    assert_eq!(rude.closed(), Some(0));
    assert_eq!(stingy.closed(), Some(0));

    // PINGs buy no time.
    let mut pinging = Http2::connect(daemon.listen);
    let started = Instant::now();
    while pinging.try_say(frames::frame(frames::PING, 0, 0, b"12345678")).is_ok() {
        assert!(started.elapsed() < PATIENCE, "a connection that only pings is never closed");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn requests_without_end_on_some_connections_take_nothing_from_the_others_own() {
    /// Requests that are a connection's own.
    const SHARE: u32 = 8;
    let (_dir, daemon) = start(&[ON, ("WAYPOST_INGRESS__MAX_CONNECTIONS", "4")]);
    let head = frames::block(&frames::fields(&event(0)));
    let open = |connection: &mut Http2, stream| {
        connection.say(frames::frame(frames::HEADERS, END_HEADERS, stream, &head));
    };
    let mut first = Http2::connect(daemon.listen);
    let mut second = Http2::connect(daemon.listen);
    let streams = (0..SHARE).map(|n| 2 * n + 1);
    streams.clone().for_each(|stream| open(&mut first, stream));
    // Further streams are looked at in no order: one without a body may be refused instead of the whole
    // one on the other connection, and then another takes its place.
    let started = Instant::now();
    streams.clone().for_each(|stream| open(&mut second, stream));
    let mut stream = 2 * SHARE + 1;
    loop {
        (0..4).for_each(|n| open(&mut second, 4 * stream + 2 * n + 1));
        if first.ask(stream, frames::request(stream, &event(1))) == Answer::Status(503) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "there is always room");
        stream += 2;
    }
    // Everybody else is served as if nothing were.
    assert_eq!(ask(&daemon, raw::request(&event(2))).status, 200);
    let mut third = Http2::connect(daemon.listen);
    third.say(
        streams
            .clone()
            .flat_map(|stream| frames::request(stream, &event(2 + stream as usize)))
            .collect::<Vec<u8>>(),
    );
    for stream in streams {
        assert_eq!(third.answer(stream), Answer::Status(200), "{stream}");
    }
    drop(second);
    let started = Instant::now();
    loop {
        stream += 2;
        if first.ask(stream, frames::request(stream, &event(3))) == Answer::Status(200) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "the room is never given back");
    }
}
