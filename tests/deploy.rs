//! What is under `deploy/` does what it says: the unit is valid and shut off, and both it and the
//! Kubernetes manifest start a daemon with settings that exist, and give it the time it needs to end.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::Value;
use waypost::{
    footprint::Footprint,
    settings::{Flags, Settings},
};

use crate::common::{
    daemon::{self, Daemon},
    raw::{self, Raw},
    sender,
};

const UNIT: &str = include_str!("../deploy/waypost.service");
const MANIFEST: &str = include_str!("../deploy/kubernetes.yaml");
const BINARY: &str = env!("CARGO_BIN_EXE_waypost");

/// Highest overall exposure that `systemd-analyze security` may find, of 10.
const MAX_EXPOSURE: f64 = 2.0;

/// What the daemon may take to end: requests are accepted for a while after the signal, then they
/// finish, then brokers do.
fn drain(delay: Duration, deadline: Duration) -> Duration {
    delay + 2 * deadline
}

/// Names that are neither a flag's nor a section's, so that nobody would read them.
fn unknown<'n>(names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let flags = <Flags as clap::Args>::augment_args(clap::Command::new("waypost"));
    let flags: Vec<_> = flags.get_arguments().filter_map(|flag| flag.get_env()).collect();
    // A setting in a section is refused by the daemon itself, if there is none of that name.
    let known = |name: &&str| name.contains("__") || flags.iter().any(|flag| flag == name);
    names.into_iter().filter(|name| !known(name)).collect()
}

#[track_caller]
fn systemd_analyze(arguments: &[&str], unit: &Path) -> String {
    let output: Output = Command::new("systemd-analyze")
        .args(arguments)
        .arg("--no-pager")
        .arg(unit)
        .output()
        .expect("to run systemd-analyze (Debian's package systemd)");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    said
}

/// The values of a setting of the unit, in order.
fn unit<'u>(name: &str) -> Vec<&'u str> {
    let value = |line: &'u str| line.strip_prefix(name)?.strip_prefix('=');
    UNIT.lines().filter_map(value).collect()
}

/// The one value of a setting that is a time.
#[track_caller]
fn unit_time(name: &str) -> Duration {
    let [text] = unit(name)[..] else { panic!("one {name}= in the unit") };
    humantime::parse_duration(text).expect("a duration")
}

#[test]
fn the_unit_is_valid_and_hardly_exposed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("waypost.service");
    // verify demands that the program is there.
    fs::write(&path, UNIT.replace("/usr/local/bin/waypost", BINARY)).expect("to write the unit");
    assert_eq!(systemd_analyze(&["verify"], &path), "");
    let said = systemd_analyze(&["security", "--offline=true"], &path);
    let overall = said.lines().find(|line| line.contains("Overall exposure")).expect(&said);
    let exposure = overall.split_whitespace().find_map(|word| word.parse::<f64>().ok());
    assert!(exposure.is_some_and(|exposure| exposure <= MAX_EXPOSURE), "{overall}");
}

#[test]
fn the_unit_starts_the_daemon_as_it_takes_it_and_waits_until_it_has_ended() {
    let [command] = unit("ExecStart")[..] else { panic!("one ExecStart= in the unit") };
    let (program, arguments) = command.split_once(' ').expect("arguments");
    assert_eq!(program, "/usr/local/bin/waypost");
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let dir = tempfile::tempdir().expect("a directory");
    let (status, said) = daemon::command(dir.path(), &[&arguments[..], &["--help"]].concat());
    assert!(status.success() && arguments[0] == "run", "{said}");

    // They would win over waypost.toml.
    assert_eq!(unit("Environment"), Vec::<&str>::new());
    let settings = Settings::default();
    // What `waypost run` waits by itself, away from a terminal.
    let delay = settings.shutdown.delay.unwrap_or(Duration::from_secs(5));
    assert!(unit_time("TimeoutStopSec") > drain(delay, settings.shutdown.deadline));
    assert!(unit_time("WatchdogSec") > Duration::from_secs(1));
    assert_eq!(unit("Type"), ["notify"]);
}

