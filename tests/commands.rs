//! The commands as people meet them: what they print, how they end, and what they say to do next.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::common::{
    command::{Outcome, PATIENCE, assert_fails, directory, waypost, waypost_reading},
    daemon::{ALL_TO_FILES, Daemon, MIIBO_SECRET, SONZAI_SECRET, SOURCES},
    log_files,
};

const SECRETS: [(&str, &str); 2] =
    [("SONZAI_SECRET", SONZAI_SECRET), ("MIIBO_SECRET", MIIBO_SECRET)];

/// Every sample, by the source that sends it.
const SAMPLES: [(&str, &str); 9] = [
    ("sonzai", "agent.message"),
    ("sonzai", "agent.mood_change"),
    ("sonzai", "agent.memory_added"),
    ("sonzai", "agent.breakthrough"),
    ("sonzai", "agent.wakeup"),
    ("sonzai", "agent.consolidation"),
    ("miibo", "user_utterance"),
    ("miibo", "agent_response"),
    ("miibo", "function_calling"),
];

/// The event's id, of a `send` that was accepted.
#[track_caller]
fn sent(outcome: &Outcome) -> String {
    assert_eq!((outcome.code, &*outcome.err), (Some(0), ""), "{outcome:?}");
    let words: Vec<&str> = outcome.out.split_whitespace().collect();
    let ["200", "OK", id] = words[..] else { panic!("{outcome:?}") };
    id.to_owned()
}

#[test]
fn a_broken_routing_table_is_refused_with_its_place_and_the_reason() {
    let good = format!("{}{ALL_TO_FILES}", SOURCES.trim_start());
    for (from, to, place, reason) in [
        ("topic: all", "topik: all", "10:27", "topik"),
        ("to: [{ broker: local", "to: [{ broker: locl", "10:20", "local"),
        ("type: log", "type: lgo", "6:18", "lgo"),
        ("${MIIBO_SECRET}", "${NOT_SET}", "3:53", "NOT_SET is not set"),
        ("/hooks/miibo", "/hooks/sonzai/x", "", "/hooks/sonzai"),
        ("brokers:\n", "brokers:\n  local: { type: log }\n", "7:3", "`local:` stands here twice"),
        ("routes:", "routes", "7:", ""),
    ] {
        let broken = good.replacen(from, to, 1);
        assert_ne!(broken, good, "{from}");
        let dir = directory(&broken);
        let outcome = waypost(dir.path(), &["run"], &SECRETS);
        assert_fails(&outcome, &[&format!("routes.yaml:{place}"), reason]);
        assert!(!dir.path().join("data").exists(), "nothing is begun: {to}");
    }
    // Everything that is wrong, at once.
    let broken = good.replace("type: log", "type: lgo").replace("${MIIBO_SECRET}", "${NOT_SET}");
    let dir = directory(&broken);
    assert_fails(&waypost(dir.path(), &["run"], &SECRETS), &["lgo", "NOT_SET is not set"]);
}

#[test]
fn a_routing_table_that_is_huge_or_unfolds_to_something_huge_is_refused() {
    let start =
        "sources:\n  m: { type: miibo, path: /x, secret: s }\nbrokers: { l: { type: log } }\n";
    let huge = format!("{start}routes: []\n{}", "# filler\n".repeat(200_000));
    // Every route owes all that the first one does.
    let targets = "{ broker: l, topic: t },".repeat(5_000);
    let mut bomb =
        format!("{start}routes:\n  - {{ name: r, match: {{ type: a }}, to: &t [{targets}] }}\n");
    for n in 0..10_000 {
        bomb.push_str(&format!("  - {{ name: r{n}, match: {{ type: a{n} }}, to: *t }}\n"));
    }
    for (routes, words) in
        [(huge, "larger than 1048576 bytes"), (bomb, "unfolds to more than 250000 values")]
    {
        let dir = directory(&routes);
        let url = ["send", "--url", "http://127.0.0.1:1"];
        assert_fails(&waypost(dir.path(), &url, &SECRETS), &["routes.yaml:", words]);
    }
}

