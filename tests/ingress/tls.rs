//! TLS on the ingress: what it speaks, its deadlines, and the command that speaks it too.

use std::fs;

use super::*;
use crate::common::{
    certificates::{self, Authority, Offer, Pair, Tls},
    daemon,
    frames::{self, Answer, Http2},
    log_files,
};

const HOST: &str = "hooks.waypost.test";

/// A daemon with a certificate of an authority of its own.
pub(super) struct Secured {
    /// Before the directory, which it writes to until it ends.
    pub(super) daemon: Daemon,
    pub(super) dir: TempDir,
    pub(super) authority: Authority,
    pub(super) pair: Pair,
}

impl Secured {
    pub(super) fn start(settings: &[(&str, &str)]) -> Secured {
        let authority = Authority::new();
        let pair = authority.issue(&["localhost", HOST]);
        Secured::showing(authority, pair, ".", settings)
    }

    /// With these files, in this directory below the daemon's own.
    pub(super) fn showing(
        authority: Authority,
        pair: Pair,
        at: &str,
        settings: &[(&str, &str)],
    ) -> Secured {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join(at)).expect("a directory");
        pair.write(&dir.path().join(at));
        let files = [format!("{at}/cert.pem"), format!("{at}/key.pem")];
        let daemon = Daemon::start(
            dir.path(),
            &format!("{SOURCES}{ROUTES}"),
            &[&with_files(&files), settings].concat(),
        );
        Secured { daemon, dir, authority, pair }
    }

    pub(super) fn connect(&self, offer: Offer) -> Result<Tls, String> {
        certificates::connect(self.daemon.listen, &self.authority, offer)
    }

    #[track_caller]
    pub(super) fn raw(&self) -> Raw {
        Raw::over(self.connect(Offer::default()).expect("a connection"))
    }

    /// Waits until new connections are shown this certificate.
    #[track_caller]
    pub(super) fn await_shown(&self, pair: &Pair) {
        let started = Instant::now();
        loop {
            let connection = self.connect(Offer::default()).expect("a connection");
            let shown = connection.conn.peer_certificates().expect("a certificate");
            if shown[0] == pair.der() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "the new certificate is never shown");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until this stands in the log so many times.
    #[track_caller]
    pub(super) fn await_log(&self, words: &str, times: usize) {
        let started = Instant::now();
        while self.daemon.log().matches(words).count() < times {
            assert!(started.elapsed() < PATIENCE, "no {words:?} in:\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(super) fn with_files(files: &[String; 2]) -> Vec<(&str, &str)> {
    vec![("WAYPOST_INGRESS__TLS__CERT", &files[0]), ("WAYPOST_INGRESS__TLS__KEY", &files[1])]
}

#[test]
fn webhooks_come_in_over_tls_1_3_and_1_2() {
    let secured = Secured::start(&[]);
    for (n, offer) in [Offer::default(), Offer::old()].into_iter().enumerate() {
        let mut connection = Raw::over(secured.connect(offer).expect("a connection"));
        assert_eq!(connection.ask(raw::request(&event(2 * n))).status, 200);
        assert_eq!(connection.ask(raw::request(&event(2 * n + 1))).status, 200);
    }
    assert_eq!(log_files::wait_for(&secured.daemon.data_dir(), 4).len(), 4);
    // Operators' own listener stays plain.
    let mut admin = Raw::connect(secured.daemon.admin_listen);
    assert_eq!(admin.ask("GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").status, 200);
    assert_eq!(secured.daemon.log().matches("a certificate in force").count(), 1);
}

#[test]
fn http2_is_agreed_on_only_where_both_sides_want_it() {
    let both: &[&[u8]] = &[b"h2", b"http/1.1"];
    let secured = Secured::start(&[("WAYPOST_INGRESS__HTTP2", "true")]);
    for (alpn, agreed) in [(both, Some(&b"h2"[..])), (&both[1..], Some(b"http/1.1")), (&[], None)] {
        let connection = secured.connect(Offer { alpn, ..Offer::default() }).expect("a connection");
        assert_eq!(connection.conn.alpn_protocol(), agreed);
        if agreed != Some(b"h2") {
            assert_eq!(Raw::over(connection).ask(raw::request(&event(1))).status, 200);
            continue;
        }
        let mut connection = Http2::over(Raw::over(connection));
        connection.say(frames::opening());
        assert_eq!(connection.ask(1, frames::request(1, &event(2))), Answer::Status(200));
    }
    let nothing_of_ours = secured.connect(Offer { alpn: &[b"spdy/3"], ..Offer::default() });
    assert!(nothing_of_ours.is_err());

    let off = Secured::start(&[]);
    let connection = off.connect(Offer { alpn: both, ..Offer::default() }).expect("a connection");
    assert_eq!(connection.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn whoever_dawdles_over_tls_is_let_go() {
    let secured = Secured::start(&[
        ("WAYPOST_INGRESS__FIRST_BYTE_TIMEOUT", "2s"),
        ("WAYPOST_INGRESS__HEAD_TIMEOUT", "2s"),
        ("WAYPOST_INGRESS__BODY_TIMEOUT", "2s"),
    ]);
    let mut silent = Raw::connect(secured.daemon.listen);
    let mut half_a_hello = Raw::connect(secured.daemon.listen);
    // The head of a record of 512 bytes, and of a ClientHello in it.
    half_a_hello.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    let mut no_request = secured.raw();
    let request = raw::request(&event(1));
    let mut half_a_head = secured.raw();
    half_a_head.say(&request[..30]);
    let mut half_a_body = secured.raw();
    half_a_body.say(&request[..request.len() - 5]);

    silent.assert_closed();
    half_a_hello.assert_closed();
    no_request.assert_closed();
    half_a_head.assert_closed();
    assert_eq!(half_a_body.hear().expect("an answer").status, 408);
    half_a_body.assert_closed();
    assert_eq!(secured.raw().ask(request).status, 200);
}

#[test]
fn what_is_no_tls_is_sent_away() {
    let secured = Secured::start(&[]);
    let answer = ask(&secured.daemon, raw::request(&event(1)));
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")), "{answer:?}");
    assert!(answer.body.contains("https"), "{answer:?}");
    for words in [&b"\0\0\0\0\0\0\0\0"[..], &[0x16; 600], b"\x80\x2e\x01\x00\x02"] {
        let mut connection = Raw::connect(secured.daemon.listen);
        connection.say(words);
        // An alert, or nothing; then the end.
        while connection.take(1).is_some() {}
    }
    assert_eq!(secured.raw().ask(raw::request(&event(2))).status, 200);
}

#[test]
fn one_connection_too_many_is_closed_and_there_is_room_again_when_one_ends() {
    let secured = Secured::start(&[("WAYPOST_INGRESS__MAX_CONNECTIONS", "2")]);
    let mut served: Vec<Raw> = (0..2).map(|_| secured.raw()).collect();
    for (n, connection) in served.iter_mut().enumerate() {
        assert_eq!(connection.ask(raw::request(&event(n))).status, 200);
    }
    assert!(secured.connect(Offer::default()).is_err());
    for (n, connection) in served.iter_mut().enumerate() {
        assert_eq!(connection.ask(raw::request(&event(10 + n))).status, 200);
    }
    served.pop();
    let started = Instant::now();
    while secured.connect(Offer::default()).is_err() {
        assert!(started.elapsed() < PATIENCE, "there is never room again");
    }
}

#[test]
fn a_drain_over_tls_finishes_the_request_under_way() {
    let secured = Secured::start(&[]);
    let webhook = event(1);
    let length = format!("content-length: {}", webhook.body.len());
    let (first, second) = webhook.body.split_at(10);
    let mut half = secured.raw();
    assert_eq!(half.ask(raw::head(&webhook, &[&length, "expect: 100-continue"])).status, 100);
    half.say(first);
    secured.daemon.terminate();
    drain::await_drain(&secured.daemon);
    assert_eq!(half.ask(second).status, 200);
    half.assert_closed();
    let data_dir = secured.daemon.data_dir();
    assert!(secured.daemon.ended().success());
    assert_eq!(log_files::read(&data_dir).len(), 1);
}

#[test]
fn send_speaks_tls_to_the_daemon_it_finds_and_to_one_it_is_told_of() {
    let authority = Authority::new();
    let pair = authority.issue(&["localhost", HOST]);
    let secured = Secured::showing(authority, pair, "tls", &[]);
    let send = |further: &[&str]| {
        let arguments = [&["send", "miibo"], further].concat();
        daemon::command(secured.dir.path(), &arguments)
    };
    let port = secured.daemon.listen.port();
    let [localhost, loopback] = ["localhost", "127.0.0.1"].map(|host| format!("{host}:{port}"));
    fs::write(secured.dir.path().join("ca.pem"), secured.authority.pem()).expect("to write");
    fs::write(secured.dir.path().join("strange.pem"), Authority::new().pem()).expect("to write");

    for further in [
        &[][..],
        &["--url", &format!("https://{localhost}"), "--cacert", "ca.pem"],
        &["--url", &format!("https://{localhost}/"), "--cacert", "ca.pem"],
    ] {
        let (status, text) = send(further);
        assert!(status.success() && text.starts_with("200 OK"), "{further:?}: {text}");
    }
    for (url, cacert, words) in [
        (format!("https://{localhost}"), None, "Name the authority's file with --cacert"),
        (format!("https://{localhost}"), Some("strange.pem"), "no TLS with"),
        // The certificate is for other hosts.
        (format!("https://{loopback}"), Some("ca.pem"), "no TLS with"),
        (format!("https://{localhost}"), Some("none.pem"), "cannot read none.pem"),
        (format!("https://{localhost}"), Some("tls/key.pem"), "holds no certificate"),
        (format!("http://{localhost}"), None, "this port speaks TLS; use https"),
        (format!("http://{localhost}"), Some("ca.pem"), "--cacert goes with https"),
        (format!("https://{localhost}/hooks/miibo"), None, "the path is the source's"),
    ] {
        let cacert = cacert.map(|file| vec!["--cacert", file]).unwrap_or_default();
        let (status, text) = send(&[&["--url", &url], &cacert[..]].concat());
        assert_eq!(status.code(), Some(1), "{url}: {text}");
        assert!(text.contains(words), "{url}: no {words:?} in: {text}");
    }

    // A daemon that shows something else than its file is not trusted with an event.
    let other = secured.authority.issue(&["localhost"]);
    fs::write(secured.dir.path().join("tls/cert.pem"), &other.cert).expect("to write");
    let (status, text) = send(&[]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("another certificate than its file holds"), "{text}");
}

#[test]
fn send_says_why_an_authoritys_own_certificate_will_not_do() {
    let authority = Authority::new();
    let pair = authority.own();
    let secured = Secured::showing(authority, pair, ".", &[]);
    let url = format!("https://localhost:{}", secured.daemon.listen.port());
    let arguments = ["send", "miibo", "--url", &url, "--cacert", "cert.pem"];
    let (status, text) = daemon::command(secured.dir.path(), &arguments);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("an authority's own certificate (CA:TRUE)"), "{text}");
    // The daemon itself is found and trusted all the same.
    let (status, text) = daemon::command(secured.dir.path(), &["send", "miibo"]);
    assert!(status.success(), "{text}");
}

#[test]
fn a_failed_handshake_is_told_and_a_probe_of_the_port_is_not() {
    let secured = Secured::start(&[]);
    for _ in 0..3 {
        drop(Raw::connect(secured.daemon.listen));
    }
    assert_eq!(secured.raw().ask(raw::request(&event(1))).status, 200);
    assert!(!secured.daemon.log().contains("handshake"), "{}", secured.daemon.log());
    // One that trusts another authority.
    let stranger = Authority::new();
    let offer = Offer::default();
    assert!(certificates::connect(secured.daemon.listen, &stranger, offer).is_err());
    secured.await_log("a TLS handshake failed", 1);
}
