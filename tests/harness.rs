//! What the other tests rely on: brokers that really die and come back, and leave nothing behind.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::common::{
    brokers::{Kafka, Nats, RabbitMq, Server},
    consume::{self, Consumed},
    faults::{self, Fault, Faults},
    shared::Brokers,
};
use async_nats::jetstream;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties, options};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use rustix::process::{Pid, Signal, kill_process};

const BODY: &[u8] = b"{\"data\": 1}";
const JSON: &str = "application/json";

/// How long a sync that must not return is watched.
const HANGS_FOR: Duration = Duration::from_millis(300);

/// How long a client waits for one answer before a test says that none came.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A program that copies in blocks of 4 KiB and syncs, on a disk that fails.
fn copy(faults: &Faults, from: &Path, to: &Path) -> Child {
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", from.display())).arg(format!("of={}", to.display()));
    dd.args(["bs=4096", "conv=fdatasync"]).envs(faults.settings()).env(faults::READS.0, "1");
    dd.stderr(Stdio::null()).spawn().expect("to run dd")
}

#[test]
fn a_range_of_a_file_cannot_be_read_for_a_while() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).expect("to create a directory");
    let faults = Faults::new(dir.path(), &disk);
    let (from, to) = (disk.join("from"), disk.join("to"));
    fs::write(&from, vec![7; 20_000]).expect("to write a file");
    let copies = || copy(&faults, &from, &to).wait().expect("its end").success();

    faults.make_unreadable(&[("nothing", 0..99_999), ("/from", 40_000..99_999)]);
    assert!(copies());
    faults.make_unreadable(&[("nothing", 0..99_999), ("/from", 8191..8192)]);
    assert!(!copies());
    assert_eq!(fs::read(&to).expect("a part").len(), 4096);
    faults.make_readable();
    assert!(copies());
    assert_eq!(fs::read(&to).expect("all"), fs::read(&from).expect("all"));
}

