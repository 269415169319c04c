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
    facts::{self, in_force, logged_warnings, problems, warnings, words},
    fleet::{Fleet, Plan, Prepared},
    reader::{READ_WITHIN, Reader},
    reclaim,
    restart::Restart,
};
use crate::{
    admin::config::{Asking, Attempt, Changes, Config, Outcome},
    journal::{Reserve, is_no_space},
    routing::{
        Table,
        reload::{self, Digest, Loaded, Reading, Secrets, outline::Outline, watch::Watch},
    },
    service,
    settings::Settings,
    sonzai::service as sonzai,
};

/// Why a file is not put in force.
#[derive(Debug, thiserror::Error)]
enum Rejected {
    #[error(transparent)]
    File(#[from] reload::Error),
    #[error(
        "{} or a secret file that it names cannot be read within {}",
        file.display(), humantime::format_duration(READ_WITHIN)
    )]
    Late { file: PathBuf },
    #[error(transparent)]
    Daemon(#[from] Error),
    #[error("cannot keep it as the last good one: {0}")]
    NotKept(std::io::Error),
}

/// Why there is an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Somebody asks, and is answered.
    Asked,
    /// The file is another.
    Noticed,
    /// The last one failed, and not for what the files said.
    Retried,
}

/// What a reading found.
struct Found {
    /// `None` where it could not be told.
    digest: Option<Digest>,
    secrets: Secrets,
    /// `None` where it is in force already.
    loaded: Option<Result<Loaded, reload::Error>>,
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
    sonzai: sonzai::Service,
    config: Arc<Config>,
    restart: Restart,
    reader: Reader,
    watch: Watch,
    /// What the table in force was compiled from.
    in_force: Digest,
    outline: Outline,
    /// What it changed when it came into force.
    brought: Changes,
    /// And the last attempt, whatever became of it; `None` where that could not be told.
    attempted: Option<Digest>,
}

/// What was seen when the daemon started.
pub struct Seen {
    pub digest: Digest,
    /// Of the file, whatever became of it.
    pub attempted: Option<Digest>,
    pub secrets: Secrets,
    pub outline: Outline,
    pub watch: Watch,
}

