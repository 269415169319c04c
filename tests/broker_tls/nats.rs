use std::time::Duration;

use async_nats::{Client, ConnectOptions, jetstream::stream};
use nkeys::KeyPair;

use super::{Scene, jwt::Operator, tls};
use crate::common::{
    brokers::{Access, Nats},
    certificates::{Authority, LOOPBACK, Pair},
    consume,
    sender::now_s,
};

const STREAM: &str = "tests";
const TO: &str = "subject: tests.s";

/// A server that speaks nothing but TLS, and a client of the tests' own.
struct Secured {
    nats: Nats,
    authority: Authority,
    access: Access,
}

impl Secured {
    /// `users` in the words of the server's configuration.
    fn start(users: &str) -> Secured {
        let authority = Authority::named("nats-tests");
        let shown = tls(authority.issue(&["localhost"]), &authority, false);
        let access = Access { tls: Some(shown), users: users.to_owned(), ..Access::default() };
        Secured::with(authority, access)
    }

    fn with(authority: Authority, access: Access) -> Secured {
        let nats = Nats::start_with(&access).unwrap_or_else(|error| panic!("{error}"));
        Secured { nats, authority, access }
    }

    fn change(&mut self, change: impl FnOnce(&mut Access)) {
        change(&mut self.access);
        self.nats.change(&self.access);
    }

    fn at(&self, url: &str, rest: &str) -> String {
        let (_, port) = self.nats.url().rsplit_once(':').expect("a port");
        format!("type: nats, url: \"{url}:{port}\", {rest}")
    }

    /// Connects as somebody whom the server knows.
    async fn client(&self, scene: &Scene, options: ConnectOptions) -> Client {
        let ca = scene.file("reader-ca.pem", &self.authority.pem());
        let options = options.add_root_certificates(ca.into()).require_tls(true);
        let url = self.nats.url().replace("127.0.0.1", "localhost");
        options.connect(url).await.expect("a connection to nats")
    }
}

async fn create(client: Client) {
    let subjects = vec![format!("{STREAM}.>")];
    let config = stream::Config { name: STREAM.to_owned(), subjects, ..Default::default() };
    consume::create_stream_by(client, config).await;
}

