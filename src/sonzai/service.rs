//! The daemon's part in Sonzai: an [`Account`] for each source with `api:`, which follows the routing
//! table, and the tasks that work for it.
//!
//! [`prepare`](Service::prepare) does all that can fail and changes nothing; [`commit`](Service::commit)
//! puts it in force and cannot fail. An account whose settings stay the same stays as it is over a
//! reload, its tasks and its client's connections included; one that has others is stopped, and another
//! takes its place. What is under way at the API goes on to its end all the same: it may be changing a
//! secret. What is kept of a source ([`Store`]) outlives its accounts.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use secrecy::SecretString;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    client::{self, Client, SetupError, Webhook},
    poller::{self, Poller},
    repair,
    store::{Store, Stores},
    webhooks::recover,
};
use crate::{
    admit::Admit,
    routing::{Table, path::Path},
    secret, settings,
    source::{
        Provider,
        sonzai::settings::{Api, Scope, Settings},
    },
};

/// Changes of webhooks that are asked for: one a source is made at a time, the others wait.
const MAX_CHANGES: usize = 16;

/// Why a table cannot be put in force.
#[derive(Debug, thiserror::Error)]
#[error("source `{source_name}`: {cause}")]
pub struct Error {
    pub source_name: ByteString,
    pub cause: Box<SetupError>,
}

/// A source's account at Sonzai: what the daemon needs to act for it. Made anew when any of it changes.
#[derive(Debug)]
pub struct Account {
    /// The name of the source.
    pub source: ByteString,
    /// Where its webhooks come in.
    pub path: Path,
    pub api: Api,
    /// With `api`.
    pub settings: Settings,
    /// What its webhooks are registered with.
    pub authorization: Option<SecretString>,
    pub client: Client,
    /// The secrets that the API gave, and what changes them.
    pub store: Arc<Store>,
    /// What its poller counts.
    pub polled: Arc<poller::Stats>,
    /// Whose turn it is to repair.
    pub repairs: Arc<repair::Turns>,
    /// Cancelled when the account is replaced or the daemon ends.
    pub stop: CancellationToken,
    /// The project of the key, once somebody asked.
    own_project: OnceLock<String>,
}

impl Account {
    /// Whose webhooks `register:` means.
    pub fn scope(&self) -> Scope {
        self.settings.register.as_ref().map_or(Scope::Tenant, |register| register.scope.clone())
    }

    /// The project that the key belongs to, as its webhooks or agents say it; `None` where it has
    /// neither.
    pub async fn own_project(&self) -> Result<Option<String>, client::Error> {
        if let Some(known) = self.own_project.get() {
            return Ok(Some(known.clone()));
        }
        let webhooks = self.client.webhooks(&Scope::Tenant).await?;
        if let Some(project) = self.learn_own_project(&webhooks) {
            return Ok(Some(project));
        }
        let agents = self.client.agents(None, None).await?.agents;
        let mut projects = agents.into_iter().filter_map(|agent| agent.project_id);
        let project = projects.find(|project| !project.is_empty());
        Ok(project.map(|project| self.own_project.get_or_init(|| project).clone()))
    }

    /// The same, of the key's own webhooks, as they were listed.
    pub fn learn_own_project(&self, webhooks: &[Webhook]) -> Option<String> {
        let mut projects = webhooks.iter().map(|webhook| &webhook.project_id);
        let project = projects.find(|project| !project.is_empty());
        let project = project.map(|project| self.own_project.get_or_init(|| project.clone()));
        project.or(self.own_project.get()).cloned()
    }

    /// The project of the key, as far as anybody asked.
    pub fn known_own_project(&self) -> Option<&str> {
        self.own_project.get().map(String::as_str)
    }

    /// Whether another would do the same.
    fn is_like(
        &self,
        path: &Path,
        settings: &Settings,
        authorization: Option<&SecretString>,
    ) -> bool {
        let same_authorization = match (&self.authorization, authorization) {
            (Some(one), Some(other)) => secret::same(one, other),
            (None, None) => true,
            _ => false,
        };
        self.path == *path && self.settings == *settings && same_authorization
    }
}

/// See the module. A cheap handle.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

/// What the service works with, made once.
pub struct Parts {
    pub settings: settings::Sonzai,
    pub stores: Stores,
    /// The table in force.
    pub table: Arc<ArcSwap<Table>>,
    pub admit: Admit,
}

struct Inner {
    parts: Parts,
    accounts: ArcSwap<Vec<Arc<Account>>>,
    tasks: TaskTracker,
    /// A permit a change that is being made or waits for its turn.
    changes: Arc<Semaphore>,
    stop: CancellationToken,
    panicked: mpsc::Sender<JoinError>,
}

/// What [`Service::run`] waits for.
pub struct Running {
    service: Service,
    panicked: mpsc::Receiver<JoinError>,
}

/// Accounts of a table that is not in force yet.
pub struct Prepared(Vec<Arc<Account>>);

impl Service {
    /// Without accounts; everything ends with `stop`.
    pub fn new(parts: Parts, stop: CancellationToken) -> (Service, Running) {
        // The first one ends the daemon.
        let (panicked, first) = mpsc::channel(1);
        let (accounts, tasks) = Default::default();
        let changes = Arc::new(Semaphore::new(MAX_CHANGES));
        let service = Service(Arc::new(Inner { parts, accounts, tasks, changes, stop, panicked }));
        (service.clone(), Running { service, panicked: first })
    }

