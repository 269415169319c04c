//! The same event twice is one event, however it comes twice. Two miibo requests with equal bodies
//! are two.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::common::{
    burst, consume,
    daemon::Daemon,
    faults::{Fault, Faults},
    ids::{assert_ids, ids},
    kept,
    sender::{self, Answer, Webhook},
    shared::Brokers,
};

/// A daemon whose events all go to the `log` broker.
const LOGGED: &str = "
brokers: { local: { type: log } }
routes: [{ name: all, match: { type: '**' }, to: [{ broker: local, topic: all }] }]
";

fn event(n: usize) -> Webhook {
    sender::sonzai("agent.message", format!(r#"{{"agent_id":"a{n}","n":{n}}}"#))
}

fn events(count: usize) -> Vec<Webhook> {
    (0..count).map(event).collect()
}

/// Sends an event that is certainly new and waits until it came out. The `log` broker writes in
/// order, so that what was admitted before it is there too.
async fn fence(daemon: &Daemon, dir: &Path, n: usize) -> String {
    let [id] = burst::accept_all(daemon.listen, &[event(n)], 1).await.try_into().expect("one");
    kept::eventually("the fence", || kept::logged(dir, "all").contains(&id)).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_signed_bytes_from_many_at_once_are_one_event() {
    const CONNECTIONS: usize = 50;
    const EVENTS: usize = 8;
    let brokers = Brokers::shared();
    let (kafka, rabbitmq) = (brokers.kafka.bootstrap(), brokers.rabbitmq.url());
    consume::create_topic(kafka, "duplicates", 3, &[]).await;
    consume::declare_queue(rabbitmq, "duplicates", "duplicates", "#", Default::default()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(
        dir.path(),
        &format!(
            r#"
brokers:
  stream: {{ type: kafka, bootstrap: "{kafka}" }}
  tasks: {{ type: rabbitmq, url: "{rabbitmq}" }}
  local: {{ type: log }}
routes:
  - name: all
    match: {{ type: "**" }}
    to:
      - {{ broker: stream, topic: duplicates }}
      - {{ broker: tasks, exchange: duplicates, routing_key: "{{type}}" }}
      - {{ broker: local, topic: all }}
"#
        ),
        &[],
    );
    let mut sent = Vec::new();
    for webhook in events(EVENTS) {
        let same = vec![webhook; CONNECTIONS];
        let mut ids = burst::accept_all(daemon.listen, &same, CONNECTIONS).await;
        ids.dedup();
        assert_eq!(ids.len(), 1, "{ids:?}");
        sent.extend(ids);
    }
    let from_kafka = consume::read_topic(kafka, "duplicates", EVENTS).await;
    let from_rabbitmq = consume::read_queue(rabbitmq, "duplicates", EVENTS).await;
    kept::wait_for_logged(dir.path(), "all", EVENTS).await;
    assert!(daemon.stop().success());
    assert_ids(ids(&from_kafka, "ce_id"), sent.clone());
    assert_ids(ids(&from_rabbitmq, "cloudEvents_id"), sent.clone());
    assert_ids(kept::logged(dir.path(), "all"), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_before_a_restart_or_kill_nine_is_known_after_it() {
    const EVENTS: usize = 30;
    let url = Brokers::shared().rabbitmq.url();
    consume::declare_queue(url, "duplicates-again", "duplicates-again", "#", Default::default())
        .await;
    let routes = format!(
        r#"
brokers:
  tasks: {{ type: rabbitmq, url: "{url}" }}
  local: {{ type: log }}
routes:
  - name: all
    match: {{ type: "**" }}
    to:
      - {{ broker: tasks, exchange: duplicates-again, routing_key: "{{type}}" }}
      - {{ broker: local, topic: all }}
"#
    );
    let dir = tempfile::tempdir().expect("a directory");
    let events = events(EVENTS);
    let daemon = Daemon::with_sources(dir.path(), &routes, &[]);
    let sent = burst::accept_all(daemon.listen, &events, 10).await;
    consume::read_queue(url, "duplicates-again", EVENTS).await;
    kept::wait_for_logged(dir.path(), "all", EVENTS).await;
    // An orderly end saves the cursors, so that nothing is published again after the kills either.
    assert!(daemon.stop().success());
    for _ in 0..3 {
        let daemon = Daemon::with_sources(dir.path(), &routes, &[]);
        assert_eq!(burst::accept_all(daemon.listen, &events, 10).await, sent);
        daemon.kill();
    }
    let daemon = Daemon::with_sources(dir.path(), &routes, &[]);
    assert_eq!(burst::accept_all(daemon.listen, &events, 10).await, sent);
    let fence = fence(&daemon, dir.path(), EVENTS).await;
    let all = [sent, vec![fence]].concat();
    let arrived = consume::read_queue(url, "duplicates-again", all.len()).await;
    assert!(daemon.stop().success());
    assert_ids(ids(&arrived, "cloudEvents_id"), all.clone());
    assert_ids(kept::logged(dir.path(), "all"), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_just_before_kill_nine_is_known_after_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let events = events(40);
    let mut sent = Vec::new();
    // Each round is killed as soon as its last answer is there: nothing of it may have been
    // published, and no cursor saved.
    for round in 0..4 {
        let daemon = Daemon::with_sources(dir.path(), LOGGED, &[]);
        let known = burst::accept_all(daemon.listen, &events[..10 * round], 10).await;
        assert_eq!(known, sent);
        sent.extend(
            burst::accept_all(daemon.listen, &events[10 * round..10 * round + 10], 10).await,
        );
        daemon.kill();
    }
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &[]);
    assert_eq!(burst::accept_all(daemon.listen, &events, 10).await, sent);
    let fence = fence(&daemon, dir.path(), events.len()).await;
    assert!(daemon.stop().success());
    let all = [sent, vec![fence]].concat();
    assert_ids(kept::appended(dir.path()), all.clone());
    // A crash may publish again what was under way, under the same id.
    let mut found = kept::logged(dir.path(), "all");
    found.sort();
    found.dedup();
    assert_ids(found, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_known_after_its_segment_was_deleted() {
    const EVENTS: usize = 60;
    let small = [("WAYPOST_JOURNAL__SEGMENT_BYTES", "8192")];
    let dir = tempfile::tempdir().expect("a directory");
    let events = events(EVENTS);
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &small);
    let first = segments(dir.path());
    let sent = burst::accept_all(daemon.listen, &events, 4).await;
    let is_gone = || first.iter().all(|name| !segments(dir.path()).contains(name));
    kept::eventually("the first segment is deleted", is_gone).await;
    assert!(sidecars(dir.path()) > 1, "the test needs several segments");
    // While it runs, after an orderly end, and after a crash.
    assert_eq!(burst::accept_all(daemon.listen, &events, 4).await, sent);
    assert!(daemon.stop().success());
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &small);
    assert_eq!(burst::accept_all(daemon.listen, &events, 4).await, sent);
    daemon.kill();
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &small);
    assert_eq!(burst::accept_all(daemon.listen, &events, 4).await, sent);
    let fence = fence(&daemon, dir.path(), EVENTS).await;
    assert!(daemon.stop().success());
    assert_ids(kept::logged(dir.path(), "all"), [sent, vec![fence]].concat());
}

fn files(dir: &Path, suffix: &str) -> Vec<String> {
    let files = fs::read_dir(dir.join("data/journal")).expect("the journal");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("a name"));
    names.filter(|name| name.ends_with(suffix)).collect()
}

fn segments(dir: &Path) -> Vec<String> {
    files(dir, ".seg")
}

/// How many segments there were before those that are there.
fn sidecars(dir: &Path) -> usize {
    files(dir, ".keys").len()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_miibo_requests_with_equal_bodies_are_two_events() {
    const TIMES: usize = 20;
    let bootstrap = Brokers::shared().kafka.bootstrap();
    consume::create_topic(bootstrap, "duplicates-miibo", 1, &[]).await;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(
        dir.path(),
        &format!(
            r#"
brokers: {{ stream: {{ type: kafka, bootstrap: "{bootstrap}" }} }}
routes:
  - name: all
    match: {{ source: miibo }}
    to: [{{ broker: stream, topic: duplicates-miibo }}]
"#
        ),
        &[],
    );
    let same = sender::miibo(r#"{"webhookType":"user_utterance","userId":"u1"}"#);
    let sent = burst::accept_all(daemon.listen, &vec![same.clone(); TIMES], TIMES).await;
    let arrived = consume::read_topic(bootstrap, "duplicates-miibo", TIMES).await;
    assert!(daemon.stop().success());
    assert!(arrived.iter().all(|message| message.body.as_deref() == Some(&same.body[..])));
    assert_ids(ids(&arrived, "ce_id"), sent.clone());
    let mut distinct = sent;
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), TIMES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_hangs_up_before_the_answer_and_comes_again_gets_one_event() {
    const EVENTS: usize = 60;
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &[]);
    let events = events(EVENTS);
    let mut sent = Vec::new();
    for (n, webhook) in events.iter().enumerate() {
        // With an orderly end, with a reset, and with another attempt right behind it.
        hang_up(daemon.listen, webhook, n % 2 == 0).await;
        if n % 3 == 0 {
            hang_up(daemon.listen, webhook, n % 2 == 1).await;
        }
        sent.extend(burst::accept_all(daemon.listen, std::slice::from_ref(webhook), 1).await);
    }
    let fence = fence(&daemon, dir.path(), EVENTS).await;
    assert!(daemon.stop().success());
    assert_ids(kept::logged(dir.path(), "all"), [sent, vec![fence]].concat());
}

/// Sends the whole request and does not wait for the answer.
async fn hang_up(address: SocketAddr, webhook: &Webhook, reset: bool) {
    let mut head = format!(
        "POST {} HTTP/1.1\r\nhost: waypost.test\r\ncontent-length: {}\r\n",
        webhook.path,
        webhook.body.len()
    );
    for (name, value) in &webhook.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let request = [head.as_bytes(), &webhook.body].concat();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    if reset {
        stream.set_zero_linger().expect("a socket option");
    }
    stream.write_all(&request).await.expect("to send");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_journal_refused_left_no_trace_and_is_taken_once_there_is_room() {
    // Nothing can be parked, so that the journal itself is full and stays so.
    refused_and_taken_later(("WAYPOST_JOURNAL__MAX_BYTES", "400000"), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_a_full_backlog_left_no_trace_and_is_taken_once_there_is_room() {
    refused_and_taken_later(("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES", "400000"), false).await;
}

/// Sends until there is no room, makes room, and sends what was refused again; more than once, since
/// room must come back as often as it runs out.
async fn refused_and_taken_later(bound: (&str, &str), nothing_is_parked: bool) {
    const ROUNDS: usize = 3;
    let dir = tempfile::tempdir().expect("a directory");
    let faults = Faults::new(dir.path(), &dir.path().join("data/parked"));
    let settings = &[&faults.settings()[..], &[bound]].concat()[..];
    let blocked = dir.path().join("blocked");
    let logs = blocked.join("log");
    let routes = LOGGED.replace("type: log", &format!("type: log, dir: {logs:?}"));
    let mut next = 0;
    for _ in 0..ROUNDS {
        // A file where the broker wants a directory: it is down until the file is gone.
        fs::write(&blocked, "in the way").expect("a file");
        let daemon = Daemon::with_sources(dir.path(), &routes, settings);
        if nothing_is_parked {
            faults.arm(Fault::Full);
        }
        let (mut accepted, refused) = send_until_refused(&daemon, &mut next).await;
        // Refused again, by one and by many at once: who waits for another's attempt learns its end.
        for answer in burst::post_all(daemon.listen, &vec![refused[0].clone(); 30], 30).await {
            assert_refused(&answer);
        }
        // What was accepted is known all the same.
        for (webhook, id) in &accepted[..10] {
            let answer = sender::post(daemon.listen, webhook).await.expect("an answer");
            assert_eq!(answer.event_id.as_deref(), Some(&**id), "{answer:?}");
        }

        if nothing_is_parked {
            faults.disarm(Fault::Full);
        }
        fs::remove_file(&blocked).expect("to make room");
        for webhook in refused {
            // Room comes a little later; a refusal until then is one more that leaves no trace.
            let id = accept_in_the_end(&daemon, &webhook).await;
            accepted.push((webhook, id));
        }
        let logged = || kept::logged_in(&logs, "all");
        kept::eventually("everything", || logged().len() >= accepted.len()).await;
        assert!(daemon.stop().success());

        let daemon = Daemon::with_sources(dir.path(), &routes, settings);
        for (webhook, id) in &accepted {
            assert_eq!(accept_in_the_end(&daemon, webhook).await, *id);
        }
        assert!(daemon.stop().success());
        assert_ids(logged(), accepted.into_iter().map(|(_, id)| id).collect());
        fs::remove_dir_all(&blocked).expect("to begin again");
    }
}

/// Sends events from the `next` on until a good number was refused: those accepted with their ids,
/// and those refused.
async fn send_until_refused(
    daemon: &Daemon,
    next: &mut usize,
) -> (Vec<(Webhook, String)>, Vec<Webhook>) {
    const REFUSED: usize = 40;
    const MOST: usize = 20_000;
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    let last = *next + MOST;
    while refused.len() < REFUSED {
        assert!(*next < last, "{} accepted, {} refused", accepted.len(), refused.len());
        let some: Vec<Webhook> = (*next..*next + 20).map(event).collect();
        *next += some.len();
        let answers = burst::post_all(daemon.listen, &some, 4).await;
        for (webhook, answer) in some.into_iter().zip(answers) {
            if answer.status == 200 {
                accepted.push((webhook, answer.event_id.expect("an id")));
            } else {
                assert_refused(&answer);
                refused.push(webhook);
            }
        }
        // A backlog is looked at now and then: not so fast that it is far beyond its bound by then.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (accepted, refused)
}

#[track_caller]
fn assert_refused(answer: &Answer) {
    assert_eq!(answer.status, 503, "{answer:?}");
    let seconds = answer.retry_after.as_deref().expect("when to come again");
    assert!(seconds.parse::<u32>().is_ok_and(|seconds| seconds > 0), "{seconds}");
    assert_eq!(answer.event_id, None);
}

/// Sends again until it is accepted, as a provider does.
async fn accept_in_the_end(daemon: &Daemon, webhook: &Webhook) -> String {
    for _ in 0..600 {
        let answer = sender::post(daemon.listen, webhook).await.expect("an answer");
        if answer.status == 200 {
            return answer.event_id.expect("an id");
        }
        assert_refused(&answer);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("there is no room for {webhook:?}");
}

/// Sonzai's request for an event that says so much, signed this long ago.
fn signed(seconds_ago: u64, event_type: &str, body: &str) -> Webhook {
    sender::sonzai_at(event_type, body.to_owned(), sender::now_s() - seconds_ago)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_signed_anew_is_one_event_where_its_body_carries_an_id() {
    const BODIES: [&str; 3] = [
        r#"{"wakeup":{"wakeup_id":"w1","agent_id":"a1"},"generated_message":"Hi"}"#,
        r#"{"data":{"message_id":7}}"#,
        r#"{"notification_id":"n1"}"#,
    ];
    let all = |seconds_ago| BODIES.map(|body| signed(seconds_ago, "on_wakeup_ready", body));
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &[]);
    let sent = burst::accept_all(daemon.listen, &all(200), 3).await;
    burst::accept_all(daemon.listen, &all(100), 3).await;
    assert!(daemon.stop().success());
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &[]);
    burst::accept_all(daemon.listen, &all(0), 3).await;
    let retries = vec![signed(50, "on_wakeup_ready", BODIES[0]); 20];
    burst::accept_all(daemon.listen, &retries, 20).await;
    // Of another type it is another event, and so is what differs.
    let others = [
        signed(0, "agent.message", BODIES[0]),
        signed(0, "on_wakeup_ready", &BODIES[0].replace("Hi", "Ho")),
    ];
    let others = burst::accept_all(daemon.listen, &others, 2).await;
    let fence = fence(&daemon, dir.path(), 1).await;
    assert!(daemon.stop().success());
    assert_ids(kept::logged(dir.path(), "all"), [sent, others, vec![fence]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_equal_body_without_an_id_that_is_signed_anew_is_another_event() {
    let body = r#"{"event_type":"on_recurring_event_due","agent_id":"a1"}"#;
    let at = |seconds_ago| vec![signed(seconds_ago, "on_recurring_event_due", body); 5];
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &[]);
    let (earlier, later) = (at(100), at(0));
    let mut sent = burst::accept_all(daemon.listen, &earlier, 5).await;
    sent.extend(burst::accept_all(daemon.listen, &later, 5).await);
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), 2, "{sent:?}");
    let fence = fence(&daemon, dir.path(), 1).await;
    assert!(daemon.stop().success());
    assert_ids(kept::logged(dir.path(), "all"), [sent, vec![fence]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_bound_the_window_forgets_the_oldest() {
    // Each event has two keys: of its id and of its body.
    let bound = [("WAYPOST_DEDUPE__MAX_KEYS", "8")];
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::with_sources(dir.path(), LOGGED, &bound);
    let events = events(6);
    let sent = burst::accept_all(daemon.listen, &events, 1).await;
    burst::accept_all(daemon.listen, &events[2..], 1).await;
    // The first was forgotten, and is now the newest.
    burst::accept_all(daemon.listen, &events[..1], 1).await;
    burst::accept_all(daemon.listen, &events[..1], 1).await;
    kept::wait_for_logged(dir.path(), "all", 7).await;
    assert!(daemon.stop().success());

    let daemon = Daemon::with_sources(dir.path(), LOGGED, &bound);
    burst::accept_all(daemon.listen, &events[3..], 1).await;
    burst::accept_all(daemon.listen, &events[..1], 1).await;
    burst::accept_all(daemon.listen, &events[1..2], 1).await;
    kept::wait_for_logged(dir.path(), "all", 8).await;
    assert!(daemon.stop().success());
    let twice = sent[..2].to_vec();
    assert_ids(kept::logged(dir.path(), "all"), [sent, twice].concat());
}
