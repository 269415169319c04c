//! The certificate's files: named when they are wrong, taken when they change.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    tls::{Secured, with_files},
    *,
};
use crate::common::{
    certificates::{Authority, Offer, Pair},
    daemon,
};

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let (pair, other) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("to write");
    write("cert.pem", &pair.cert);
    write("key.pem", &pair.key);
    write("other.pem", &other.key);
    write("empty.pem", "");
    for (cert, key, words) in [
        ("none.pem", "key.pem", "cannot read ingress.tls.cert none.pem"),
        ("cert.pem", "none.pem", "cannot read ingress.tls.key none.pem"),
        ("empty.pem", "key.pem", "ingress.tls.cert empty.pem holds no certificate"),
        ("cert.pem", "empty.pem", "ingress.tls.key empty.pem holds no private key"),
        ("key.pem", "cert.pem", "ingress.tls.cert key.pem holds no certificate"),
        ("cert.pem", "other.pem", "the key in other.pem does not belong to"),
    ] {
        let files = [cert.to_owned(), key.to_owned()];
        let routes = format!("{SOURCES}{ROUTES}");
        let (status, log) = Daemon::fails(dir.path(), &routes, &with_files(&files));
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(words), "no {words:?} in: {log}");
        let base64 = pair.key.lines().nth(1).expect("a line of the key");
        assert!(!log.contains(base64), "the key is told");
    }
    let only_one = [("WAYPOST_INGRESS__TLS__CERT", "cert.pem")];
    let (status, log) = Daemon::fails(dir.path(), &format!("{SOURCES}{ROUTES}"), &only_one);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("`ingress.tls.key` is not; set both"), "{log}");
}

#[test]
fn an_expired_certificate_is_told_and_shown_all_the_same() {
    let authority = Authority::new();
    let pair = authority.issue_until(&["localhost"], 2020);
    let secured = Secured::showing(authority, pair, ".", &[]);
    secured.await_log("has expired: renew it cert=./cert.pem expires=2020-01-01T00:00:00Z", 1);
    let Err(refused) = secured.connect(Offer::default()) else { panic!("nobody looks") };
    assert!(refused.contains("expired"), "{refused}");
    // Who pins it does not look.
    let (status, text) = daemon::command(secured.dir.path(), &["send", "miibo"]);
    assert!(status.success(), "{text}");
}

/// Puts a pair's files into a directory.
type Change = fn(&Path, &Pair);

/// The ways in which files change, each by its name.
fn ways() -> [(&'static str, Change); 3] {
    [
        ("written over", |dir, pair| pair.write(dir)),
        ("renamed", |dir, pair| {
            let next = dir.join("next");
            fs::create_dir_all(&next).expect("a directory");
            pair.write(&next);
            for name in ["cert.pem", "key.pem"] {
                fs::rename(next.join(name), dir.join(name)).expect("to rename");
            }
        }),
        ("removed and written later", |dir, pair| {
            for name in ["cert.pem", "key.pem"] {
                fs::remove_file(dir.join(name)).expect("to remove");
            }
            pair.write(dir);
        }),
    ]
}

#[test]
fn a_certificate_that_changes_is_taken_and_connections_go_on() {
    let secured = Secured::start(&[]);
    secured.await_shown(&secured.pair);
    let mut kept = secured.raw();
    for (n, (way, change)) in ways().into_iter().enumerate() {
        let next = secured.authority.issue(&["localhost", way.split(' ').next().expect("a word")]);
        change(secured.dir.path(), &next);
        secured.await_shown(&next);
        assert_eq!(kept.ask(raw::request(&event(n))).status, 200, "{way}");
    }
}

#[test]
fn kubernetes_swap_of_a_whole_directory_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let mount = dir.path().join("mount");
    let authority = Authority::new();
    let version = |n: usize, pair: &Pair| -> PathBuf {
        let version = mount.join(format!("..{n}"));
        fs::create_dir_all(&version).expect("a directory");
        pair.write(&version);
        // The link is swapped in one step.
        symlink(format!("..{n}"), mount.join("..data_tmp")).expect("a link");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("to rename");
        version
    };
    let (first, second) = (authority.issue(&["localhost"]), authority.issue(&["localhost"]));
    let old = version(1, &first);
    for name in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{name}"), mount.join(name)).expect("a link");
    }
    let files = ["mount/cert.pem".to_owned(), "mount/key.pem".to_owned()];
    let routes = format!("{SOURCES}{ROUTES}");
    let daemon = Daemon::start(dir.path(), &routes, &with_files(&files));
    let secured = Secured { daemon, dir, authority, pair: first };
    secured.await_shown(&secured.pair);
    version(2, &second);
    fs::remove_dir_all(old).expect("to remove the old version");
    secured.await_shown(&second);
}

#[test]
fn a_bad_pair_leaves_the_old_one_in_force_and_is_told_once() {
    const KEPT: &str = "the certificate stays as it was";
    let secured = Secured::start(&[]);
    let path = |name: &str| secured.dir.path().join(name);
    let next = secured.authority.issue(&["localhost"]);

    // A key that does not belong to the certificate.
    fs::write(path("cert.pem"), &next.cert).expect("to write");
    secured.await_log(KEPT, 1);
    secured.await_shown(&secured.pair);
    fs::remove_file(path("key.pem")).expect("to remove");
    secured.await_log("cannot read ingress.tls.key", 1);
    secured.await_shown(&secured.pair);
    fs::write(path("cert.pem"), "").expect("to write");
    fs::write(path("key.pem"), &next.key).expect("to write");
    secured.await_log("holds no certificate", 1);
    secured.await_shown(&secured.pair);

    next.write(secured.dir.path());
    secured.await_shown(&next);
    let log = secured.daemon.log();
    assert_eq!(log.matches(KEPT).count(), 3, "{log}");
    assert_eq!(log.matches("does not belong to").count(), 1, "{log}");
    assert_eq!(log.matches(" a certificate in force").count(), 2, "{log}");
    let base64 = next.key.lines().nth(1).expect("a line of the key");
    assert!(!log.contains(base64), "the key is told");
}
