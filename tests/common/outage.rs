//! What waits in a data directory while a broker is down, and what comes of it afterwards.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use super::{
    brokers::{Access, Nats},
    burst, consume,
    daemon::{Daemon, SOURCES},
    operator::{Scrape, await_metrics},
    segments,
    sender::{self, Webhook},
};

/// The stream, and the brokers: one that is down for a while, and one that never is.
const STREAM: &str = "kept";
pub const LIVE: &str = "live";
pub const LOCAL: &str = "local";

/// The most that a place takes to be durable once nothing comes any more, many times over.
const PLACES_ARE_SAVED: Duration = Duration::from_secs(1);

/// How an outage goes.
#[derive(Clone, Copy)]
pub struct Plan {
    /// What the daemon is told besides.
    pub settings: &'static [(&'static str, &'static str)],
    /// Events that both brokers had before one of them went down.
    pub had: usize,
    /// Events that came while it was.
    pub waiting: usize,
    /// Bytes that a body is filled up with.
    pub padding: usize,
    /// Connections that send at the same time. One alone means that records are in order.
    pub connections: usize,
}

/// Two brokers, one of which is or was down, and everything that was accepted.
pub struct Outage {
    pub plan: Plan,
    pub nats: Nats,
    /// The directory of the daemon that took them.
    pub dir: TempDir,
    /// Each with its id, in the order in which they were sent.
    pub events: Vec<(String, Webhook)>,
}

impl Outage {
    /// One broker is down, and the daemon runs.
    pub async fn begin(plan: Plan, further: &[(&str, &str)], dir: TempDir) -> (Outage, Daemon) {
        let access = Access { syncs_later: true, ..Access::default() };
        let mut nats = Nats::start_with(&access).unwrap_or_else(|error| panic!("{error}"));
        consume::create_stream(nats.url(), consume::stream_of(STREAM)).await;
        let settings = [plan.settings, further].concat();
        let daemon = Daemon::start(dir.path(), &routes(nats.url()), &settings);

        let webhooks: Vec<Webhook> =
            (0..plan.had + plan.waiting).map(|n| event(n, plan.padding)).collect();
        let (first, rest) = webhooks.split_at(plan.had);
        let mut ids = burst::accept_all(daemon.listen, first, plan.connections).await;
        await_nothing_waits(&daemon, LIVE);
        tokio::time::sleep(PLACES_ARE_SAVED).await;
        nats.kill();
        ids.extend(burst::accept_all(daemon.listen, rest, plan.connections).await);
        await_nothing_waits(&daemon, LOCAL);
        tokio::time::sleep(PLACES_ARE_SAVED).await;
        let events = ids.into_iter().zip(webhooks).collect();
        (Outage { plan, nats, dir, events }, daemon)
    }

    /// The daemon was killed, and the broker is back. Now see what becomes of it, any number of times.
    pub async fn over(plan: Plan) -> Outage {
        let dir = tempfile::tempdir().expect("a directory");
        let (mut outage, daemon) = Outage::begin(plan, &[], dir).await;
        daemon.kill();
        outage.nats.restart();
        outage
    }

    /// A copy of the daemon's directory, and a broker that has nothing yet.
    pub async fn copy(&self) -> Aftermath<'_> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.dir.path().join("data")).arg(dir.path());
        assert!(copy.status().expect("to run cp").success());
        consume::delete_stream(self.nats.url(), STREAM).await;
        consume::create_stream(self.nats.url(), consume::stream_of(STREAM)).await;
        Aftermath { outage: self, dir: dir.path().to_owned(), _copy: Some(dir) }
    }

    /// What becomes of the directory itself.
    pub fn aftermath(&self) -> Aftermath<'_> {
        Aftermath { outage: self, dir: self.dir.path().to_owned(), _copy: None }
    }

    pub fn routes(&self) -> String {
        routes(self.nats.url())
    }

    /// The ids of what waits for the broker that was down, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &str> {
        self.events.iter().skip(self.plan.had).map(|(id, _)| &**id)
    }

    pub fn webhook(&self, id: &str) -> &Webhook {
        &self.events.iter().find(|(its, _)| its == id).expect("an event").1
    }

    /// What the broker has, by id and in order, once it is so many messages.
    pub async fn delivered(&self, at_least: usize) -> Vec<String> {
        let messages = consume::read_stream(self.nats.url(), STREAM, at_least).await;
        messages.iter().map(|message| message.header("ce-id").expect("an id").to_owned()).collect()
    }

    /// What the broker has once each of these was delivered.
    pub async fn delivered_all<'a>(&self, ids: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
        let ids: BTreeSet<String> = ids.map(str::to_owned).collect();
        let messages = consume::read_stream(self.nats.url(), STREAM, &ids).await;
        let id = |message: &consume::Consumed| message.header("ce-id").expect("an id").to_owned();
        messages.iter().map(id).collect()
    }
}

/// One daemon's directory after an outage.
pub struct Aftermath<'a> {
    pub outage: &'a Outage,
    pub dir: PathBuf,
    _copy: Option<TempDir>,
}

impl Aftermath<'_> {
    pub fn journal(&self) -> PathBuf {
        self.dir.join("data/journal")
    }

    pub fn segments(&self) -> Vec<PathBuf> {
        segments::files(&self.journal(), "seg")
    }

    pub fn start(&self) -> Daemon {
        Daemon::start(&self.dir, &self.outage.routes(), self.outage.plan.settings)
    }

    /// Posts an event once more; its id.
    pub async fn post_again(&self, daemon: &Daemon, id: &str) -> String {
        let answer = sender::post(daemon.listen, self.outage.webhook(id)).await.expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.event_id.expect("an id")
    }
}

/// Waits until a broker has passed everything there is; the metrics then.
#[track_caller]
pub fn await_nothing_waits(daemon: &Daemon, broker: &str) -> Scrape {
    let lag = series("waypost_broker_lag_records", broker);
    await_metrics(daemon, "a broker that nothing waits for", |scrape| scrape.get(&lag) == 0.0)
}

/// The name of one broker's series.
pub fn series(family: &str, broker: &str) -> String {
    format!("{family}{{broker=\"{broker}\"}}")
}

/// The `n`-th event, with a body that is its own.
pub fn event(n: usize, padding: usize) -> Webhook {
    let padding = char::from(b'a' + (n % 26) as u8).to_string().repeat(padding);
    sender::sonzai("agent", format!("{{\"agent_id\":\"a{n}\",\"padding\":\"{padding}\"}}"))
}

fn routes(url: &str) -> String {
    format!(
        r#"{SOURCES}
brokers:
  {LIVE}: {{ type: nats, url: "{url}" }}
  {LOCAL}: {{ type: log }}
routes:
  - name: all
    match: {{ type: "**" }}
    to: [{{ broker: {LIVE}, subject: "{STREAM}.{{type}}" }}, {{ broker: {LOCAL}, topic: all }}]
"#
    )
}

/// The dead letters that tell of damage, as they are listed.
pub fn damage_told(dir: &Path) -> Vec<String> {
    let (status, output) = super::daemon::command(dir, &["dead-letters", "list", "--json"]);
    assert!(status.success(), "{output}");
    let tells = |line: &&str| {
        let json: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        json["type"] == "waypost.journal.damage"
    };
    output.lines().filter(tells).map(str::to_owned).collect()
}
