//! A routing table that changes all the time under load: nobody is refused, nothing is lost, nothing
//! comes twice for it, and nothing piles up.
//!
//! Every table that is valid sends each event to Kafka (behind settings that keep changing), to the
//! `log` broker, and to exactly one of three names: RabbitMQ, the same RabbitMQ renamed, and NATS. So
//! whichever table took an event, it is owed once to each of the three places.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{hash, replace};
use crate::common::{
    consume::{self, Until},
    daemon::{self, Daemon},
    operator::{Scrape, ask, await_metrics},
    proxy::{Proxy, Sickness},
    scene::eventually,
    sender::Load,
    sinks::{self, Addresses, Sink, Sinks, TO_ALL},
    variable::number,
};

/// Reloads by default; `WAYPOST_RELOADS` raises it.
const RELOADS: u64 = 200;

/// Once so many are through, what the daemon holds is noted; it must be the same at the end.
const WARM: u64 = 80;

/// One in so many files is broken.
const BROKEN_EVERY: u64 = 5;

const CONNECTIONS: usize = 6;
const PADDING_BYTES: usize = 300;

/// After each answer, so that the brokers keep up.
const PAUSE: Duration = Duration::from_millis(4);

/// Events accepted at least between two reloads.
const EVENTS_A_TABLE: usize = 4;

/// What may lie between two looks at a process that keeps nothing: caches of allocators and clients.
const SLACK_BYTES: u64 = 32 << 20;

const NAME: &str = "reload-load";

/// What is kept in memory to be read soon would fill up meanwhile.
const SETTINGS: [(&str, &str); 2] =
    [("WAYPOST_JOURNAL__TAIL_BYTES", "1048576"), ("WAYPOST_JOURNAL__SEGMENT_BYTES", "1048576")];

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_changes_under_load_refuses_loses_and_doubles_nothing() {
    let reloads = number("WAYPOST_RELOADS", RELOADS);
    let dir = tempfile::tempdir().expect("a directory");
    let addresses = Addresses::shared();
    let sinks = Sinks::create(NAME, addresses.clone(), dir.path()).await;
    // One broker lags behind all the time, so that there is something left whenever it goes.
    let lag =
        Proxy::start(0, host_and_port(&addresses.rabbitmq).parse().expect("an address")).await;
    lag.sicken(Sickness::Delay(Duration::from_millis(40)));
    let tables = Tables { addresses, lagging: lag.address().to_string() };
    fs::write(dir.path().join("previous"), "an-older-secret-0\n").expect("a secret");

    let daemon = Daemon::start(dir.path(), &tables.valid(0), &SETTINGS);
    let door = listener(daemon.listen);
    let load = Load::start_paced(CONNECTIONS, Arc::new(Mutex::new(daemon.listen)), PAUSE, |n| {
        sinks::event(TO_ALL, &format!("agent-{}", n % CONNECTIONS as u64), n, PADDING_BYTES)
    });

    let mut warm = None;
    for n in 1..=reloads {
        load.accept_more(EVENTS_A_TABLE).await;
        if n.is_multiple_of(BROKEN_EVERY) {
            break_it(&daemon, dir.path(), &tables.broken(n));
        } else {
            fs::write(dir.path().join("previous"), format!("an-older-secret-{n}\n"))
                .expect("a secret");
            change(&daemon, dir.path(), &tables.valid(n), n.is_multiple_of(2));
        }
        if n.is_multiple_of(100) {
            println!("after {n} reloads: {:?}", Holds::of(&daemon));
        }
        if n == WARM {
            back_to_the_first(&daemon, dir.path(), &tables, "warm").await;
            warm = Some(settled(&daemon).await);
        }
    }
    back_to_the_first(&daemon, dir.path(), &tables, "at the end").await;
    if let Some(warm) = warm {
        let like_before = || Holds::of(&daemon).is_like(&warm);
        eventually("it holds no more than when it was warm", like_before).await;
    }
    let holds = Holds::of(&daemon);
    assert_eq!((load.refused(), load.unanswered()), (0, 0), "refused, or without an answer");
    assert_eq!(listener(daemon.listen), door, "the listener is another");
    let accepted = load.stop().await;
    println!("{reloads} reloads, {} accepted; {warm:?} became {holds:?}", accepted.len());

    for sink in [Sink::Kafka, Sink::Log] {
        let arrived = sinks.read_all(sink, &accepted).await;
        assert_eq!(sinks::assert_complete(sink, &accepted, &arrived), 0, "{sink:?}: came twice");
    }
    assert_each_once(&tables.addresses, &accepted).await;
    assert!(daemon.stop().success());
    assert_eq!(daemon::command(dir.path(), &["dead-letters", "list"]).1, "no dead letters\n");
}

