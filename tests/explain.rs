//! `waypost explain`: it says of a request what the daemon would do and why, and shows no secret.

use std::{fs, path::Path};

use serde_json::{Value, json};
use waypost::signature;

use crate::common::{
    command::{Outcome, assert_fails, directory, waypost, waypost_reading},
    daemon::{ALL_TO_FILES, Daemon, MIIBO_SECRET, SONZAI_SECRET, SOURCES},
    log_files,
    sender::{self, Webhook},
};

const SHOP_SECRET: &str = "whsec_c2hvcCBzZWNyZXQgc2hvcCBzZWNyZXQ=";
const OLD_SHOP_SECRET: &str = "whsec_b2xkIHNob3Agc2VjcmV0IG9sZCBzaG9w";
const AUTHORIZATION: &str = "Bearer of-news-that-nobody-sees";

const SECRETS: [(&str, &str); 5] = [
    ("SONZAI_SECRET", SONZAI_SECRET),
    ("MIIBO_SECRET", MIIBO_SECRET),
    ("SHOP_SECRET", SHOP_SECRET),
    ("OLD_SHOP_SECRET", OLD_SHOP_SECRET),
    ("AUTHORIZATION", AUTHORIZATION),
];

/// When the requests of these tests are signed.
const AT: &str = "2026-01-01T00:00:00Z";
const AT_S: u64 = 1_767_225_600;

const BODY: &str = r#"{"type":"order.created","region":"eu","order":{"total":12.5}}"#;

const ROUTES: &str = r#"
sources:
  shop: { type: standard, path: "/hooks/shop/{type}", secret: ["${SHOP_SECRET}", "${OLD_SHOP_SECRET}"] }
  guarded:
    type: sonzai
    path: /hooks/guarded/{type}
    secrets: { agent.message: whsec_guarded-message, "*": "${SONZAI_SECRET}" }
    authorization: ${AUTHORIZATION}
  chat: { type: miibo, path: /hooks/chat, secret: "${MIIBO_SECRET}" }
brokers:
  live: { type: nats, url: "nats://user:${SHOP_SECRET}@127.0.0.1:1" }
  tasks: { type: rabbitmq, url: "amqp://127.0.0.1:1" }
  stream: { type: kafka, bootstrap: "127.0.0.1:1" }
routes:
  - name: orders
    match: { source: shop, type: order.* }
    to:
      - { broker: live, subject: "orders.{data.region}" }
      - { broker: tasks, exchange: orders, routing_key: "{type}" }
      - { broker: stream, topic: orders, key: "{data.customer}" }
  - name: talk
    match: { source: chat }
    to: [{ broker: stream, topic: talk, key: "{id}" }]
  - name: everything else
    match: { otherwise: true }
    to: [{ broker: stream, topic: other }]
"#;

/// A request as somebody captured it.
fn captured(path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("POST {path} HTTP/1.1\r\nHost: example.com\r\n{headers}\r\n{body}")
}

/// The shop's, signed with this secret for this body at that time.
fn shop(secret: &str, signed: &str, signed_at_s: u64, body: &str) -> String {
    let key = signature::standard::key(secret).expect("a key");
    let signed = signature::standard::sign(&key, "msg_1", signed.as_bytes(), signed_at_s);
    let signed = signed.expect("a shared key");
    let headers = signed.each_ref().map(|(name, value)| (*name, value.as_str()));
    captured("/hooks/shop/order.created", &headers, body)
}

/// Sonzai's, to the guarded source.
fn guarded(secret: &str, event_type: &str, authorization: Option<&str>) -> String {
    let key = signature::sonzai::key(secret).expect("a key");
    let value = signature::sonzai::sign(&key, b"{}", AT_S);
    let mut headers = vec![("Sonzai-Signature", value.as_str())];
    headers.extend(authorization.map(|value| ("Authorization", value)));
    captured(&format!("/hooks/guarded/{event_type}"), &headers, "{}")
}

/// Explains a request that stands in a file of the directory.
fn explain(dir: &Path, request: &str, arguments: &[&str]) -> Outcome {
    fs::write(dir.join("request.http"), request).expect("to write the request");
    waypost(dir, &[&["explain", "request.http"], arguments].concat(), &SECRETS)
}