/// The manifest's documents, by kind.
fn manifest() -> Vec<(String, Value)> {
    let parse = |text: &str| {
        let document: Value = serde_saphyr::from_str(text).expect("YAML");
        (document["kind"].as_str().expect("a kind").to_owned(), document)
    };
    MANIFEST.split("\n---\n").map(parse).collect()
}

/// The one document of a kind.
#[track_caller]
fn document(kind: &str) -> Value {
    let mut found = manifest().into_iter().filter(|(found, _)| found == kind);
    let (_, document) = found.next().expect(kind);
    assert!(found.next().is_none(), "one {kind}");
    document
}

/// What stands at a JSON pointer.
#[track_caller]
fn at<'v>(document: &'v Value, pointer: &str) -> &'v Value {
    document.pointer(pointer).unwrap_or_else(|| panic!("nothing at {pointer}"))
}

fn list<'v>(document: &'v Value, pointer: &str) -> &'v [Value] {
    at(document, pointer).as_array().expect("a list")
}

#[track_caller]
fn text<'v>(document: &'v Value, pointer: &str) -> &'v str {
    at(document, pointer).as_str().expect("text")
}

const POD: &str = "/spec/template/spec";

fn container() -> Value {
    let set = document("StatefulSet");
    let [container] = list(&set, &format!("{POD}/containers")) else { panic!("one container") };
    container.clone()
}

/// The container's variables.
fn variables(container: &Value) -> Vec<(&str, &str)> {
    let variables = list(container, "/env").iter();
    variables.map(|variable| (text(variable, "/name"), text(variable, "/value"))).collect()
}

fn variable<'v>(container: &'v Value, name: &str) -> &'v str {
    let found = variables(container).into_iter().find(|(found, _)| *found == name);
    found.unwrap_or_else(|| panic!("{name} is not set")).1
}

/// Where the container has a volume.
fn mount<'v>(container: &'v Value, volume: &str) -> &'v str {
    let mounts = list(container, "/volumeMounts").iter();
    let mut mounts = mounts.filter(|mount| mount["name"] == volume);
    text(mounts.next().expect("a mount"), "/mountPath")
}

/// The number of a named port of the container.
fn port(container: &Value, name: &Value) -> u16 {
    let found = list(container, "/ports").iter().find(|port| port["name"] == *name);
    let port = found.and_then(|port| port["containerPort"].as_u64()).expect("a named port");
    port.try_into().expect("a port")
}