#[test]
fn a_sync_that_hangs_ends_with_the_fault_or_with_a_signal() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).expect("to create a directory");
    let faults = Faults::new(dir.path(), &disk);
    let (from, to) = (disk.join("from"), disk.join("to"));
    fs::write(&from, "some").expect("to write a file");
    faults.arm(Fault::Hang);
    let hung = || {
        let mut copying = copy(&faults, &from, &to);
        std::thread::sleep(HANGS_FOR);
        assert_eq!(copying.try_wait().expect("its status"), None);
        copying
    };
    let (mut goes_on, mut told) = (hung(), hung());
    kill_process(Pid::from_child(&told), Signal::TERM).expect("to signal it");
    assert_eq!(told.wait().expect("its end").signal(), Some(15));
    faults.disarm(Fault::Hang);
    assert!(goes_on.wait().expect("its end").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_kafka_comes_back_with_its_messages() {
    let mut kafka = Kafka::start();
    consume::create_topic(kafka.bootstrap(), "kept", 1, &[("cleanup.policy", "compact")]).await;
    to_kafka(kafka.bootstrap(), "kept", Some(BODY)).await;
    to_kafka(kafka.bootstrap(), "kept", None).await;
    let before = consume::read_topic(kafka.bootstrap(), "kept", 2).await;
    assert_eq!(before.len(), 2, "{before:?}");
    assert_sent(&before[0], "kept");
    assert_eq!(before[0].key.as_deref(), Some(&b"agent"[..]));
    assert_eq!(before[1].body, None, "null is told apart from empty");

    kafka.kill();
    assert_eq!(answers_on(kafka.bootstrap()), Answer::Refused);
    kafka.restart();
    assert_eq!(consume::read_topic(kafka.bootstrap(), "kept", 2).await, before);
    to_kafka(kafka.bootstrap(), "kept", Some(BODY)).await;
    assert_eq!(consume::read_topic(kafka.bootstrap(), "kept", 3).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rabbitmq_comes_back_with_its_messages() {
    let mut rabbitmq = RabbitMq::start();
    for kind in ["classic", "quorum"] {
        let mut arguments = lapin::types::FieldTable::default();
        arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString(kind.into()));
        consume::declare_queue(rabbitmq.url(), "agents", kind, "message.*", arguments).await;
    }
    to_rabbitmq(rabbitmq.url(), "agents", "message.1").await;
    for kind in ["classic", "quorum"] {
        let before = consume::read_queue(rabbitmq.url(), kind, 1).await;
        assert_eq!(before.len(), 1, "{before:?}");
        assert_sent(&before[0], "agents/message.1");
        assert_eq!(before[0].properties.delivery_mode(), &Some(2));
    }

    rabbitmq.kill();
    rabbitmq.restart();
    for kind in ["classic", "quorum"] {
        let after = consume::read_queue(rabbitmq.url(), kind, 1).await;
        assert_eq!(after.len(), 1, "{after:?}");
        assert_sent(&after[0], "agents/message.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_comes_back_with_its_messages() {
    let mut nats = Nats::start();
    consume::create_stream(nats.url(), stream("kept", "agents.>")).await;
    to_nats(nats.url(), "agents.1.mood").await;
    let before = consume::read_stream(nats.url(), "kept", 1).await;
    assert_eq!(before.len(), 1, "{before:?}");
    assert_sent(&before[0], "agents.1.mood");

    nats.kill();
    nats.restart();
    assert_eq!(consume::read_stream(nats.url(), "kept", 1).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_stopped_in_order_comes_back_with_its_messages() {
    let (mut kafka, mut rabbitmq) = (Kafka::start(), RabbitMq::start());
    let no_arguments = Default::default();
    consume::create_topic(kafka.bootstrap(), "kept", 1, &[]).await;
    consume::declare_queue(rabbitmq.url(), "agents", "kept", "#", no_arguments).await;
    to_kafka(kafka.bootstrap(), "kept", Some(BODY)).await;
    to_rabbitmq(rabbitmq.url(), "agents", "message.1").await;

    for server in [&mut kafka as &mut Server, &mut rabbitmq] {
        server.stop();
        server.restart();
    }
    assert_eq!(consume::read_topic(kafka.bootstrap(), "kept", 1).await.len(), 1);
    assert_eq!(consume::read_queue(rabbitmq.url(), "kept", 1).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_broker_accepts_connections_and_says_nothing() {
    let mut nats = Nats::start();
    let address = nats.url().trim_start_matches("nats://").to_owned();
    assert_eq!(answers_on(&address), Answer::Bytes);
    nats.pause();
    assert_eq!(answers_on(&address), Answer::Silent);
    nats.resume();
    assert_eq!(answers_on(&address), Answer::Bytes);
}

#[test]
fn a_broker_that_does_not_start_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let error = Nats::start_on(port).err().expect("no second listener on one port");
    assert!(error.contains("address already in use"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_brokers_serve_one_test() {
    share_them("one").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shared_brokers_serve_another_test_and_its_runtime() {
    share_them("another").await;
}

async fn share_them(name: &str) {
    let brokers = Brokers::shared();
    let (kafka, rabbitmq, nats) =
        (brokers.kafka.bootstrap(), brokers.rabbitmq.url(), brokers.nats.url());
    consume::create_topic(kafka, name, 1, &[]).await;
    consume::declare_queue(rabbitmq, name, name, "#", Default::default()).await;
    consume::create_stream(nats, stream(name, name)).await;
    to_kafka(kafka, name, Some(BODY)).await;
    to_rabbitmq(rabbitmq, name, name).await;
    to_nats(nats, name).await;
    assert_eq!(consume::read_topic(kafka, name, 1).await.len(), 1);
    assert_eq!(consume::read_queue(rabbitmq, name, 1).await.len(), 1);
    assert_eq!(consume::read_stream(nats, name, 1).await.len(), 1);
}

/// Runs itself as the process that is killed: only a process of its own can be.
#[test]
fn brokers_end_with_the_process_that_started_them_even_when_it_is_killed() {
    const CHILD: &str = "WAYPOST_TEST_HOLDS_BROKERS";
    if std::env::var_os(CHILD).is_some() {
        let brokers = Brokers::shared();
        println!("\nkafka {}", brokers.kafka.bootstrap());
        println!("rabbitmq {}", address(brokers.rabbitmq.url()));
        println!("nats {}", address(brokers.nats.url()));
        loop {
            std::thread::park();
        }
    }
    let name = "brokers_end_with_the_process_that_started_them_even_when_it_is_killed";
    let module = module_path!().split_once("::").map_or("", |(_, module)| module);
    let test = format!("{module}::{name}");
    let left_behind = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test.trim_start_matches(':'), "--nocapture"])
        .env(CHILD, "1")
        .env("TMPDIR", left_behind.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let addresses: Vec<String> = lines
        .map(|line| line.expect("a line"))
        .filter_map(|line| Some(line.split_once(" 127.0.0.1:")?.1.to_owned()))
        .map(|port| format!("127.0.0.1:{port}"))
        .take(3)
        .collect();
    assert_eq!(addresses.len(), 3, "the child started its brokers");
    child.kill().expect("to kill the child");
    child.wait().expect("its end");

    for address in &addresses {
        eventually(|| answers_on(address) == Answer::Refused, address);
    }
    let is_empty = || left_behind.path().read_dir().expect("the directory").next().is_none();
    eventually(is_empty, "the brokers' directories");
}

fn assert_sent(message: &Consumed, address: &str) {
    assert_eq!(message.address, address);
    assert_eq!(message.body.as_deref(), Some(BODY));
    assert_eq!(message.content_type.as_deref(), Some(JSON));
    assert_eq!(message.header("ce-id"), Some("1"));
}

async fn to_kafka(bootstrap: &str, topic: &str, body: Option<&[u8]>) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .create()
        .expect("a producer");
    let headers = OwnedHeaders::new()
        .insert(Header { key: "ce-id", value: Some("1") })
        .insert(Header { key: "content-type", value: Some(JSON) });
    let mut record = FutureRecord::to(topic).key("agent").headers(headers);
    record.payload = body;
    producer.send(record, ANSWER_WITHIN).await.expect("kafka's confirmation");
}

async fn to_rabbitmq(url: &str, exchange: &str, routing_key: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("a connection to rabbitmq");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(Default::default()).await.expect("confirms");
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("ce-id".into(), lapin::types::AMQPValue::LongString("1".into()));
    let properties = BasicProperties::default()
        .with_content_type(JSON.into())
        .with_delivery_mode(2)
        .with_headers(headers);
    let mandatory = options::BasicPublishOptions { mandatory: true, ..Default::default() };
    let confirmation = channel
        .basic_publish(exchange.into(), routing_key.into(), mandatory, BODY, properties)
        .await
        .expect("to publish")
        .await
        .expect("rabbitmq's answer");
    assert_eq!(confirmation, Confirmation::Ack(None));
}

async fn to_nats(url: &str, subject: &str) {
    let client = async_nats::connect(url).await.expect("a connection to nats");
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("ce-id", "1");
    headers.insert("content-type", JSON);
    let jetstream = jetstream::new(client);
    let sent = jetstream.publish_with_headers(subject.to_owned(), headers, BODY.into()).await;
    sent.expect("to publish").await.expect("nats' acknowledgement");
}

fn stream(name: &str, subject: &str) -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        ..Default::default()
    }
}

/// `HOST:PORT` of a URL.
fn address(url: &str) -> &str {
    let after = url.rsplit_once('@').or(url.split_once("://")).map_or(url, |(_, rest)| rest);
    after.split('/').next().unwrap_or(after)
}

#[derive(Debug, PartialEq)]
enum Answer {
    Bytes,
    Silent,
    Refused,
}

/// What a peer that says a line of nonsense gets from this address.
fn answers_on(address: &str) -> Answer {
    let Ok(mut stream) = TcpStream::connect(address) else { return Answer::Refused };
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    stream.write_all(b"\r\n").expect("to write");
    match stream.read_exact(&mut [0]) {
        Ok(()) => Answer::Bytes,
        Err(_) => Answer::Silent,
    }
}

fn eventually(done: impl Fn() -> bool, what: &str) {
    let started = std::time::Instant::now();
    while !done() {
        assert!(started.elapsed() < ANSWER_WITHIN, "{what} is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
}