    pub fn settings(&self) -> &settings::Sonzai {
        &self.0.parts.settings
    }

    /// The table in force.
    pub fn table(&self) -> &ArcSwap<Table> {
        &self.0.parts.table
    }

    /// The way in for events that do not come by the ingress.
    pub fn admit(&self) -> &Admit {
        &self.0.parts.admit
    }

    pub fn stores(&self) -> &Stores {
        &self.0.parts.stores
    }

    /// The accounts in force, by the name of their source.
    pub fn accounts(&self) -> Arc<Vec<Arc<Account>>> {
        self.0.accounts.load_full()
    }

    /// The accounts that a table wants. Blocks while files are read.
    pub fn prepare(&self, table: &Table) -> Result<Prepared, Error> {
        let present = self.accounts();
        let mut accounts = Vec::new();
        for (path, source) in table.sources() {
            let Provider::Sonzai(sonzai) = &source.provider else { continue };
            let (settings, authorization) = (&sonzai.settings, sonzai.authorization());
            let Some(api) = &settings.api else { continue };
            let before = present.iter().find(|account| account.source == source.name);
            if let Some(same) = before.filter(|it| it.is_like(path, settings, authorization)) {
                accounts.push(same.clone());
                continue;
            }
            let client =
                match before.filter(|before| before.api == *api) {
                    Some(before) => before.client.clone(),
                    None => Client::new(api, client::Limits::from(self.settings())).map_err(
                        |cause| Error { source_name: source.name.clone(), cause: Box::new(cause) },
                    )?,
                };
            accounts.push(Arc::new(Account {
                source: source.name.clone(),
                path: path.clone(),
                api: api.clone(),
                settings: settings.clone(),
                authorization: authorization.cloned(),
                client,
                store: self.stores().of(&source.name),
                polled: before.map(|before| before.polled.clone()).unwrap_or_default(),
                repairs: before.map(|before| before.repairs.clone()).unwrap_or_default(),
                stop: self.0.stop.child_token(),
                own_project: OnceLock::new(),
            }));
        }
        Ok(Prepared(accounts))
    }

    /// Has the accounts of a table that is in force now take over.
    pub fn commit(&self, table: &Table, Prepared(accounts): Prepared) {
        let accounts = Arc::new(accounts);
        let before = self.0.accounts.swap(accounts.clone());
        let is_among = |account: &Arc<Account>, all: &[Arc<Account>]| {
            all.iter().any(|other| Arc::ptr_eq(account, other))
        };
        for account in before.iter().filter(|account| !is_among(account, &accounts)) {
            account.stop.cancel();
        }
        for account in accounts.iter().filter(|account| !is_among(account, &before)) {
            self.begin(account);
        }
        drop(before);
        self.stores().forget(|name| table.sources().any(|(_, source)| source.name == name));
    }

    /// Starts what works for an account until its `stop`.
    fn begin(&self, account: &Arc<Account>) {
        drop(self.spawn(recover::run(account.clone())));
        self.poll(account);
    }

    /// Polls for an account, if it wants that, and repairs once after the start.
    fn poll(&self, account: &Arc<Account>) {
        let Some(poll) = account.settings.poll.clone() else { return };
        let poller = Poller::new(poller::Parts {
            source: account.source.clone(),
            client: account.client.clone(),
            register: account.settings.register.clone(),
            path: account.path.clone(),
            limits: poller::Limits::from(self.settings()),
            table: self.0.parts.table.clone(),
            admit: self.admit().clone(),
            stats: account.polled.clone(),
            poll: poll.clone(),
        });
        if let Some(since) = poll.repair {
            let (service, account, contacted) = (self.clone(), account.clone(), poller.contacted());
            drop(self.spawn(repair::after_start(service, account, contacted, since)));
        }
        drop(self.spawn(poller.run(account.stop.clone())));
    }

    /// A place for a change of webhooks, which waits for its turn; `None` if there is none, or the daemon
    /// is ending.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        let ends = self.0.stop.is_cancelled();
        self.0.changes.clone().try_acquire_owned().ok().filter(|_| !ends)
    }

    /// Runs a task that a drain waits for, whatever becomes of the handle. A panic ends the daemon.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let panicked = self.0.panicked.clone();
        let task = tokio::spawn(task);
        self.0.tasks.spawn(async move {
            match task.await {
                Ok(outcome) => Some(outcome),
                Err(error) => {
                    // Another one was first, and ends the daemon as well.
                    panicked.try_send(error).ok();
                    None
                }
            }
        })
    }
}

impl Running {
    /// Returns once the daemon is told to stop and the tasks have ended, at most `deadline` later. The
    /// error is a task's that panicked.
    pub async fn run(mut self, deadline: Duration) -> Result<(), JoinError> {
        let Inner { stop, tasks, .. } = &*self.service.0;
        tokio::select! {
            () = stop.cancelled() => {}
            Some(error) = self.panicked.recv() => return Err(error),
        }
        tasks.close();
        if timeout(deadline, tasks.wait()).await.is_err() {
            tracing::warn!("calls to Sonzai's API were still under way at the deadline");
        }
        Ok(())
    }
}
