//! Brokers over TLS and with logins, each against the real one: what arrives, what is refused and in
//! which words, that nothing is given up on meanwhile, and that no secret is ever in the log.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::common::{
    brokers::Tls,
    certificates::{Authority, Pair},
    consume::Consumed,
    daemon::{self, Daemon},
    sender,
};

mod jwt;
mod kafka;
mod nats;
mod rabbitmq;

/// How long words may take to come into the log: a few attempts of the slowest client.
const SAID_WITHIN: Duration = Duration::from_secs(90);

/// A daemon whose log is looked through at the end for every secret that it was given.
struct Scene {
    dir: TempDir,
    secrets: Vec<String>,
    environment: Vec<(String, String)>,
    daemon: Option<Daemon>,
    /// The ids of what was sent.
    sent: BTreeSet<String>,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            dir: tempfile::tempdir().expect("a directory"),
            secrets: Vec::new(),
            environment: Vec::new(),
            daemon: None,
            sent: BTreeSet::new(),
        }
    }

    /// `tls:` for a broker whose certificate this authority has signed.
    fn trusting(&self, authority: &Authority) -> String {
        format!("tls: {{ ca: {} }}", self.authority(authority))
    }

    /// The same, with a certificate of our own.
    fn showing(&mut self, authority: &Authority, client: &Pair) -> String {
        let ca = self.authority(authority);
        let cert = self.file("cert.pem", &client.cert);
        let key = self.secret_file("key.pem", &client.key);
        format!("tls: {{ ca: {ca}, cert: {cert}, key: {key} }}")
    }

    /// Writes an authority's certificate into a file of its name.
    fn authority(&self, authority: &Authority) -> String {
        self.file(&format!("{}.pem", authority.name), &authority.pem())
    }

    /// Writes a file for the daemon; its path.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("to write a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// The same with a secret in it, of which no line may be in the log.
    fn secret_file(&mut self, name: &str, content: &str) -> String {
        self.keep_secret(content);
        self.file(name, content)
    }

    /// Gives the daemon a secret in its environment; the reference to it.
    fn secret(&mut self, name: &str, text: &str) -> String {
        self.keep_secret(text);
        self.variable(name, text)
    }

    fn variable(&mut self, name: &str, text: &str) -> String {
        self.environment.push((name.to_owned(), text.to_owned()));
        format!("${{{name}}}")
    }

    fn keep_secret(&mut self, text: &str) {
        let lines = text.lines().filter(|line| !line.contains("---") && line.len() > 4);
        self.secrets.extend(lines.map(str::to_owned));
    }

    /// Starts the daemon with these brokers, each a name, its settings and where everything goes.
    fn start(&mut self, brokers: &[(&str, String, &str)]) {
        let routes = routes(brokers);
        let environment = self.environment.iter().map(|(name, value)| (&**name, &**value));
        let settings: Vec<_> = environment.chain([("WAYPOST_LOG__LEVEL", "trace")]).collect();
        self.daemon = Some(Daemon::with_sources(self.dir.path(), &routes, &settings));
    }

    /// Starts a daemon that must not come up; what it says.
    fn fails(&mut self, brokers: &[(&str, String, &str)]) -> String {
        let environment = self.environment.iter().map(|(name, value)| (&**name, &**value));
        let settings: Vec<_> = environment.collect();
        let routes = format!("{}\n{}", daemon::SOURCES, routes(brokers));
        let (status, log) = Daemon::fails(self.dir.path(), &routes, &settings);
        assert!(!status.success(), "{log}");
        self.assert_silent(&log);
        log
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("started")
    }

    /// Sends so many events.
    async fn send(&mut self, count: usize) {
        for number in self.sent.len()..self.sent.len() + count {
            self.post(format!(r#"{{"agent_id":"a{number}"}}"#)).await;
        }
    }

    /// Sends one event of so many bytes.
    async fn send_large(&mut self, bytes: usize) {
        self.post(format!("\"{}\"", "x".repeat(bytes))).await;
    }

    async fn post(&mut self, body: String) {
        let webhook = sender::sonzai("agent.message", body);
        let answer = sender::post(self.daemon().listen, &webhook).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        self.sent.insert(answer.event_id.expect("an id"));
    }

    /// Everything that was sent is among these.
    fn assert_arrived(&self, there: &[Consumed]) {
        let there: BTreeSet<String> =
            there.iter().filter_map(|message| Some(message.event_id()?.to_owned())).collect();
        assert_eq!(there, self.sent);
    }

    /// Waits until the broker is said to be in trouble in these words, told as news or, for one that
    /// is known to be, at the debug level.
    async fn await_trouble(&self, broker: &str, words: &[&str]) {
        let (started, name) = (Instant::now(), format!("broker={broker} "));
        loop {
            let log = self.daemon().log();
            let troubles: Vec<&str> =
                troubles(&log).filter(|trouble| trouble.starts_with(&name)).collect();
            if troubles.iter().any(|line| words.iter().all(|word| line.contains(word))) {
                return;
            }
            assert!(
                started.elapsed() < SAID_WITHIN,
                "{broker} did not say {words:?}, but:\n{}",
                troubles.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Ends the daemon in order; its log, to the last line, in which no secret is.
    fn stop(&mut self) -> String {
        let daemon = self.daemon.take().expect("started");
        let status = daemon.stop();
        assert!(status.success(), "the daemon ended with {status}");
        let log = fs::read_to_string(self.dir.path().join("daemon.log")).expect("the log");
        self.assert_silent(&log);
        log
    }

    /// Ends the daemon: nothing was given up on, no secret was logged, and no trouble twice.
    fn end(mut self) {
        let log = self.stop();
        let (_, dead_letters) = daemon::command(self.dir.path(), &["dead-letters", "list"]);
        assert_eq!(dead_letters, "no dead letters\n");
        if !log.contains("INFO connected") {
            let told: Vec<&str> = told(&log).collect();
            let once: BTreeSet<&str> = told.iter().copied().collect();
            assert_eq!(told.len(), once.len(), "{}", told.join("\n"));
        }
    }

    fn assert_silent(&self, log: &str) {
        for secret in &self.secrets {
            let line = log.lines().find(|line| line.contains(&**secret));
            assert_eq!(line, None, "a secret is in the log");
        }
    }
}

/// Which brokers were told to be in trouble, and why: `broker=NAME reason=…`.
fn told(log: &str) -> impl Iterator<Item = &str> {
    after(log, "the broker is in trouble; its messages wait ")
}

/// The same with how it went on, which is told at debug.
fn troubles(log: &str) -> impl Iterator<Item = &str> {
    told(log).chain(after(log, "the broker is still in trouble "))
}

fn after<'l>(log: &'l str, words: &'static str) -> impl Iterator<Item = &'l str> {
    log.lines().filter_map(move |line| Some(line.split_once(words)?.1))
}

fn routes(brokers: &[(&str, String, &str)]) -> String {
    let settings =
        brokers.iter().map(|(name, settings, _)| format!("  {name}: {{ {settings} }}\n"));
    let settings: String = settings.collect();
    let targets =
        brokers.iter().map(|(name, _, to)| format!("      - {{ broker: {name}, {to} }}\n"));
    let targets: String = targets.collect();
    let route = "  - name: all\n    match: { type: \"**\" }\n    to:\n";
    format!("brokers:\n{settings}routes:\n{route}{targets}")
}

/// The server's side of TLS with a certificate of its own, and who may come in.
fn tls(Pair { cert, key }: Pair, clients: &Authority, demands_client: bool) -> Tls {
    Tls { cert, key, client_ca: clients.pem(), demands_client }
}

#[test]
fn unusable_material_keeps_the_daemon_from_starting_and_is_named() {
    let authority = Authority::named("waypost-tests");
    let (one, another) = (authority.client("one"), authority.client("another"));
    let mut scene = Scene::new();
    let cert = scene.file("cert.pem", &one.cert);
    let key = scene.secret_file("key.pem", &one.key);
    let another = scene.secret_file("another.pem", &another.key);
    let empty = scene.file("empty.pem", "nothing here\n");
    let creds = scene.secret_file("some.creds", "hunter2-is-no-jwt\n");
    let kafka = |tls: String| format!("type: kafka, bootstrap: \"127.0.0.1:1\", tls: {{ {tls} }}");
    let amqps =
        |tls: String| format!("type: rabbitmq, url: \"amqps://127.0.0.1:1/%2f\", tls: {{ {tls} }}");
    let nats = |rest: String| format!("type: nats, url: \"tls://127.0.0.1:1\", {rest}");
    let cases = [
        (kafka("ca: /nowhere/ca.pem".into()), "topic: t", "tls.ca: cannot read /nowhere/ca.pem"),
        (amqps(format!("ca: {empty}")), "exchange: e, routing_key: k", "holds no certificate"),
        (
            kafka(format!("cert: {cert}, key: {another}")),
            "topic: t",
            "does not belong to the certificate in",
        ),
        (nats(format!("tls: {{ cert: {key}, key: {key} }}")), "subject: s", "holds no certificate"),
        (nats("nkey: /nowhere/nkey".into()), "subject: s", "nkey: cannot read /nowhere/nkey"),
        (nats(format!("creds: {creds}")), "subject: s", "does not hold a user's JWT"),
    ];
    for (settings, to, words) in cases {
        let log = scene.fails(&[("guarded", settings, to)]);
        let told = log.lines().find(|line| line.contains(words));
        assert!(told.is_some_and(|line| line.contains("routes.yaml:")), "{words}: {log}");
        assert!(!log.contains("hunter2"), "{log}");
    }
    assert!(Path::new(&cert).exists());
}