#[test]
fn a_missing_routing_table_is_named_with_the_way_to_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let outcome = waypost(dir.path(), &["run"], &[]);
    assert_fails(&outcome, &["routes.yaml", "No such file", "--routes"]);
    let outcome = waypost(dir.path(), &["run", "--routes", "elsewhere.yaml"], &[]);
    assert_fails(&outcome, &["elsewhere.yaml", "No such file"]);
}

#[test]
fn a_setting_that_is_misspelt_or_makes_no_sense_is_refused_by_name() {
    for (toml, parts) in [
        ("lisen = '127.0.0.1:1'\n", ["lisen", "waypost.toml"]),
        ("[journal]\nmax_byte = 1\n", ["max_byte", "waypost.toml"]),
        ("[ingress]\nbody_timeout = 'soon'\n", ["body_timeout", "waypost.toml"]),
        ("listen =\n", ["line 1", "waypost.toml"]),
    ] {
        let dir = directory(&format!("{SOURCES}{ALL_TO_FILES}"));
        fs::write(dir.path().join("waypost.toml"), toml).expect("to write waypost.toml");
        assert_fails(&waypost(dir.path(), &["run"], &SECRETS), &parts);
    }
    let dir = directory(&format!("{SOURCES}{ALL_TO_FILES}"));
    for (name, value, part) in [
        ("WAYPOST_JOURNAL__MAX_BYTE", "1", "max_byte"),
        ("WAYPOST_JOURNALS__MAX_BYTES", "1", "journals"),
        ("WAYPOST_INGRESS__BODY_TIMEOUT", "soon", "BODY_TIMEOUT"),
        ("WAYPOST_LOG__LEVEL", "waypost=loud", "log.level"),
    ] {
        let env: Vec<_> = SECRETS.into_iter().chain([(name, value)]).collect();
        assert_fails(&waypost(dir.path(), &["run"], &env), &[part]);
    }
}

#[test]
fn a_taken_port_is_reported_with_the_flag_that_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("an address");
    let free = "127.0.0.1:0";
    for (listen, admin_listen, flag) in
        [(&*taken.1, free, "--listen"), (free, &*taken.1, "--admin-listen")]
    {
        let dir = directory(&format!("{SOURCES}{ALL_TO_FILES}"));
        let arguments = ["run", "--listen", listen, "--admin-listen", admin_listen];
        let outcome = waypost(dir.path(), &arguments, &SECRETS);
        assert_fails(&outcome, &[&taken.1, flag, "in use"]);
    }
}

