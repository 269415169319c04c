//! Everything that operators may look at, and what follows from it at a glance.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    config::Config,
    rates::{NOTE_EVERY, Note, Rates},
    ready::{self, Reason},
};
use crate::{
    admit::{Admit, Backlogs},
    broker,
    clock::now_ms,
    commands::stats::AllShown,
    dedupe,
    dispatch::{self, Holds, LaneProgress},
    footprint::{self, Footprint},
    ingress::Ingress,
    journal::{Behind, Journal},
    routing::Table,
    server::{Load, tls::Tls},
    settings::Settings,
    sonzai::service as sonzai,
    telemetry::Lines,
};

/// The name of a counter that is no broker's.
const CAME_IN: &str = "";

/// See the module.
pub struct View {
    pub started: Instant,
    pub started_ms: u64,
    pub data_dir: PathBuf,
    /// Cancelled once the daemon is told to stop.
    pub stop: CancellationToken,
    pub table: Arc<ArcSwap<Table>>,
    pub config: Arc<Config>,
    pub ingress: Ingress,
    /// For what is salvaged.
    pub admit: Admit,
    pub sonzai: sonzai::Service,
    /// Where the ingress speaks it.
    pub tls: Option<Arc<Tls>>,
    /// Of senders, and of operators.
    pub connections: Arc<Load>,
    pub admin_connections: Arc<Load>,
    pub window: Arc<dedupe::Window>,
    pub main: Journal,
    pub dead_letters: Journal,
    pub backlogs: Arc<Backlogs>,
    pub holds: Arc<Holds>,
    pub settings: Arc<Settings>,
    /// Bounds of every broker.
    pub limits: dispatch::Limits,
    pub brokers: Arc<ArcSwap<Vec<Broker>>>,
    pub commands: AllShown,
    pub rates: Rates,
    pub log: Arc<Lines>,
}

/// A broker and how its dispatcher stands.
#[derive(Clone)]
pub struct Broker {
    pub name: ByteString,
    pub role: Role,
    pub stats: Arc<dispatch::Stats>,
    pub parked: Journal,
    /// Bytes that it may have parked.
    pub backlog_bytes: u64,
}

/// Whose dispatcher it is: what operators are shown as the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Of what no route takes.
    Unrouted,
    /// A broker's that is in the routing table no more, and still owed something.
    Removed,
    /// A broker's of the routing table, of this type.
    #[serde(untagged)]
    Listed(broker::Kind),
}

impl Role {
    /// Whether the broker is in the routing table: what stands in for one that is not is never down.
    pub fn is_there(self) -> bool {
        matches!(self, Role::Listed(_))
    }

    pub fn name(self) -> &'static str {
        match self {
            Role::Unrouted => "unrouted",
            Role::Removed => "removed",
            Role::Listed(kind) => kind.name(),
        }
    }
}

impl View {
    /// Why the daemon cannot take events now; empty if it can. Asks the disk, so it may block.
    pub fn not_ready(&self) -> Vec<Reason> {
        let stats = self.main.stats();
        ready::reasons(&ready::Facts {
            draining: self.stop.is_cancelled(),
            failed: self.main.has_failed(),
            hangs: self.main.hangs().is_some(),
            journal_left_bytes: self.main.room().left_bytes(),
            disk_left_bytes: self.disk_left_bytes(),
            refuses: stats.refuses(),
        })
    }

    /// Bytes that the daemon may still write to the disk of its data directory. A disk that hangs is
    /// not asked: whoever does might never come back.
    pub fn disk_left_bytes(&self) -> Option<u64> {
        self.main.hangs().map_or_else(|| footprint::left_bytes(&self.data_dir), |_| None)
    }

    /// How long the disk has not answered, by what waits for it: the journal, the dead letters, and
    /// whichever broker's parked messages have waited longest. Zero where it is within
    /// `journal.commit_timeout`.
    pub fn hangs(&self) -> [(&'static str, Duration); 3] {
        let hangs = |journal: &Journal| journal.hangs().unwrap_or_default();
        let brokers = self.brokers.load();
        let parked = brokers.iter().map(|broker| hangs(&broker.parked)).max();
        [
            ("main", hangs(&self.main)),
            ("dead_letters", hangs(&self.dead_letters)),
            ("parked", parked.unwrap_or_default()),
        ]
    }

    /// What the data directory may come to hold, with the brokers that there are now.
    pub fn footprint(&self) -> Footprint {
        let brokers = self.brokers.load();
        Footprint::of(&self.settings, brokers.iter().map(|broker| broker.backlog_bytes))
    }

    /// Journal records that a broker has not settled, and about how many bytes they are.
    pub fn lag(&self, broker: &Broker) -> Behind {
        self.main.behind(&broker.name).0
    }

    /// Records that were lost to a broker by damage, of the journal and of what it had parked.
    pub fn lost(&self, broker: &Broker) -> u64 {
        self.main.behind(&broker.name).1 + broker.parked.behind(&broker.name).1
    }

    /// Notes what rates are made of, now and then, until `stop`.
    pub async fn note_rates(&self, stop: CancellationToken) {
        self.rates.note(self.counters());
        while stop.run_until_cancelled(tokio::time::sleep(NOTE_EVERY)).await.is_some() {
            self.rates.note(self.counters());
        }
    }

    /// Events a second that came in, and that each broker confirmed, and over how long.
    pub fn rates(&self) -> (f64, BTreeMap<ByteString, f64>, Duration) {
        let (mut rates, over) = self.rates.until(&self.counters());
        (rates.remove(CAME_IN).unwrap_or_default(), rates, over)
    }

    /// Events appended since the start: not what was appended to say that one is known.
    pub fn accepted(&self) -> u64 {
        self.main.stats().appended.get().saturating_sub(self.window.taken())
    }

    /// What came in, and what each broker confirmed.
    fn counters(&self) -> Note {
        let brokers = self.brokers.load();
        let confirmed =
            brokers.iter().map(|broker| (broker.name.clone(), broker.stats.confirmed.get()));
        let came_in = (ByteString::from_static(CAME_IN), self.accepted());
        Note { at: Instant::now(), counters: confirmed.chain([came_in]).collect() }
    }
}

impl Broker {
    /// What it is now: one of another type takes over only after what the last one was owed.
    pub fn role(&self) -> Role {
        match (self.role, self.stats.condition().kind) {
            (Role::Listed(_), Some(kind)) => Role::Listed(kind),
            (role, _) => role,
        }
    }

    /// Whether what is appended for it from now on is delivered, or becomes a dead letter.
    pub fn is_served(&self) -> bool {
        self.role.is_there() || self.role == Role::Unrouted
    }

    /// Messages set aside that are neither confirmed nor given up on.
    pub fn parked(&self) -> u64 {
        self.parked.behind(&self.name).0.records
    }

    pub fn parked_bytes(&self) -> u64 {
        self.parked.behind(&self.name).0.bytes
    }

    /// How long the first message that it is owed has waited since its event was received; zero if
    /// none waits.
    pub fn oldest_waiting(&self) -> Duration {
        let lanes = [&self.stats.main, &self.stats.parked_lane];
        let oldest_ms = lanes.into_iter().filter_map(LaneProgress::oldest_ms).min();
        Duration::from_millis(oldest_ms.map_or(0, |ms| now_ms().saturating_sub(ms)))
    }
}
