//! A single Kafka node (KRaft: broker and controller in one process).

use std::{
    fmt::Write,
    ops::{Deref, DerefMut},
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    Tls, ports,
    server::{Plan, Server},
};

/// Names the cluster; each node here is alone, so they can all share it.
const CLUSTER_ID: &str = "d2F5cG9zdC1rYWZrYS0wMQ";

const PROPERTIES: &str = "server.properties";

/// Start-up matters more here than throughput, and memory is shared with other test processes.
const JVM: [&str; 4] =
    ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];

const LOGGING: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";

/// A local node answers at once; one that does not is not ready yet.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The SCRAM mechanisms of a listener that asks who its clients are; it takes PLAIN, too.
const SCRAM: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

/// A listener beside the plain one.
pub struct Listener {
    /// In capitals.
    pub name: &'static str,
    pub tls: Option<Tls>,
    /// A user and its password, if clients must say who they are.
    pub user: Option<(String, String)>,
}

pub struct Kafka {
    server: Server,
    bootstrap: String,
    node: Node,
}

/// What its properties are made of.
struct Node {
    port: u16,
    controller: u16,
    listeners: Vec<(Listener, u16)>,
}

impl Kafka {
    #[track_caller]
    pub fn start() -> Kafka {
        Self::try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it on a free port, or says why not.
    pub fn try_start() -> Result<Kafka, String> {
        Self::start_on(ports::free()?)
    }

    /// Starts it on this port, or says why not.
    pub fn start_on(port: u16) -> Result<Kafka, String> {
        Self::start_all(port, Vec::new())
    }

    /// Starts it with these listeners beside the plain one, or says why not.
    pub fn start_with(listeners: Vec<Listener>) -> Result<Kafka, String> {
        Self::start_all(ports::free()?, listeners)
    }

    fn start_all(port: u16, listeners: Vec<Listener>) -> Result<Kafka, String> {
        let with_port = |listener| Ok((listener, ports::free()?));
        let listeners: Vec<_> =
            listeners.into_iter().map(with_port).collect::<Result<_, String>>()?;
        let node = Node { port, controller: ports::free()?, listeners };
        let class_path = class_path()?;
        let dir = super::directory("kafka")?;
        let properties = super::write(dir.path().join(PROPERTIES), &node.properties(dir.path()))?;
        format_storage(&class_path, &properties, &node.listeners)?;
        let mut command = java(&class_path);
        command.arg("kafka.Kafka").arg(&properties);
        let bootstrap = format!("127.0.0.1:{port}");
        let asked = bootstrap.clone();
        let ready = Box::new(move || answers(&asked));
        let plan = Plan { name: "kafka", command, ready };
        Ok(Kafka { server: Server::start(plan, dir)?, bootstrap, node })
    }

    /// `127.0.0.1:PORT`, in plain and without asking who it is.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The port of one of the other listeners.
    pub fn port(&self, name: &str) -> u16 {
        let mut listeners = self.node.listeners.iter();
        listeners.find(|(listener, _)| listener.name == name).expect("a listener of this name").1
    }

    /// Changes one of the other listeners, and restarts it. SCRAM passwords stay as they were.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Listener)) {
        let mut listeners = self.node.listeners.iter_mut();
        let listener = listeners.find(|(listener, _)| listener.name == name);
        change(&mut listener.expect("a listener of this name").0);
        let dir = self.server.dir();
        super::write(dir.join(PROPERTIES), &self.node.properties(dir)).expect("its properties");
        self.server.restart();
    }
}

