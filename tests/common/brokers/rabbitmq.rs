//! A RabbitMQ node that knows nothing of an installed one: its own name, ports, data, cookie,
//! configuration, and its own port mapper.

use std::{
    io::{Read, Write},
    net::TcpStream,
    ops::{Deref, DerefMut},
    path::Path,
    process::Command,
    time::Duration,
};

use super::{
    ports,
    server::{Plan, Server},
};

/// Where Debian keeps the scripts that those in `/usr/sbin` wrap. The wrappers refuse to run as
/// anyone but root or `rabbitmq`; the scripts run as whoever calls them.
const DEBIAN_SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

/// The node starts `epmd` (Erlang's port mapper) as a daemon that outlives it, unless one answers
/// already. This one runs in the node's process group and ends with it.
const START: &str = r#"
epmd -port "$ERL_EPMD_PORT" &
until epmd -names >/dev/null 2>&1; do sleep 0.05; done
exec "$0"
"#;

/// A local node answers at once; one that does not is not ready yet.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A memory alarm goes off where a node uses more than this part of the machine's memory; any node
/// does.
const ALARMING: &str = "0.00001";
/// RabbitMQ's default.
const USUAL: &str = "0.4";

pub struct RabbitMq {
    server: Server,
    url: String,
    /// How the node is called, and where its port mapper is.
    node: (String, u16),
}

impl RabbitMq {
    #[track_caller]
    pub fn start() -> RabbitMq {
        Self::try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it on a free port, or says why not.
    pub fn try_start() -> Result<RabbitMq, String> {
        Self::start_on(ports::free()?)
    }

    /// Starts it on this port, or says why not.
    pub fn start_on(port: u16) -> Result<RabbitMq, String> {
        let (distribution, epmd) = (ports::free()?, ports::free()?);
        let dir = super::directory("rabbitmq")?;
        let command = command(dir.path(), port, distribution, epmd)?;
        let ready = Box::new(move || answers(port));
        let plan = Plan { name: "rabbitmq", command, ready };
        let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
        let node = (node_name(port), epmd);
        Ok(RabbitMq { server: Server::start(plan, dir)?, url, node })
    }

    /// Sets off the node's memory alarm, or ends it.
    pub fn alarm(&self, on: bool) {
        self.control(&["set_vm_memory_high_watermark", if on { ALARMING } else { USUAL }]);
    }

    fn control(&self, arguments: &[&str]) {
        let mut command = Command::new(script("rabbitmqctl"));
        command.args(["-n", &self.node.0]).args(arguments);
        command
            .env("HOME", self.server.dir())
            .env("ERL_EPMD_PORT", self.node.1.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        let output = command.output().expect("to run rabbitmqctl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn command(dir: &Path, port: u16, distribution: u16, epmd: u16) -> Result<Command, String> {
    let config = format!("listeners.tcp.1 = 127.0.0.1:{port}\n");
    let config = super::write(dir.join("rabbitmq.conf"), &config)?;
    let plugins = super::write(dir.join("enabled_plugins"), "[].\n")?;
    let mut command = Command::new("sh");
    command.args(["-c", START, &script("rabbitmq-server")]);
    command
        .env("HOME", dir)
        .env("ERL_EPMD_PORT", epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", node_name(port))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_CONFIG_FILE", config)
        .env("RABBITMQ_CONFIG_FILES", dir.join("conf.d"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_LOGS", "-")
        // The distribution listens on every interface by default; schedulers bound to cores would
        // all sit on the same ones as those of other test processes.
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_SCHEDULER_BIND_TYPE", "u");
    Ok(command)
}

fn node_name(port: u16) -> String {
    format!("waypost-{port}@localhost")
}

fn script(name: &str) -> String {
    let debian = Path::new(DEBIAN_SCRIPTS).join(name);
    if debian.exists() { debian.display().to_string() } else { name.to_owned() }
}

/// The node opens its port last; a protocol header is answered with `connection.start`, a frame
/// of type 1 (method).
fn answers(port: u16) -> Result<(), String> {
    let first_byte = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok::<_, std::io::Error>(first[0])
    };
    match first_byte() {
        Ok(1) => Ok(()),
        Ok(other) => Err(format!("it answers with a frame of type {other}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Deref for RabbitMq {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for RabbitMq {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}