#[test]
fn every_sample_is_accepted_and_tail_shows_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]);
    let mut ids = Vec::new();
    for (source, sample) in SAMPLES {
        ids.push(sent(&waypost(dir.path(), &["send", source, sample], &SECRETS)));
    }
    // Without a word: Sonzai's first.
    ids.push(sent(&waypost(dir.path(), &["send"], &SECRETS)));
    log_files::wait_for(&daemon.data_dir(), ids.iter().collect::<BTreeSet<_>>().len());

    let tail = waypost(dir.path(), &["tail", "--count", "9"], &SECRETS);
    assert_eq!(tail.code, Some(0), "{tail:?}");
    let json = waypost(dir.path(), &["tail", "--count", "9", "--json"], &SECRETS);
    assert_eq!(json.code, Some(0), "{json:?}");
    let lines: Vec<serde_json::Value> =
        json.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 9);
    for ((id, (source, sample)), line) in ids.iter().zip(SAMPLES).zip(&lines) {
        assert!(tail.out.contains(id) && tail.out.contains(sample), "{sample}: {}", tail.out);
        assert_eq!(line["outcome"], "confirmed");
        assert_eq!((&line["broker"], &line["address"]), (&"local".into(), &"all".into()));
        assert_eq!(
            (&line["event"]["id"], &line["event"]["source"]),
            (&(**id).into(), &source.into())
        );
        assert!(line["body"].as_str().is_some_and(|body| body.starts_with('{')), "{line}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn tail_says_that_a_large_body_is_left_out() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]);
    fs::write(dir.path().join("body.json"), "x".repeat(65 << 10)).expect("to write a body");
    sent(&waypost(dir.path(), &["send", "miibo", "--file", "body.json"], &SECRETS));
    log_files::wait_for(&daemon.data_dir(), 1);
    let tail = waypost(dir.path(), &["tail", "--count", "1"], &SECRETS);
    assert!(tail.out.contains("(larger than 64 KiB, left out)"), "{tail:?}");
    let json = waypost(dir.path(), &["tail", "--count", "1", "--json"], &SECRETS);
    let line: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((&line["truncated"], &line["body"]), (&true.into(), &"".into()));
}

#[test]
fn a_file_or_standard_input_is_sent_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]);
    let bodies: [&'static [u8]; 2] = [b"{\"from\": \"a file\"}\n", b"from a pipe\xff"];
    fs::write(dir.path().join("body.json"), bodies[0]).expect("to write a body");
    let from_file = ["send", "sonzai", "--type", "agent.new", "--file", "body.json"];
    sent(&waypost(dir.path(), &from_file, &SECRETS));
    let from_pipe = ["send", "miibo", "--file", "-"];
    sent(&waypost_reading(dir.path(), &from_pipe, &SECRETS, bodies[1]));
    let url = format!("http://{}", daemon.listen);
    sent(&waypost(dir.path(), &["send", "--url", &url, "--data-dir", "none"], &SECRETS));

    let published = log_files::wait_for(&daemon.data_dir(), 3);
    assert_eq!(published[0].kind, "agent.new");
    assert_eq!([&published[0].body, &published[1].body], bodies);
    let no_type = ["send", "sonzai", "--file", "body.json"];
    assert_fails(&waypost(dir.path(), &no_type, &SECRETS), &["--type"]);
    let no_file = ["send", "miibo", "--file", "none.json"];
    assert_fails(&waypost(dir.path(), &no_file, &SECRETS), &["none.json", "No such file"]);
    let no_source = waypost(dir.path(), &["send", "github"], &SECRETS);
    assert_fails(&no_source, &["no such source", "miibo, sonzai"]);
    let no_sample = waypost(dir.path(), &["send", "miibo", "agent.message"], &SECRETS);
    assert_fails(&no_sample, &["no such sample", "user_utterance", "function_calling"]);
}

#[test]
fn sending_with_another_secret_fails_with_advice() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]);
    let others = [("SONZAI_SECRET", "whsec_another"), ("MIIBO_SECRET", "another")];
    for source in ["sonzai", "miibo"] {
        let outcome = waypost(dir.path(), &["send", source], &others);
        assert_fails(&outcome, &["401", "another secret", "routes.yaml", ".env"]);
        assert_eq!(outcome.out, "");
    }
    fs::write(
        dir.path().join("routes.yaml"),
        format!("{SOURCES}{ALL_TO_FILES}").replace("/hooks/miibo", "/hooks/elsewhere"),
    )
    .expect("to write routes.yaml");
    let outcome = waypost(dir.path(), &["send", "miibo"], &SECRETS);
    assert_fails(&outcome, &["404", "another routes.yaml"]);
    assert!(daemon.stop().success());
}

