use std::sync::OnceLock;

use super::{Scene, tls};
use crate::common::{
    brokers::RabbitMq,
    certificates::{Authority, LOOPBACK},
    consume,
};

const PASSWORD: &str = "rabbit/passw0rd@:%";

/// A node that takes clients without a certificate, too.
struct Secured {
    rabbitmq: RabbitMq,
    authority: Authority,
}

impl Secured {
    fn shared() -> &'static Secured {
        static SHARED: OnceLock<Secured> = OnceLock::new();
        SHARED.get_or_init(|| {
            let authority = Authority::named("rabbitmq-tests");
            let shown = tls(authority.issue(&["localhost"]), &authority, false);
            let rabbitmq = RabbitMq::start_with(&shown).unwrap_or_else(|error| panic!("{error}"));
            rabbitmq.add_user("waypost-cert", "never-used");
            rabbitmq.add_user("waypost-user", PASSWORD);
            Secured { rabbitmq, authority }
        })
    }

    /// A broker's settings; its certificate is for `localhost` alone.
    fn at(&self, host: &str, query: &str, rest: &str) -> String {
        let port = self.rabbitmq.tls_port();
        format!("type: rabbitmq, url: \"amqps://{host}:{port}/%2f{query}\", {rest}")
    }

    async fn declare(&self, queue: &str) {
        let url = self.rabbitmq.url();
        consume::declare_queue(url, queue, queue, "#", Default::default()).await;
    }

    /// Whether everything that was sent is in the queue, once.
    async fn assert_arrived(&self, queue: &str, scene: &Scene) {
        let there = consume::read_queue(self.rabbitmq.url(), queue, scene.sent.len()).await;
        scene.assert_arrived(&there);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_over_tls_with_a_password_or_a_certificate_for_a_name() {
    let secured = Secured::shared();
    let client = secured.authority.client("waypost-cert");
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let shown = scene.showing(&secured.authority, &client);
    let password = scene.secret("RABBITMQ_PASSWORD", PASSWORD);
    // However it is encoded.
    scene.keep_secret("passw0rd");
    for queue in ["in-url", "beside-url", "external"] {
        secured.declare(queue).await;
    }
    let beside = format!("{trusted}, user: waypost-user, password: \"{password}\"");
    let external = "?auth_mechanism=external";
    scene.start(&[
        (
            "url",
            secured.at("guest:guest@localhost", "", &trusted),
            "exchange: in-url, routing_key: k",
        ),
        ("beside", secured.at("localhost", "", &beside), "exchange: beside-url, routing_key: k"),
        (
            "external",
            secured.at("localhost", external, &shown),
            "exchange: external, routing_key: k",
        ),
    ]);
    // One is larger than a TLS record (16 KiB) and than a frame of AMQP (128 KiB).
    scene.send_large(300_000).await;
    scene.send(20).await;
    for queue in ["in-url", "beside-url", "external"] {
        secured.assert_arrived(queue, &scene).await;
    }
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_or_host_is_refused_and_says_so() {
    let secured = Secured::shared();
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let other = scene.trusting(&Authority::named("others"));
    let to = "exchange: e, routing_key: k";
    let plain_port = secured.rabbitmq.url().rsplit_once(':').expect("a port").1;
    let plain = format!("type: rabbitmq, url: \"amqps://localhost:{plain_port}\", {trusted}");
    scene.start(&[
        ("other", secured.at("localhost", "", &other), to),
        ("system", secured.at("localhost", "", "tls: true"), to),
        ("misnamed", secured.at("127.0.0.1", "", &trusted), to),
        ("plain", plain, to),
    ]);
    scene.send(1).await;
    scene.await_trouble("other", &["no CA in `tls.ca` has signed it"]).await;
    scene.await_trouble("system", &["name its CA in `tls.ca`"]).await;
    scene.await_trouble("misnamed", &["localhost", "host name"]).await;
    scene.await_trouble("plain", &["check that the port speaks TLS"]).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_is_down_and_says_what_to_check() {
    let secured = Secured::shared();
    let stranger = secured.authority.client("nobody-known");
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let shown = scene.showing(&secured.authority, &stranger);
    let wrong = scene.secret("WRONG", "wrong-passw0rd");
    let beside = format!("{trusted}, user: waypost-user, password: \"{wrong}\"");
    let external = "?auth_mechanism=external";
    let to = "exchange: e, routing_key: k";
    scene.start(&[
        ("password", secured.at("localhost", "", &beside), to),
        ("external", secured.at("localhost", external, &shown), to),
    ]);
    scene.send(1).await;
    scene.await_trouble("password", &["ACCESS_REFUSED", "check the user, password"]).await;
    scene.await_trouble("external", &["ACCESS_REFUSED", "the client certificate names"]).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_mended_credentials_flows_and_nothing_is_given_up() {
    let authority = Authority::named("rabbitmq-tests");
    let expired = tls(authority.issue_until(&LOOPBACK, 2001), &authority, true);
    let rabbitmq = RabbitMq::start_with(&expired).unwrap_or_else(|error| panic!("{error}"));
    let mut secured = Secured { rabbitmq, authority };
    secured.rabbitmq.add_user("waypost-user", "another");
    secured.declare("mended").await;
    let client = secured.authority.client("waypost");
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let shown = scene.showing(&secured.authority, &client);
    let password = scene.secret("RABBITMQ_PASSWORD", PASSWORD);
    // However it is encoded.
    scene.keep_secret("passw0rd");
    let login = format!("user: waypost-user, password: \"{password}\"");
    let shown = format!("{shown}, {login}");
    let nothing = format!("{trusted}, {login}");
    scene.start(&[
        ("shown", secured.at("localhost", "", &shown), "exchange: mended, routing_key: k"),
        ("nothing", secured.at("localhost", "", &nothing), "exchange: mended, routing_key: k"),
    ]);
    scene.send(20).await;
    scene.await_trouble("shown", &["certificate has expired"]).await;
    let renewed = tls(secured.authority.issue(&LOOPBACK), &secured.authority, true);
    secured.rabbitmq.change(&renewed);
    scene.await_trouble("nothing", &["client certificate", "`tls.cert`"]).await;
    scene.await_trouble("shown", &["ACCESS_REFUSED", "check the user, password"]).await;
    secured.rabbitmq.change_password("waypost-user", PASSWORD);
    secured.assert_arrived("mended", &scene).await;

    // A node that hangs, dies, and comes back is found again over TLS.
    secured.rabbitmq.pause();
    scene.send(20).await;
    scene.await_trouble("shown", &["localhost"]).await;
    secured.rabbitmq.kill();
    secured.rabbitmq.restart();
    secured.assert_arrived("mended", &scene).await;
    scene.end();
}
