//! A NATS server with JetStream that syncs each message before it acknowledges it.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Tls, ports,
    server::{Plan, Server},
};

/// A local server greets at once; one that does not is not ready yet.
const GREETING_WITHIN: Duration = Duration::from_secs(2);

pub struct Nats {
    server: Server,
    port: u16,
    url: String,
}

/// What a server asks of its clients, and promises them.
#[derive(Clone, Default)]
pub struct Access {
    /// Whether what it acknowledges is synced later, as it comes: in a cluster, replicas keep it.
    pub syncs_later: bool,
    pub tls: Option<Tls>,
    /// Whether the server waits for the handshake before it says a word.
    pub tls_first: bool,
    /// `authorization { … }` or the like, in the words of its configuration.
    pub users: String,
}

impl Nats {
    #[track_caller]
    pub fn start() -> Nats {
        Self::try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it on a free port, or says why not.
    pub fn try_start() -> Result<Nats, String> {
        Self::start_on(ports::free()?)
    }

    /// Starts it on this port, or says why not.
    pub fn start_on(port: u16) -> Result<Nats, String> {
        Self::start_all(port, &Access::default())
    }

    /// Starts it with what `access` says, or says why not.
    pub fn start_with(access: &Access) -> Result<Nats, String> {
        Self::start_all(ports::free()?, access)
    }

    fn start_all(port: u16, access: &Access) -> Result<Nats, String> {
        let program = super::tool("bin/nats-server")?;
        let dir = super::directory("nats")?;
        let config = write_config(dir.path(), port, access)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(config);
        let silent = access.tls_first;
        let ready = Box::new(move || if silent { listens(port) } else { greets(port) });
        let plan = Plan { name: "nats", command, ready };
        let url = format!("nats://127.0.0.1:{port}");
        Ok(Nats { server: Server::start(plan, dir)?, port, url })
    }

    /// Restarts it with another configuration.
    pub fn change(&mut self, access: &Access) {
        write_config(self.server.dir(), self.port, access).expect("its configuration");
        self.server.restart();
    }

    /// `nats://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn write_config(dir: &Path, port: u16, access: &Access) -> Result<PathBuf, String> {
    let Access { syncs_later, tls, tls_first, users } = access;
    let sync = if *syncs_later { "" } else { ", sync_interval: always" };
    let store = dir.join("store");
    let mut config = format!(
        "listen: \"127.0.0.1:{port}\"\n\
         jetstream {{ store_dir: {store:?}{sync} }}\n{users}\n"
    );
    if let Some(tls) = tls {
        let files = tls.write(dir)?;
        let (verify, first) = (tls.demands_client, tls_first);
        config += &format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: {verify}, \
             handshake_first: {first} }}\n",
            files.cert, files.key, files.client_ca
        );
    }
    super::write(dir.join("nats.conf"), &config)
}

/// All that can be asked of a server that greets nobody before a handshake.
fn listens(port: u16) -> Result<(), String> {
    TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
}

/// The server opens its port after JetStream has recovered, and says in its greeting that it is on.
pub(super) fn greets(port: u16) -> Result<(), String> {
    let greeting = || {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(GREETING_WITHIN))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok::<_, std::io::Error>(line)
    };
    match greeting() {
        Ok(line) if line.starts_with("INFO ") && line.contains("\"jetstream\":true") => Ok(()),
        Ok(line) => Err(format!("it greets with {line:?}")),
        Err(error) => Err(error.to_string()),
    }
}

impl Deref for Nats {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}
