//! Every kind of write is noticed, on a disk and in memory, and every way to ask is heard.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use super::{accepted, attempts, eventually, hash, in_force, replace, to_topic};
use crate::common::{
    daemon::{self, Daemon, MIIBO_SECRET},
    log_files, operator,
    raw::{self, Raw},
    sender,
};

/// How long a writer stops halfway.
const STALL: Duration = Duration::from_secs(4);

/// A directory on the disk, and one in memory.
fn places() -> [TempDir; 2] {
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory on the disk");
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    [disk, memory]
}

/// Waits until a text is in force, and sees that events go where it says.
#[track_caller]
fn assert_comes_into_force(daemon: &Daemon, text: &str, topic: &str) {
    eventually("the file is in force", || in_force(daemon) == hash(text));
    let id = accepted(daemon, 0);
    let is_there =
        || log_files::read(&daemon.data_dir()).iter().any(|p| p.topic == topic && p.id == id);
    eventually("the event is where the new table says", is_there);
}

#[test]
fn a_save_in_place_and_a_rename_are_noticed() {
    for dir in places() {
        let file = dir.path().join("routes.yaml");
        let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
        assert_comes_into_force(&daemon, &to_topic("first"), "first");
        fs::write(&file, to_topic("in-place")).expect("to save in place");
        assert_comes_into_force(&daemon, &to_topic("in-place"), "in-place");
        replace(&file, &to_topic("renamed"));
        assert_comes_into_force(&daemon, &to_topic("renamed"), "renamed");
        // Away and back, as some editors do it.
        fs::rename(&file, dir.path().join("routes.yaml~")).expect("to move the file away");
        fs::write(&file, to_topic("moved")).expect("to write it anew");
        assert_comes_into_force(&daemon, &to_topic("moved"), "moved");
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_file_that_is_being_written_is_not_in_force_before_it_is_whole() {
    // The first half is a routing table as well: what decides is that its writer has not closed it.
    let (first_half, whole) = (to_topic("half"), to_topic("half") + "# and the rest\n");
    let begun = places().map(|dir| {
        let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
        let mut file = File::create(dir.path().join("routes.yaml")).expect("to open the file");
        file.write_all(first_half.as_bytes()).expect("to write a half");
        (dir, daemon, file)
    });
    std::thread::sleep(STALL);
    for (_dir, daemon, mut file) in begun {
        file.write_all(&whole.as_bytes()[first_half.len()..]).expect("to write the rest");
        drop(file);
        assert_comes_into_force(&daemon, &whole, "half");
        assert!(!daemon.log().contains(&hash(&first_half)), "{}", daemon.log());
        assert_eq!((attempts(&daemon, "applied"), attempts(&daemon, "rejected")), (1.0, 0.0));
    }
}

#[test]
fn who_asks_gets_what_is_there_whoever_writes_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
    let mut file = File::create(dir.path().join("routes.yaml")).expect("to open the file");
    file.write_all(to_topic("second").as_bytes()).expect("to write it");
    let (status, output) = daemon.command(&["reload"]);
    assert!(status.success(), "{output}");
    assert_eq!(in_force(&daemon), hash(&to_topic("second")), "{output}");
}

/// A directory as Kubernetes makes them: `NAME` leads to `..data/NAME`, `..data` to a directory of a
/// version, and a new version is another directory to which `..data` is led in one rename.
struct Volume {
    dir: PathBuf,
    version: u32,
}

impl Volume {
    fn new(dir: PathBuf, name: &str, text: &str) -> Volume {
        fs::create_dir(&dir).expect("a directory");
        let mut volume = Volume { dir, version: 0 };
        volume.update(name, text);
        symlink(Path::new("..data").join(name), volume.dir.join(name)).expect("a link");
        volume
    }

    fn update(&mut self, name: &str, text: &str) {
        let before = format!("..version-{}", self.version);
        self.version += 1;
        let version = format!("..version-{}", self.version);
        fs::create_dir(self.dir.join(&version)).expect("a directory");
        fs::write(self.dir.join(&version).join(name), text).expect("a file");
        symlink(&version, self.dir.join("..data_tmp")).expect("a link");
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).expect("a rename");
        if self.version > 1 {
            fs::remove_dir_all(self.dir.join(before)).expect("to remove the old version");
        }
    }
}

