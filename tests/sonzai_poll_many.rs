//! Many items and many agents are polled in batches, with bounded memory, within the limits that the
//! settings name; what cannot be taken does not stop the rest.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;
use waypost::sonzai::stub::Options;

use crate::common::{
    polling::{Polling, counts, eventually, options, status},
    variable::number,
};

/// Agents by default; `WAYPOST_AGENTS` raises it.
const AGENTS: u64 = 2000;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_pending_are_drained_in_full_batches_with_bounded_memory() {
    const ITEMS: usize = 10_000;
    const PAGES: usize = ITEMS / 200;
    const MOST_GROWTH_BYTES: u64 = 96 << 20;
    let polling = Polling::project(options()).await;
    let daemon = polling.start();
    eventually("it polls", || status(&daemon)["last_success"].is_string());
    let (memory, began) = (daemon.memory_bytes(), Instant::now());
    polling.stub.forget_requests();
    polling.emit(&format!(r#"{{"type":"on_wakeup_ready","count":{ITEMS}}}"#));
    eventually("all is taken", || {
        sleep(Duration::from_millis(200));
        polling.pending() == 0
    });
    let (grown, seconds) =
        (daemon.peak_memory_bytes().saturating_sub(memory), began.elapsed().as_secs() as usize);
    println!("{ITEMS} items in {seconds} s, {} MiB more", grown >> 20);
    assert!(grown < MOST_GROWTH_BYTES, "{grown} bytes");
    // A round that begins while items are made finds a page that is not full.
    let (listed, acknowledged) = (
        polling.requests_with("GET", "/notifications"),
        polling.requests_with("POST", "acknowledge"),
    );
    assert!((PAGES..=PAGES + 5).contains(&acknowledged), "{acknowledged} times acknowledged");
    assert!((PAGES..=PAGES + 5 + seconds).contains(&listed), "{listed} times listed");
    eventually("all is published", || {
        sleep(Duration::from_millis(500));
        polling.published().len() >= ITEMS
    });
    assert!(daemon.stop().success());
    let bodies = counts(polling.published().into_iter().map(|event| event.body));
    assert!(bodies.len() == ITEMS && bodies.values().all(|times| *times == 1));
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_items_that_cannot_be_taken_does_not_stop_the_rest() {
    let polling = Polling::project(options()).await;
    let stuck = polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-1","count":200}"#);
    let stuck = stuck["events"].as_array().expect("events").iter();
    let ids: Vec<_> = stuck.map(|event| event["notification_id"].clone()).collect();
    polling.fail_take(json!({ "ids": ids, "status": 422 }));
    // Behind that page: of another type, of another agent.
    polling.emit(r#"{"type":"on_recurring_event_due","agent_id":"agent-1","count":50}"#);
    polling.emit(r#"{"type":"on_wakeup_ready","agent_id":"agent-2","count":250}"#);
    let daemon = polling.start();
    eventually("the rest is taken", || polling.pending() == 200);
    eventually("all is published", || polling.published().len() == 500);
    eventually("it is told", || {
        let status = status(&daemon);
        status["stuck"] == 200 && status["hidden_lists"].as_u64() > Some(0)
    });
    assert!(status(&daemon)["oldest_pending_seconds"].as_f64() > Some(0.0));
    let (_, said) = daemon.command(&["status"]);
    assert!(said.contains("200 durable here, and cannot be taken there"), "{said}");
    // What is behind it is looked for as long as that brings more, and then for a while no longer.
    sleep(Duration::from_secs(4));
    let before = polling.requests();
    sleep(Duration::from_secs(3));
    let more = polling.requests() - before;
    assert!(more <= 6, "{more} requests in three seconds");
    assert!(daemon.stop().success());
    let bodies = counts(polling.published().into_iter().map(|event| event.body));
    assert!(bodies.len() == 500 && bodies.values().all(|times| *times == 1));
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_items_that_cannot_be_taken_hold_up_no_other_item() {
    let source = "poll: { agents: all, every: 1s, mode: always }";
    let polling = Polling::of(options(), source).await;
    polling.fail_take(json!({ "agents": ["agent-2"], "status": 422 }));
    for agent in 1..=3 {
        polling.emit(&format!(
            r#"{{"type":"on_wakeup_ready","agent_id":"agent-{agent}","count":10}}"#
        ));
    }
    let daemon = polling.start();
    eventually("the others are taken", || polling.pending_of_agents() == 10);
    eventually("all is published", || polling.published().len() == 30);
    eventually("it is told", || status(&daemon)["stuck"] == 10);
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_agents_are_polled_within_the_limits_that_the_settings_name() {
    const LISTS_AT_ONCE: u64 = 6;
    const A_SECOND: u64 = 1000;
    let agents = number("WAYPOST_AGENTS", AGENTS);
    let many = Options { agents: agents as usize, notifications: 1, ..options() };
    let polling = Polling::of(many, "poll: { agents: all, every: 1s, mode: always }").await;
    let began = Instant::now();
    let daemon = polling.start_with(&[
        ("WAYPOST_SONZAI__MAX_CONCURRENT_LISTS", &LISTS_AT_ONCE.to_string()),
        ("WAYPOST_SONZAI__MAX_REQUESTS_PER_SECOND", &A_SECOND.to_string()),
        ("WAYPOST_SONZAI__MAX_AGENTS", &agents.to_string()),
    ]);
    eventually("all is taken", || {
        sleep(Duration::from_millis(200));
        status(&daemon)["taken"].as_u64() == Some(agents)
    });
    let requests = polling.stub.requests();
    let (count, most) =
        (requests["count"].as_u64().unwrap(), requests["most_under_way"].as_u64().unwrap());
    let seconds = began.elapsed().as_secs_f64();
    println!("{agents} agents: {count} requests in {seconds:.1} s, {most} at once");
    assert!(count as f64 <= A_SECOND as f64 * (seconds + 1.0), "{count} in {seconds} s");
    assert!(most <= LISTS_AT_ONCE, "{most} at once");
    assert_eq!(status(&daemon)["agents"].as_u64(), Some(agents));
    assert!(daemon.stop().success());
    polling.assert_valid();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_agents_than_may_be_polled_are_told() {
    let many = Options { agents: 30, notifications: 1, ..options() };
    let polling = Polling::of(many, "poll: { agents: all, every: 1s, mode: always }").await;
    let daemon = polling.start_with(&[("WAYPOST_SONZAI__MAX_AGENTS", "20")]);
    eventually("those are taken", || polling.pending_of_agents() == 10);
    assert_eq!(status(&daemon)["agents_left_out"], true);
    assert!(daemon.log().contains("raise sonzai.max_agents"), "{}", daemon.log());
    let (_, said) = daemon.command(&["status"]);
    assert!(said.contains("only 20 agents are polled"), "{said}");
    assert!(daemon.stop().success());
    polling.assert_valid();
}