#[track_caller]
fn json_of(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.out).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// Requests that are refused, each with the words that say why.
fn refused() -> Vec<(String, Vec<&'static str>)> {
    let other = "whsec_c29tZSBvdGhlciBzZWNyZXQgb2Ygc29tZWJvZHk=";
    let spaced = r#"{"type": "order.created", "region": "eu", "order": {"total": 12.5}}"#;
    let good = shop(SHOP_SECRET, BODY, AT_S, BODY);
    let text_as_key = signature::sonzai::key(SHOP_SECRET).expect("a key");
    let misread = signature::sonzai::sign(&text_as_key, BODY.as_bytes(), AT_S);
    let misread = misread.split_once("v1=").expect("a signature").1;
    let chat = signature::miibo::sign(&signature::miibo::key(MIIBO_SECRET).expect("a key"), b"{}");
    vec![
        (
            shop(SHOP_SECRET, BODY, AT_S - 432, BODY),
            vec![
                "401",
                "signed 7m 12s before it was received",
                "at most 5m",
                "--at 2025-12-31T23:52:48",
            ],
        ),
        (shop(SHOP_SECRET, BODY, AT_S + 600, BODY), vec!["signed 10m after it was received"]),
        (shop(other, BODY, AT_S, BODY), vec!["no secret of source `shop` made it"]),
        (
            shop(OLD_SHOP_SECRET, BODY, AT_S, spaced),
            vec!["secret 2 of 2", "re-serialised the body: it was signed compact", "raw bytes"],
        ),
        (shop(SHOP_SECRET, spaced, AT_S, BODY), vec!["as Python writes it"]),
        (format!("{good}\n"), vec!["a newline at its end that was not signed", "an editor"]),
        (
            good.replace("webhook-signature", "x-signature"),
            vec!["no `webhook-signature` header", "`x-signature`"],
        ),
        (good.replace("v1,", "v1="), vec!["lacks `v1,`"]),
        (good.replace(&AT_S.to_string(), "today"), vec!["the timestamp is no number"]),
        (
            captured(
                "/hooks/guarded/agent.wakeup",
                &[("Sonzai-Signature", &format!("t={AT_S},v1={misread}"))],
                BODY,
            ),
            vec!["no secret of source `guarded`"],
        ),
        (
            guarded("whsec_guarded-message", "agent.wakeup", Some(AUTHORIZATION)),
            vec!["signed with the secret of `agent.message`", "type `agent.wakeup`"],
        ),
        (
            guarded(SONZAI_SECRET, "agent.wakeup", Some("Bearer of-another-thing-entirely")),
            vec!["the signature is right", "not the one that `authorization:` demands"],
        ),
        (guarded(SONZAI_SECRET, "agent.wakeup", None), vec!["it has no `Authorization` header"]),
        (
            captured("/hooks/shop/x", &[("X-HMAC", &chat)], "{}"),
            vec!["its signature is right for source `chat`", "`/hooks/chat`"],
        ),
        (
            captured("/hooks/chat/", &[], "{}"),
            vec!["404", "`/hooks/shop/{type}` (shop)", "mean `/hooks/chat`?"],
        ),
        (captured("/hook/shop/a.b", &[], "{}"), vec!["404", "mean `/hooks/shop/a.b`?"]),
        (good.replace("POST", "PUT"), vec!["405", "send webhooks with POST"]),
        (
            good.replace("\r\nHost", "\r\nContent-Encoding: gzip\r\nHost"),
            vec!["415", "not encoded"],
        ),
    ]
}

#[test]
fn a_refused_request_says_why_and_what_it_would_have_been() {
    let dir = directory(ROUTES);
    for (request, parts) in refused() {
        let outcome = explain(dir.path(), &request, &["--at", AT]);
        assert_eq!((outcome.code, &*outcome.err), (Some(1), ""), "{request}\n{outcome:?}");
        for part in [vec!["verdict   REFUSED with 4"], parts].concat() {
            assert!(
                outcome.out.contains(part),
                "`{part}` is missing of {request}\nin {}",
                outcome.out
            );
        }
        if !outcome.out.contains("404") {
            assert!(outcome.out.contains("If it were accepted:"), "{}", outcome.out);
        }
    }
}

