//! A RabbitMQ node that knows nothing of an installed one: its own name, ports, data, cookie,
//! configuration, and its own port mapper.

use std::{
    io::{Read, Write},
    net::TcpStream,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use super::{
    Tls, ports,
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

pub struct RabbitMq {
    server: Server,
    /// `rabbitmqctl` for this node.
    ctl: Command,
    url: String,
    tls_port: Option<u16>,
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
        Self::start_all(port, None)
    }

    /// Starts it with a second listener that speaks TLS, or says why not. Clients may go by the name
    /// of their certificate (`EXTERNAL`).
    pub fn start_with(tls: &Tls) -> Result<RabbitMq, String> {
        Self::start_all(ports::free()?, Some(tls))
    }

    fn start_all(port: u16, tls: Option<&Tls>) -> Result<RabbitMq, String> {
        let (distribution, epmd) = (ports::free()?, ports::free()?);
        let dir = super::directory("rabbitmq")?;
        let tls_port = tls.map(|_| ports::free()).transpose()?;
        let config = config(dir.path(), port, tls.zip(tls_port))?;
        let config = super::write(dir.path().join("rabbitmq.conf"), &config)?;
        let plugins = if tls.is_some() { "[rabbitmq_auth_mechanism_ssl].\n" } else { "[].\n" };
        let plugins = super::write(dir.path().join("enabled_plugins"), plugins)?;
        let mut command = Command::new("sh");
        command.args(["-c", START]).arg(script("rabbitmq-server"));
        environment(&mut command, dir.path(), port, distribution, epmd);
        command.env("RABBITMQ_CONFIG_FILE", config).env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins);
        let mut ctl = Command::new(script("rabbitmqctl"));
        environment(&mut ctl, dir.path(), port, distribution, epmd);
        let ready = Box::new(move || answers(port));
        let plan = Plan { name: "rabbitmq", command, ready };
        let url = format!("amqp://guest:guest@127.0.0.1:{port}/%2f");
        Ok(RabbitMq { server: Server::start(plan, dir)?, ctl, url, tls_port })
    }

    /// The port of the second listener.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("started with TLS")
    }

    /// Restarts it with other certificates for its second listener.
    pub fn change(&mut self, tls: &Tls) {
        tls.write(self.server.dir()).expect("its certificates");
        self.server.restart();
    }

    /// Adds a user who may do everything.
    pub fn add_user(&self, user: &str, password: &str) {
        self.ctl(&["add_user", user, password]);
        self.ctl(&["set_permissions", user, ".*", ".*", ".*"]);
    }

    pub fn change_password(&self, user: &str, password: &str) {
        self.ctl(&["change_password", user, password]);
    }

    fn ctl(&self, arguments: &[&str]) {
        let mut command = Command::new(self.ctl.get_program());
        command.envs(self.ctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let Output { status, stdout, stderr } =
            command.args(arguments).output().expect("to run rabbitmqctl");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "rabbitmqctl {}: {stdout}{stderr}", arguments[0]);
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn config(dir: &Path, port: u16, tls: Option<(&Tls, u16)>) -> Result<String, String> {
    let plain = format!("listeners.tcp.1 = 127.0.0.1:{port}\n");
    let Some((tls, tls_port)) = tls else { return Ok(plain) };
    let files = tls.write(dir)?;
    Ok(format!(
        "{plain}\
listeners.ssl.1 = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {ca}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = {demands}
ssl_cert_login_from = common_name
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = EXTERNAL
",
        ca = files.client_ca.display(),
        cert = files.cert.display(),
        key = files.key.display(),
        demands = tls.demands_client,
    ))
}

/// What the node and its tools have in common.
fn environment(command: &mut Command, dir: &Path, port: u16, distribution: u16, epmd: u16) {
    command
        .env("HOME", dir)
        .env("ERL_EPMD_PORT", epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODENAME", format!("waypost-{port}@localhost"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_CONFIG_FILES", dir.join("conf.d"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
        .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", dir.join("log"))
        .env("RABBITMQ_LOGS", "-")
        // The distribution listens on every interface by default; schedulers bound to cores would
        // all sit on the same ones as those of other test processes.
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_SCHEDULER_BIND_TYPE", "u");
}

/// A program of RabbitMQ's.
fn script(name: &str) -> PathBuf {
    let debian = Path::new(DEBIAN_SCRIPTS).join(name);
    if debian.exists() { debian } else { PathBuf::from(name) }
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