#[test]
fn the_manifest_starts_a_daemon_that_answers_its_probes() {
    let container = container();
    assert_eq!(unknown(variables(&container).iter().map(|(name, _)| *name)), Vec::<&str>::new());
    let dir = tempfile::tempdir().expect("a directory");
    let secrets = dir.path().join("secrets");
    fs::create_dir(&secrets).expect("a directory for secrets");
    for name in ["sonzai", "rabbitmq"] {
        assert!(MANIFEST.contains(&format!("--from-literal={name}=")), "how to give {name}");
        fs::write(secrets.join(name), daemon::SONZAI_SECRET).expect("to write a secret");
    }
    let routes = document("ConfigMap");
    let routes = text(&routes, "/data/routes.yaml");
    let routes = routes.replace(mount(&container, "secrets"), secrets.to_str().expect("UTF-8"));
    // Everything but where it listens and keeps its files.
    let elsewhere =
        ["WAYPOST_ROUTES", "WAYPOST_DATA_DIR", "WAYPOST_LISTEN", "WAYPOST_ADMIN_LISTEN"];
    let variables: Vec<_> =
        variables(&container).into_iter().filter(|(name, _)| !elsewhere.contains(name)).collect();
    let daemon = Daemon::start(dir.path(), &routes, &variables);

    let set = document("StatefulSet");
    let scraped = text(&set, "/spec/template/metadata/annotations/prometheus.io~1path");
    let probed = text(&container, "/readinessProbe/httpGet/path");
    for path in [probed, scraped] {
        // By address, as the kubelet asks.
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", daemon.admin_listen);
        let answer = Raw::connect(daemon.admin_listen).ask(request);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    let request = raw::request(&sender::sonzai("agent.message", "{}"));
    assert_eq!(Raw::connect(daemon.listen).ask(request).status, 200);
}

#[test]
fn the_manifests_ports_and_paths_agree() {
    let container = container();
    let listens = |name: &str| {
        let address: std::net::SocketAddr = variable(&container, name).parse().expect("an address");
        assert!(address.ip().is_unspecified(), "{name}: reached on the pod's address");
        address.port()
    };
    let (listen, admin) = (listens("WAYPOST_LISTEN"), listens("WAYPOST_ADMIN_LISTEN"));
    // Whoever uses up the listener's connections cannot make the first two fail.
    for probe in ["startupProbe/tcpSocket", "livenessProbe/tcpSocket", "readinessProbe/httpGet"] {
        let named = at(&container, &format!("/{probe}/port"));
        assert_eq!(port(&container, named), admin, "{probe}");
    }
    let service = document("Service");
    let [offered] = list(&service, "/spec/ports") else { panic!("one port is offered") };
    assert_eq!(port(&container, &offered["targetPort"]), listen);
    let set = document("StatefulSet");
    let scraped = text(&set, "/spec/template/metadata/annotations/prometheus.io~1port");
    assert_eq!(scraped.parse(), Ok(admin));
    assert_eq!(variable(&container, "WAYPOST_DATA_DIR"), mount(&container, "data"));
    let routes = format!("{}/routes.yaml", mount(&container, "routes"));
    assert_eq!(variable(&container, "WAYPOST_ROUTES"), routes);
    let labels = at(&set, "/spec/template/metadata/labels");
    for (document, selector) in [
        (&set, "/spec/selector/matchLabels"),
        (&service, "/spec/selector"),
        (&document("NetworkPolicy"), "/spec/podSelector/matchLabels"),
    ] {
        assert_eq!(at(document, selector), labels, "{selector}");
    }
}

#[test]
fn the_pod_is_alone_has_no_rights_and_is_given_time_to_end() {
    let (set, container) = (document("StatefulSet"), container());
    assert_eq!(at(&set, "/spec/replicas"), 1);
    let pod = at(&set, POD);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(at(pod, "/securityContext/runAsNonRoot"), true);
    assert_eq!(at(pod, "/securityContext/seccompProfile/type"), "RuntimeDefault");
    assert_eq!(at(pod, "/securityContext/fsGroup"), at(pod, "/securityContext/runAsGroup"));
    for (name, expected) in [
        ("allowPrivilegeEscalation", false.into()),
        ("privileged", false.into()),
        ("readOnlyRootFilesystem", true.into()),
        ("capabilities", serde_json::json!({ "drop": ["ALL"] })),
    ] {
        assert_eq!(at(&container, "/securityContext")[name], expected, "{name}");
    }

    let time = |name| humantime::parse_duration(variable(&container, name)).expect("a duration");
    let drain = drain(time("WAYPOST_SHUTDOWN__DELAY"), time("WAYPOST_SHUTDOWN__DEADLINE"));
    let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
    assert!(Duration::from_secs(grace) > drain);

    let claim = text(&set, "/spec/volumeClaimTemplates/0/spec/resources/requests/storage");
    let gib: u64 = claim.strip_suffix("Gi").and_then(|gib| gib.parse().ok()).expect("GiB");
    let bytes = |name| variable(&container, name).parse().expect("bytes");
    let mut settings = Settings::default();
    settings.journal.max_bytes = bytes("WAYPOST_JOURNAL__MAX_BYTES");
    settings.dispatch.backlog_max_bytes = bytes("WAYPOST_DISPATCH__BACKLOG_MAX_BYTES");
    // Of three brokers, and of the built-in one.
    let footprint = Footprint::of(&settings, [settings.backlog_bytes(); 4]);
    assert!(gib << 30 > footprint.total_bytes(), "{footprint:?}");
}