/// What a reload changes, and who is told.
pub struct Parts {
    pub table: Arc<ArcSwap<Table>>,
    pub fleet: Fleet,
    pub sonzai: sonzai::Service,
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

impl Reload {
    /// Keeps what `loaded` was compiled from in force.
    pub fn new(settings: &Settings, reserve: Reserve, seen: Seen, parts: Parts) -> Reload {
        let Seen { digest, attempted, secrets, outline, watch } = seen;
        let Parts { table, fleet, sonzai, config, restart } = parts;
        let file = settings.routes.clone();
        watch.follow(all_files(&file, &restart, &secrets))();
        Reload {
            file,
            data_dir: settings.data_dir.clone(),
            reserve,
            table,
            past: Vec::new(),
            fleet,
            sonzai,
            config,
            restart,
            reader: Reader::default(),
            watch,
            in_force: digest,
            outline,
            brought: Changes::default(),
            attempted,
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
                    stop.run_until_cancelled(self.asked(all)).await.transpose()?;
                }
                () = calls.hangup.notified() => {
                    stop.run_until_cancelled(self.asked(Vec::new())).await.transpose()?;
                }
                () = self.watch.changed() => {
                    stop.run_until_cancelled(self.look()).await.transpose()?;
                }
            }
        }
    }

    /// Reloads for whoever asks, and tells them and the service manager what became of it.
    async fn asked(&mut self, all: Vec<Asking>) -> Result<(), Error> {
        service::reloading().await;
        let attempt = self.reload(By::Asked).await?;
        service::reloaded(self.config.is_good()).await;
        // Whoever went away meanwhile finds it in the log.
        all.into_iter().for_each(|asking| drop(asking.send(attempt.clone())));
        Ok(())
    }

    /// Reloads if what is there is not what was attempted last, or is good by now: what was wrong with
    /// it may have been elsewhere, in a certificate's file or on the disk.
    async fn look(&mut self) -> Result<(), Error> {
        let (file, attempted, is_good) = (self.file.clone(), self.attempted, self.config.is_good());
        let read_settings = self.restart.read_again();
        let look = move || {
            let reading = Reading::once(&file);
            let secrets = reading.secrets.clone();
            let by = match attempted == Some(reading.digest) {
                false => Some(By::Noticed),
                true => (!is_good && reading.compile().is_ok()).then_some(By::Retried),
            };
            (secrets, by, read_settings())
        };
        let Some((secrets, by, settings)) = self.read(look).await? else {
            self.late(By::Retried);
            return Ok(());
        };
        match by {
            Some(by) => self.reload(by).await.map(drop)?,
            None => self.follow(&secrets).await?,
        }
        self.restart.compare(settings, &self.config);
        Ok(())
    }

    /// One attempt to put the file in force. The error is one that the daemon cannot go on with.
    async fn reload(&mut self, by: By) -> Result<Attempt, Error> {
        let (file, in_force) = (self.file.clone(), self.in_force);
        let Some(found) = self.read(move || find(&file, in_force)).await? else {
            return Ok(self.late(by));
        };
        if by != By::Asked && self.watch.sees_a_writer() {
            // There is another look once it is through.
            return Ok(self.config.facts().last_attempt);
        }
        self.attempted = found.digest;
        if found.digest.is_some() {
            self.follow(&found.secrets).await?;
        }
        let loaded = match found.loaded {
            None => return Ok(self.nothing_new()),
            Some(Err(error)) => return Ok(self.rejected(by, None, &error.into())),
            Some(Ok(loaded)) => loaded,
        };
        let plan = self.fleet.plan(&loaded.table).await?;
        let hash = loaded.hash.to_string();
        let applied = self.apply(loaded, plan).await;
        self.keep_room().await?;
        Ok(applied.unwrap_or_else(|error| self.rejected(by, Some(hash), &error)))
    }

    /// Reads; what ends of the dispatchers meanwhile is not left unseen. `None` where it took too long.
    async fn read<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let reading = self.reader.clone().read(work);
        tokio::pin!(reading);
        loop {
            tokio::select! {
                biased;
                ended = self.fleet.ended() => ended?,
                read = &mut reading => return read,
            }
        }
    }

    /// Has all watched that may change what is in force.
    async fn follow(&mut self, secrets: &Secrets) -> Result<(), Error> {
        let follow = self.watch.follow(all_files(&self.file, &self.restart, secrets));
        // What takes too long comes about later, or at another look.
        self.read(follow).await.map(drop)
    }

    /// What was kept for a start may have been used: it is made again at once.
    async fn keep_room(&self) -> Result<(), Error> {
        let reserve = self.reserve.clone();
        blocking(move || reclaim::fill(&reserve)).await
    }

    fn nothing_new(&mut self) -> Attempt {
        let in_force = self.config.facts().in_force;
        let hash = in_force.hash;
        tracing::info!(hash, "the routing table is unchanged");
        let mut attempt = Attempt::now(Outcome::Unchanged, Some(hash));
        attempt.since = Some(in_force.since);
        attempt.changes = self.brought.clone();
        attempt.warnings = warnings(&self.table.load());
        self.config.attempted(attempt.clone(), None);
        attempt
    }

    /// The files could not be read in time.
    fn late(&mut self, by: By) -> Attempt {
        self.attempted = None;
        let late = Rejected::Late { file: self.file.clone() };
        self.rejected(by, None, &late)
    }

    /// What stays as it was when it is tried again by itself is told once.
    fn rejected(&mut self, by: By, hash: Option<String>, error: &Rejected) -> Attempt {
        let mut attempt = Attempt::now(Outcome::Rejected, hash);
        attempt.problems = match error {
            Rejected::File(error) => problems(error),
            other => vec![other.to_string()],
        };
        let is_told = self.config.facts().last_attempt.problems == attempt.problems;
        if by != By::Retried || !is_told {
            tracing::error!(%error, "the routing table stays as it was");
            self.config.attempted(attempt.clone(), None);
        }
        attempt
    }

    async fn apply(&mut self, mut loaded: Loaded, plan: Plan) -> Result<Attempt, Rejected> {
        let sonzai = self.sonzai.clone();
        let mut table = loaded.table;
        let accounts;
        (loaded.table, accounts) = blocking(move || {
            sonzai.stores().give_keyrings(&mut table);
            let accounts = sonzai.prepare(&table);
            (table, accounts)
        })
        .await?;
        let accounts = accounts.map_err(Error::from)?;
        let prepared = self.fleet.prepare(plan).await?;
        if let Err(error) = self.keep(&loaded.text).await {
            self.fleet.abandon(prepared).await;
            return Err(error);
        }
        Ok(self.swap(loaded, prepared, accounts))
    }

    /// Keeps a text as the last good one; on a full disk, with what is kept for a start.
    async fn keep(&self, text: &str) -> Result<(), Rejected> {
        let (dir, text, reserve) = (self.data_dir.clone(), text.to_owned(), self.reserve.clone());
        let keep = move || reserve.open(|| reload::keep_last_good(&dir, &text), is_no_space);
        blocking(keep).await?.map_err(Rejected::NotKept)
    }

    /// From here on nothing can fail.
    fn swap(&mut self, loaded: Loaded, prepared: Prepared, accounts: sonzai::Prepared) -> Attempt {
        let in_force = in_force(&loaded);
        let old = self.config.facts().in_force;
        let (was, is) = ((&old, &self.outline), (&in_force, &loaded.outline));
        let changes = facts::changes(was, is, prepared.names());
        let Loaded { mut table, hash, digest, outline, .. } = loaded;
        table.inherit(&self.table.load());
        let table = Arc::new(table);
        let old = self.table.swap(table.clone());
        self.past.retain(|past| past.strong_count() > 0);
        self.past.push(Arc::downgrade(&old));
        drop(old);
        self.fleet.commit(&table, prepared, &self.past);
        self.sonzai.commit(&table, accounts);
        (self.in_force, self.outline, self.brought) = (digest, outline, changes.clone());
        tracing::info!(%hash, changes = %words(&changes), "a routing table is in force");
        let mut attempt = Attempt::now(Outcome::Applied, Some(hash.to_string()));
        attempt.since = Some(in_force.since.clone());
        attempt.changes = changes;
        attempt.warnings = logged_warnings(&table);
        self.config.attempted(attempt.clone(), Some(in_force));
        attempt
    }
}

/// All that may change what is in force, or should be.
fn all_files(file: &Path, restart: &Restart, secrets: &Secrets) -> BTreeSet<PathBuf> {
    let own = [file, restart.file()].map(Path::to_owned);
    own.into_iter().chain(secrets.keys().cloned()).collect()
}

/// Reads the file once it has come to rest; compiles it unless it is in force. Blocks.
fn find(file: &Path, in_force: Digest) -> Found {
    match Reading::settled(file) {
        Err(error) => Found { digest: None, secrets: Secrets::new(), loaded: Some(Err(error)) },
        Ok(reading) => {
            let (digest, secrets) = (reading.digest, reading.secrets.clone());
            let loaded = (digest != in_force).then(|| reading.compile());
            Found { digest: Some(digest), secrets, loaded }
        }
    }
}

/// Keeps the first table as the last good one. Without that the daemon still starts: a bad file would
/// only have nothing to fall back on.
pub fn keep_first(loaded: &Loaded, data_dir: &Path, reserve: &Reserve) {
    let keep = || reload::keep_last_good(data_dir, &loaded.text);
    if let Err(error) = reserve.open(keep, is_no_space) {
        tracing::warn!(%error, "the routing table is not kept as the last good one");
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(Error::Panicked)
}
