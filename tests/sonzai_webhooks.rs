//! Webhooks are registered, verified, rotated and deleted through the daemon, and neither a secret nor a
//! delivery is lost on the way, whatever the API answers and whenever the daemon is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use waypost::sonzai::stub::{Options, Stub, emit::Emit};

use crate::common::{
    brokers::ports,
    command,
    daemon::{self, ALL_TO_FILES, Daemon},
    log_files,
    operator::{Scrape, ask},
};

/// How long what must come about may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const KEY: &str = "sk_test_of_webhooks";
const MESSAGE: &str = "agent.message";
const MOOD: &str = "agent.mood_change";

/// A daemon and a stand-in for Sonzai that deliver to and call each other.
struct Place {
    daemon: Option<Daemon>,
    dir: TempDir,
    stub: Stub,
    listen: String,
    /// What stands in the source's place in `routes.yaml`.
    source: String,
    /// What every command has said, and what is in the log of the daemons.
    said: String,
}

impl Place {
    /// `types` are registered.
    async fn new(options: Options, types: &[&str]) -> Place {
        Place::with(options, types, "").await
    }

    /// `further` are settings of the source.
    async fn with(options: Options, types: &[&str], further: &str) -> Place {
        let options = Options { key: KEY.into(), notifications: 0, wakeups: 0, ..options };
        let options = Options { listen: ([127, 0, 0, 1], 0).into(), ..options };
        let stub = Stub::start(options).await.expect("a stand-in");
        let listen = format!("127.0.0.1:{}", ports::free().expect("a port"));
        let source = source(&stub, &listen, types, further);
        let dir = tempfile::tempdir().expect("a directory");
        let mut place = Place { daemon: None, dir, stub, listen, source, said: String::new() };
        place.start();
        place
    }

    fn routes(&self) -> String {
        format!("sources:\n  sonzai:\n{}\n{ALL_TO_FILES}", self.source)
    }

    fn start(&mut self) {
        let settings = [("WAYPOST_LISTEN", &*self.listen), ("SONZAI_API_KEY", KEY)];
        self.daemon = Some(Daemon::start(self.dir.path(), &self.routes(), &settings));
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon")
    }

    fn kill(&mut self) {
        self.daemon.take().expect("a daemon").kill();
    }

    /// Runs `waypost sonzai webhooks`; its exit code and what it says.
    #[track_caller]
    fn webhooks(&mut self, arguments: &[&str]) -> (i32, String) {
        let arguments: Vec<&str> =
            ["sonzai", "webhooks"].iter().chain(arguments).copied().collect();
        let (status, text) = daemon::command(self.dir.path(), &arguments);
        self.said += &text;
        (status.code().expect("an exit code"), text)
    }

    /// The same with `--json`, which ends with this code.
    #[track_caller]
    fn json(&mut self, arguments: &[&str], code: i32) -> Value {
        let arguments: Vec<&str> = arguments.iter().chain(&["--json"]).copied().collect();
        let (ended_with, text) = self.webhooks(&arguments);
        assert_eq!(ended_with, code, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Something goes wrong at the API from now on.
    fn fault(&self, fault: Value) {
        let rule = serde_json::from_value(fault).expect("a rule");
        assert!(self.stub.fault(rule));
    }

    /// So many events of a type happen.
    fn emit(&self, event_type: &str, count: usize) -> BTreeSet<String> {
        let emit = Emit { count: Some(count), ..Emit::of(event_type) };
        let emitted = self.stub.emit(emit).expect("events");
        assert!(emitted.webhook, "no webhook of {event_type} is registered");
        emitted.events.into_iter().map(|ids| ids.message_id).collect()
    }

    /// All of these are published, each as one event. (What was in flight when a daemon was killed is
    /// published again, under the same id.)
    #[track_caller]
    fn assert_published(&self, messages: &BTreeSet<String>) {
        let data_dir = self.daemon().data_dir();
        let published = || -> BTreeMap<String, String> {
            let each = log_files::read(&data_dir).into_iter().map(|each| {
                let body: Value = serde_json::from_slice(&each.body).expect("JSON");
                (each.id, body["message_id"].as_str().expect("a message's id").to_owned())
            });
            each.collect()
        };
        await_true("the publication of all", || published().len() >= messages.len());
        let published = published();
        assert_eq!(published.len(), messages.len(), "each once");
        assert_eq!(&published.into_values().collect::<BTreeSet<_>>(), messages);
    }

    /// How every attempt to deliver was answered so far; 0 is no answer.
    fn answers(&mut self, event_type: &str) -> Vec<i64> {
        let mut answers = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut arguments = vec!["attempts", event_type, "--limit", "500"];
            arguments.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
            let page = self.json(&arguments, 0);
            let attempts = page["attempts"].as_array().cloned().unwrap_or_default();
            let codes = attempts.iter().map(|each| each["response_code"].as_i64().expect("a code"));
            answers.extend(codes);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return answers,
            }
        }
    }

