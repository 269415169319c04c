//! Puts a changed `routes.yaml` in force, under load and without anyone noticing.
//!
//! One task, one reload at a time: whoever asks meanwhile shares the next. Everything that can fail
//! comes first: the file is read, compiled, its brokers' clients are built and their dispatchers
//! opened (from then on nothing is freed that they may be owed), and its text is kept as the last good
//! one. Only then one `Arc` is swapped. On any error the old table stays.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_blocking,
};
use tokio_util::sync::CancellationToken;

use super::{
    Error,
    fleet::{Fleet, Plan, Prepared},
    restart::Restart,
};
use crate::{
    admin::config::{Asking, Attempt, Changes, Config, Facts, InForce, Outcome},
    clock::{now_ms, rfc3339},
    journal::{Reserve, is_no_space},
    routing::{
        Table,
        reload::{self, Digest, Loaded, Reading, Start, watch::Watch},
    },
    service,
    settings::Settings,
};

/// Why a file is not put in force.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error(transparent)]
    File(#[from] reload::Error),
    #[error(transparent)]
    Daemon(#[from] Error),
    #[error("cannot keep it as the last good one: {0}")]
    NotKept(std::io::Error),
}

/// See the module.
pub struct Reload {
    file: PathBuf,
    data_dir: PathBuf,
    reserve: Reserve,
    table: Arc<ArcSwap<Table>>,
    /// Tables that were in force, as long as a request runs on them.
    past: Vec<Weak<Table>>,
    fleet: Fleet,
    config: Arc<Config>,
    restart: Restart,
    watch: Watch,
    /// What the table in force was compiled from.
    in_force: Digest,
    /// And the last attempt, whatever became of it; `None` where that could not be told.
    attempted: Option<Digest>,
}

/// What was seen when the daemon started.
pub struct Seen {
    pub digest: Digest,
    pub secrets: BTreeSet<PathBuf>,
    pub watch: Watch,
}

/// What a reload changes, and who is told.
pub struct Parts {
    pub table: Arc<ArcSwap<Table>>,
    pub fleet: Fleet,
    pub config: Arc<Config>,
    pub restart: Restart,
}

/// Who asks for a reload.
pub struct Calls {
    /// Operators, who want to know what became of it.
    pub asking: mpsc::Receiver<Asking>,
    /// SIGHUP.
    pub hangup: Arc<Notify>,
}

/// What is in force as the daemon starts, for whoever looks.
pub fn first_facts(file: PathBuf, start: &Start) -> Facts {
    let Start { loaded, instead, .. } = start;
    let mut in_force = in_force(loaded);
    let mut last_attempt = Attempt::now(Outcome::Applied, Some(loaded.hash.to_string()));
    last_attempt.warnings = warnings(&loaded.table);
    if let Some((error, since)) = instead {
        in_force.since = humantime::format_rfc3339_millis(*since).to_string();
        in_force.last_good = true;
        last_attempt = Attempt::now(Outcome::Rejected, None);
        last_attempt.problems = problems(error);
    }
    Facts { file, in_force, last_attempt, restart_needed: Vec::new() }
}

fn in_force(loaded: &Loaded) -> InForce {
    let table = &loaded.table;
    InForce {
        hash: loaded.hash.to_string(),
        since: rfc3339(now_ms()),
        last_good: false,
        sources: table.sources().map(|(_, source)| source.name.to_string()).collect(),
        brokers: table.brokers().iter().map(|broker| broker.name.to_string()).collect(),
        routes: table.route_names().map(ToString::to_string).collect(),
    }
}

/// What is doubtful about a table that comes into force, which is logged.
fn warnings(table: &Table) -> Vec<String> {
    let warnings = table.warnings().iter().map(ToString::to_string);
    let logged = warnings
        .inspect(|warning| tracing::warn!(%warning, "the routing table may not do as meant"));
    logged.collect()
}

fn problems(error: &reload::Error) -> Vec<String> {
    match error {
        reload::Error::Invalid(invalid) => {
            invalid.problems().iter().map(ToString::to_string).collect()
        }
        other => vec![other.to_string()],
    }
}

impl Reload {
    /// Keeps what `loaded` was compiled from in force.
    pub fn new(settings: &Settings, reserve: Reserve, seen: Seen, parts: Parts) -> Reload {
        let Seen { digest, secrets, mut watch } = seen;
        let Parts { table, fleet, config, restart } = parts;
        let file = settings.routes.clone();
        watch.follow(all_files(&file, &restart, &secrets));
        Reload {
            file,
            data_dir: settings.data_dir.clone(),
            reserve,
            table,
            past: Vec::new(),
            fleet,
            config,
            restart,
            watch,
            in_force: digest,
            attempted: Some(digest),
        }
    }

    /// Reloads whenever the file changes or somebody asks, until `stop`; then waits for the
    /// dispatchers to drain. What ends one of them before is a failure.
    pub async fn run(mut self, mut calls: Calls, stop: CancellationToken) -> Result<(), Error> {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return self.fleet.drained().await,
                ended = self.fleet.ended() => ended?,
                Some(asking) = calls.asking.recv() => {
                    let mut all = vec![asking];
                    all.extend(std::iter::from_fn(|| calls.asking.try_recv().ok()));
                    let Some(attempt) = stop.run_until_cancelled(self.reload()).await else { continue };
                    let attempt = attempt?;
                    // Whoever went away meanwhile finds it in the log.
                    all.into_iter().for_each(|asking| drop(asking.send(attempt.clone())));
                }
                () = calls.hangup.notified() => {
                    service::reloading().await;
                    if let Some(attempt) = stop.run_until_cancelled(self.reload()).await {
                        attempt?;
                    }
                    service::reloaded(self.config.is_good()).await;
                }
                () = self.watch.changed() => {
                    if let Some(looked) = stop.run_until_cancelled(self.look()).await {
                        looked?;
                    }
                }
            }
        }
    }

    /// Reloads if what is there is not what was attempted last, or is good by now: what was wrong with
    /// it may have been elsewhere, in a certificate's file or on the disk.
    async fn look(&mut self) -> Result<(), Error> {
        let file = self.file.clone();
        let reading = blocking(move || Reading::once(&file)).await?;
        let (digest, secrets) = (reading.digest, reading.secrets.clone());
        self.restart.look(&self.config);
        let is_news = self.attempted != Some(digest);
        if is_news || !self.config.is_good() && blocking(|| reading.compile().is_ok()).await? {
            self.reload().await?;
        }
        self.watch.follow(all_files(&self.file, &self.restart, &secrets));
        Ok(())
    }

    /// One attempt to put the file in force. The error is one that the daemon cannot go on with.
    async fn reload(&mut self) -> Result<Attempt, Error> {
        let file = self.file.clone();
        let settled = blocking(move || Reading::settled(&file)).await?;
        self.attempted = settled.as_ref().ok().map(|reading| reading.digest);
        if self.attempted == Some(self.in_force) {
            return Ok(self.nothing_new());
        }
        let loaded = match settled {
            Ok(reading) => blocking(move || reading.compile()).await?,
            Err(error) => Err(error),
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => return Ok(self.rejected(None, &error.into())),
        };
        let plan = self.fleet.plan(&loaded.table).await?;
        let hash = loaded.hash.to_string();
        match self.apply(loaded, plan).await {
            Ok(attempt) => Ok(attempt),
            Err(error) => Ok(self.rejected(Some(hash), &error)),
        }
    }

    fn nothing_new(&mut self) -> Attempt {
        let hash = self.config.facts().in_force.hash;
        tracing::info!(hash, "the routing table is unchanged");
        let attempt = Attempt::now(Outcome::Unchanged, Some(hash));
        self.config.attempted(attempt.clone(), None);
        attempt
    }

    fn rejected(&mut self, hash: Option<String>, error: &Rejected) -> Attempt {
        tracing::error!(%error, "the routing table stays as it was");
        let mut attempt = Attempt::now(Outcome::Rejected, hash);
        attempt.problems = match error {
            Rejected::File(error) => problems(error),
            other => vec![other.to_string()],
        };
        self.config.attempted(attempt.clone(), None);
        attempt
    }

    async fn apply(&mut self, loaded: Loaded, plan: Plan) -> Result<Attempt, Rejected> {
        let prepared = self.fleet.prepare(plan).await?;
        if let Err(error) = self.keep(&loaded.text).await {
            self.fleet.abandon(prepared).await;
            return Err(error);
        }
        Ok(self.swap(loaded, prepared))
    }

    /// Keeps a text as the last good one; on a full disk, with what is kept for a start.
    async fn keep(&self, text: &str) -> Result<(), Rejected> {
        let (dir, text, reserve) = (self.data_dir.clone(), text.to_owned(), self.reserve.clone());
        let keep = move || reserve.open(|| reload::keep_last_good(&dir, &text), is_no_space);
        blocking(keep).await?.map_err(Rejected::NotKept)
    }

    /// From here on nothing can fail.
    fn swap(&mut self, loaded: Loaded, prepared: Prepared) -> Attempt {
        let in_force = in_force(&loaded);
        let changes = self.changes(&in_force, &prepared);
        let Loaded { mut table, hash, digest, .. } = loaded;
        table.inherit(&self.table.load());
        let table = Arc::new(table);
        let old = self.table.swap(table.clone());
        self.past.retain(|past| past.strong_count() > 0);
        self.past.push(Arc::downgrade(&old));
        drop(old);
        self.fleet.commit(&table, prepared, &self.past);
        self.in_force = digest;
        tracing::info!(%hash, changes = %words(&changes), "a routing table is in force");
        let mut attempt = Attempt::now(Outcome::Applied, Some(hash.to_string()));
        attempt.changes = changes;
        attempt.warnings = warnings(&table);
        self.config.attempted(attempt.clone(), Some(in_force));
        attempt
    }

    fn changes(&self, new: &InForce, prepared: &Prepared) -> Changes {
        let old = self.config.facts().in_force;
        let [brokers_added, brokers_changed, brokers_removed] = prepared.names();
        let routes_but = |routes: &[String], others: &[String]| {
            routes.iter().filter(|route| !others.contains(route)).cloned().collect()
        };
        Changes {
            brokers_added,
            brokers_changed,
            brokers_removed,
            sources_added: new.sources.difference(&old.sources).cloned().collect(),
            sources_removed: old.sources.difference(&new.sources).cloned().collect(),
            routes_added: routes_but(&new.routes, &old.routes),
            routes_removed: routes_but(&old.routes, &new.routes),
        }
    }
}

/// All that may change what is in force, or should be.
fn all_files<'f>(
    file: &'f Path,
    restart: &'f Restart,
    secrets: &'f BTreeSet<PathBuf>,
) -> impl Iterator<Item = &'f Path> {
    [file, restart.file()].into_iter().chain(secrets.iter().map(|secret| &**secret))
}

/// Keeps the first table as the last good one. Without that the daemon still starts: a bad file would
/// only have nothing to fall back on.
pub fn keep_first(loaded: &Loaded, data_dir: &Path, reserve: &Reserve) {
    let keep = || reload::keep_last_good(data_dir, &loaded.text);
    if let Err(error) = reserve.open(keep, is_no_space) {
        tracing::warn!(%error, "the routing table is not kept as the last good one");
    }
}

/// `brokers added: a, b; routes removed: c`.
fn words(changes: &Changes) -> String {
    let parts = changes.each().into_iter().filter(|(_, names)| !names.is_empty());
    let parts: Vec<String> =
        parts.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    if parts.is_empty() { "no names".to_owned() } else { parts.join("; ") }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(Error::Panicked)
}