/// Puts a good table in place and waits until it is in force.
fn change(daemon: &Daemon, dir: &Path, table: &str, asks: bool) {
    replace(&dir.join("routes.yaml"), table);
    if asks {
        ask_for_it(daemon);
    }
    let in_force = format!("waypost_config_info{{hash=\"{}\"}}", hash(table));
    await_metrics(daemon, "the new table", |scrape| {
        scrape.series.contains_key(&in_force)
            && scrape.get("waypost_config_last_reload_successful") == 1.0
    });
}

/// Puts a broken table in place and waits until it is refused; the old one stays in force.
fn break_it(daemon: &Daemon, dir: &Path, table: &str) {
    let before = in_force(&Scrape::of(daemon));
    replace(&dir.join("routes.yaml"), table);
    let after = await_metrics(daemon, "the refusal", |scrape| {
        scrape.get("waypost_config_last_reload_successful") == 0.0
    });
    assert_eq!(in_force(&after), before, "a broken table changed something");
}

fn in_force(scrape: &Scrape) -> Vec<String> {
    scrape.nonzero("waypost_config_info").into_iter().map(|(name, _)| name.to_owned()).collect()
}

/// Asks for it, as `waypost reload` does.
fn ask_for_it(daemon: &Daemon) {
    let token = fs::read_to_string(daemon.data_dir().join("admin.token")).expect("the token");
    let authorization = format!("authorization: Bearer {}", token.trim());
    let answer = ask(daemon, "POST", "/-/reload", &[&authorization]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The tables that come one after the other.
struct Tables {
    addresses: Addresses,
    /// `host:port` of the way to RabbitMQ that lags.
    lagging: String,
}

impl Tables {
    /// Differs from its neighbours in its secrets, brokers and routes.
    fn valid(&self, n: u64) -> String {
        let Addresses { kafka, rabbitmq, nats } = &self.addresses;
        let kafka = match n / 3 % 2 {
            0 => kafka.clone(),
            _ => kafka.replace("127.0.0.1", "localhost"),
        };
        let lagging = through(rabbitmq, &self.lagging);
        let previous = "${file:previous}";
        let secrets = match n % 3 {
            0 => "\"${SONZAI_SECRET}\"".to_owned(),
            1 => format!("[\"{previous}\", \"${{SONZAI_SECRET}}\"]"),
            _ => format!("[\"${{SONZAI_SECRET}}\", \"{previous}\", unused-literal-secret-{n}]"),
        };
        let tasks =
            format!("  tasks: {{ type: rabbitmq, url: \"{lagging}\", drain: {{ for: 120s }} }}\n");
        let renamed =
            format!("  jobs: {{ type: rabbitmq, url: \"{rabbitmq}\", drain: {{ for: 120s }} }}\n");
        let live = format!("  live: {{ type: nats, url: \"{nats}\", drain: {{ for: 120s }} }}\n");
        let exchange = |broker| {
            format!("{{ broker: {broker}, exchange: {NAME}, routing_key: \"{{subject}}\" }}")
        };
        let subject = format!("{{ broker: live, subject: \"{NAME}.{{subject}}\" }}");
        // Moved from the lagging one to a fast one, renamed, removed, brought back.
        let (brokers, moving) = match n / 2 % 4 {
            0 => (tasks.clone(), exchange("tasks")),
            1 => (format!("{tasks}{live}"), subject),
            2 => (renamed, exchange("jobs")),
            _ => (live, subject),
        };
        let more: String = (0..n % 7)
            .map(|i| {
                format!(
                    "  - {{ name: more {i}, match: {{ type: never.{i} }}, \
                     to: [{{ broker: local, topic: more-{i} }}] }}\n"
                )
            })
            .collect();
        format!(
            r#"# table {n}
sources:
  sonzai: {{ type: sonzai, path: "/hooks/sonzai/{{type}}", secrets: {{ "*": {secrets} }} }}
brokers:
  stream: {{ type: kafka, bootstrap: "{kafka}" }}
  local: {{ type: log }}
{brokers}routes:
  - name: everywhere
    match: {{ type: "**" }}
    to:
      - {{ broker: stream, topic: {NAME}, key: "{{subject}}" }}
      - {{ broker: local, topic: {NAME} }}
  - name: moving
    match: {{ source: sonzai, type: "agent.*" }}
    to: [{moving}]
{more}"#
        )
    }

    /// A file with a mistake: each kind in its turn.
    fn broken(&self, n: u64) -> String {
        let good = self.valid(n);
        match n / BROKEN_EVERY % 6 {
            0 => String::new(),
            1 => good.replace("broker: local", "broker: lokal"),
            2 => good.replace("${SONZAI_SECRET}", "${A_VARIABLE_THAT_NOBODY_SET}"),
            3 => good[..good.find("routes:").expect("routes")].to_owned(),
            4 => good.replace("match:", "mach:"),
            _ => good.replace("type: kafka,", "type: kafka"),
        }
    }
}

/// The same URL by another way.
fn through(url: &str, way: &str) -> String {
    url.replace(host_and_port(url), way)
}

fn host_and_port(url: &str) -> &str {
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    let url = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
    url.split_once('/').map_or(url, |(host_and_port, _)| host_and_port)
}

/// The kernel's number of the socket that listens there.
fn listener(address: SocketAddr) -> String {
    const LISTENS: &str = "0A";
    let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets");
    let port = format!(":{:04X}", address.port());
    let of_port = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut of_port = of_port.filter(|fields| fields[1].ends_with(&port) && fields[3] == LISTENS);
    of_port.next().expect("a listener")[9].to_owned()
}

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Holds {
    memory_bytes: u64,
    threads: usize,
    descriptors: usize,
}

impl Holds {
    fn of(daemon: &Daemon) -> Holds {
        let count = |what: &str| {
            fs::read_dir(format!("/proc/{}/{what}", daemon.pid())).expect("the process").count()
        };
        Holds {
            memory_bytes: daemon.memory_bytes(),
            threads: count("task"),
            descriptors: count("fd"),
        }
    }

    /// Whether it is no more than before. A look may fall on a request, on a file that is being
    /// saved, or on a thread of the runtime.
    fn is_like(&self, before: &Holds) -> bool {
        self.memory_bytes <= before.memory_bytes + SLACK_BYTES
            && self.threads <= before.threads + 4
            && self.descriptors <= before.descriptors + 8
    }
}

/// Puts the first table in force again, and waits until what was removed is gone.
async fn back_to_the_first(daemon: &Daemon, dir: &Path, tables: &Tables, time: &str) {
    change(daemon, dir, &format!("{}# {time}\n", tables.valid(0)), true);
    eventually("the brokers that were removed are gone", || {
        let scrape = Scrape::of(daemon);
        let of = |broker: &str| scrape.series.keys().any(|name| name.contains(broker));
        !of("broker=\"jobs\"") && !of("broker=\"live\"")
    })
    .await;
}

/// What it holds once nothing ends any more: clients that were dropped do so in their own time.
async fn settled(daemon: &Daemon) -> Holds {
    const SAME: usize = 25;
    let (mut last, mut same) = (Holds::of(daemon), 0);
    eventually("nothing ends any more", || {
        let now = Holds::of(daemon);
        let unchanged = now.threads == last.threads && now.descriptors == last.descriptors;
        same = if unchanged { same + 1 } else { 0 };
        last = now;
        same == SAME
    })
    .await;
    last
}

/// Each event came once to RabbitMQ or to NATS, and to no other beside it.
async fn assert_each_once(addresses: &Addresses, accepted: &[String]) {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for attempt in 0.. {
        times.clear();
        let queue = consume::read_queue(&addresses.rabbitmq, NAME, Until::Quiet(1)).await;
        let stream = consume::read_stream(&addresses.nats, NAME, Until::Quiet(1)).await;
        for message in queue.iter().chain(&stream) {
            *times.entry(message.event_id().expect("an id").to_owned()).or_default() += 1;
        }
        let missing = accepted.iter().filter(|id| !times.contains_key(*id)).count();
        if missing == 0 {
            break;
        }
        assert!(attempt < 60, "{missing} of {} events are missing", accepted.len());
    }
    let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert_eq!(twice, Vec::<(&String, &usize)>::new(), "came more than once");
    assert!(times.len() >= accepted.len());
}
