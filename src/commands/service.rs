//! Follows the routing table: for each place of `commands:` one that takes and carries out.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use bytestring::ByteString;
use tokio::{
    sync::{OnceCell, watch},
    task::{Id, JoinError, JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    consumer,
    hands::Hands,
    ledger::Ledger,
    runner::Runner,
    stats::{AllShown, Shown, State, Stats},
};
use crate::{
    clock::now_ms,
    dedupe::Limits,
    dispatch::dead_letter::DeadLetters,
    journal::{self, Reserve, Storage},
    quiet::Quiet,
    routing::{BrokerKind, CommandSettings, Table},
    sonzai::client::{self, Client},
    source::{Provider, sonzai::settings::Api},
};

/// How often what the ledger keeps in vain is freed.
const FREE_EVERY: Duration = Duration::from_secs(60);

/// How soon what could not be begun, for want of a file or of room, is tried again.
const BEGIN_AGAIN: Duration = Duration::from_secs(10);

/// One place of `commands:` with all that it refers to. Equal ones go on as they are.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    settings: CommandSettings,
    broker: BrokerKind,
    api: Api,
}

/// Tells the service of tables, and others how it stands. A cheap handle.
#[derive(Clone)]
pub struct Commands {
    wanted: watch::Sender<Arc<[Wanted]>>,
    shown: AllShown,
}

/// What the service works with.
pub struct Parts {
    pub storage: Arc<dyn Storage>,
    pub reserve: Reserve,
    pub data_dir: PathBuf,
    /// How long, and how many, commands are remembered.
    pub remembered: Limits,
    pub client: client::Limits,
    pub dead_letters: DeadLetters,
    /// How long a command in hand may take once it is told to stop.
    pub deadline: Duration,
    /// What all journals have in common, the ledger's too.
    pub journal: journal::Options,
}

/// See the module.
pub struct Service {
    parts: Arc<Parts>,
    wanted: watch::Receiver<Arc<[Wanted]>>,
    shown: AllShown,
    /// Counts the tables that came into force.
    tables: watch::Sender<u64>,
    /// Opened once there is something to note.
    ledger: Arc<OnceCell<Arc<Ledger>>>,
    at_work: HashMap<ByteString, AtWork>,
    tasks: JoinSet<Result<(), Error>>,
}

/// Why commands are carried out no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal of what was done has failed, and what the disk holds of it is not known.
    #[error("the journal of commands failed: {0}")]
    Ledger(Arc<journal::Error>),
    #[error(transparent)]
    Panicked(#[from] JoinError),
}

struct AtWork {
    wanted: Wanted,
    stop: CancellationToken,
    task: Id,
}

impl Commands {
    /// Puts the `commands:` of a table in force.
    pub fn apply(&self, table: &Table) {
        self.wanted.send_replace(wanted(table));
    }

    /// All that there are, for operators.
    pub fn shown(&self) -> AllShown {
        self.shown.clone()
    }
}

impl Service {
    /// A service without anything to do, and its handle.
    pub fn new(parts: Parts) -> (Commands, Service) {
        let (sender, wanted) = watch::channel(Arc::default());
        let shown = AllShown::default();
        let commands = Commands { wanted: sender, shown: shown.clone() };
        let (tables, ledger, at_work, tasks) = Default::default();
        let parts = Arc::new(parts);
        (commands, Service { parts, wanted, shown, tables, ledger, at_work, tasks })
    }

    /// Runs until told to stop, and until all that it runs has ended.
    ///
    /// # Errors
    ///
    /// Something in it panicked, or what was done can be noted no more in this process.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        let mut free = interval(FREE_EVERY);
        free.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let trouble = Quiet::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Its source lives in the daemon, which stops this first.
                Ok(()) = self.wanted.changed() => self.follow().await?,
                Some(ended) = self.tasks.join_next() => ended??,
                _ = free.tick() => self.free(&trouble).await,
            }
        }
        let all: Vec<ByteString> = self.at_work.keys().cloned().collect();
        self.end(all).await?;
        if let Some(ledger) = self.ledger.get() {
            ledger.close().await;
        }
        Ok(())
    }

    /// Ends what is wanted no more or otherwise, and begins what is new.
    async fn follow(&mut self) -> Result<(), Error> {
        let wanted = self.wanted.borrow_and_update().clone();
        let is_wanted = |at_work: &AtWork| wanted.contains(&at_work.wanted);
        let ending = self.at_work.iter().filter(|(_, at_work)| !is_wanted(at_work));
        let ending: Vec<ByteString> = ending.map(|(name, _)| name.clone()).collect();
        // First those: two consumers of one group would take each other's messages.
        self.end(ending).await?;
        self.tables.send_modify(|tables| *tables += 1);
        self.show(&wanted);
        for wanted in wanted.iter() {
            if !self.at_work.contains_key(&wanted.settings.name) {
                self.begin(wanted);
            }
        }
        Ok(())
    }

    /// Counts go on where the name stays.
    fn show(&self, wanted: &[Wanted]) {
        let before = self.shown.load();
        let stats = |name: &ByteString| {
            let before = before.iter().find(|shown| shown.name == *name);
            before.map(|shown| shown.stats.clone()).unwrap_or_default()
        };
        let shown = wanted.iter().map(|Wanted { settings, .. }| Shown {
            name: settings.name.clone(),
            source: settings.source.clone(),
            broker: settings.broker.clone(),
            stats: stats(&settings.name),
        });
        self.shown.store(Arc::new(shown.collect()));
    }

    fn begin(&mut self, wanted: &Wanted) {
        let name = &wanted.settings.name;
        let Some(stats) =
            self.shown.load().iter().find(|shown| shown.name == *name).map(|one| one.stats.clone())
        else {
            return;
        };
        let start = Start {
            wanted: wanted.clone(),
            parts: self.parts.clone(),
            ledger: self.ledger.clone(),
            tables: self.tables.subscribe(),
            stats,
        };
        let stop = CancellationToken::new();
        let task = self.tasks.spawn(start.run(stop.clone())).id();
        self.at_work.insert(name.clone(), AtWork { wanted: wanted.clone(), stop, task });
    }

    /// Has these end, and waits until they have.
    async fn end(&mut self, names: Vec<ByteString>) -> Result<(), Error> {
        let mut ending: Vec<AtWork> =
            names.iter().filter_map(|name| self.at_work.remove(name)).collect();
        ending.iter().for_each(|at_work| at_work.stop.cancel());
        while !ending.is_empty() {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            let (id, outcome) = ended?;
            outcome?;
            ending.retain(|at_work| at_work.task != id);
        }
        Ok(())
    }

    async fn free(&self, trouble: &Quiet) {
        let Some(ledger) = self.ledger.get() else { return };
        if let Err(error) = ledger.free(now_ms()).await
            && let Some(more) = trouble.speaks(now_ms())
        {
            tracing::warn!(%error, more, "cannot free what commands left behind");
        }
    }
}

