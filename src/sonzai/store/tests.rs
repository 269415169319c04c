use secrecy::SecretString;

use super::*;
use crate::source::sonzai::settings::Scope;

const HOLD: Duration = Duration::from_secs(600);

fn change(event_type: &str) -> Change {
    Change {
        name: Name::new(&Scope::Tenant, Some("p"), event_type),
        what: What::Rotate,
        url: "https://h/a".to_owned(),
        authorization: None,
        since_ms: 1,
    }
}

fn times() -> Times {
    let now_ms = now_ms();
    Times { now_ms, until_ms: now_ms + OVERLAP.as_millis() as u64 }
}

fn open(dir: &Path) -> Arc<Store> {
    Arc::new(Store::open(dir, "sonzai", HOLD))
}

fn finish(store: &Store, event_type: &str, secret: &str) {
    let secret = SecretString::from(secret);
    store.keep(|content| content.finish(&change(event_type), secret, None, times())).unwrap();
}

/// How many keys are valid for a type now, and whether one is being changed.
fn in_force(store: &Store, event_type: &str) -> (usize, bool) {
    let (held, now_ms) = (store.keyring().load(), now_ms());
    let valid = held.valid(Some(event_type), now_ms).count();
    (valid, held.is_changing(Some(event_type), now_ms))
}

#[test]
fn what_was_kept_is_there_at_the_next_start_and_nobody_else_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert_eq!((in_force(&store, "a"), store.trouble().is_none()), ((0, false), true));
    store.change(|content| content.begin(change("a"))).unwrap();
    assert_eq!(in_force(&store, "a"), (0, true));
    finish(&store, "a", "whsec_one");
    finish(&store, "a", "whsec_two");
    assert_eq!(in_force(&store, "a"), (2, false), "the one before is valid for a while");
    let (content, path) = (store.content(), file(dir.path(), "sonzai"));
    drop(store);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    let again = open(dir.path());
    assert_eq!((again.content(), in_force(&again, "a")), (content, (2, false)));
}

#[test]
fn what_others_could_read_they_can_read_no_more() {
    let dir = tempfile::tempdir().unwrap();
    finish(&open(dir.path()), "a", "whsec_one");
    let path = file(dir.path(), "sonzai");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    open(dir.path());
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_change_that_was_under_way_holds_anew_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).change(|content| content.begin(change("a"))).unwrap();
    let again = open(dir.path());
    assert_eq!((in_force(&again, "a"), in_force(&again, "b")), ((0, true), (0, false)));
    let until_ms = again.changes()[0].1;
    assert!(until_ms > now_ms(), "though it began long ago");
    again.keep(|content| content.abandon(&change("a").name)).unwrap();
    assert_eq!(in_force(&again, "a"), (0, false));
}

#[test]
fn a_change_holds_no_longer_than_it_may_but_for_its_calls() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), "sonzai", Duration::ZERO));
    store.change(|content| content.begin(change("a"))).unwrap();
    assert_eq!(in_force(&store, "a"), (0, false));
    let calling = store.call("a");
    let another = store.call("a");
    drop(calling);
    assert_eq!(in_force(&store, "a"), (0, true));
    drop(another);
    assert_eq!(in_force(&store, "a"), (0, false));
}

#[test]
fn a_damaged_file_is_told_and_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    finish(&open(dir.path()), "a", "whsec_one");
    let path = file(dir.path(), "sonzai");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let store = open(dir.path());
    let error = store.change(|content| content.begin(change("a"))).unwrap_err().to_string();
    assert!(error.contains("sonzai.json") && error.contains("--rotate-unknown"), "{error}");
    assert!(!error.contains("whsec"), "{error}");
    store.keep(|content| content.abandon(&change("a").name)).unwrap_err();
    assert_eq!(fs::read(&path).unwrap(), &good[..good.len() / 2]);
    // Once it is put right, the next look finds it.
    fs::write(&path, &good).unwrap();
    store.read_again();
    assert_eq!((in_force(&store, "a"), store.trouble().is_none()), ((1, false), true));
}

#[test]
fn what_cannot_be_written_is_not_begun_and_a_secret_that_came_is_in_force_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    // A file stands where the directory would be.
    let secrets = dir.path().join(DIR);
    fs::write(&secrets, "").unwrap();
    store.change(|content| content.begin(change("a"))).unwrap_err();
    assert_eq!((store.content(), in_force(&store, "a")), (Content::default(), (0, false)));
    let secret = SecretString::from("whsec_one");
    let kept = store.keep(|content| content.finish(&change("a"), secret, None, times()));
    kept.unwrap_err();
    assert_eq!((in_force(&store, "a"), store.is_behind()), ((1, false), true));
    store.save().unwrap_err();
    fs::remove_file(&secrets).unwrap();
    store.save().unwrap();
    assert_eq!((open(dir.path()).content(), store.is_behind()), (store.content(), false));
}

#[test]
fn sources_of_one_name_share_a_store_until_nobody_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::new(dir.path().to_owned(), HOLD);
    let name = ByteString::from_static("sonzai");
    let first = stores.of(&name);
    assert!(Arc::ptr_eq(&first, &stores.of(&name)));
    stores.forget(|_| false);
    assert!(Arc::ptr_eq(&first, &stores.of(&name)), "somebody holds it");
    drop(first);
    stores.forget(|_| false);
    assert!(stores.open.lock().unwrap().is_empty());
}