/// Whether everything that was sent is in the stream, once for each broker.
async fn assert_arrived(client: Client, scene: &Scene, times: usize) {
    let there = consume::read_stream_by(client, STREAM, scene.sent.len() * times).await;
    scene.assert_arrived(&there);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_a_password_gets_in_from_the_url_or_from_beside_it() {
    let password = "nats/passw0rd@:%";
    // It may do no more than docs/brokers.md says that it must.
    let secured = Secured::start(&format!(
        r#"authorization {{ users: [
             {{ user: reader, password: "for reading" }}
             {{ user: waypost, password: "{password}", permissions: {{
                  publish: ["tests.>", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.*"]
                  subscribe: "_INBOX.>" }} }}
           ] }}"#
    ));
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let encoded = scene.secret("ENCODED", "nats%2Fpassw0rd%40%3A%25");
    let plain = scene.secret("PLAIN", password);
    let reader = || ConnectOptions::with_user_and_password("reader".into(), "for reading".into());
    create(secured.client(&scene, reader()).await).await;
    let beside = format!("{trusted}, user: waypost, password: \"{plain}\"");
    scene.start(&[
        ("url", secured.at(&format!("tls://waypost:{encoded}@localhost"), &trusted), TO),
        ("beside", secured.at("nats://localhost", &beside), "subject: tests.beside"),
    ]);
    scene.send(20).await;
    assert_arrived(secured.client(&scene, reader()).await, &scene, 2).await;
    assert!(!secured.nats.log().contains("Violation"));
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gets_in() {
    let secured = Secured::start("authorization { token: \"nats-t0ken-nobody-knows\" }");
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let token = scene.secret("TOKEN", "nats-t0ken-nobody-knows");
    let reader = || ConnectOptions::with_token("nats-t0ken-nobody-knows".into());
    create(secured.client(&scene, reader()).await).await;
    let rest = format!("{trusted}, token: \"{token}\"");
    scene.start(&[("token", secured.at("tls://localhost", &rest), TO)]);
    scene.send(20).await;
    assert_arrived(secured.client(&scene, reader()).await, &scene, 1).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nkey_gets_in_from_a_file_or_from_the_environment() {
    let user = KeyPair::new_user();
    let seed = user.seed().expect("a seed");
    let secured =
        Secured::start(&format!("authorization {{ users: [{{ nkey: {} }}] }}", user.public_key()));
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let file = scene.secret_file("waypost.nk", &format!("{seed}\n"));
    let text = scene.secret("NKEY", &seed);
    let reader = || ConnectOptions::with_nkey(seed.clone());
    create(secured.client(&scene, reader()).await).await;
    let rest = |nkey: &str| format!("{trusted}, nkey: \"{nkey}\"");
    scene.start(&[
        ("file", secured.at("tls://localhost", &rest(&file)), TO),
        ("text", secured.at("tls://localhost", &rest(&text)), "subject: tests.text"),
    ]);
    scene.send(20).await;
    assert_arrived(secured.client(&scene, reader()).await, &scene, 2).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn creds_get_in_from_a_file_or_from_the_environment_and_renewed_ones_are_read() {
    let operator = Operator::new();
    let secured = Secured::start(&operator.configuration());
    let creds = operator.creds(None);
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let file = scene.secret_file("waypost.creds", &creds);
    let text = scene.secret("CREDS", &creds);
    let expired = scene.secret_file("expired.creds", &operator.creds(Some(now_s() - 10)));
    let reader = || ConnectOptions::with_credentials(&creds).expect("creds");
    create(secured.client(&scene, reader()).await).await;
    let rest = |creds: &str| format!("{trusted}, creds: \"{creds}\"");
    scene.start(&[
        ("file", secured.at("tls://localhost", &rest(&file)), TO),
        ("text", secured.at("tls://localhost", &rest(&text)), "subject: tests.text"),
        ("expired", secured.at("tls://localhost", &rest(&expired)), "subject: tests.expired"),
    ]);
    scene.send(20).await;
    assert_arrived(secured.client(&scene, reader()).await, &scene, 2).await;
    scene.await_trouble("expired", &["check that the user in `creds`", "expired"]).await;
    scene.secret_file("expired.creds", &operator.creds(Some(now_s() + 3600)));
    assert_arrived(secured.client(&scene, reader()).await, &scene, 3).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_is_down_and_says_what_to_check() {
    let secured = Secured::start("authorization { token: \"nats-t0ken-nobody-knows\" }");
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let wrong = scene.secret("WRONG", "wrong-passw0rd");
    let nkey = scene.secret("NKEY", &KeyPair::new_user().seed().expect("a seed"));
    let creds = scene.secret("CREDS", &Operator::new().creds(None));
    let at = |rest: &str| secured.at("tls://localhost", &format!("{trusted}, {rest}"));
    scene.start(&[
        ("none", at(""), TO),
        ("password", at(&format!("user: me, password: \"{wrong}\"")), TO),
        ("token", at(&format!("token: \"{wrong}\"")), TO),
        ("nkey", at(&format!("nkey: \"{nkey}\"")), TO),
        ("creds", at(&format!("creds: \"{creds}\"")), TO),
    ]);
    scene.send(1).await;
    scene.await_trouble("none", &["authorization violation", "the server wants a login"]).await;
    scene.await_trouble("password", &["check user and password"]).await;
    scene.await_trouble("token", &["check `token`"]).await;
    scene.await_trouble("nkey", &["public key of `nkey`"]).await;
    scene.await_trouble("creds", &["check that the user in `creds`"]).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_or_host_is_refused_and_says_so() {
    let secured = Secured::start("");
    let plain = Nats::start();
    let authority = Authority::named("its-own");
    let shown = tls(authority.own(), &authority, false);
    let users = String::new();
    let own = Secured::with(authority, Access { tls: Some(shown), users, ..Access::default() });
    let mut scene = Scene::new();
    let its_own = scene.trusting(&own.authority);
    let trusted = scene.trusting(&secured.authority);
    let other = scene.trusting(&Authority::named("others"));
    let no_tls = format!("type: nats, url: \"{}\", {trusted}", plain.url());
    scene.start(&[
        ("other", secured.at("nats://localhost", &other), TO),
        ("system", secured.at("tls://localhost", ""), TO),
        ("asked", secured.at("nats://localhost", ""), TO),
        ("misnamed", secured.at("nats://127.0.0.1", &trusted), TO),
        ("plain", no_tls, TO),
        ("own", own.at("nats://localhost", &its_own), TO),
    ]);
    scene.send(1).await;
    scene.await_trouble("other", &["no CA in `tls.ca` has signed it"]).await;
    scene.await_trouble("system", &["name its CA in `tls.ca`"]).await;
    scene.await_trouble("asked", &["name its CA in `tls.ca`"]).await;
    scene.await_trouble("misnamed", &["localhost", "host name"]).await;
    scene.await_trouble("plain", &["check that the port speaks TLS"]).await;
    scene.await_trouble("own", &["CA's own certificate (CA:TRUE)"]).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_mended_credentials_flows_and_nothing_is_given_up() {
    let authority = Authority::named("nats-tests");
    let clients = |issued: Pair| Some(tls(issued, &authority, true));
    let token = |token: &str| format!("authorization {{ token: \"{token}\", timeout: 5 }}");
    let access = Access {
        tls: clients(authority.issue_until(&LOOPBACK, 2001)),

        users: token("another"),
        ..Access::default()
    };
    let renewed = clients(authority.issue(&LOOPBACK));
    let client = authority.client("waypost");
    let mut secured = Secured::with(authority, access);
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let shown = scene.showing(&secured.authority, &client);
    let [cert, key] = ["cert.pem", "key.pem"].map(|file| scene.dir.path().join(file));
    let right = scene.secret("TOKEN", "nats-t0ken-nobody-knows");
    let shown = format!("{shown}, token: \"{right}\"");
    let nothing = format!("{trusted}, token: \"{right}\"");
    scene.start(&[
        ("shown", secured.at("tls://localhost", &shown), TO),
        ("nothing", secured.at("tls://localhost", &nothing), TO),
    ]);
    scene.send(20).await;
    scene.await_trouble("shown", &["certificate has expired"]).await;
    secured.change(|access| access.tls = renewed);
    scene.await_trouble("nothing", &["client certificate", "`tls.cert`"]).await;
    scene.await_trouble("shown", &["check `token`"]).await;
    secured.change(|access| access.users = token("nats-t0ken-nobody-knows"));
    let reader = || {
        let options = ConnectOptions::with_token("nats-t0ken-nobody-knows".into());
        options.add_client_certificate(cert.clone(), key.clone())
    };
    create(secured.client(&scene, reader()).await).await;
    assert_arrived(secured.client(&scene, reader()).await, &scene, 1).await;

    // A server that hangs, dies, and comes back is found again over TLS.
    secured.nats.pause();
    scene.send(20).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    secured.nats.kill();
    secured.nats.restart();
    assert_arrived(secured.client(&scene, reader()).await, &scene, 1).await;
    scene.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_tls_first_gets_it() {
    let authority = Authority::named("nats-tests");
    let shown = tls(authority.issue(&LOOPBACK), &authority, false);
    let users = String::new();
    let secured = Secured::with(
        authority,
        Access { tls: Some(shown), tls_first: true, users, ..Access::default() },
    );
    let mut scene = Scene::new();
    let trusted = scene.trusting(&secured.authority);
    let reader = || ConnectOptions::new().tls_first();
    create(secured.client(&scene, reader()).await).await;
    scene.start(&[
        ("first", secured.at("tls://localhost", &format!("{trusted}, tls_first: true")), TO),
        ("late", secured.at("tls://localhost", &trusted), "subject: tests.late"),
    ]);
    scene.send(20).await;
    assert_arrived(secured.client(&scene, reader()).await, &scene, 1).await;
    scene.await_trouble("late", &["wants `tls_first: true`"]).await;
    scene.end();
}