    /// What is kept of the source.
    fn kept(&self) -> Value {
        let file = self.dir.path().join("data/secrets/sonzai.json");
        let text = fs::read(&file).expect("a file of secrets");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// How many secrets a webhook of the stand-in has had.
    fn secrets_made(&self, event_type: &str) -> u64 {
        let state = self.stub.state();
        let mut webhooks = state["webhooks"].as_array().expect("webhooks").iter();
        let found = webhooks.find(|webhook| webhook["event_type"] == event_type);
        found.map_or(0, |webhook| webhook["secrets"].as_u64().expect("a count"))
    }

    /// Neither a secret nor the API's key was ever said or logged.
    #[track_caller]
    fn assert_nothing_leaked(&self) {
        let log = fs::read_to_string(self.dir.path().join("daemon.log")).expect("a log");
        let mut secrets = vec![KEY.to_owned()];
        for kept in self.kept()["webhooks"].as_array().expect("webhooks") {
            secrets.extend(kept["secret"].as_str().map(str::to_owned));
        }
        for secret in secrets {
            let bare = secret.trim_start_matches("whsec_");
            assert!(!log.contains(bare) && !self.said.contains(bare), "a secret was told");
        }
        assert!(!log.contains("whsec_") && !self.said.contains("whsec_"), "a secret was told");
    }
}

fn source(stub: &Stub, listen: &str, types: &[&str], further: &str) -> String {
    let url = stub.url();
    let types = types.join(", ");
    format!(
        "    type: sonzai
    path: \"/hooks/sonzai/{{type}}\"
    api: {{ url: \"{url}\", key: \"${{SONZAI_API_KEY}}\" }}
    register: {{ public_url: \"http://{listen}\", types: [{types}] }}
{further}"
    )
}

#[track_caller]
fn await_true(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what} does not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is done with each webhook, and what is known of its secret.
fn outline(answer: &Value) -> Vec<(&str, &str, &str)> {
    let rows = answer["webhooks"].as_array().expect("webhooks").iter();
    rows.map(|row| {
        let text = |name: &str| row[name].as_str().expect("text");
        (text("type"), text("do"), text("secret"))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_secrets_registers_receives_and_unregisters() {
    let mut place = Place::new(Options::default(), &[MESSAGE, MOOD]).await;
    let plan = place.json(&["sync"], 2);
    assert_eq!(
        outline(&plan),
        [(MESSAGE, "register", "none"), (MOOD, "register", "none")],
        "the order of the file"
    );
    assert_eq!(plan["applied"], false);
    assert_eq!(place.secrets_made(MESSAGE), 0, "only shown");

    // Until there is a secret, whoever comes is told to come again.
    let request = "POST /hooks/sonzai/agent.message HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\
                   sonzai-signature: t=1,v1=00\r\n\r\n{}";
    let answer = crate::common::raw::Raw::connect(place.daemon().listen).ask(request);
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");

    let (code, text) = place.webhooks(&["sync", "--yes"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("agent.message") && text.ends_with("done\n"), "{text}");
    let file = fs::metadata(place.dir.path().join("data/secrets/sonzai.json")).expect("a file");
    let dir = fs::metadata(place.dir.path().join("data/secrets")).expect("a directory");
    assert_eq!((file.mode() & 0o777, dir.mode() & 0o777), (0o600, 0o700));

    // Again, there is nothing to do.
    place.stub.forget_requests();
    let (code, text) = place.webhooks(&["sync", "--yes"]);
    assert!(code == 0 && text.contains("nothing to do"), "{code} {text}");
    let asked = place.stub.requests();
    let changed = asked["requests"].as_array().expect("requests").iter();
    assert_eq!(changed.filter(|request| request["method"] != "GET").count(), 0, "{asked}");

    let mut messages = place.emit(MESSAGE, 5);
    messages.extend(place.emit(MOOD, 3));
    place.assert_published(&messages);
    Scrape::of(place.daemon())
        .assert(&[(r#"waypost_verified_total{source="sonzai",key="stored"}"#, 8.0)]);

    let list = place.json(&["list"], 0);
    assert_eq!(outline(&list), [(MESSAGE, "nothing", "stored"), (MOOD, "nothing", "stored")]);
    assert_eq!(list["webhooks"][0]["last_attempt"]["status"], "success", "{list}");

    // A restart knows the secrets.
    place.kill();
    place.start();
    messages.extend(place.emit(MESSAGE, 2));
    place.assert_published(&messages);

    let (code, text) = place.webhooks(&["delete", MOOD]);
    assert!(code == 2 && text.contains("--yes"), "{code} {text}");
    assert_eq!(place.secrets_made(MOOD), 1);
    let (code, text) = place.webhooks(&["delete", MOOD, "--yes"]);
    assert!(code == 0 && text.contains("deleted"), "{code} {text}");
    assert_eq!(place.secrets_made(MOOD), 0);
    let (code, text) = place.webhooks(&["delete", "--yes"]);
    assert_eq!((code, place.secrets_made(MESSAGE)), (0, 0), "{text}");
    let (code, text) = place.webhooks(&["delete", MESSAGE, "--yes"]);
    assert!(code == 1 && text.contains("no webhook is registered"), "{code} {text}");
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_type_that_is_wanted_no_more_is_deleted_and_others_are_left_alone() {
    let mut place = Place::new(Options::default(), &[MESSAGE, MOOD]).await;
    place.json(&["sync", "--yes"], 0);
    register_elsewhere(&place, "lead.enriched").await;
    place.source = source(&place.stub, &place.listen, &[MESSAGE], "");
    fs::write(place.dir.path().join("routes.yaml"), place.routes()).expect("to write");
    let (status, text) = place.daemon().command(&["reload"]);
    assert!(status.success(), "{text}");
    let plan = place.json(&["sync"], 2);
    assert_eq!(
        outline(&plan),
        [
            (MESSAGE, "nothing", "stored"),
            (MOOD, "delete", "stored"),
            ("lead.enriched", "leave", "none")
        ]
    );
    place.json(&["sync", "--yes"], 0);
    assert_eq!((place.secrets_made(MOOD), place.secrets_made("lead.enriched")), (0, 1));
    for action in ["rotate", "delete"] {
        let (code, text) = place.webhooks(&[action, "lead.enriched", "--yes"]);
        assert!(code == 1 && text.contains("left alone"), "{code} {text}");
    }
    assert_eq!(place.secrets_made("lead.enriched"), 1);
    place.assert_nothing_leaked();
}

/// Rotates while events come: all arrive, and no delivery is refused for good.
async fn rotates_under_load(resign: bool) {
    let retry_delay = Duration::from_millis(200);
    let mut place =
        Place::new(Options { resign, retry_delay, ..Options::default() }, &[MESSAGE]).await;
    place.json(&["sync", "--yes"], 0);
    // The new secret signs for a while before anybody here can know it.
    let slow = json!({"slow": "25ms", "chunk": 16});
    let slow = json!({"match": {"path": "rotate-secret"}, "fault": slow});
    place.fault(slow);
    let mut messages = BTreeSet::new();
    const ROTATIONS: u64 = 4;
    for _ in 0..ROTATIONS {
        messages.extend(place.emit(MESSAGE, 60));
        let rotating = {
            let dir = place.dir.path().to_owned();
            std::thread::spawn(move || {
                daemon::command(&dir, &["sonzai", "webhooks", "rotate", MESSAGE, "--yes"])
            })
        };
        while !rotating.is_finished() {
            messages.extend(place.emit(MESSAGE, 10));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (status, text) = rotating.join().expect("a rotation");
        assert!(status.success(), "{text}");
        place.said += &text;
        // Four attempts are all that a delivery has: not each of them may meet another rotation.
        await_true("the end of all deliveries", || place.stub.state()["deliveries_under_way"] == 0);
    }
    assert_eq!(place.secrets_made(MESSAGE), 1 + ROTATIONS);
    place.assert_published(&messages);
    let answers = place.answers(MESSAGE);
    assert!(answers.len() >= messages.len());
    let refused: Vec<&i64> = answers.iter().filter(|code| **code != 200 && **code != 503).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(answers.contains(&503), "no delivery came while a secret was on its way");
    assert_eq!(place.kept()["changes"], json!([]));
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_loses_no_delivery_where_retries_are_signed_anew() {
    rotates_under_load(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_loses_no_delivery_where_retries_repeat_the_first_signature() {
    rotates_under_load(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_killed_before_a_rotation_is_answered_makes_another_secret_when_it_starts() {
    let retry_delay = Duration::from_secs(2);
    let mut place = Place::new(Options { retry_delay, ..Options::default() }, &[MESSAGE]).await;
    place.json(&["sync", "--yes"], 0);
    // It has its effect, and nobody learns the secret.
    let fault =
        json!({"match": {"path": "rotate-secret"}, "fault": {"hang": "5m", "effect": true}});
    place.fault(fault);
    let dir = place.dir.path().to_owned();
    let rotating = std::thread::spawn(move || {
        daemon::command(&dir, &["sonzai", "webhooks", "rotate", MESSAGE, "--yes"])
    });
    await_true("the rotation upstream", || place.secrets_made(MESSAGE) == 2);
    place.kill();
    rotating.join().expect("a command that ended");
    assert_eq!(place.kept()["changes"][0]["what"], "rotate", "written down before it was sent");

    // The API is of no use yet when the daemon starts: what it cannot verify is to come again.
    place.stub.clear_faults();
    place.fault(json!({"match": {"path": "rotate-secret"}, "fault": {"status": 403}}));
    place.start();
    let messages = place.emit(MESSAGE, 3);
    await_true("deliveries that are to come again", || {
        place.stub.state()["attempts_made"].as_u64() >= Some(3)
    });
    let scrape = Scrape::of(place.daemon());
    scrape.assert(&[(r#"waypost_sonzai_secret_changing{source="sonzai"}"#, 1.0)]);
    place.stub.clear_faults();
    place.assert_published(&messages);
    await_true("the end of the change", || place.kept()["changes"] == json!([]));
    assert!(place.answers(MESSAGE).iter().all(|code| [200, 503].contains(code)));
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_answer_means_another_rotation_until_there_is_a_secret() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    // The first attempt registers it, and its answer is lost; the second one gets no secret.
    place.fault(json!({"match": {"method": "PUT"}, "times": 1, "fault": {"cut": "after"}}));
    place.json(&["sync", "--yes"], 0);
    assert_eq!(place.secrets_made(MESSAGE), 2, "registered and rotated");
    let mut messages = place.emit(MESSAGE, 2);
    place.assert_published(&messages);
    // The answers of all attempts of a call are lost.
    let lost =
        json!({"match": {"path": "rotate-secret"}, "times": 4, "fault": {"truncated": true}});
    place.fault(lost);
    place.json(&["rotate", MESSAGE, "--yes"], 0);
    assert!(place.secrets_made(MESSAGE) > 3);
    messages.extend(place.emit(MESSAGE, 2));
    place.assert_published(&messages);
    place.assert_nothing_leaked();
}

/// Registers a webhook by hand, as somebody did before Waypost.
async fn register_by_hand(place: &Place, event_type: &str, url: &str) {
    use waypost::{
        settings,
        sonzai::client::{Client, Limits},
        source::sonzai::settings::{Api, Scope},
    };
    let api = Api { url: place.stub.url().to_owned(), key: KEY.into(), ca: None };
    let limits = Limits::from(&settings::Sonzai::default());
    let client = Client::new(&api, limits).expect("a client");
    client.register(&Scope::Tenant, event_type, url, None).await.expect("a webhook");
}

async fn register_elsewhere(place: &Place, event_type: &str) {
    register_by_hand(place, event_type, "http://127.0.0.1:9/elsewhere").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_nobody_here_knows_is_made_anew_only_if_that_is_said() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    let here = format!("http://{}/hooks/sonzai/{MESSAGE}", place.listen);
    register_by_hand(&place, MESSAGE, &here).await;
    for arguments in [&["sync"][..], &["sync", "--yes"]] {
        let (code, text) = place.webhooks(arguments);
        assert!(
            code == 2 && text.contains("UNKNOWN") && text.contains("--rotate-unknown"),
            "{text}"
        );
        assert_eq!(place.secrets_made(MESSAGE), 1);
    }
    let (code, text) = place.webhooks(&["sync", "--rotate-unknown"]);
    assert!(code == 2 && text.contains("change its secret"), "{code} {text}");
    assert_eq!(place.secrets_made(MESSAGE), 1);
    place.json(&["sync", "--rotate-unknown", "--yes"], 0);
    assert_eq!(place.secrets_made(MESSAGE), 2);
    place.json(&["sync", "--rotate-unknown"], 0);
    let messages = place.emit(MESSAGE, 2);
    place.assert_published(&messages);
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_names_its_project_afterwards_keeps_its_secrets() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    place.json(&["sync", "--yes"], 0);
    let project = place.stub.state()["project"].as_str().expect("a project").to_owned();
    place.source = place.source.replace("types: [", &format!("project: \"{project}\", types: ["));
    fs::write(place.dir.path().join("routes.yaml"), place.routes()).expect("to write");
    let (status, text) = place.daemon().command(&["reload"]);
    assert!(status.success(), "{text}");
    let plan = place.json(&["sync"], 0);
    assert_eq!(outline(&plan), [(MESSAGE, "nothing", "stored")]);
    place.json(&["rotate", "--yes"], 0);
    let messages = place.emit(MESSAGE, 2);
    place.assert_published(&messages);
    assert_eq!(place.kept()["webhooks"].as_array().map(Vec::len), Some(1));
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_is_registered_is_right_until_a_sync_has_replaced_it() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    place.json(&["sync", "--yes"], 0);
    let mut messages = place.emit(MESSAGE, 2);
    place.assert_published(&messages);
    for header in ["Bearer first_header", "Bearer second_header"] {
        let further = format!("    authorization: {header}");
        place.source = source(&place.stub, &place.listen, &[MESSAGE], &further);
        fs::write(place.dir.path().join("routes.yaml"), place.routes()).expect("to write");
        let (status, text) = place.daemon().command(&["reload"]);
        assert!(status.success(), "{text}");
        messages.extend(place.emit(MESSAGE, 2));
        place.assert_published(&messages);
        // A rotation registers no header, and a restart forgets none.
        place.json(&["rotate", MESSAGE, "--yes"], 0);
        place.kill();
        place.start();
        messages.extend(place.emit(MESSAGE, 2));
        place.assert_published(&messages);
        let plan = place.json(&["sync"], 2);
        assert_eq!(plan["webhooks"][0]["differs"], json!(["authorization"]), "{plan}");
        place.json(&["sync", "--yes"], 0);
        messages.extend(place.emit(MESSAGE, 2));
        place.assert_published(&messages);
    }
    let answers = place.answers(MESSAGE);
    assert!(answers.iter().all(|code| *code == 200), "{answers:?}");
    let told = format!("{} {}", place.said, place.kept());
    assert!(!told.contains("first_header") && !told.contains("second_header"), "{told}");
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_sign_and_verify_with_what_the_daemon_keeps() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    let env = [("SONZAI_API_KEY", KEY)];
    let run = |place: &mut Place, arguments: &[&str]| {
        let outcome = command::waypost(place.dir.path(), arguments, &env);
        place.said += &outcome.out;
        place.said += &outcome.err;
        outcome
    };
    let sample = ["explain", "--sample", MESSAGE];
    command::assert_fails(&run(&mut place, &["send", "sonzai", MESSAGE]), &["webhooks sync"]);
    command::assert_fails(&run(&mut place, &sample), &["webhooks sync"]);
    place.json(&["sync", "--yes"], 0);
    let sent = run(&mut place, &["send", "sonzai", MESSAGE]);
    assert!(sent.code == Some(0) && sent.out.starts_with("200"), "{sent:?}");
    let explained = run(&mut place, &sample);
    assert_eq!(explained.code, Some(0), "{explained:?}");
    assert!(explained.out.contains("that the daemon keeps of `agent.message`"), "{explained:?}");
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_register_nothing_is_changed_that_is_not_named() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    register_by_hand(&place, MESSAGE, "http://127.0.0.1:1/hooks/sonzai/agent.message").await;
    let registers = place.source.lines().find(|line| line.contains("register:")).expect("a line");
    let secrets = "    secrets: { \"*\": \"${SONZAI_SECRET}\" }";
    place.source = place.source.replace(registers, secrets);
    place.kill();
    place.start();
    for action in ["delete", "rotate"] {
        let (code, text) = place.webhooks(&[action, "--yes"]);
        assert!(code == 1 && text.contains("name the event type"), "{code} {text}");
    }
    assert_eq!(outline(&place.json(&["list"], 0)).len(), 1, "it is still registered");
    place.json(&["delete", MESSAGE, "--yes"], 0);
    assert_eq!(outline(&place.json(&["list"], 0)), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sources_that_register_the_same_webhook_are_refused() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    let rival = place.source.replace("/hooks/sonzai/", "/hooks/rival/").replace(MESSAGE, "[X]");
    let rival = rival.replace("[[X]]", &format!("[{MOOD}, {MESSAGE}]"));
    place.source = format!("{}  rival:\n{rival}", place.source);
    fs::write(place.dir.path().join("routes.yaml"), place.routes()).expect("to write");
    let (status, text) = place.daemon().command(&["reload"]);
    assert!(status.success(), "{text}");
    let (code, text) = place.webhooks(&["sync", "--yes"]);
    assert!(code == 1 && text.contains("--source"), "{code} {text}");
    for source in ["sonzai", "rival"] {
        let (code, text) = place.webhooks(&["sync", "--yes", "--source", source]);
        assert!(code == 1 && text.contains("both register `agent.message`"), "{code} {text}");
    }
    assert_eq!(place.secrets_made(MESSAGE) + place.secrets_made(MOOD), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_refuses_is_told_with_what_to_do() {
    let mut place = Place::new(Options::default(), &[MESSAGE, MOOD]).await;
    for status in [401, 403] {
        place.fault(json!({"fault": {"status": status}}));
        let (code, text) = place.webhooks(&["list"]);
        assert!(code == 1 && text.contains(&status.to_string()), "{code} {text}");
        place.stub.clear_faults();
    }
    place.fault(json!({"match": {"method": "PUT"}, "fault": {"status": 403}}));
    let (code, text) = place.webhooks(&["sync", "--yes"]);
    assert!(code == 1 && text.contains("403") && text.contains("not tried"), "{code} {text}");
    assert_eq!(place.kept()["changes"], json!([]), "it certainly had no effect");
    place.assert_nothing_leaked();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_ask_or_asks_for_nothing_is_told_so() {
    let mut place = Place::new(Options::default(), &[MESSAGE]).await;
    let answer = ask(place.daemon(), "POST", "/api/sonzai/webhooks", &["content-length: 0"]);
    assert_eq!(answer.status, 401, "{answer:?}");
    let token = fs::read_to_string(place.dir.path().join("data/admin.token")).expect("a token");
    let token = format!("authorization: Bearer {}", token.trim());
    for (body, status, words) in [
        ("{}", 400, "action"),
        (r#"{"action":"list","more":1}"#, 400, "more"),
        (r#"{"action":"list","source":"other"}"#, 422, "other"),
        (r#"{"action":"attempts"}"#, 422, "event type"),
    ] {
        let length = format!("content-length: {}\r\n\r\n{body}", body.len());
        let answer = ask(place.daemon(), "POST", "/api/sonzai/webhooks", &[&token, &length]);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.body.contains(words), "{answer:?}");
    }
    place.kill();
    let (code, text) = place.webhooks(&["list"]);
    assert!(code == 1 && text.contains("waypost run"), "{code} {text}");
}
