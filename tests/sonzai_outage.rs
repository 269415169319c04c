//! Push is cut off for a while: afterwards the stream holds every event, each once, on every broker.

use std::{collections::BTreeMap, net::TcpListener};

use serde_json::Value;
use waypost::sonzai::stub::Options;

use crate::common::{
    log_files,
    polling::{Polling, counts, eventually, options},
    proxy::{Proxy, Sickness},
    raw::Raw,
    sinks::{Addresses, NOT_TO_RABBITMQ, Sink, Sinks, TO_ALL},
    sonzai_stub::{PROJECT, request},
};

/// Events of each time.
const EVENTS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_push_loses_and_doubles_nothing_on_any_broker() {
    // Its own port, so that the webhooks lead to it after each start.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(0, port).await;
    let mut polling = Polling::of(Options { agents: 5, ..options() }, "").await;
    let sinks = Sinks::create("sonzai-outage", Addresses::shared(), polling.dir.path()).await;
    let api = format!(r#"api: {{ url: "{}", key: sk_test }}"#, polling.stub.url());
    let poll = format!("poll: {{ project: {PROJECT}, every: 1s }}");
    polling.routes = sinks.routes().replace(
        r#"secrets: { "*": "${SONZAI_SECRET}" } }"#,
        &format!(
            r#"secrets: {{ {TO_ALL}: "${{MESSAGES}}", {NOT_TO_RABBITMQ}: "${{MOODS}}" }}, {api}, {poll} }}"#
        ),
    );
    let secrets =
        [TO_ALL, NOT_TO_RABBITMQ].map(|event_type| register(&polling, &proxy, event_type));
    let listen = port.to_string();
    let settings =
        [("MESSAGES", &*secrets[0]), ("MOODS", &*secrets[1]), ("WAYPOST_LISTEN", &*listen)];
    let emit = |event_type: &str, count: usize| {
        for agent in 1..=count {
            let agent = agent % 5 + 1;
            polling.emit(&format!(r#"{{"type":"{event_type}","agent_id":"agent-{agent}"}}"#));
        }
    };

    // Push works.
    let daemon = polling.start_with(&settings);
    emit(TO_ALL, EVENTS);
    eventually("all is taken", || polling.pending() == 0);
    eventually("all was delivered", || polling.stub.state()["deliveries_under_way"] == 0);

    // The way to Waypost is cut: what is pending is polled.
    proxy.sicken(Sickness::Reset);
    emit(TO_ALL, EVENTS);
    eventually("all is taken", || polling.pending() == 0);

    // Waypost is down, and some of what happens is not even kept for polling.
    assert!(daemon.stop().success());
    emit(TO_ALL, EVENTS);
    emit(NOT_TO_RABBITMQ, EVENTS);
    eventually("deliveries are given up", || polling.stub.state()["deliveries_under_way"] == 0);
    proxy.cure();
    let daemon = polling.start_with(&settings);
    eventually("all is taken", || polling.pending() == 0);
    let (status, said) = daemon.command(&["sonzai", "repair", "--since", "1h", "--json"]);
    assert!(status.success(), "{said}");
    let said = said.lines().find(|line| line.starts_with('{')).expect("a summary");
    let summary: Value = serde_json::from_str(said).expect("JSON");
    assert_eq!(summary["failed_attempts"]["new"], EVENTS, "{summary}");
    assert_eq!(summary["notifications"]["new"], 0, "{summary}");

    // Push works again.
    emit(TO_ALL, EVENTS);
    eventually("all is taken", || polling.pending() == 0);
    eventually("all was delivered", || polling.stub.state()["deliveries_under_way"] == 0);
    let data = polling.dir.path().join("data");
    let logged = log_files::wait_for(&data, 5 * EVENTS);
    let kinds: BTreeMap<String, usize> = counts(logged.iter().map(|event| event.kind.clone()));
    assert_eq!(kinds[TO_ALL], 4 * EVENTS, "{kinds:?}");
    assert_eq!(kinds[NOT_TO_RABBITMQ], EVENTS, "{kinds:?}");
    let bodies = counts(logged.iter().map(|event| event.body.clone()));
    assert!(bodies.len() == 5 * EVENTS, "{} bodies", bodies.len());
    for sink in Sink::ALL {
        let due = logged.iter().filter(|it| sink != Sink::RabbitMq || it.kind == TO_ALL);
        let ids: Vec<String> = due.map(|event| event.id.clone()).collect();
        let arrived = sinks.await_events(sink, &ids).await;
        let times = counts(arrived.iter().map(|event| event.id.clone()));
        assert_eq!(times.len(), ids.len(), "{sink:?}");
        assert!(times.values().all(|times| *times == 1), "{sink:?}: {times:?}");
    }
    assert!(daemon.stop().success());
    polling.assert_valid();
}

/// Registers a webhook that leads through the proxy; its secret.
fn register(polling: &Polling, proxy: &Proxy, event_type: &str) -> String {
    let url = format!("http://{}/hooks/sonzai/{event_type}", proxy.address());
    let target = format!("/api/v1/projects/{PROJECT}/webhooks/{event_type}");
    let body = format!(r#"{{"webhook_url":"{url}"}}"#);
    let answer = Raw::connect(polling.stub.address()).ask(request("PUT", &target, &body));
    let answer: Value = serde_json::from_str(&answer.body).expect("JSON");
    answer["signing_secret"].as_str().expect("a secret").to_owned()
}
