//! A command that was sent schedules its wakeup, once, whatever happens meanwhile to the API or to us;
//! or it is a dead letter with the reason.

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use waypost::{
    commands, dedupe,
    dispatch::dead_letter::DeadLetters,
    journal::{self, Journal, Reserve},
    routing,
    sonzai::{
        client,
        stub::{Options, Stub, faults::Rule},
    },
};

use self::place::{Kind, Place, Sent};
use crate::common::{
    brokers::{Kafka, Nats, RabbitMq, Server},
    daemon::{self, Daemon},
    kept::{dead_letters, eventually},
    openapi,
    operator::{Scrape, json},
    sim_disk::SimDisk,
    sinks::Addresses,
};

mod place;

const KEY: &str = "sk_stub";

/// A broker's place for commands, a stand-in for the API, and a directory for daemons.
struct Scene {
    place: Place,
    stub: Stub,
    dir: TempDir,
}

impl Scene {
    async fn open(kind: Kind, name: &str) -> Scene {
        let place = Place::shared(kind, name);
        place.make().await;
        Scene::around(place).await
    }

    async fn around(place: Place) -> Scene {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let options = Options { listen, wakeups: 0, notifications: 0, ..Options::default() };
        let stub = Stub::start(options).await.expect("a stand-in");
        Scene { place, stub, dir: tempfile::tempdir().expect("a directory") }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn routes(&self) -> String {
        format!(
            r#"
sources:
  sonzai:
    type: sonzai
    path: "/hooks/sonzai/{{type}}"
    secrets: {{ "*": "${{SONZAI_SECRET}}" }}
    api: {{ url: "{}", key: {KEY} }}
routes:
  - name: all
    match: {{ type: "**" }}
    to: [{{ broker: local, topic: all }}]
{}"#,
            self.stub.url(),
            self.place.routes()
        )
    }

    fn start(&self) -> Daemon {
        // A time within which no call of these tests ends by itself is not waited for.
        let settings = [("WAYPOST_SHUTDOWN__DEADLINE", "2s")];
        Daemon::start(self.dir(), &self.routes(), &settings)
    }

    /// Writes the routing table with a change that changes nothing, and has it put in force.
    fn touch(&self, what: &str) {
        fs::write(self.dir().join("routes.yaml"), format!("# {what}\n{}", self.routes()))
            .expect("to write routes.yaml");
        let (status, output) = daemon::command(self.dir(), &["reload"]);
        assert!(status.success(), "{output}");
    }

    fn fault(&self, rule: serde_json::Value) {
        let rule: Rule = serde_json::from_value(rule).expect("a fault");
        assert!(self.stub.fault(rule));
    }

    /// The intents of all wakeups, in the order in which they were scheduled.
    fn scheduled(&self) -> Vec<String> {
        let state = self.stub.state();
        let wakeups = state["wakeups"].as_array().expect("wakeups");
        let intent = |wakeup: &serde_json::Value| wakeup["intent"].as_str().unwrap().to_owned();
        wakeups.iter().rev().map(intent).collect()
    }

    /// The requests that asked for a wakeup, each with its status (none yet: still under way).
    fn asked(&self) -> Vec<Option<u64>> {
        let requests = self.stub.requests();
        let requests = requests["requests"].as_array().expect("requests");
        let posts = requests.iter().filter(|request| request["method"] == "POST");
        posts.map(|request| request["status"].as_u64()).collect()
    }

    async fn await_scheduled(&self, intents: &[&str]) {
        let what = format!("{:?}: {intents:?} are scheduled", self.place.kind);
        eventually(&what, || self.scheduled().len() >= intents.len()).await;
        assert_eq!(self.scheduled(), intents, "{:?}", self.place.kind);
    }

    async fn await_log(&self, daemon: &Daemon, words: &str) {
        let what = format!("{:?}: the log says {words:?}", self.place.kind);
        eventually(&what, || daemon.log().contains(words)).await;
    }

    /// Nothing waits at the broker once the daemon has ended.
    async fn assert_all_acknowledged(&self, daemon: Daemon) {
        assert!(daemon.stop().success());
        assert_eq!(self.place.left().await, 0, "{:?}", self.place.kind);
        openapi::assert_allows(&self.stub.requests());
    }
}

/// A command in binary mode; its intent is its id.
fn command(id: &str) -> Sent {
    let data = json!({
        "agent_id": "agent-1", "user_id": "u1", "check_type": "birthday", "intent": id,
        "scheduled_at": "2036-01-02T03:04:05Z",
    });
    binary(id, "wakeup.schedule", &data.to_string())
}

fn binary(id: &str, kind: &str, body: &str) -> Sent {
    let attributes = [("specversion", "1.0"), ("id", id), ("source", "/tests"), ("type", kind)];
    let attributes = attributes.map(|(name, value)| (name, value.to_owned())).into();
    Sent { attributes, body: body.to_owned() }
}

/// Does the same with every broker, at the same time.
async fn each<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    test: impl Fn(Scene) -> F + Copy + Send + Sync + 'static,
) {
    let all = Kind::ALL
        .map(|kind| tokio::spawn(async move { test(Scene::open(kind, name).await).await }));
    for outcome in join_all(all).await {
        if let Err(panicked) = outcome {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_schedules_once_in_order_however_often_it_comes() {
    each("once", async |scene| {
        let daemon = scene.start();
        let of = ["c0", "c1", "c0", "c2", "c1"].map(command);
        scene.place.send(&of).await;
        let mut older = command("older");
        let data = json!({
            "agentId": "Luna 1", "userId": "u", "scheduledAt": "2036-01-02T03:04:05Z",
            "context": "older",
        });
        older.body = data.to_string();
        let structured = Sent {
            attributes: Default::default(),
            body: json!({
                "specversion": "1.0", "id": "doc", "source": "/tests", "type": "wakeup.schedule",
                "data": {
                    "agent_id": "agent-2", "user_id": "u", "check_type": "c", "intent": "doc",
                    "delay_hours": 3,
                },
            })
            .to_string(),
        };
        scene.place.send(&[older, structured]).await;
        scene.await_scheduled(&["c0", "c1", "c2", "older", "doc"]).await;
        let (taken, done) =
            (r#"waypost_commands_taken_total{command="wakeups"}"#, |outcome: &str| {
                format!(r#"waypost_commands_total{{command="wakeups",outcome="{outcome}"}}"#)
            });
        eventually("all are done", || Scrape::of(&daemon).get(&done("scheduled")) == 5.0).await;
        Scrape::of(&daemon).assert(&[
            (taken, 7.0),
            (&done("duplicate"), 2.0),
            (&done("dead_letter"), 0.0),
            (r#"waypost_command_up{command="wakeups"}"#, 1.0),
        ]);
        let (_, status) = json(&daemon, "/api/status");
        let status = &status["commands"][0];
        assert_eq!((&status["scheduled"], &status["duplicates"]), (&5.into(), &2.into()));
        let (_, shown) = daemon.command(&["status"]);
        assert!(shown.contains("COMMANDS"), "{shown}");
        scene.assert_all_acknowledged(daemon).await;

        // It is known after a restart, too.
        let daemon = scene.start();
        scene.place.send(&[command("c2"), command("c3")]).await;
        scene.await_scheduled(&["c0", "c1", "c2", "older", "doc", "c3"]).await;
        scene.assert_all_acknowledged(daemon).await;
        assert!(dead_letters(scene.dir()).is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_a_dead_letter_with_the_reason_and_holds_up_nothing() {
    each("refused", async |scene| {
        let daemon = scene.start();
        let mut nobody = command("nobody");
        nobody.body = nobody.body.replace("agent-1", "no such agent");
        scene
            .place
            .send(&[
                nobody,
                binary("other", "agent.message", "{}"),
                binary("broken", "wakeup.schedule", "{\"user_id\""),
                binary("slip", "wakeup.schedule", r#"{"intnet":"x"}"#),
                Sent { attributes: Default::default(), body: "{}".to_owned() },
                command("good"),
            ])
            .await;
        scene.await_scheduled(&["good"]).await;
        let letters = dead_letters(scene.dir());
        let expected = [
            ("nobody", "answered 404", 1),
            ("other", "its type is \"agent.message\"", 0),
            ("broken", "not JSON", 0),
            ("slip", "`intnet`, which is not known; is it `intent`?", 0),
            ("", "no id", 0),
        ];
        assert_eq!(letters.len(), expected.len(), "{letters:?}");
        for (letter, (id, reason, attempts)) in letters.iter().zip(expected) {
            assert!(id.is_empty() || letter.id == id, "{letter:?}");
            assert!(letter.reason.contains(reason), "{letter:?}");
            assert_eq!((letter.broker.as_str(), letter.attempts), ("from", attempts));
            assert_eq!(letter.address.as_deref(), Some(&*scene.place.address()));
        }
        assert!(letters[0].reason.contains("agent"), "the API's own words: {}", letters[0].reason);
        scene.assert_all_acknowledged(daemon).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_fails_is_waited_for_and_told_once() {
    each("waits", async |scene| {
        let post = |fault: serde_json::Value| json!({ "match": { "method": "POST" }, "times": 1, "fault": fault });
        scene.fault(post(json!({ "status": 503 })));
        scene.fault(post(json!({ "status": 429, "retry_after": 1 })));
        scene.fault(post(json!({ "cut": "before" })));
        // The wakeup is there, and nobody said so: twice.
        scene.fault(post(json!({ "cut": "after" })));
        let daemon = scene.start();
        scene.place.send(&["c0", "c1"].map(command)).await;
        scene.await_scheduled(&["c0", "c1"]).await;
        scene.fault(post(json!({ "malformed": true })));
        scene.place.send(&[command("c2")]).await;
        scene.await_scheduled(&["c0", "c1", "c2"]).await;
        scene.await_log(&daemon, "had been carried out").await;
        eventually("c2 is done", || {
            let done = r#"waypost_commands_total{command="wakeups",outcome="scheduled"}"#;
            Scrape::of(&daemon).get(done) == 3.0
        })
        .await;
        let log = daemon.log();
        assert_eq!(log.matches("the API carries out no command").count(), 2, "{log}");
        assert_eq!(log.matches("carried out again").count(), 2, "{log}");
        assert_eq!(scene.scheduled(), ["c0", "c1", "c2"]);
        scene.assert_all_acknowledged(daemon).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_told_once_and_commands_go_on_once_it_is_mended() {
    each("denied", async |scene| {
        scene.fault(json!({ "match": { "method": "POST" }, "fault": { "status": 401 } }));
        let daemon = scene.start();
        scene.place.send(&["c0", "c1"].map(command)).await;
        let denied = r#"waypost_command_denied{command="wakeups"}"#;
        eventually("the key is refused", || Scrape::of(&daemon).get(denied) == 1.0).await;
        for n in 1..=2 {
            let asked = scene.asked().len();
            scene.touch(&format!("change {n}"));
            eventually("it is asked again", || scene.asked().len() > asked).await;
        }
        let (_, status) = daemon.command(&["status"]);
        assert!(status.contains("KEY REFUSED") && status.contains("api.key"), "{status}");
        assert!(!daemon.log().contains(KEY) && !status.contains(KEY));
        assert_eq!(daemon.log().matches("the API refuses the key").count(), 1);
        assert!(scene.asked().len() < 10, "{:?}", scene.asked());
        scene.stub.clear_faults();
        scene.touch("change 3");
        scene.await_scheduled(&["c0", "c1"]).await;
        scene.await_log(&daemon, "carried out again").await;
        scene.assert_all_acknowledged(daemon).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_survives_kill_nine_at_every_step() {
    each("killed", async |scene| {
        scene.place.be_given_again_soon().await;
        let hang = |effect: bool| {
            json!({ "match": { "method": "POST" }, "times": 1,
                    "fault": { "hang": "60s", "effect": effect } })
        };
        let mut expected = Vec::new();
        // While the API is asked, before and after it has done what it was asked for.
        for (id, effect) in [("before", false), ("after", true)] {
            scene.fault(hang(effect));
            let asked = scene.asked().len();
            let daemon = scene.start();
            scene.place.send(&[command(id)]).await;
            eventually("the API is asked", || scene.asked().len() > asked).await;
            daemon.kill();
            expected.push(id.to_owned());
        }
        // As soon as the API has answered: somewhere between that and the acknowledgement. Kafka's group
        // misses a member that was killed only after ten seconds.
        let kills = if scene.place.kind == Kind::Kafka { 1 } else { 5 };
        for n in 0..kills {
            let id = format!("c{n}");
            let daemon = scene.start();
            scene.place.send(&[command(&id)]).await;
            expected.push(id);
            let what = format!("{:?}: {expected:?}", scene.place.kind);
            let count = expected.len();
            let started = std::time::Instant::now();
            while scene.scheduled().len() < count {
                assert!(started.elapsed() < Duration::from_secs(60), "{what}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(n * 2)).await;
            daemon.kill();
        }
        let daemon = scene.start();
        scene.place.send(&[command("last")]).await;
        expected.push("last".to_owned());
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        scene.await_scheduled(&expected).await;
        scene.assert_all_acknowledged(daemon).await;
        assert!(dead_letters(scene.dir()).is_empty());
    })
    .await;
}

/// A broker of the test's own is killed, and started again.
async fn dies_and_comes_back(kind: Kind, brokers: Addresses, server: &mut Server) {
    let place = Place::at(brokers, kind, "dies");
    place.make().await;
    let scene = Scene::around(place).await;
    let daemon = scene.start();
    scene.place.send(&[command("c0")]).await;
    scene.await_scheduled(&["c0"]).await;
    server.kill();
    scene.await_log(&daemon, "no commands can be taken from the broker").await;
    let up = r#"waypost_command_up{command="wakeups"}"#;
    Scrape::of(&daemon).assert(&[(up, 0.0)]);
    server.restart();
    scene.place.send(&[command("c1")]).await;
    scene.await_scheduled(&["c0", "c1"]).await;
    let what = format!("{kind:?}: it is up");
    eventually(&what, || Scrape::of(&daemon).get(up) == 1.0).await;
    let log = daemon.log();
    assert_eq!(log.matches("no commands can be taken from the broker").count(), 1, "{log}");
    assert_eq!(log.matches("carried out again").count(), 1, "{log}");
    scene.assert_all_acknowledged(daemon).await;
}

fn addresses(kafka: &str, rabbitmq: &str, nats: &str) -> Addresses {
    Addresses { kafka: kafka.to_owned(), rabbitmq: rabbitmq.to_owned(), nats: nats.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_dies_is_told_once_and_taken_from_again() {
    let mut nats = Nats::start();
    let brokers = addresses("", "", nats.url());
    dies_and_comes_back(Kind::Nats, brokers, &mut nats).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rabbitmq_that_dies_is_told_once_and_taken_from_again() {
    let mut rabbitmq = RabbitMq::start();
    let brokers = addresses("", rabbitmq.url(), "");
    dies_and_comes_back(Kind::RabbitMq, brokers, &mut rabbitmq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_dies_is_told_once_and_taken_from_again() {
    let mut kafka = Kafka::start();
    let brokers = addresses(kafka.bootstrap(), "", "");
    dies_and_comes_back(Kind::Kafka, brokers, &mut kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_of_one_group_share_its_commands_and_lose_none_that_wait() {
    let mut place = Place::shared(Kind::Kafka, "group");
    place.partitions = 3;
    place.make().await;
    let scene = Scene::around(place).await;
    scene.fault(json!({ "match": { "method": "POST" }, "fault": { "status": 503 } }));
    let first = scene.start();
    let ids: Vec<String> = (10..30).map(|n| format!("c{n}")).collect();
    let all: Vec<Sent> = ids.iter().map(|id| command(id)).collect();
    scene.place.send(&all).await;
    let waits = "the API carries out no command";
    scene.await_log(&first, waits).await;
    let dir = tempfile::tempdir().expect("a directory");
    let second = Daemon::start(dir.path(), &scene.routes(), &[]);
    scene.await_log(&second, waits).await;
    // What the first had in hand moved, and what both hold now does not move on and on.
    let moved =
        || [&first, &second].map(|daemon| daemon.log().matches("another consumer's now").count());
    let before = moved();
    scene.stub.clear_faults();
    eventually("all are scheduled", || scene.scheduled().len() >= ids.len()).await;
    let mut scheduled = scene.scheduled();
    scheduled.sort();
    assert_eq!(scheduled, ids);
    assert!(before[0] + before[1] <= 4, "{before:?}");
    assert!(first.stop().success() && second.stop().success());
    openapi::assert_allows(&scene.stub.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_not_there_is_named_and_taken_from_once_it_is() {
    let all = [
        (Kind::Nats, "no stream takes subject commands-missing.wakeups: create one"),
        (Kind::RabbitMq, "no queue 'commands-missing'"),
        (Kind::Kafka, "topic commands-missing is not there: create it"),
    ];
    join_all(all.map(async |(kind, words)| {
        let scene = Scene::around(Place::shared(kind, "missing")).await;
        let daemon = scene.start();
        scene.await_log(&daemon, words).await;
        scene.place.make().await;
        scene.place.send(&[command("c0")]).await;
        scene.await_scheduled(&["c0"]).await;
        scene.assert_all_acknowledged(daemon).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_would_drop_commands_is_not_taken_from_until_that_is_changed() {
    let scene = Scene::open(Kind::Nats, "drops").await;
    scene.place.make_consumer(2).await;
    let daemon = scene.start();
    scene.place.send(&[command("c0")]).await;
    scene.await_log(&daemon, "drops what it has given out `max_deliver` times").await;
    assert!(scene.scheduled().is_empty());
    scene.place.make_consumer(-1).await;
    scene.await_scheduled(&["c0"]).await;
    scene.assert_all_acknowledged(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_hand_is_held_on_to_until_its_daemon_has_ended() {
    let scene = Scene::open(Kind::Nats, "held").await;
    // One that nobody holds on to is given to another after a second.
    scene.place.make_consumer(-1).await;
    scene.fault(json!({ "match": { "method": "POST" }, "times": 1, "fault": { "delay": "5s" } }));
    let patient = [("WAYPOST_SHUTDOWN__DEADLINE", "60s")];
    let first = Daemon::start(scene.dir(), &scene.routes(), &patient);
    scene.place.send(&[command("c0")]).await;
    eventually("the API is asked", || !scene.asked().is_empty()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let second = Daemon::start(dir.path(), &scene.routes(), &[]);
    assert!(first.stop().success());
    assert_eq!(scene.scheduled(), ["c0"]);
    scene.place.send(&[command("c1")]).await;
    scene.await_scheduled(&["c0", "c1"]).await;
    scene.assert_all_acknowledged(second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_disk_fails_nothing_more_is_asked_or_acknowledged_and_all_of_it_ends() {
    let scene = Scene::open(Kind::Nats, "disk").await;
    let disk = SimDisk::new(1);
    let storage = Arc::new(disk.clone());
    let dead_letters =
        Journal::open(storage.clone(), Path::new("/dead"), journal::Options::default());
    let (commands, service) = commands::Service::new(commands::Parts {
        storage: storage.clone(),
        reserve: Reserve::new(storage, "/reserve".into(), 0),
        data_dir: "/".into(),
        remembered: dedupe::Limits { window: Duration::from_secs(3600), max_keys: 1000 },
        client: client::Limits {
            request_timeout: Duration::from_secs(30),
            max_attempts: 1,
            max_pause: Duration::from_secs(1),
            max_answer_bytes: 1 << 20,
            max_requests_per_second: 1000,
        },
        dead_letters: DeadLetters::new(dead_letters.expect("a journal").journal),
        deadline: Duration::from_secs(2),
        journal: journal::Options::default(),
    });
    let secret = |_: &str| Some("whsec_secret".to_owned());
    commands.apply(&routing::compile("routes.yaml", &scene.routes(), &secret).expect("a table"));
    let running = tokio::spawn(service.run(CancellationToken::new()));
    scene.place.send(&[command("c0")]).await;
    scene.await_scheduled(&["c0"]).await;
    while scene.place.left().await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    disk.fail_syncs(1);
    scene.place.send(&[command("c1")]).await;
    let ended = running.await.expect("no panic");
    assert!(matches!(ended, Err(commands::Error::Ledger(_))), "{ended:?}");
    assert_eq!((scene.scheduled(), scene.place.left().await), (vec!["c0".to_owned()], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_is_taken_out_lets_its_command_go_and_takes_it_again_once_it_is_back() {
    each("removed", async |scene| {
        scene.fault(json!({ "match": { "method": "POST" }, "fault": { "status": 503 } }));
        let daemon = scene.start();
        scene.place.send(&["c0", "c1"].map(command)).await;
        scene.await_log(&daemon, "the API carries out no command").await;
        let without = scene.routes().replace("\ncommands:", "\n#").replace("\n  wakeups:", "\n#");
        fs::write(scene.dir().join("routes.yaml"), without).expect("to write routes.yaml");
        let (status, output) = daemon::command(scene.dir(), &["reload"]);
        assert!(status.success(), "{output}");
        let status = || json(&daemon, "/api/status").1["commands"].clone();
        eventually("it is taken out", || status() == json!([])).await;
        scene.stub.clear_faults();
        assert!(scene.scheduled().is_empty());
        scene.touch("back again");
        scene.await_scheduled(&["c0", "c1"]).await;
        scene.assert_all_acknowledged(daemon).await;
    })
    .await;
}