impl Node {
    /// Topics are never created by using them, since a test must not pass on a misspelt name. The
    /// short session lets a killed node come back at once: until its old session has ended, the
    /// controller refuses the new one.
    fn properties(&self, dir: &Path) -> String {
        let Node { port, controller, listeners } = self;
        let (mut addresses, mut protocols, mut settings) =
            (String::new(), String::new(), String::new());
        for (listener, port) in listeners {
            let (name, protocol) = (listener.name, listener.protocol());
            write!(addresses, ",{name}://127.0.0.1:{port}").expect("a string takes it");
            write!(protocols, ",{name}:{protocol}").expect("a string takes it");
            settings.push_str(&listener.settings());
        }
        format!(
            "\
process.roles=broker,controller
node.id=1
listeners=CONTROLLER://127.0.0.1:{controller},BROKER://127.0.0.1:{port}{addresses}
advertised.listeners=BROKER://127.0.0.1:{port}{addresses}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={data}
auto.create.topics.enable=false
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=3000
{settings}",
            data = dir.join("data").display()
        )
    }
}

impl Listener {
    fn protocol(&self) -> &'static str {
        match (&self.tls, &self.user) {
            (None, None) => "PLAINTEXT",
            (Some(_), None) => "SSL",
            (None, Some(_)) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        }
    }

    fn settings(&self) -> String {
        let mut settings = String::new();
        let mut set = |key: &str, value: &str| {
            let (name, value) = (self.name.to_ascii_lowercase(), value.replace('\n', "\\n"));
            writeln!(settings, "listener.name.{name}.{key}={value}").expect("a string takes it");
        };
        if let Some(tls) = &self.tls {
            set("ssl.keystore.type", "PEM");
            set("ssl.keystore.certificate.chain", &tls.cert);
            set("ssl.keystore.key", &tls.key);
            set("ssl.truststore.type", "PEM");
            set("ssl.truststore.certificates", &tls.client_ca);
            set("ssl.client.auth", if tls.demands_client { "required" } else { "none" });
        }
        if let Some((user, password)) = &self.user {
            const MODULES: &str = "org.apache.kafka.common.security";
            let plain =
                format!("{MODULES}.plain.PlainLoginModule required user_{user}=\"{password}\";");
            let scram = format!("{MODULES}.scram.ScramLoginModule required;");
            set("sasl.enabled.mechanisms", &format!("PLAIN,{}", SCRAM.join(",")));
            set("plain.sasl.jaas.config", &plain);
            for mechanism in SCRAM {
                set(&format!("{}.sasl.jaas.config", mechanism.to_ascii_lowercase()), &scram);
            }
        }
        settings
    }
}

/// The jars in a fixed order, so that every start loads the same classes.
fn class_path() -> Result<String, String> {
    let dir = super::tool("kafka")?;
    let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let paths = entries.flatten().map(|entry| entry.path().display().to_string());
    let mut jars: Vec<String> = paths.filter(|path| path.ends_with(".jar")).collect();
    jars.sort();
    Ok(jars.join(":"))
}

fn java(class_path: &str) -> Command {
    let mut command = Command::new("java");
    command.args(JVM).arg(LOGGING).arg("-cp").arg(class_path);
    command
}

fn format_storage(
    class_path: &str,
    properties: &Path,
    listeners: &[(Listener, u16)],
) -> Result<(), String> {
    let mut command = java(class_path);
    command.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c"]);
    command.arg(properties);
    // The users of the cluster, whichever listener they come to.
    if let Some((user, password)) = listeners.iter().find_map(|(one, _)| one.user.as_ref()) {
        for mechanism in SCRAM {
            let user = format!("{mechanism}=[name={user},password={password}]");
            command.args(["--add-scram", &user]);
        }
    }
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| format!("cannot run java: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    Err(format!("kafka could not format its directory ({status}):\n{stdout}{stderr}"))
}

fn answers(bootstrap: &str) -> Result<(), String> {
    let mut config = ClientConfig::new();
    // A node that is not up yet is asked again; the client need not report each refusal.
    config.set("bootstrap.servers", bootstrap).set("log_level", "0");
    let client: BaseConsumer = config.create().map_err(|error| error.to_string())?;
    let metadata = client.fetch_metadata(None, ANSWER_WITHIN).map_err(|error| error.to_string())?;
    match metadata.brokers() {
        [] => Err("it knows of no broker yet".to_owned()),
        _ => Ok(()),
    }
}

impl Deref for Kafka {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Kafka {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}
