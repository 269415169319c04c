//! What a request's head may say: paths, methods, framing, sizes.

use super::*;
use crate::common::log_files;

#[test]
fn a_path_is_a_sources_exactly_or_unknown() {
    let (_dir, daemon) = start(&[]);
    for path in [
        "/",
        "/hooks",
        "/hooks/none",
        "/hooks/sonzai",
        "/hooks/sonzai/",
        "/hooks/sonzai/a/b",
        "/hooks/sonzai/a/",
        "/hooks/sonzai/.",
        "/hooks/sonzai/..",
        "/hooks/sonzai/a%2fb",
        "/hooks/sonzai/%61",
        "/hooks/miibo/",
        "/hooks/miibo/..",
        "/hooks/miibo%2f",
        "/hooks/none/../miibo",
        "/hooks/./miibo",
        "/hooks//miibo",
        "//hooks/miibo",
        "/Hooks/miibo",
        "http://waypost.test/miibo",
    ] {
        let answer = ask(&daemon, raw::request(&Webhook { path: path.to_owned(), ..event(1) }));
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    assert_eq!(ask(&daemon, raw::request(&event(1))).status, 200);
    assert_eq!(log_files::wait_for(&daemon.data_dir(), 1).len(), 1);
}

#[test]
fn only_post_is_taken_and_the_answer_says_so() {
    let (_dir, daemon) = start(&[]);
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let request = |path| format!("{method} {path} HTTP/1.1\r\nhost: waypost.test\r\n\r\n");
        let answer = ask(&daemon, request("/hooks/miibo"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
        assert_eq!(ask(&daemon, request("/hooks/none")).status, 404, "{method}");
    }
}

#[test]
fn a_head_that_could_be_read_in_two_ways_or_an_encoded_body_is_refused() {
    let (_dir, daemon) = start(&[]);
    let webhook = event(1);
    let len = webhook.body.len();
    let ask_with = |lines: &str, body: &[u8]| {
        let (name, signature) = &webhook.headers[0];
        let head = format!("POST /hooks/miibo HTTP/1.1\r\n{name}: {signature}\r\n{lines}\r\n");
        ask(&daemon, [head.as_bytes(), body].concat()).status
    };
    let length = format!("content-length: {len}\r\n");
    for (lines, status) in [
        ("", 400),
        ("host: a\r\nhost: b\r\n", 400),
        ("host: a\r\nhost: a\r\n", 400),
        ("host: a\r\n folded\r\n", 400),
        ("host : a\r\n", 400),
        ("host: a\0b\r\n", 400),
        ("host: a\r\nx: b\rc\r\n", 400),
        ("host: a\r\nx: b\0c\r\n", 400),
        ("host: a\r\n: b\r\n", 400),
        ("host: a\r\ncontent-length: 3\r\n", 400),
        ("host: a\r\ncontent-encoding: gzip\r\n", 415),
        ("host: a\r\ncontent-encoding: identity, br\r\n", 415),
        ("host: a\r\ncontent-encoding: identity\r\n", 200),
    ] {
        assert_eq!(ask_with(&format!("{lines}{length}"), &webhook.body), status, "{lines}");
    }
    for length in ["+3", "3, 3", "three", "-1"] {
        let lines = format!("host: a\r\ncontent-length: {length}\r\n");
        assert_eq!(ask_with(&lines, b"abc"), 400, "{length}");
    }
    let chunk = [format!("{len:x}\r\n").as_bytes(), &webhook.body, b"\r\n0\r\n\r\n"].concat();
    for (coding, status) in
        [("chunked, chunked", 400), ("gzip, chunked", 400), ("gzip", 400), ("Chunked", 200)]
    {
        let lines = format!("host: a\r\ntransfer-encoding: {coding}\r\n");
        assert_eq!(ask_with(&lines, &chunk), status, "{coding}");
    }
}

#[test]
fn a_head_over_its_limits_gets_431() {
    let (_dir, daemon) = start(&[]);
    let with = |count: usize, len: usize| {
        let webhook = event(count);
        let length = format!("content-length: {}", webhook.body.len());
        let further: Vec<String> =
            (0..count).map(|n| format!("x-{n}: {}", "v".repeat(len))).collect();
        let mut lines: Vec<&str> = further.iter().map(String::as_str).collect();
        lines.push(&length);
        let mut request = raw::head(&webhook, &lines);
        request.extend_from_slice(&webhook.body);
        ask(&daemon, request).status
    };
    // Host, signature, content type and length are four.
    assert_eq!(with(96, 1), 200);
    assert_eq!(with(97, 1), 431);
    assert_eq!(with(15, 1000), 200);
    assert_eq!(with(17, 1000), 431);
    let endless = format!("POST /{} ", "x".repeat(20_000));
    let answer = ask(&daemon, endless);
    assert!([414, 431].contains(&answer.status), "{answer:?}");
}

#[test]
fn after_a_length_and_chunks_nothing_more_is_read() {
    let (_dir, daemon) = start(&[]);
    let webhook = event(1);
    let chunks = format!("{:x}\r\n", webhook.body.len());
    let chunks = [chunks.as_bytes(), &webhook.body, b"\r\n0\r\n\r\n"].concat();
    for length in [0, 3, 100_000] {
        let length = format!("content-length: {length}");
        let head = raw::head(&webhook, &[&length, "transfer-encoding: chunked"]);
        // What a server in front could take for the body's end is the start of another request.
        let smuggled = raw::request(&event(2));
        let mut connection = Raw::connect(daemon.listen);
        let answer = connection.ask([&head[..], &chunks, &smuggled].concat());
        assert_eq!(answer.status, 200, "{length}: {answer:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{length}: {answer:?}");
        connection.assert_closed();
    }
    assert_eq!(ask(&daemon, raw::request(&event(3))).status, 200);
    // What was smuggled would stand before what was sent last.
    let published = log_files::wait_for(&daemon.data_dir(), 4);
    let bodies: Vec<&[u8]> = published.iter().map(|published| &published.body[..]).collect();
    let expected = [1, 1, 1, 3].map(|n| event(n).body);
    assert_eq!(bodies, expected.each_ref().map(|body| &body[..]));
}

#[test]
fn an_absolute_target_must_name_the_host_that_the_header_names() {
    let (_dir, daemon) = start(&[]);
    for (target, status) in [
        ("http://waypost.test/hooks/miibo", 200),
        ("http://WAYPOST.test/hooks/miibo", 200),
        ("http://elsewhere.test/hooks/miibo", 400),
        ("http://waypost.test/hooks/other", 404),
    ] {
        let webhook = Webhook { path: target.to_owned(), ..event(1) };
        assert_eq!(ask(&daemon, raw::request(&webhook)).status, status, "{target}");
    }
}

#[test]
fn what_is_no_http_is_refused_or_closed() {
    let (_dir, daemon) = start(&[]);
    for words in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"POST /hooks/miibo\r\n\r\n",
        b"POST /hooks/miibo HTTP/3.0\r\nhost: a\r\n\r\n",
        b"POST /hooks/\xff HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
    ] {
        let mut connection = Raw::connect(daemon.listen);
        connection.say(words);
        let answer = connection.hear();
        let said = String::from_utf8_lossy(words);
        // What a client of HTTP/2 says first, HTTP/1.1 has no answer to.
        let status = answer.map_or(400, |answer| answer.status);
        assert!([400, 404].contains(&status), "{said:?}: {status}");
        drop(connection);
        assert_eq!(ask(&daemon, raw::request(&event(1))).status, 200, "after {said:?}");
    }
}