/// What the `commands:` of a table refer to. A table is compiled only if all of it is there.
fn wanted(table: &Table) -> Arc<[Wanted]> {
    let api = |name: &ByteString| {
        let (_, source) = table.sources().find(|(_, source)| source.name == *name)?;
        match &source.provider {
            Provider::Sonzai(sonzai) => sonzai.settings.api.clone(),
            _ => None,
        }
    };
    let wanted = |settings: &CommandSettings| {
        let broker = table.brokers().iter().find(|broker| broker.name == settings.broker)?;
        let (settings, broker) = (settings.clone(), broker.kind.clone());
        Some(Wanted { api: api(&settings.source)?, settings, broker })
    };
    table.commands().iter().filter_map(wanted).collect()
}

/// One that begins: it needs the ledger and a client, of which either may fail for a while.
struct Start {
    wanted: Wanted,
    parts: Arc<Parts>,
    ledger: Arc<OnceCell<Arc<Ledger>>>,
    tables: watch::Receiver<u64>,
    stats: Arc<Stats>,
}

impl Start {
    async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let name = self.wanted.settings.name.to_string();
        let (ledger, client) = loop {
            let trouble = match self.prepare().await {
                Ok(prepared) => break prepared,
                Err(trouble) => trouble,
            };
            self.stats.is_in_trouble(&name, State::Connecting, &trouble);
            if stop.run_until_cancelled(sleep(BEGIN_AGAIN)).await.is_none() {
                return Ok(());
            }
        };
        let Wanted { settings, broker, .. } = self.wanted;
        let Some(consumer) = consumer::of(&broker, &settings.from) else {
            // A table in which the two do not fit is not compiled.
            tracing::error!(command = name, "a broker of this type has no commands to take");
            stop.cancelled().await;
            return Ok(());
        };
        let (stats, deadline) = (self.stats, self.parts.deadline);
        let dead_letters = self.parts.dead_letters.clone();
        let tables = self.tables;
        let noted = ledger.clone();
        let hands = Hands { settings, client, ledger, dead_letters, stats: stats.clone(), tables };
        // Waiting would be in vain: only another process can tell what the disk holds.
        tokio::select! {
            biased;
            error = noted.failed() => Err(Error::Ledger(error)),
            () = Runner { name, consumer, hands, stats, deadline }.run(stop) => Ok(()),
        }
    }

    async fn prepare(&self) -> Result<(Arc<Ledger>, Client), String> {
        let parts = self.parts.clone();
        let open = async || {
            let opened = spawn_blocking(move || parts.open_ledger()).await;
            let opened = opened.map_err(|panic| panic.to_string())?;
            opened.map(Arc::new).map_err(|error| error.to_string())
        };
        let ledger = self.ledger.get_or_try_init(open).await?.clone();
        // Each failure is looked into before the next attempt: a wakeup may have been made.
        let limits = client::Limits { max_attempts: 1, ..self.parts.client };
        let api = self.wanted.api.clone();
        let client = spawn_blocking(move || Client::new(&api, limits)).await;
        let client = client.map_err(|panic| panic.to_string())?;
        Ok((ledger, client.map_err(|error| error.to_string())?))
    }
}

impl Parts {
    /// Blocks.
    fn open_ledger(&self) -> Result<Ledger, journal::Error> {
        let dir = self.data_dir.join("commands");
        let open =
            || Ledger::open(self.storage.clone(), &dir, self.remembered, self.journal.clone());
        self.reserve.open(open, journal::Error::is_no_space)
    }
}
