//! Bodies: how large, how many at once, and byte for byte.

use super::*;
use crate::common::log_files;

#[test]
fn a_body_over_the_limit_is_refused_by_its_announcement_or_midway() {
    let (_dir, daemon) = start(&[("WAYPOST_INGRESS__MAX_BODY_BYTES", "1000")]);
    for len in ["1001", "99999999999", "9223372036854775807"] {
        let head = raw::head(&event(0), &[&format!("content-length: {len}")]);
        assert_eq!(ask(&daemon, head).status, 413, "{len}");
    }
    let head = |webhook: &Webhook| raw::head(webhook, &["transfer-encoding: chunked"]);
    let chunk =
        |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();

    // One that would never end.
    let mut endless = Raw::connect(daemon.listen);
    endless.say(head(&event(0)));
    let answer = (0..3).find_map(|_| {
        // From the limit on nobody needs to listen any more.
        endless.try_say(chunk(&[b'x'; 400])).err().and_then(|_| endless.hear())
    });
    let answer = answer.or_else(|| endless.hear()).expect("an answer");
    assert_eq!(answer.status, 413, "{answer:?}");

    let (whole, in_chunks) = (event_of(1, 1000), event_of(2, 1000));
    assert_eq!(ask(&daemon, raw::request(&whole)).status, 200);
    let mut chunked = Raw::connect(daemon.listen);
    chunked.say(head(&in_chunks));
    in_chunks.body.chunks(333).for_each(|bytes| chunked.say(chunk(bytes)));
    assert_eq!(chunked.ask("0\r\n\r\n").status, 200);
    let published = log_files::wait_for(&daemon.data_dir(), 2);
    assert_eq!(published.len(), 2);
    assert!(published.iter().any(|event| event.body == in_chunks.body));
}

#[test]
fn bodies_in_flight_are_bounded_together() {
    let (_dir, daemon) = start(&[
        ("WAYPOST_INGRESS__MAX_BODY_BYTES", "1000"),
        ("WAYPOST_INGRESS__MAX_IN_FLIGHT_BYTES", "1000"),
    ]);
    for how in ["content-length: 800", "transfer-encoding: chunked"] {
        let webhook = event_of(1, 800);
        let arrived = match how {
            "transfer-encoding: chunked" => [b"2ee\r\n", &webhook.body[..750]].concat(),
            _ => webhook.body[..750].to_vec(),
        };
        let started = Instant::now();
        let (slow, refused) = loop {
            let mut slow = Raw::connect(daemon.listen);
            slow.say(raw::head(&webhook, &[how, "expect: 100-continue"]));
            assert_eq!(slow.hear().expect("an answer").status, 100);
            // Who only announces a body takes no room from others.
            assert_eq!(ask(&daemon, raw::request(&event_of(2, 300))).status, 200);
            slow.say(&arrived);
            std::thread::sleep(Duration::from_millis(100));
            let answer = ask(&daemon, raw::request(&event_of(2, 300)));
            if answer.status != 200 {
                break (slow, answer);
            }
            // It came first, and the slow one was refused instead: once more.
            assert!(started.elapsed() < PATIENCE, "what arrived takes no room ({how})");
        };
        assert_busy(&refused);
        drop(slow);
        // Whoever goes away gives its room back.
        let started = Instant::now();
        while ask(&daemon, raw::request(&event_of(2, 300))).status != 200 {
            assert!(started.elapsed() < PATIENCE, "the room is never given back");
        }
    }
}

#[test]
fn whatever_was_signed_is_an_event_byte_for_byte() {
    let (_dir, daemon) = start(&[]);
    let large: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let deep = ["[".repeat(5000), "]".repeat(5000)].concat();
    let bodies: [&[u8]; 14] = [
        b"",
        b"not json",
        b"null",
        b"{\"a\":1}",
        b"{\"a\" : 1 }\r\n",
        b"{\"a\":1,\"a\":2}",
        b"{\"a\":1e999}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":",
        b"{\"a\":\"\xff\xfe\"}",
        b"\xef\xbb\xbf{}",
        b"\0\r\n\r\n\0",
        deep.as_bytes(),
        &large,
    ];
    let mut sent = Vec::new();
    for body in bodies {
        for (kind, webhook) in [
            ("agent.wakeup", sender::sonzai("agent.wakeup", body.to_vec())),
            ("miibo", sender::miibo(body.to_vec())),
        ] {
            let answer = ask(&daemon, raw::request(&webhook));
            let start = String::from_utf8_lossy(&body[..body.len().min(40)]);
            assert_eq!(answer.status, 200, "{kind} {start}: {answer:?}");
            let id = answer.header("waypost-event-id").expect("an id").to_owned();
            sent.push((id, body));
        }
    }
    let published = log_files::wait_for(&daemon.data_dir(), sent.len());
    assert_eq!(published.len(), sent.len());
    for (published, (id, body)) in published.iter().zip(&sent) {
        assert_eq!(&published.id, id);
        assert!(published.body == *body, "{}", String::from_utf8_lossy(&published.body));
    }
}

#[test]
fn who_asks_before_sending_a_body_is_told_to_go_on_or_not_to() {
    let (_dir, daemon) = start(&[]);
    let webhook = event(1);
    let length = format!("content-length: {}", webhook.body.len());
    let further = [&*length, "expect: 100-continue"];

    let mut connection = Raw::connect(daemon.listen);
    assert_eq!(connection.ask(raw::head(&webhook, &further)).status, 100);
    assert_eq!(connection.ask(&webhook.body).status, 200);

    let elsewhere = Webhook { path: "/elsewhere".to_owned(), ..webhook };
    assert_eq!(ask(&daemon, raw::head(&elsewhere, &further)).status, 404);
    let too_large = ["content-length: 99999999", "expect: 100-continue"];
    assert_eq!(ask(&daemon, raw::head(&event(2), &too_large)).status, 413);
}