#[test]
fn without_a_daemon_send_and_tail_say_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]);
    let (listen, admin_listen) = (daemon.listen.to_string(), daemon.admin_listen.to_string());
    assert!(daemon.stop().success());
    let status = ["status", "--admin-listen", &*admin_listen];
    for arguments in [["send", "--listen", &*listen], status] {
        let outcome = waypost(dir.path(), &arguments, &SECRETS);
        assert_fails(&outcome, &["cannot reach", arguments[2], "`waypost run`"]);
    }
    let no_daemon = ["no daemon is ready on the data directory data", "`waypost run`"];
    let outcome = waypost(dir.path(), &["tail", "--admin-listen", &admin_listen], &SECRETS);
    assert_fails(&outcome, &no_daemon);
    // One that was killed leaves word of where it was.
    Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]).kill();
    for command in ["send", "status"] {
        let outcome = waypost(dir.path(), &[command], &SECRETS);
        assert_fails(&outcome, &["cannot reach", "`waypost run`"]);
    }
    assert_fails(&waypost(dir.path(), &["tail"], &SECRETS), &no_daemon);
}

#[test]
fn a_file_of_variables_is_read_and_the_real_environment_wins() {
    let dir = tempfile::tempdir().expect("a directory");
    let routes = format!("{SOURCES}{ALL_TO_FILES}").replace("SONZAI_SECRET", "SECRET_OF_THE_FILE");
    let env = "SECRET_OF_THE_FILE=\"whsec_in the file\"\nMIIBO_SECRET=overridden\n";
    fs::write(dir.path().join(".env"), env).expect("to write .env");
    let daemon = Daemon::start(dir.path(), &routes, &[]);

    sent(&waypost(dir.path(), &["send", "sonzai"], &[]));
    let real = [("SECRET_OF_THE_FILE", "whsec_in the environment")];
    assert_fails(&waypost(dir.path(), &["send", "sonzai"], &real), &["401"]);
    // The daemon was started with the real one.
    assert_fails(&waypost(dir.path(), &["send", "miibo"], &[]), &["401"]);
    sent(&waypost(dir.path(), &["send", "miibo"], &SECRETS));
    assert!(daemon.stop().success());

    fs::write(dir.path().join(".env"), "this is no variable\n").expect("to write .env");
    let outcome = waypost(dir.path(), &["send"], &SECRETS);
    assert_fails(&outcome, &["cannot read .env"]);
}

