//! A NATS server with JetStream that syncs each message before it acknowledges it.

use std::{
    io::{BufRead, BufReader},
    net::TcpStream,
    ops::{Deref, DerefMut},
    process::Command,
    time::Duration,
};

use super::{
    ports,
    server::{Plan, Server},
};

/// A local server greets at once; one that does not is not ready yet.
const GREETING_WITHIN: Duration = Duration::from_secs(2);

pub struct Nats {
    server: Server,
    url: String,
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
        let program = super::tool("bin/nats-server")?;
        let dir = super::directory("nats")?;
        let store = dir.path().join("store");
        let config = format!(
            "listen: \"127.0.0.1:{port}\"\n\
             jetstream {{ store_dir: {store:?}, sync_interval: always }}\n"
        );
        let config = super::write(dir.path().join("nats.conf"), &config)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(config);
        let ready = Box::new(move || greets(port));
        let plan = Plan { name: "nats", command, ready };
        Ok(Nats { server: Server::start(plan, dir)?, url: format!("nats://127.0.0.1:{port}") })
    }

    /// `nats://127.0.0.1:PORT`
    pub fn url(&self) -> &str {
        &self.url
    }
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
