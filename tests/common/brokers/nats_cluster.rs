//! Three NATS servers that form a cluster, so that a stream can have three replicas.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use super::{
    nats::greets,
    ports,
    server::{Plan, Server},
};

/// How long an election may take on a busy machine.
const ELECTED_WITHIN: Duration = Duration::from_secs(60);

/// How long a server may take to say how it is.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

const SERVERS: usize = 3;

pub struct NatsCluster {
    servers: Vec<Member>,
}

struct Member {
    server: Server,
    port: u16,
    monitor: u16,
    is_up: bool,
}

impl NatsCluster {
    /// Starts it, and waits until it has elected who leads it.
    #[track_caller]
    pub fn start() -> NatsCluster {
        NatsCluster::try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    fn try_start() -> Result<NatsCluster, String> {
        let free = |_| Ok((ports::free()?, ports::free()?, ports::free()?));
        let places = (0..SERVERS).map(free).collect::<Result<Vec<_>, String>>()?;
        let routes: Vec<String> =
            places.iter().map(|(_, route, _)| format!("nats://127.0.0.1:{route}")).collect();
        let start = |(number, place): (usize, &(u16, u16, u16))| {
            let (port, route, monitor) = *place;
            let server = Server::start_unready(plan(number, port, route, monitor, &routes)?)?;
            Ok(Member { server, port, monitor, is_up: true })
        };
        let servers = places.iter().enumerate().map(start).collect::<Result<Vec<_>, String>>()?;
        let cluster = NatsCluster { servers };
        cluster.servers.iter().try_for_each(|member| member.server.wait_until_ready())?;
        cluster.meta_leader();
        Ok(cluster)
    }

    /// `nats://127.0.0.1:PORT` of each, separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<String> = (0..SERVERS).map(|number| self.url_of(number)).collect();
        urls.join(",")
    }

    /// The url of one that runs.
    pub fn url_of_one(&self) -> String {
        let number = self.servers.iter().position(|member| member.is_up).expect("one that runs");
        self.url_of(number)
    }

    fn url_of(&self, number: usize) -> String {
        format!("nats://127.0.0.1:{}", self.servers[number].port)
    }

    /// The number of the server with this name.
    pub fn named(&self, name: &str) -> usize {
        (0..SERVERS).find(|number| server_name(*number) == name).expect("a server of ours")
    }

    /// The number of the server that leads the cluster; waits until one does.
    pub fn meta_leader(&self) -> usize {
        let started = Instant::now();
        loop {
            let members = self.servers.iter().filter(|member| member.is_up);
            let leaders: Vec<String> = members.filter_map(Member::meta_leader).collect();
            let up = self.servers.iter().filter(|member| member.is_up).count();
            if let Some(leader) = leaders.first()
                && leaders.len() == up
                && leaders.iter().all(|other| other == leader)
                && self.servers[self.named(leader)].is_up
            {
                return self.named(leader);
            }
            assert!(started.elapsed() < ELECTED_WITHIN, "nobody leads the cluster: {leaders:?}");
            sleep(Duration::from_millis(100));
        }
    }

    /// Whether it was not killed.
    pub fn is_up(&self, number: usize) -> bool {
        self.servers[number].is_up
    }

    pub fn kill(&mut self, number: usize) {
        self.servers[number].server.kill();
        self.servers[number].is_up = false;
    }

    pub fn restart(&mut self, number: usize) {
        self.servers[number].server.restart();
        self.servers[number].is_up = true;
    }
}

impl Member {
    /// Who leads the cluster, as this server sees it.
    fn meta_leader(&self) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitor)).ok()?;
        stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
        stream.write_all(b"GET /jsz HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let json: serde_json::Value = serde_json::from_str(body).ok()?;
        let leader = json["meta_cluster"]["leader"].as_str()?;
        (!leader.is_empty()).then(|| leader.to_owned())
    }
}

fn server_name(number: usize) -> String {
    format!("waypost-{number}")
}

fn plan(
    number: usize,
    port: u16,
    route: u16,
    monitor: u16,
    routes: &[String],
) -> Result<(Plan, tempfile::TempDir), String> {
    let program = super::tool("bin/nats-server")?;
    let dir = super::directory("nats-cluster")?;
    let (name, store, routes) = (server_name(number), dir.path().join("store"), routes.join(", "));
    let config = format!(
        "server_name: {name}\n\
         listen: \"127.0.0.1:{port}\"\n\
         http: \"127.0.0.1:{monitor}\"\n\
         jetstream {{ store_dir: {store:?}, sync_interval: always }}\n\
         cluster {{ name: waypost, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}\n"
    );
    let config = super::write(dir.path().join("nats.conf"), &config)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    Ok((Plan { name: "nats-cluster", command, ready: Box::new(move || greets(port)) }, dir))
}