#[test]
fn every_command_explains_itself_by_example() {
    let dir = tempfile::tempdir().expect("a directory");
    for command in [
        &[][..],
        &["run"],
        &["explain"],
        &["send"],
        &["tail"],
        &["status"],
        &["dead-letters", "list"],
        &["journal", "verify"],
        &["journal", "skip"],
        &["journal", "salvage"],
        &["sonzai", "stub"],
    ] {
        let outcome = waypost(dir.path(), &[command, &["--help"]].concat(), &[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let example = ["  waypost", command.first().copied().unwrap_or_default()].join(" ");
        for part in ["Usage: waypost", "Examples:", example.trim_end()] {
            assert!(outcome.out.contains(part), "{part}: {}", outcome.out);
        }
    }
    for group in ["dead-letters", "journal"] {
        let outcome = waypost(dir.path(), &[group, "--help"], &[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
    assert_eq!(waypost(dir.path(), &["--version"], &[]).code, Some(0));
    let misspelt = waypost(dir.path(), &["sned"], &[]);
    assert_eq!(misspelt.code, Some(2));
    assert!(misspelt.err.contains("'send'"), "{misspelt:?}");
}

#[test]
fn the_routing_table_that_comes_along_takes_everything_that_is_documented() {
    let routes = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/routes.yaml"));
    let dir = tempfile::tempdir().expect("a directory");
    // As `make run` makes it up.
    let env = "SONZAI_SECRET=whsec_rest\nSONZAI_SECRET_MESSAGE=whsec_message\n\
               SONZAI_AUTH_HEADER=\"Bearer of news\"\nMIIBO_SECRET=miibo\n";
    fs::write(dir.path().join(".env"), env).expect("to write .env");
    let env = [("SONZAI_SECRET", "whsec_rest"), ("MIIBO_SECRET", "miibo")];
    let daemon = Daemon::start(dir.path(), &routes.expect("routes.yaml"), &env);
    let expected = [
        "agent.message",
        "agent.mood",
        "agent.memory",
        "agent.breakthrough",
        "agent.wakeup",
        "agent.memory",
        "miibo.conversation",
        "miibo.conversation",
        "miibo.calls",
    ];
    let mut topics = BTreeMap::new();
    for ((source, sample), topic) in SAMPLES.into_iter().zip(expected) {
        let id = sent(&waypost(dir.path(), &["send", source, sample], &[]));
        topics.insert(id, topic.to_owned());
    }
    let published = log_files::wait_for(&daemon.data_dir(), topics.len());
    assert_eq!(published.len(), topics.len());
    for event in published {
        assert_eq!(topics.get(&event.id), Some(&event.topic), "{}", event.kind);
    }
    let unknown = ["send", "sonzai", "--type", "agent.unheard-of", "--file", "routes.yaml"];
    let id = sent(&waypost(dir.path(), &unknown, &[]));
    let published = log_files::wait_for(&daemon.data_dir(), topics.len() + 1);
    assert!(published.iter().any(|event| event.id == id && event.topic == "other"));
    assert!(daemon.stop().success());
    let dead_letters = waypost(dir.path(), &["dead-letters", "list"], &[]);
    assert_eq!(dead_letters.out, "no dead letters\n");
}

#[test]
fn dead_letters_are_listed_with_the_reason_whether_the_daemon_runs_or_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let elsewhere = waypost(dir.path(), &["dead-letters", "list"], &[]);
    assert_fails(&elsewhere, &["no daemon has run in data", "--data-dir"]);
    assert_eq!(
        fs::read_dir(dir.path()).expect("the directory").count(),
        0,
        "looking changes nothing"
    );

    let routes =
        format!("{SOURCES}{ALL_TO_FILES}").replace("topic: all", "topic: \"{data.missing}\"");
    let daemon = Daemon::start(dir.path(), &routes, &[]);
    let id = sent(&waypost(dir.path(), &["send"], &SECRETS));
    let list = || waypost(dir.path(), &["dead-letters", "list"], &[]);
    let started = Instant::now();
    while !list().out.contains(&id) {
        assert!(started.elapsed() < PATIENCE, "the event never becomes a dead letter");
    }
    let running = list();
    assert!(daemon.stop().success());
    let stopped = list();
    assert_eq!(running.out, stopped.out);
    assert!(stopped.out.contains("local") && stopped.out.contains("because"), "{}", stopped.out);
    assert!(stopped.out.contains("data.missing"), "{}", stopped.out);
    let json = waypost(dir.path(), &["dead-letters", "list", "--json"], &[]);
    let line: serde_json::Value =
        serde_json::from_str(json.out.trim_end()).expect("one JSON object");
    assert_eq!((&line["id"], &line["broker"]), (&(*id).into(), &"local".into()));
}

#[test]
fn a_port_of_its_own_choice_is_logged_and_the_daemon_is_alive_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = Daemon::start(dir.path(), &format!("{SOURCES}{ALL_TO_FILES}"), &[]);
    let ready = daemon.log();
    let ready = ready.lines().find(|line| line.contains("waypost is ready")).expect("a line");
    assert!(daemon.listen.port() != 0 && daemon.admin_listen.port() != 0);
    for part in
        [format!("listen={}", daemon.listen), format!("admin_listen={}", daemon.admin_listen)]
    {
        assert!(ready.contains(&part), "{ready}");
    }
    let get = |path: &str| {
        let mut stream = TcpStream::connect(daemon.admin_listen).expect("a connection");
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("to write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert!(get("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(get("/nothing").starts_with("HTTP/1.1 404 "));
    assert!(daemon.stop().success());
    let gone = fs::exists(dir.path().join("data/daemon.json"));
    assert!(gone.is_ok_and(|there| !there), "a daemon that ended in order leaves no address");
}
