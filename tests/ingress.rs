//! What comes in over the wire, and what it gets: statuses, limits, and nothing unverified.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    daemon::{Daemon, MIIBO_SECRET, SONZAI_SECRET, SOURCES},
    log_files,
    raw::{self, Raw},
    sender::{self, Webhook},
    shared::Brokers,
};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ROUTES: &str = r#"
brokers:
  local: { type: log }
routes:
  - name: all
    match: { type: "**" }
    to: [{ broker: local, topic: all }]
"#;

fn start(settings: &[(&str, &str)]) -> (TempDir, Daemon) {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ROUTES}"), settings);
    (dir, daemon)
}

/// An event of its own for each `n`.
fn event(n: usize) -> Webhook {
    sender::miibo(format!(r#"{{"webhookType":"user_utterance","n":{n}}}"#))
}

/// The n-th event, made this long.
fn event_of(n: usize, len: usize) -> Webhook {
    sender::miibo(format!("{n:0len$}"))
}

/// One request on a connection of its own.
#[track_caller]
fn ask(daemon: &Daemon, request: impl AsRef<[u8]>) -> raw::Answer {
    Raw::connect(daemon.listen).ask(request)
}

#[track_caller]
fn assert_busy(answer: &raw::Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    let seconds = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{answer:?}");
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("a JSON body");
    assert!(body["error"].is_string(), "{body}");
}

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

/// Requests that nobody who knows the secret sent just now.
fn unverified() -> Vec<(&'static str, Webhook)> {
    let sonzai = || sender::sonzai("agent.message", r#"{"agent_id":"a1"}"#);
    let miibo = || event(1);
    let signature = |webhook: &Webhook| webhook.headers[0].1.clone();
    let with = |mut webhook: Webhook, value: &str| {
        webhook.headers[0].1 = value.to_owned();
        webhook
    };
    let again = |mut webhook: Webhook, value: &str| {
        webhook.headers.push((webhook.headers[0].0.clone(), value.to_owned()));
        webhook
    };
    let unsigned = |mut webhook: Webhook| {
        webhook.headers.remove(0);
        webhook
    };
    let flipped = |webhook: &Webhook| {
        let mut text = signature(webhook);
        let last = if text.pop() == Some('0') { '1' } else { '0' };
        text.push(last);
        text
    };
    let (s, m, now_s) = (sonzai(), miibo(), sender::now_s());
    vec![
        ("no signature", unsigned(sonzai())),
        ("no signature, miibo", unsigned(miibo())),
        ("empty", with(sonzai(), "")),
        ("empty, miibo", with(miibo(), "")),
        ("wrong in one digit", with(sonzai(), &flipped(&s))),
        ("wrong in one digit, miibo", with(miibo(), &flipped(&m))),
        ("not hex", with(sonzai(), &format!("t={now_s},v1={}", "x".repeat(64)))),
        ("not hex, miibo", with(miibo(), &"x".repeat(64))),
        ("too short, miibo", with(miibo(), &signature(&m)[..62])),
        ("too long, miibo", with(miibo(), &format!("{}00", signature(&m)))),
        ("the other's", with(miibo(), &signature(&s))),
        ("twice the right one", again(sonzai(), &signature(&s))),
        ("twice the right one, miibo", again(miibo(), &signature(&m))),
        ("a right and a wrong one", again(sonzai(), &flipped(&s))),
        ("two times", with(sonzai(), &format!("t={now_s},{}", signature(&s)))),
        ("another body", Webhook { body: "{}".into(), ..sonzai() }),
        ("another body, miibo", Webhook { body: "{}".into(), ..miibo() }),
        ("no body", Webhook { body: "".into(), ..miibo() }),
        ("too old", sender::sonzai_at("agent.message", "{}", now_s - 1000)),
        ("from the future", sender::sonzai_at("agent.message", "{}", now_s + 1000)),
        ("from 1970", sender::sonzai_at("agent.message", "{}", 0)),
    ]
}

#[test]
fn what_is_not_verified_gets_one_constant_401_and_is_no_event() {
    let (_dir, daemon) = start(&[]);
    let mut answers = Vec::new();
    for (what, webhook) in unverified() {
        let mut answer = ask(&daemon, raw::request(&webhook));
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        answer.headers.retain(|(name, _)| name != "date");
        answers.push(answer);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");

    // What is sent last is published last.
    let last = event(2);
    assert_eq!(ask(&daemon, raw::request(&last)).status, 200);
    let published = log_files::wait_for(&daemon.data_dir(), 1);
    assert_eq!(published.iter().map(|event| &event.body[..]).collect::<Vec<_>>(), [&last.body[..]]);
    let (_, dead_letters) = daemon.command(&["dead-letters", "list"]);
    assert_eq!(dead_letters, "no dead letters\n");
}

#[test]
fn a_registered_authorization_is_demanded_beside_the_signature() {
    let dir = tempfile::tempdir().expect("a directory");
    let sources = r#"
sources:
  sonzai:
    type: sonzai
    path: /hooks/sonzai
    secrets: { "*": "${SONZAI_SECRET}" }
    authorization: "${AUTHORIZATION}"
"#;
    let settings = [("AUTHORIZATION", "Bearer of good news")];
    let daemon = Daemon::start(dir.path(), &format!("{sources}{ROUTES}"), &settings);
    let send = |values: &[&str]| {
        let mut webhook = sender::sonzai("-", "{}");
        webhook.path = "/hooks/sonzai".to_owned();
        let headers = values.iter().map(|v| ("authorization".to_owned(), (*v).to_owned()));
        webhook.headers.extend(headers);
        ask(&daemon, raw::request(&webhook)).status
    };
    assert_eq!(send(&[]), 401);
    assert_eq!(send(&["Bearer of bad news"]), 401);
    assert_eq!(send(&["Bearer of good news", "Bearer of good news"]), 401);
    assert_eq!(send(&["Bearer of good news"]), 200);
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
    for (coding, status) in [("gzip, chunked", 400), ("gzip", 400), ("Chunked", 200)] {
        let lines = format!("host: a\r\ntransfer-encoding: {coding}\r\n");
        assert_eq!(ask_with(&lines, &chunk), status, "{coding}");
    }
}

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
fn whoever_dawdles_is_let_go() {
    let (_dir, daemon) = start(&[
        ("WAYPOST_INGRESS__FIRST_BYTE_TIMEOUT", "700ms"),
        ("WAYPOST_INGRESS__HEAD_TIMEOUT", "700ms"),
        ("WAYPOST_INGRESS__BODY_TIMEOUT", "700ms"),
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
    let started = Instant::now();
    while Raw::try_connect(daemon.listen).is_ok() {
        assert!(started.elapsed() < PATIENCE, "connections are still taken");
    }
    let answer = half.ask(second);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
    half.assert_closed();

    let data_dir = daemon.data_dir();
    assert!(daemon.ended().success());
    let published = log_files::read(&data_dir);
    let bodies: Vec<&[u8]> = published.iter().map(|event| &event.body[..]).collect();
    assert_eq!(bodies, [&event(1).body[..], &webhook.body[..]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_ever_logged_or_shown_among_the_processes() {
    const AUTHORIZATION: &str = "Bearer b3ar3r-t0k3n";
    const RABBIT_PASSWORD: &str = "r4bbit-passw0rd";
    const NATS_PASSWORD: &str = "n4ts-passw0rd";
    const SHOWN: [&str; 5] =
        [SONZAI_SECRET, MIIBO_SECRET, "b3ar3r-t0k3n", RABBIT_PASSWORD, NATS_PASSWORD];
    let brokers = Brokers::shared();
    let after_at = |url: &'static str| url.rsplit(['@', '/']).find(|part| part.contains(':'));
    let rabbit = after_at(brokers.rabbitmq.url()).expect("an address");
    let nats = after_at(brokers.nats.url()).expect("an address");
    let rabbit = format!("amqp://waypost:{RABBIT_PASSWORD}@{rabbit}/%2f");
    let nats = format!("nats://waypost:{NATS_PASSWORD}@{nats}");
    let kafka = brokers.kafka.bootstrap();
    let routes = format!(
        r#"
sources:
  sonzai:
    type: sonzai
    path: /hooks/sonzai/{{type}}
    secrets: {{ "*": "${{SONZAI_SECRET}}" }}
    authorization: "${{AUTHORIZATION}}"
  miibo: {{ type: miibo, path: /hooks/miibo, secret: "${{MIIBO_SECRET}}" }}
brokers:
  local: {{ type: log }}
  stream: {{ type: kafka, bootstrap: "{kafka}" }}
  tasks: {{ type: rabbitmq, url: "${{RABBIT_URL}}" }}
  live: {{ type: nats, url: "${{NATS_URL}}" }}
routes:
  - name: all
    match: {{ type: "**" }}
    to:
      - {{ broker: local, topic: all }}
      - {{ broker: stream, topic: secrets-in-logs }}
      - {{ broker: tasks, exchange: agents, routing_key: "secrets" }}
      - {{ broker: live, subject: "secrets.in.logs" }}
"#
    );
    for level in ["debug", "trace"] {
        let dir = tempfile::tempdir().expect("a directory");
        let settings = [
            ("AUTHORIZATION", AUTHORIZATION),
            ("RABBIT_URL", &*rabbit),
            ("NATS_URL", &*nats),
            ("WAYPOST_LOG__LEVEL", level),
            ("WAYPOST_SHUTDOWN__DEADLINE", "1s"),
        ];
        let daemon = Daemon::start(dir.path(), &routes, &settings);
        let mut webhook = sender::sonzai("agent.message", "{}");
        let mut signatures = vec![webhook.headers[0].1.clone()];
        webhook.headers.push(("authorization".to_owned(), AUTHORIZATION.to_owned()));
        assert_eq!(ask(&daemon, raw::request(&webhook)).status, 200);
        let miibo = event(1);
        signatures.push(miibo.headers[0].1.clone());
        assert_eq!(ask(&daemon, raw::request(&miibo)).status, 200);
        for (_, webhook) in unverified() {
            assert_eq!(ask(&daemon, raw::request(&webhook)).status, 401);
        }
        log_files::wait_for(&daemon.data_dir(), 2);
        let told = |daemon: &Daemon| {
            let log = daemon.log();
            ["broker=tasks", "broker=live", "broker=stream"].iter().all(|name| log.contains(name))
        };
        let started = Instant::now();
        while !told(&daemon) {
            assert!(started.elapsed() < PATIENCE, "every broker has something to say");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let process = format!("/proc/{}/cmdline", daemon.pid());
        let command_line = std::fs::read_to_string(process).expect("the command line");
        let log_path = dir.path().join("daemon.log");
        daemon.stop();
        let log = std::fs::read_to_string(&log_path).expect("the log");
        assert!(log.contains("DEBUG"), "the level counts");
        assert_none_in(&log, &SHOWN);
        let signatures: Vec<&str> = signatures.iter().map(String::as_str).collect();
        assert_none_in(&log, &signatures);
        assert_none_in(&command_line, &SHOWN);
        assert_only_the_environment_holds(dir.path(), &SHOWN);
    }
}

#[track_caller]
fn assert_none_in(text: &str, secrets: &[&str]) {
    for secret in secrets {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "a secret is told");
    }
}

/// No file that the daemon wrote holds a secret either.
fn assert_only_the_environment_holds(dir: &Path, secrets: &[&str]) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            assert_only_the_environment_holds(&path, secrets);
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds a secret", path.display());
        }
    }
}
