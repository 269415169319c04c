//! A single Kafka node (KRaft: broker and controller in one process).

use std::{
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::{
    ports,
    server::{Plan, Server},
};

/// Names the cluster; each node here is alone, so they can all share it.
const CLUSTER_ID: &str = "d2F5cG9zdC1rYWZrYS0wMQ";

/// Start-up matters more here than throughput, and memory is shared with other test processes.
const JVM: [&str; 4] =
    ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];

const LOGGING: &str = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn";

/// A local node answers at once; one that does not is not ready yet.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

pub struct Kafka {
    server: Server,
    bootstrap: String,
    behind_proxy: BehindProxy,
}

/// A second listener, which tells clients to come to a port where a test may put a proxy.
#[derive(Clone, Copy, Debug)]
pub struct BehindProxy {
    /// Where clients are told to come. Nothing listens there until the test does.
    pub proxy: u16,
    /// Where the proxy is to lead.
    pub broker: u16,
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
        let controller = ports::free()?;
        let behind_proxy = BehindProxy { proxy: ports::free()?, broker: ports::free()? };
        let class_path = class_path()?;
        let dir = super::directory("kafka")?;
        let data = dir.path().join("data");
        let properties = properties(port, controller, behind_proxy, &data);
        let properties = super::write(dir.path().join("server.properties"), &properties)?;
        format_storage(&class_path, &properties)?;
        let mut command = java(&class_path);
        command.arg("kafka.Kafka").arg(&properties);
        let bootstrap = format!("127.0.0.1:{port}");
        let asked = bootstrap.clone();
        let ready = Box::new(move || answers(&asked));
        let plan = Plan { name: "kafka", command, ready };
        Ok(Kafka { server: Server::start(plan, dir)?, bootstrap, behind_proxy })
    }

    /// `127.0.0.1:PORT`
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    pub fn behind_proxy(&self) -> BehindProxy {
        self.behind_proxy
    }

    /// Where partitions are kept, each in a directory of its own.
    pub fn data_dir(&self) -> PathBuf {
        self.server.dir().join("data")
    }
}

/// Topics are never created by using them, since a test must not pass on a misspelt name. The
/// short session lets a killed node come back at once: until its old session has ended, the
/// controller refuses the new one.
fn properties(port: u16, controller: u16, behind_proxy: BehindProxy, data: &Path) -> String {
    let BehindProxy { proxy, broker: proxied } = behind_proxy;
    format!(
        "\
process.roles=broker,controller
node.id=1
listeners=BROKER://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied},\
CONTROLLER://127.0.0.1:{controller}
advertised.listeners=BROKER://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}
listener.security.protocol.map=BROKER:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
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
",
        data = data.display()
    )
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

fn format_storage(class_path: &str, properties: &Path) -> Result<(), String> {
    let mut command = java(class_path);
    command.args(["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c"]);
    let Output { status, stdout, stderr } =
        command.arg(properties).output().map_err(|error| format!("cannot run java: {error}"))?;
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