#[test]
fn an_accepted_request_says_which_secret_and_each_route_with_its_messages_or_why_not() {
    let dir = directory(ROUTES);
    let request = shop(OLD_SHOP_SECRET, BODY, AT_S, BODY);
    let outcome = explain(dir.path(), &request, &["--at", AT, "--json"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let document = json_of(&outcome);
    assert_eq!(
        document["verdict"],
        json!({
            "outcome": "accepted",
            "status": 200,
            "secret": "secret 2 of 2",
            "clock": { "signed_at": "2026-01-01T00:00:00.000Z", "age_seconds": 0, "tolerance_seconds": 300 },
        })
    );
    let event = &document["event"];
    assert_eq!((&event["id"], &event["type"]), (&"msg_1".into(), &"order.created".into()));
    let [orders, talk, rest] = &document["routes"].as_array().expect("routes")[..] else {
        panic!("{document}")
    };
    let messages = orders["messages"].as_array().expect("messages");
    assert_eq!((&orders["matched"], &messages[0]["subject"]), (&true.into(), &"orders.eu".into()));
    assert_eq!(messages[1]["routing_key"], "order.created");
    let cannot = messages[2]["cannot"].as_str().expect("a reason");
    assert!(cannot.contains("{data.customer} cannot be filled"), "{cannot}");
    for (route, why) in [(talk, "its `source:` takes chat"), (rest, "another took it")] {
        assert_eq!(route["matched"], false, "{route}");
        assert!(
            route["why"]["message"].as_str().is_some_and(|words| words.contains(why)),
            "{route}"
        );
    }
    let text = explain(dir.path(), &request, &["--at", AT]).out;
    for part in
        ["accepted", "signed with secret 2 of 2", "+ orders", "subject orders.eu", "- talk: "]
    {
        assert!(text.contains(part), "`{part}` is missing in {text}");
    }
}

#[test]
fn the_daemon_answers_what_is_explained() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let with = |change: fn(&mut Webhook)| {
        let mut webhook = sender::sonzai("agent.message", "{}");
        change(&mut webhook);
        webhook
    };
    let mut statuses = Vec::new();
    for webhook in [
        with(|_| {}),
        sender::miibo("{\"a\":1}"),
        sender::sonzai_at("agent.message", "{}", sender::now_s() - 3600),
        with(|webhook| webhook.body = "{ }".into()),
        with(|webhook| webhook.headers.clear()),
        with(|webhook| webhook.path = "/hooks/none".to_owned()),
        with(|webhook| webhook.headers.push(("content-encoding".to_owned(), "br".to_owned()))),
        with(|webhook| webhook.body = vec![b' '; (2 << 20) + 1].into()),
    ] {
        let headers: Vec<_> =
            webhook.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let body = std::str::from_utf8(&webhook.body).expect("text");
        let outcome = explain(dir.path(), &captured(&webhook.path, &headers, body), &["--json"]);
        let answer = runtime.block_on(sender::post(daemon.listen, &webhook)).expect("an answer");
        let document = json_of(&outcome);
        let status = answer.status.as_u16();
        assert_eq!(document["verdict"]["status"], status, "{document}");
        assert_eq!(outcome.code, Some(if status == 200 { 0 } else { 1 }));
        if let Some(id) = answer.event_id.filter(|_| webhook.path != "/hooks/miibo") {
            assert_eq!(document["event"]["id"], id, "{document}");
        }
        statuses.push(status);
    }
    assert_eq!(statuses, [200, 200, 401, 401, 401, 404, 415, 413]);
    assert!(daemon.stop().success());
}

#[test]
fn no_secret_no_signature_and_no_authorization_is_ever_shown() {
    let dir = directory(ROUTES);
    let good = shop(SHOP_SECRET, BODY, AT_S, BODY);
    // Where they have no business, too.
    let strewn = good
        .replace(
            "Host:",
            &format!("X-Copied: {SHOP_SECRET}\r\nAuthorization: {AUTHORIZATION}\r\nHost:"),
        )
        .replace("msg_1", AUTHORIZATION.split_once(' ').expect("two words").1);
    fs::write(
        dir.path().join("expected.json"),
        r#"{"verdict":{"outcome":"odd"},"event":{"headers":[]}}"#,
    )
    .expect("to write expectations");
    let requests = refused().into_iter().map(|(request, _)| request).chain([good, strewn.clone()]);
    for request in requests {
        let signatures = request.lines().filter(|line| {
            let name = line.split(':').next().unwrap_or_default().to_lowercase();
            name.contains("signature") || name.contains("hmac") || name == "authorization"
        });
        let shown_by_request: Vec<&str> = signatures
            .flat_map(|line| line.split([' ', ',', '=']))
            .filter(|part| part.len() > 16 && !part.contains(':'))
            .collect();
        for arguments in [&[][..], &["--json"], &["--no-secrets"], &["--expect", "expected.json"]] {
            // A secret that is not looked at is not recognised either.
            if request == strewn && arguments == ["--no-secrets"] {
                continue;
            }
            let outcome = explain(dir.path(), &request, &[arguments, &["--at", AT]].concat());
            let shown = format!("{}{}", outcome.out, outcome.err);
            assert!(!outcome.out.is_empty(), "{outcome:?}");
            let secrets = SECRETS
                .iter()
                .flat_map(|(_, value)| [*value, value.strip_prefix("whsec_").unwrap_or(value)]);
            for hidden in secrets.chain(shown_by_request.iter().copied()) {
                assert!(
                    !shown.contains(hidden),
                    "`{hidden}` in {arguments:?} of {request}\n{shown}"
                );
            }
        }
    }
}

#[test]
fn every_sample_is_accepted_and_explained_alike_at_the_same_time() {
    let dir = directory(ROUTES);
    let samples = [
        ("agent.message", "guarded"),
        ("guarded/agent.wakeup", "guarded"),
        ("function_calling", "chat"),
        ("shop/contact.created", "shop"),
    ];
    for (sample, source) in samples {
        let arguments = ["explain", "--sample", sample, "--at", AT, "--json"];
        let outcome = waypost(dir.path(), &arguments, &SECRETS);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let document = json_of(&outcome);
        assert_eq!((&document["source"]["name"]), &json!(source), "{document}");
        assert_eq!(document["verdict"]["outcome"], "accepted", "{document}");
        assert_eq!(waypost(dir.path(), &arguments, &SECRETS).out, outcome.out, "{sample}");
    }
    let unknown = waypost(dir.path(), &["explain", "--sample", "agent.mesage"], &SECRETS);
    assert_fails(&unknown, &["no such sample `agent.mesage`", "guarded/agent.message", "chat/"]);
    let unknown = waypost(dir.path(), &["explain", "--sample", "sop/contact.created"], &SECRETS);
    assert_fails(&unknown, &["no source `sop`"]);
}

#[test]
fn without_secrets_no_environment_is_needed_and_nothing_is_verified() {
    let dir = directory(&ROUTES.replace("${AUTHORIZATION}", "${file:/nowhere/authorization}"));
    fs::write(dir.path().join("request.http"), shop(SHOP_SECRET, BODY, AT_S, BODY))
        .expect("to write");
    for what in [&["request.http"][..], &["--sample", "agent.message"]] {
        let arguments = [&["explain"], what, &["--at", AT, "--json"]].concat();
        let outcome = waypost(dir.path(), &arguments, &[]);
        assert_fails(&outcome, &["routes.yaml:", "is not set", "/nowhere/authorization"]);
        let outcome = waypost(dir.path(), &[&arguments[..], &["--no-secrets"]].concat(), &[]);
        assert_eq!((outcome.code, &*outcome.err), (Some(0), ""), "{outcome:?}");
        let document = json_of(&outcome);
        assert_eq!(document["verdict"]["outcome"], "not-checked", "{document}");
        assert!(
            document["routes"].as_array().is_some_and(|routes| routes.len() == 3),
            "{document}"
        );
    }
}

#[test]
fn a_document_is_its_own_expectation_and_what_changed_is_shown() {
    let dir = directory(ROUTES);
    let request = shop(SHOP_SECRET, BODY, AT_S, BODY);
    let at = ["--at", AT];
    let shown = explain(dir.path(), &request, &[&at[..], &["--json"]].concat());
    let expected = dir.path().join("expected.json");
    fs::write(&expected, &shown.out).expect("to write expectations");
    // The time is in the document.
    let compare = |more: &[&str]| {
        explain(dir.path(), &request, &[&["--expect", "expected.json"], more].concat())
    };
    let same = compare(&[]);
    assert_eq!((same.code, &*same.out), (Some(0), "as expected\n"), "{same:?}");

    // A part is enough, and a refusal may be what is expected.
    for (part, code) in [
        (json!({ "at": AT, "event": { "type": "order.created" } }), 0),
        (json!({ "at": "1767229200", "verdict": { "outcome": "refused", "status": 401 } }), 0),
        (json!({ "at": AT_S, "routes": [{ "name": "orders" }, {}, {}] }), 0),
        (json!({ "at": AT, "routes": [{ "name": "orders" }] }), 0),
        (json!({ "at": AT, "routes": [{ "name": "none" }] }), 1),
        (json!({ "at": AT, "matched": [] }), 1),
    ] {
        fs::write(&expected, part.to_string()).expect("to write expectations");
        assert_eq!(compare(&[]).code, Some(code), "{part}");
    }

    fs::write(&expected, &shown.out).expect("to write expectations");
    let changed = ROUTES.replace("orders.{data.region}", "sales.{data.region}");
    fs::write(dir.path().join("routes.yaml"), changed).expect("to write routes.yaml");
    let outcome = compare(&[]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert_eq!(
        outcome.out,
        "routes[0].messages[0].subject\n    expected  \"orders.eu\"\n    found     \"sales.eu\"\n\
         1 difference\n"
    );
    assert_eq!(
        json_of(&compare(&["--json"])),
        json!({
            "as_expected": false,
            "differences": [{
                "path": "routes[0].messages[0].subject", "expected": "orders.eu", "found": "sales.eu",
            }],
        })
    );
    for (text, part) in
        [("", "not JSON"), ("[]", "not a JSON object"), (r#"{"at":"soon"}"#, "`at`")]
    {
        fs::write(&expected, text).expect("to write expectations");
        assert_fails(&compare(&[]), &["expected.json", part]);
    }
}

/// The loop as it stands in the docs, with a directory as it stands there.
#[test]
fn the_loop_of_the_docs_is_a_regression_test() {
    let docs = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/explain.md"));
    let docs = docs.expect("the docs");
    let mut blocks = docs.split("```sh\n").filter_map(|rest| rest.split("```").next());
    let script = blocks.find(|block| block.contains("for request in")).expect("a loop");
    let dir = directory(ROUTES);
    fs::create_dir(dir.path().join("explain")).expect("a directory");
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join("explain").join(name), text).expect("to write");
    };
    for name in ["one", "two"] {
        write(&format!("{name}.http"), &shop(SHOP_SECRET, BODY, AT_S, BODY));
        let expected = json!({ "at": AT, "event": { "type": "order.created" } });
        write(&format!("{name}.json"), &expected.to_string());
    }
    let run = || {
        let program = Path::new(env!("CARGO_BIN_EXE_waypost"));
        let path = format!("{}:/usr/bin:/bin", program.parent().expect("its directory").display());
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", script]).current_dir(dir.path()).env_clear().env("PATH", path);
        let output = shell.output().expect("a shell");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    assert_eq!(run(), (Some(0), "as expected\n".repeat(2)));
    write("two.json", &json!({ "at": AT, "unrouted": "drop" }).to_string());
    let (code, out) = run();
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("found     nothing\n1 difference\nexplain/two.http\n"), "{out}");
}

#[test]
fn an_event_is_explained_beside_the_daemon_that_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    // Nobody listens there: what it is owed stays in the journal.
    let brokers =
        "brokers:\n  local: { type: log }\n  live: { type: nats, url: \"nats://127.0.0.1:1\" }\n";
    let routes = |topic: &str| {
        format!(
            "{SOURCES}{brokers}routes:\n  - name: all\n    match: {{ type: \"**\" }}\n    to:\n      \
             - {{ broker: local, topic: {topic} }}\n      - {{ broker: live, subject: \"all.{{data.none}}\" }}\n      \
             - {{ broker: live, subject: all }}\n"
        )
    };
    let daemon = Daemon::start(dir.path(), &routes("all"), &[]);
    let sent = waypost(dir.path(), &["send", "sonzai", "agent.message"], &SECRETS);
    let id = sent.out.split_whitespace().last().expect("an id").to_owned();
    log_files::wait_for(&daemon.data_dir(), 1);
    let ask = |arguments: &[&str]| {
        waypost(dir.path(), &[&["explain", "--event", &id], arguments].concat(), &SECRETS)
    };
    let document = json_of(&ask(&["--json"]));
    assert_eq!(document["verdict"], json!({ "outcome": "recorded" }));
    assert_eq!(
        (&document["event"]["id"], &document["at"]),
        (&json!(id), &document["event"]["time"])
    );
    let recorded = &document["recorded"];
    assert_eq!(
        (&recorded["position"], &recorded["same_now"]),
        (&json!(0), &json!(true)),
        "{document}"
    );
    assert_eq!(recorded["messages"].as_array().map(Vec::len), Some(3), "{document}");
    // What cannot be rendered is given up on, once its broker's dispatcher has come to it.
    let letters = waypost(dir.path(), &["dead-letters", "list", "--json"], &SECRETS);
    let letters = letters.out.lines().count();
    assert_eq!(recorded["dead_letters"].as_array().map_or(0, Vec::len), letters, "{document}");

    fs::write(dir.path().join("routes.yaml"), routes("others")).expect("to write routes.yaml");
    let outcome = ask(&[]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for part in ["recorded  at ", "would decide otherwise", "no more, route all", "new, route all"]
    {
        assert!(outcome.out.contains(part), "`{part}` is missing in {}", outcome.out);
    }
    let unknown = waypost(dir.path(), &["explain", "--event", "none"], &SECRETS);
    assert_fails(&unknown, &["no event with the id `none`", "--data-dir"]);
    let nowhere = ["explain", "--event", &id, "--data-dir", "nowhere"];
    assert_fails(&waypost(dir.path(), &nowhere, &SECRETS), &["no daemon has run in nowhere"]);
    daemon.kill();
}

#[test]
fn what_is_no_request_is_refused_with_what_to_write() {
    let dir = directory(ROUTES);
    let read =
        |input: &'static [u8]| waypost_reading(dir.path(), &["explain", "-"], &SECRETS, input);
    assert_fails(&read(b""), &["standard input: there is no request"]);
    assert_fails(&read(b"{\"a\":1}"), &["is this the body alone?", "POST /path HTTP/1.1"]);
    assert_fails(&read(b"POST /a HTTP/1.1\nnonsense\n\n"), &["invalid header name"]);
    let missing = waypost(dir.path(), &["explain", "none.http"], &SECRETS);
    assert_fails(&missing, &["cannot read none.http", "No such file"]);
    let large = explain(dir.path(), &"x".repeat(4 << 20), &[]);
    assert_fails(&large, &["request.http is larger than 3145728 bytes"]);
    for arguments in
        [&["explain"][..], &["explain", "a", "--sample", "b"], &["explain", "-", "--at", "soon"]]
    {
        assert_eq!(waypost(dir.path(), arguments, &SECRETS).code, Some(2), "{arguments:?}");
    }
    fs::write(dir.path().join("routes.yaml"), ROUTES.replace("topic: talk", "topik: talk"))
        .expect("to write routes.yaml");
    assert_fails(&read(b"POST /a HTTP/1.1\n\n"), &["routes.yaml:23:28", "topik"]);
}
