use std::{sync::OnceLock, time::Duration};

use super::{Scene, tls};
use crate::common::{
    brokers::{Kafka, Listener},
    certificates::{Authority, LOOPBACK},
    consume,
};

const USER: &str = "waypost-user";
const PASSWORD: &str = "kafka-passw0rd";

/// The moment of the stop is another one each time, within so many milliseconds.
const ROUNDS: usize = 12;
const MOMENTS_MS: u64 = 1200;

const MECHANISMS: [&str; 3] = ["plain", "scram-sha-256", "scram-sha-512"];

/// One node whose listeners differ in what they ask for and what they show.
struct Secured {
    kafka: Kafka,
    authority: Authority,
}

impl Secured {
    fn shared() -> &'static Secured {
        static SHARED: OnceLock<Secured> = OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = Authority::named("kafka-tests");
            let shown = |issued| Some(tls(issued, &authority, false));
            let good = || authority.issue(&LOOPBACK);
            let user = || Some((USER.to_owned(), PASSWORD.to_owned()));
            let listeners = vec![
                Listener { name: "TLS", tls: shown(good()), user: None },
                Listener { name: "MUTUAL", tls: Some(tls(good(), &authority, true)), user: None },
                Listener {
                    name: "MISNAMED",
                    tls: shown(authority.issue(&["elsewhere.example"])),
                    user: None,
                },
                Listener {
                    name: "EXPIRED",
                    tls: shown(authority.issue_until(&LOOPBACK, 2001)),
                    user: None,
                },
                Listener { name: "SASL", tls: None, user: user() },
                Listener { name: "BOTH", tls: shown(good()), user: user() },
            ];
            let kafka = Kafka::start_with(listeners).unwrap_or_else(|error| panic!("{error}"));
            Secured { kafka, authority }
        })
    }

    /// A broker's settings for one of the listeners.
    fn at(&self, listener: &str, rest: &str) -> String {
        settings(self.kafka.port(listener), rest)
    }

    async fn create(&self, topic: &str) {
        consume::create_topic(self.kafka.bootstrap(), topic, 1, &[]).await;
    }

    /// Whether everything that was sent is in the topic, once.
    async fn assert_arrived(&self, topic: &str, scene: &Scene) {
        let there = consume::read_topic(self.kafka.bootstrap(), topic, scene.sent.len()).await;
        scene.assert_arrived(&there);
    }
}