#[test]
fn kubernetes_swap_of_a_symlink_is_noticed_each_time() {
    for dir in places() {
        let mut volume = Volume::new(dir.path().join("etc"), "table.yaml", &to_topic("first"));
        let file = volume.dir.join("table.yaml");
        let routes = [("WAYPOST_ROUTES", file.to_str().expect("UTF-8"))];
        let daemon = Daemon::start(dir.path(), "not this one", &routes);
        for topic in ["second", "third", "fourth"] {
            volume.update("table.yaml", &to_topic(topic));
            assert_comes_into_force(&daemon, &to_topic(topic), topic);
        }
        assert!(daemon.stop().success());
    }
}

#[test]
fn a_secret_file_that_is_swapped_is_noticed_and_the_old_secret_is_refused() {
    for dir in places() {
        let mut volume = Volume::new(dir.path().join("secrets"), "miibo", "an-older-secret\n");
        let secret = format!("${{file:{}}}", volume.dir.join("miibo").display());
        let text = to_topic("all").replace("${MIIBO_SECRET}", &secret);
        let daemon = Daemon::start(dir.path(), &text, &[]);
        let status = || Raw::connect(daemon.listen).ask(raw::request(&sender::miibo("{}"))).status;
        assert_eq!(status(), 401);
        volume.update("miibo", MIIBO_SECRET);
        eventually("the new secret counts", || status() == 200);
        volume.update("miibo", "yet-another-secret");
        eventually("the old secret does not", || status() == 401);
        assert_eq!(in_force(&daemon), hash(&text), "the hash is of the text alone");
        assert_eq!(attempts(&daemon, "applied"), 2.0);
        assert!(daemon.log().contains("sources changed: miibo"), "{}", daemon.log());
        assert!(!daemon.log().contains(MIIBO_SECRET));
    }
}

/// The inodes that a process watches: see `/proc/[pid]/fdinfo` in proc(5).
fn watched(daemon: &Daemon) -> Vec<u64> {
    let descriptors = fs::read_dir(format!("/proc/{}/fdinfo", daemon.pid())).expect("descriptors");
    // One may be closed meanwhile.
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    let inode = |line: &str| {
        let (_, rest) = line.strip_prefix("inotify ")?.split_once("ino:")?;
        u64::from_str_radix(rest.split(' ').next()?, 16).ok()
    };
    infos.flat_map(|info| info.lines().filter_map(inode).collect::<Vec<u64>>()).collect()
}

#[test]
fn a_secret_that_is_named_for_the_first_time_is_watched_once_its_reload_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
    let volume = Volume::new(dir.path().join("secrets"), "miibo", MIIBO_SECRET);
    let inode = fs::metadata(&volume.dir).expect("the directory").ino();
    assert!(!watched(&daemon).contains(&inode));
    let secret = format!("${{file:{}}}", volume.dir.join("miibo").display());
    super::reload(&daemon, dir.path(), &to_topic("all").replace("${MIIBO_SECRET}", &secret));
    assert!(watched(&daemon).contains(&inode), "{:?}", watched(&daemon));
}

