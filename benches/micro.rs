//! What one event costs in each step of its life, without sockets, disks and brokers: `cargo bench`.
//!
//! Criterion compares with the run before.

use std::{hint::black_box, time::Duration};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::HeaderMap;
use waypost::{
    body::Paths,
    broker::cloudevents,
    event::{Event, Record},
    routing::{self, Table, condition::Condition, input::Input},
    signature,
    source::Request,
};

const NOW_MS: u64 = 1_767_225_600_000;
const SECRET: &str = "whsec_benchmark";

const ROUTES: &str = r#"
sources:
  sonzai: { type: sonzai, path: "/hooks/{type}", secrets: { "*": whsec_benchmark } }
brokers:
  live: { type: nats, url: "nats://localhost" }
  local: { type: log }
routes:
  - name: messages
    match: { source: sonzai, type: agent.message }
    to: [{ broker: live, subject: "agents.{agentid}.message" }]
  - name: moods
    match: { type: "agent.mood_*" }
    to: [{ broker: local, topic: moods }]
  - name: the rest
    match: { otherwise: true }
    to: [{ broker: local, topic: other }]
"#;

/// A 1 KiB body, with the identifiers that are looked for.
fn body() -> Bytes {
    let text = "x".repeat(918);
    let body = format!(
        r#"{{"event_type":"agent.message","agent_id":"agent_7f3a","user_id":"user_19","delta":0.5,"data":{{"text":"{text}"}}}}"#
    );
    body.into()
}

/// As long, with identifiers by which the event is known however it comes.
fn body_with_ids() -> Bytes {
    let text = "x".repeat(866);
    let body = format!(
        r#"{{"event_type":"agent.message","agent_id":"agent_7f3a","user_id":"user_19","message_id":"msg_01HZX3J6QK","data":{{"wakeup_id":"wk_01HZX3J6QK","text":"{text}"}}}}"#
    );
    body.into()
}

fn headers(body: &[u8]) -> HeaderMap {
    let key = signature::sonzai::key(SECRET).expect("a key");
    let signature = signature::sonzai::sign(&key, body, NOW_MS / 1000);
    let all = [
        ("host", "hooks.example.com"),
        ("user-agent", "sonzai/1"),
        ("content-type", "application/json"),
        ("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        (signature::sonzai::HEADER, &*signature),
    ];
    all.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn table() -> Table {
    routing::compile("routes.yaml", ROUTES, &|_| None).expect("a table")
}

fn receive(table: &Table, headers: &HeaderMap, body: &Bytes) -> Event {
    let (source, path_type) = table.source("/hooks/agent.message").expect("a source");
    let request = Request { path_type, headers, body: body.clone(), now_ms: NOW_MS };
    source.receive(request).expect("a verified event").event
}

fn steps(criterion: &mut Criterion) {
    let (body, table) = (body(), table());
    let headers = headers(&body);
    let event = receive(&table, &headers, &body);
    let record = Record { messages: table.resolve(&event), event: event.clone() };
    let encoded = record.encode();

    let mut group = criterion.benchmark_group("an event of 1 KiB");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    group.throughput(Throughput::Elements(1));
    let keys = [signature::sonzai::key(SECRET).expect("a key")];
    group.bench_function("verify", |b| {
        b.iter(|| signature::sonzai::verify(&keys, &headers, black_box(&body), NOW_MS / 1000))
    });
    group.bench_function("verify and build the event", |b| {
        b.iter(|| receive(&table, &headers, black_box(&body)))
    });
    let with_ids = body_with_ids();
    let signed = self::headers(&with_ids);
    group.bench_function("verify and build the event, with two ids in it", |b| {
        b.iter(|| receive(&table, &signed, black_box(&with_ids)))
    });
    group.bench_function("resolve", |b| b.iter(|| table.resolve(black_box(&event))));
    group.bench_function("encode", |b| b.iter(|| black_box(&record).encode()));
    group.bench_function("decode", |b| {
        b.iter_batched(|| encoded.clone(), Record::decode, BatchSize::SmallInput)
    });
    group.bench_function("see that it owes a broker nothing", |b| {
        b.iter(|| Record::owes(black_box(&encoded), "unrouted"))
    });
    group.bench_function("render a CloudEvents document", |b| {
        b.iter(|| cloudevents::document(black_box(&event)))
    });
    group.finish();
}

/// A table as a team would write it: most routes name a type, some a few, some a pattern. What an
/// event of `agent.message` meets is the same at any size.
fn routes(count: usize) -> String {
    let mut routes = String::from(ROUTES);
    for n in 0..count - 3 {
        let types = match n % 10 {
            0 => format!("[\"shop{n}.paid\", \"shop{n}.sent\", \"shop{n}.lost\"]"),
            1 => format!("\"shop{n}.*\""),
            _ => format!("\"shop{}.order_{n}\"", n / 10),
        };
        routes.push_str(&format!(
            "  - {{ name: r{n}, match: {{ source: sonzai, type: {types} }}, to: [{{ broker: live, \
             subject: \"shop.{{agentid}}.{n}\" }}] }}\n"
        ));
    }
    routes
}

fn tables(criterion: &mut Criterion) {
    let body = body();
    let mut group = criterion.benchmark_group("resolve against a table");
    for count in [10, 1000] {
        let table = routing::compile("routes.yaml", &routes(count), &|_| None).expect("a table");
        let event = receive(&table, &headers(&body), &body);
        assert_eq!(table.resolve(&event).len(), 1);
        group.bench_function(format!("of {count} routes"), |b| {
            b.iter(|| table.resolve(black_box(&event)))
        });
    }
    group.finish();
}

fn conditions(criterion: &mut Criterion) {
    let body = body();
    let event = receive(&table(), &headers(&body), &body);
    let mut group = criterion.benchmark_group("a condition");
    for text in [
        "data.delta > 0.3",
        "type == 'agent.message' && has(data.agent_id) && data.agent_id.startsWith('agent_')",
        "data.agent_id.matches('^agent_[0-9a-f]+$')",
    ] {
        let mut paths = Paths::default();
        let condition = Condition::compile(text, &mut paths).expect("a condition");
        assert_eq!(condition.holds(&Input::new(&event, &paths)), Ok(true));
        // As the second condition of an event meets it: what both ask for is built once.
        let read = Input::new(&event, &paths);
        group.bench_function(format!("{text}, the body read"), |b| {
            b.iter(|| condition.holds(black_box(&read)))
        });
        group.bench_function(format!("{text}, with reading a body of 1 KiB"), |b| {
            b.iter(|| condition.holds(&Input::new(black_box(&event), &paths)))
        });
        group.bench_function(format!("{text}: reading alone"), |b| {
            b.iter(|| paths.read(black_box(&event.body)).map(drop))
        });
    }
    group.finish();
}

criterion_group!(benches, steps, tables, conditions);
criterion_main!(benches);