fn settings(port: u16, rest: &str) -> String {
    format!("type: kafka, bootstrap: \"127.0.0.1:{port}\", {rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_over_tls_with_a_ca_in_a_file_or_in_the_environment() {
    let secured = Secured::shared();
    let mut scene = Scene::new();
    let in_file = scene.trusting(&secured.authority);
    let in_environment = scene.variable("CA", &secured.authority.pem());
    for topic in ["tls-file", "tls-text"] {
        secured.create(topic).await;
    }
    scene.start(&[
        ("file", secured.at("TLS", &in_file), "topic: tls-file"),
        (
            "text",
            secured.at("TLS", &format!("tls: {{ ca: \"{in_environment}\" }}")),
            "topic: tls-text",
        ),
    ]);
    scene.send(20).await;
    for topic in ["tls-file", "tls-text"] {
        secured.assert_arrived(topic, &scene).await;
    }
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_shown_where_one_is_demanded() {
    let secured = Secured::shared();
    let client = secured.authority.client("waypost");
    let mut scene = Scene::new();
    let in_files = scene.showing(&secured.authority, &client);
    let ca = scene.variable("CA", &secured.authority.pem());
    let cert = scene.variable("CERT", &client.cert);
    let key = scene.secret("KEY", client.key.trim_end());
    let in_environment = format!("tls: {{ ca: \"{ca}\", cert: \"{cert}\", key: \"{key}\" }}");
    for topic in ["mutual-file", "mutual-text"] {
        secured.create(topic).await;
    }
    scene.start(&[
        ("file", secured.at("MUTUAL", &in_files), "topic: mutual-file"),
        ("text", secured.at("MUTUAL", &in_environment), "topic: mutual-text"),
    ]);
    scene.send(20).await;
    for topic in ["mutual-file", "mutual-text"] {
        secured.assert_arrived(topic, &scene).await;
    }
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_client_certificate_the_broker_is_down_and_says_so() {
    let secured = Secured::shared();
    let stranger = Authority::named("strangers").client("waypost");
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let shown = scene.showing(&secured.authority, &stranger);
    let to = "topic: refused";
    scene.start(&[
        ("nothing", secured.at("MUTUAL", &trusted), to),
        ("strange", secured.at("MUTUAL", &shown), to),
    ]);
    scene.send(1).await;
    scene.await_trouble("nothing", &["demands a client certificate", "`tls.cert`"]).await;
    scene.await_trouble("strange", &["refuses the client certificate", "`tls.cert`"]).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_host_or_time_is_refused_and_says_so() {
    let secured = Secured::shared();
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let other = scene.trusting(&Authority::named("others"));
    let no_tls = format!("type: kafka, bootstrap: \"{}\", {trusted}", secured.kafka.bootstrap());
    let to = "topic: refused";
    scene.start(&[
        ("other", secured.at("TLS", &other), to),
        ("system", secured.at("TLS", "tls: true"), to),
        ("misnamed", secured.at("MISNAMED", &trusted), to),
        ("expired", secured.at("EXPIRED", &trusted), to),
        ("plain", no_tls, to),
    ]);
    scene.send(1).await;
    scene.await_trouble("other", &["no CA in `tls.ca` has signed it"]).await;
    scene.await_trouble("system", &["name its CA in `tls.ca`"]).await;
    scene.await_trouble("misnamed", &["elsewhere.example", "host name"]).await;
    scene.await_trouble("expired", &["certificate has expired"]).await;
    scene.await_trouble("plain", &["check that the port speaks TLS"]).await;
    scene.end();
}

/// Libraries that clean up at the end of the process have crashed in threads that still used them.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_within_a_handshake_ends_in_order() {
    let secured = Secured::shared();
    let mut scene = Scene::new();
    let brokers =
        ["a", "b", "c", "d"].map(|name| (name, secured.at("TLS", "tls: true"), "topic: t"));
    for _ in 0..ROUNDS {
        scene.start(&brokers);
        // Their clients are started, fail, and are started again all the time.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..MOMENTS_MS))).await;
        scene.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sasl_mechanism_lets_messages_through_with_and_without_tls() {
    let secured = Secured::shared();
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let password = scene.secret("KAFKA_PASSWORD", PASSWORD);
    let sasl = |mechanism: &str| {
        format!("sasl: {{ mechanism: {mechanism}, user: {USER}, password: \"{password}\" }}")
    };
    let topics: Vec<_> =
        MECHANISMS.map(|m| [format!("sasl-{m}"), format!("sasl-tls-{m}")]).into_iter().collect();
    let mut brokers = Vec::new();
    for (mechanism, [clear, secret]) in MECHANISMS.iter().zip(&topics) {
        let tls = format!("{trusted}, {}", sasl(mechanism));
        brokers.push((clear, secured.at("SASL", &sasl(mechanism)), format!("topic: {clear}")));
        brokers.push((secret, secured.at("BOTH", &tls), format!("topic: {secret}")));
        secured.create(clear).await;
        secured.create(secret).await;
    }
    let brokers: Vec<_> =
        brokers.iter().map(|(name, settings, to)| (&***name, settings.clone(), &**to)).collect();
    scene.start(&brokers);
    scene.send(20).await;
    for topic in topics.iter().flatten() {
        secured.assert_arrived(topic, &scene).await;
    }
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_or_none_is_down_and_says_what_to_check() {
    let secured = Secured::shared();
    let mut scene = Scene::new();
    let wrong = scene.secret("WRONG", "wrong-passw0rd");
    let sasl = |mechanism: &str| {
        let sasl = format!("mechanism: {mechanism}, user: {USER}, password: \"{wrong}\"");
        secured.at("SASL", &format!("sasl: {{ {sasl} }}"))
    };
    let mut brokers: Vec<_> =
        MECHANISMS.iter().map(|mechanism| (*mechanism, sasl(mechanism), "topic: t")).collect();
    brokers.push(("none", settings(secured.kafka.port("SASL"), ""), "topic: t"));
    brokers.push(("clear", settings(secured.kafka.port("TLS"), ""), "topic: t"));
    scene.start(&brokers);
    scene.send(1).await;
    for mechanism in MECHANISMS {
        let words = ["SASL authentication", "check `sasl.user` and `sasl.password`"];
        scene.await_trouble(mechanism, &words).await;
    }
    scene.await_trouble("none", &["whether the listener wants `tls:` or `sasl:`"]).await;
    scene.await_trouble("clear", &["whether the listener wants `tls:` or `sasl:`"]).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_a_mended_certificate_and_password_flows_and_nothing_is_given_up() {
    let authority = Authority::named("kafka-tests");
    let shown = |issued| Some(tls(issued, &authority, false));
    let user = |password: &str| Some((USER.to_owned(), password.to_owned()));
    let listeners = vec![
        Listener { name: "CERT", tls: shown(authority.issue_until(&LOOPBACK, 2001)), user: None },
        Listener { name: "LOGIN", tls: shown(authority.issue(&LOOPBACK)), user: user("another") },
    ];
    let renewed = shown(authority.issue(&LOOPBACK));
    let kafka = Kafka::start_with(listeners).unwrap_or_else(|error| panic!("{error}"));
    let mut secured = Secured { kafka, authority };
    secured.create("cert").await;
    secured.create("login").await;
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let password = scene.secret("KAFKA_PASSWORD", PASSWORD);
    let sasl = format!("mechanism: plain, user: {USER}, password: \"{password}\"");
    scene.start(&[
        ("cert", secured.at("CERT", &trusted), "topic: cert"),
        ("login", secured.at("LOGIN", &format!("{trusted}, sasl: {{ {sasl} }}")), "topic: login"),
    ]);
    scene.send(20).await;
    scene.await_trouble("cert", &["certificate has expired"]).await;
    scene.await_trouble("login", &["check `sasl.user` and `sasl.password`"]).await;

    secured.kafka.change("CERT", |listener| listener.tls = renewed);
    secured.kafka.change("LOGIN", |listener| listener.user = user(PASSWORD));
    secured.assert_arrived("cert", &scene).await;
    secured.assert_arrived("login", &scene).await;

    // Once connected, a broker that goes and comes back is found again over TLS.
    secured.kafka.kill();
    scene.send(20).await;
    secured.kafka.restart();
    secured.assert_arrived("cert", &scene).await;
    secured.assert_arrived("login", &scene).await;
    scene.end();
}