#[test]
fn whoever_asks_for_a_reload_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
    // Unchanged, and yet there is an answer.
    let (status, output) = daemon.command(&["reload"]);
    assert!(status.success(), "{output}");
    let since = super::config(&daemon)["in_force"]["since"].as_str().expect("a time").to_owned();
    let first = hash(&to_topic("first"));
    assert!(
        output.starts_with(&format!("unchanged: {first} is in force since {since}\n")),
        "{output}"
    );

    let more = to_topic("second")
        .replace("miibo:", "other:")
        .replace("name: all", "name: every")
        .replace("${SONZAI_SECRET}", "too-short");
    replace(&dir.path().join("routes.yaml"), &more);
    let (status, output) = daemon.command(&["reload", "--json"]);
    assert!(status.success(), "{output}");
    let attempt: serde_json::Value = serde_json::from_str(&output).expect("JSON");
    // The daemon may have noticed by itself first.
    assert!(["applied", "unchanged"].contains(&attempt["outcome"].as_str().unwrap()), "{output}");
    assert_eq!(attempt["hash"], hash(&more));
    assert!(daemon.log().contains("sources added: other"), "{}", daemon.log());
    assert!(daemon.log().contains("routes removed: all"), "{}", daemon.log());
    // Whoever asks after it was noticed still learns what it changed, and what is doubtful.
    let (status, output) = daemon.command(&["reload"]);
    assert!(status.success() && output.starts_with("unchanged: "), "{output}");
    for expected in [
        "sources added: other",
        "sources changed: sonzai",
        "sources removed: miibo",
        "routes added: every",
        "routes removed: all",
        "warning: this secret is shorter",
    ] {
        assert!(output.contains(expected), "{expected}: {output}");
    }

    let before = attempts(&daemon, "unchanged");
    daemon.hang_up();
    eventually("SIGHUP is heard", || attempts(&daemon, "unchanged") > before);

    let without = operator::ask(&daemon, "POST", "/-/reload", &[]);
    assert_eq!(without.status, 401, "{without:?}");
    let get = operator::ask(&daemon, "GET", "/-/reload", &[]);
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")), "{get:?}");
    let token = fs::read_to_string(daemon.data_dir().join("admin.token")).expect("the token");
    let header = format!("authorization: Bearer {}", token.trim());
    let answer = operator::ask(&daemon, "POST", "/-/reload", &[&header]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("\"outcome\":\"unchanged\""), "{answer:?}");
    assert!(daemon.stop().success());
}

#[test]
fn settings_that_changed_are_named_and_need_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let toml = dir.path().join("waypost.toml");
    fs::write(&toml, "[dispatch]\nretry_for = '10m'\n").expect("the settings");
    let daemon = Daemon::start(dir.path(), &to_topic("first"), &[]);
    let restart_needed = || super::config(&daemon)["restart_needed"].to_string();
    assert_eq!(restart_needed(), "[]");
    // What the environment says is not the file's to change.
    let changed = "listen = '127.0.0.1:1'\n[dispatch]\nretry_for = '1h'\n[log]\nlevel = 'warn'\n";
    fs::write(&toml, changed).expect("the settings");
    eventually("what changed is named", || {
        restart_needed() == r#"["dispatch.retry_for","log.level"]"#
    });
    assert!(daemon.log().contains("settings have changed that need a restart"));
    let status = daemon.command(&["status"]).1;
    assert!(status.contains("a restart is needed: dispatch.retry_for, log.level"), "{status}");
    fs::write(&toml, "dispatch = 1\n").expect("the settings");
    eventually("a mistake is told", || daemon.log().contains("could not start with"));
    let facts = super::config(&daemon);
    assert!(
        facts["settings_problem"].as_str().is_some_and(|why| why.contains("dispatch")),
        "{facts}"
    );
    assert_eq!(facts["restart_needed"].to_string(), "[]", "it cannot be told");
    // Commands in the daemon's own directory read the same settings.
    let (elsewhere, data) = (tempfile::tempdir().expect("a directory"), daemon.data_dir());
    let data = data.to_str().expect("UTF-8");
    let status = daemon::command(elsewhere.path(), &["status", "--data-dir", data]).1;
    assert!(status.contains("could not start with the settings as they are now"), "{status}");
    fs::write(&toml, "").expect("the settings");
    eventually("nothing is left", || {
        daemon.log().contains("the settings are those in use again") && restart_needed() == "[]"
    });
    assert_eq!(super::config(&daemon)["settings_problem"], serde_json::Value::Null);
    assert!(daemon.stop().success());
}

#[test]
fn what_nobody_set_has_not_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start_without(dir.path(), &to_topic("first"), "WAYPOST_SHUTDOWN__DELAY");
    fs::write(dir.path().join("waypost.toml"), "[log]\nlevel = 'warn'\n").expect("the settings");
    let restart_needed = || super::config(&daemon)["restart_needed"].to_string();
    eventually("what changed is named", || restart_needed() != "[]");
    assert_eq!(restart_needed(), r#"["log.level"]"#);
}
