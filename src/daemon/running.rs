//! The daemon at work: everything that runs is started, watched and drained here.

use std::{borrow::Cow, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Boot, Doors, Error, Told,
    damage::{self, Teller},
    facts,
    fleet::{Fleet, Prepared},
    open::{Opened, dispatch_limits},
    reclaim::reclaim,
    reload::{Calls, Parts, Reload, Seen},
    restart::Restart,
};
use crate::{
    admin::{
        self, Admin, Rates, View,
        config::{Config, MAX_ASKING, Reloads},
    },
    admit::Admit,
    clock::now_ms,
    commands, descriptors,
    ingress::{self, Ingress},
    journal::Journal,
    routing::reload::{Loaded, Start},
    server::{self, Load, Transport},
    service,
    settings::Settings,
    sonzai::{service as sonzai, store::Stores},
};

/// How long operators' requests may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(2);

/// How long clients may take to be closed after the brokers' time, with places to be saved: more than a
/// disk takes that is only slow.
const TO_SPARE: Duration = Duration::from_secs(5);

/// See the module. Dropping it ends all that it runs, in no order.
pub struct Running {
    ingress: Ingress,
    /// The listener for senders, and the one for operators.
    requests: AbortOnDropHandle<()>,
    operators: AbortOnDropHandle<()>,
    /// What looks after the brokers, and after the rest.
    tasks: JoinSet<(Name, Result<(), Error>)>,
    main: Journal,
    dead_letters: Journal,
    stop: Stop,
}

/// What a task is, for whoever reads that it ended.
type Name = Cow<'static, str>;

/// Who is told to stop, in the order of a drain.
#[derive(Default)]
struct Stop {
    requests: CancellationToken,
    brokers: CancellationToken,
    admin: CancellationToken,
}

impl Running {
    /// Starts everything.
    pub fn start(
        boot: Boot,
        opened: Opened,
        (mut fleet, prepared): (Fleet, Prepared),
        doors: Doors,
        told: &Told,
    ) -> Result<Running, Error> {
        let Boot { settings, read_again, start, log, .. } = boot;
        let Doors { listener, transport, watch, admin_listener } = doors;
        let Opened { main, dead_letters, window, token, opener } = opened;
        let (takes_commands, commands_service) = opener.commands();
        let (shared, reserve) = (opener.shared, opener.reserve);
        let stop = Stop { brokers: fleet.stop(), ..Stop::default() };
        let dead_letters = dead_letters.journal().clone();
        let config = Arc::new(Config::new(facts::first_facts(settings.routes.clone(), &start)));
        let settings = &settings;
        let Start { loaded, instead, watch: file_watch } = start;
        let Loaded { mut table, digest, secrets, outline, .. } = loaded;
        let attempted = instead.map_or(Some(digest), |instead| instead.digest);
        let seen = Seen { digest, attempted, secrets, outline, watch: file_watch };
        let stores = Stores::new(settings.data_dir.clone(), settings.sonzai.rotation_hold);
        stores.give_keyrings(&mut table);
        fleet.commit(&table, prepared, &[]);
        takes_commands.apply(&table);
        let table = Arc::new(ArcSwap::from_pointee(table));
        let commit_timeout = settings.journal.commit_timeout;
        let backlogs = shared.backlogs.clone();
        let known = window.clone();
        let admit = Admit::new(main.clone(), window.clone(), backlogs, commit_timeout);
        let ingress = Ingress::new(table.clone(), admit.clone(), ingress_limits(settings));
        let parts = sonzai::Parts {
            settings: settings.sonzai,
            stores,
            table: table.clone(),
            admit: admit.clone(),
        };
        let (sonzai, works_for_sonzai) = sonzai::Service::new(parts, stop.requests.clone());
        sonzai.commit(&table.load(), sonzai.prepare(&table.load())?);
        let limits = server_limits(settings);
        let admin_limits = server::Limits { max_connections: admin::MAX_CONNECTIONS, ..limits };
        let view = Arc::new(View {
            started: std::time::Instant::now(),
            started_ms: now_ms(),
            data_dir: settings.data_dir.clone(),
            stop: told.stop.clone(),
            table: table.clone(),
            config: config.clone(),
            ingress: ingress.clone(),
            admit,
            sonzai: sonzai.clone(),
            tls: transport.tls.clone(),
            connections: Arc::new(Load::new(&limits)),
            admin_connections: Arc::new(Load::new(&admin_limits)),
            window,
            main: main.clone(),
            dead_letters: dead_letters.clone(),
            backlogs: shared.backlogs.clone(),
            holds: shared.holds.clone(),
            settings: opener.settings.clone(),
            limits: dispatch_limits(settings),
            brokers: fleet.shown(),
            commands: takes_commands.shown(),
            rates: Rates::default(),
            log,
        });
        let receiving = ingress.clone();
        let requests = AbortOnDropHandle::new(tokio::spawn(server::serve(
            listener,
            transport,
            limits,
            view.connections.clone(),
            move |request| receiving.clone().receive(request),
            stop.requests.clone(),
        )));
        let on_loopback = admin_listener.local_addr()?.ip().is_loopback();
        let (asks, asking) = mpsc::channel(MAX_ASKING);
        let reloads = Reloads(asks);
        let stop_admin = stop.admin.clone();
        let admin = Admin::new(view.clone(), shared.feed, token, on_loopback, reloads, stop_admin);
        let operators = AbortOnDropHandle::new(tokio::spawn(server::serve(
            admin_listener,
            Transport::default(),
            admin_limits,
            view.admin_connections.clone(),
            move |request| admin.clone().answer(request),
            stop.admin.clone(),
        )));

        let mut tasks = JoinSet::new();
        let restart = Restart::new(settings, read_again);
        let parts = Parts { table, fleet, commands: takes_commands, sonzai, config, restart };
        let reload = Reload::new(settings, reserve.clone(), seen, parts);
        let calls = Calls { asking, hangup: told.reload.clone() };
        tasks.spawn(named("what looks after the brokers", reload.run(calls, stop.brokers.clone())));
        let told = stop.brokers.clone();
        let frees = reclaim(main.clone(), known, reserve, told);
        tasks.spawn(named("what frees the journal", frees));
        for (journal, whose, window) in [
            (&main, damage::MAIN, Some(view.window.clone())),
            (&dead_letters, damage::DEAD_LETTERS, None),
        ] {
            let (journal, data_dir) = (journal.clone(), settings.data_dir.clone());
            let dead_letters = shared.dead_letters.clone();
            let teller = Teller { journal, whose, dead_letters, data_dir, window };
            let told = stop.brokers.clone();
            tasks.spawn(named("what tells of damage", async move {
                match told.run_until_cancelled(teller.run()).await {
                    Some(never) => match never {},
                    None => Ok(()),
                }
            }));
        }
        // It ends with the requests: a command in hand is finished while brokers still are.
        let carried_out = commands_service.run(stop.requests.clone());
        tasks.spawn(named("what carries out commands", async move {
            carried_out.await.map_err(|error| match error {
                commands::Error::Ledger(error) => Error::JournalFailed(error),
                commands::Error::Panicked(panic) => Error::Panicked(panic),
            })
        }));
        let deadline = settings.shutdown.deadline;
        tasks.spawn(named("what works with Sonzai", async move {
            works_for_sonzai.run(deadline).await.map_err(Error::Panicked)
        }));
        let told = stop.brokers.clone();
        tasks.spawn(named("what notes the rates", async move {
            view.note_rates(told).await;
            Ok(())
        }));
        if let Some(watch) = watch {
            let told = stop.brokers.clone();
            tasks.spawn(named("what watches the certificate", async move {
                watch.run(told).await;
                Ok(())
            }));
        }
        Ok(Running { ingress, requests, operators, tasks, main, dead_letters, stop })
    }

    /// Waits until the daemon is told to stop. What ends by itself before that is a failure.
    pub async fn until(&mut self, told: &CancellationToken) -> Result<(), Error> {
        let failed = tokio::select! {
            () = told.cancelled() => return Ok(()),
            error = self.main.failed() => Error::JournalFailed(error),
            error = self.dead_letters.failed() => Error::JournalFailed(error),
            Some(ended) = self.tasks.join_next() => {
                outcome(ended).map_or_else(|failed| failed, Error::Ended)
            }
            ended = &mut self.requests => server_ended(ended, "the ingress"),
            ended = &mut self.operators => server_ended(ended, "the admin listener"),
        };
        Err(failed)
    }

    /// The order matters: first no new requests, then no new messages, then nothing to write.
    /// Requests are still accepted for `delay`, and may take until the `deadline` after that; so may
    /// brokers. What they leave to be written has as long as a commit may take, and some time to spare.
    pub async fn drain(
        mut self,
        delay: Duration,
        deadline: Duration,
        commit_timeout: Duration,
    ) -> Result<(), Error> {
        tracing::info!("draining");
        service::stopping().await;
        tokio::time::sleep(delay).await;
        self.ingress.drain();
        self.stop.requests.cancel();
        if timeout(deadline, &mut self.requests).await.is_err() {
            tracing::warn!("requests were still running at the deadline");
            self.requests.abort();
        }
        self.stop.brokers.cancel();
        let to_write = commit_timeout + TO_SPARE;
        let late = |within| move |_| Error::DiskHangs { within };
        let ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                outcome(ended)?;
            }
            Ok::<_, Error>(())
        };
        let within = deadline + to_write;
        timeout(within, ended).await.map_err(late(within))??;
        self.stop.admin.cancel();
        if timeout(ADMIN_DRAIN, &mut self.operators).await.is_err() {
            tracing::warn!("the admin listener was still busy at the deadline");
            self.operators.abort();
        }
        let closed = async {
            self.main.close().await;
            self.dead_letters.close().await;
        };
        timeout(to_write, closed).await.map_err(late(to_write))?;
        tracing::info!("drained");
        Ok(())
    }
}

fn server_ended(ended: Result<(), JoinError>, what: &'static str) -> Error {
    ended.map_or_else(Error::Panicked, |()| Error::Ended(what.into()))
}

async fn named(
    name: impl Into<Name>,
    task: impl Future<Output = Result<(), Error>>,
) -> (Name, Result<(), Error>) {
    let outcome = task.await;
    (name.into(), outcome)
}

/// Which task has ended; the error is why it failed.
fn outcome(ended: Result<(Name, Result<(), Error>), JoinError>) -> Result<Name, Error> {
    let (name, outcome) = ended.map_err(Error::Panicked)?;
    outcome.map(|()| name)
}

fn ingress_limits(settings: &Settings) -> ingress::Limits {
    ingress::Limits {
        max_body_bytes: settings.ingress.max_body_bytes as usize,
        max_in_flight_bytes: settings.ingress.max_in_flight_bytes as usize,
        max_further_requests: settings.ingress.max_connections as usize,
        max_headers: server::MAX_HEADERS,
        body_timeout: settings.ingress.body_timeout,
    }
}

fn server_limits(settings: &Settings) -> server::Limits {
    server::Limits {
        max_connections: descriptors::connections(settings.ingress.max_connections as usize),
        max_head_bytes: settings.ingress.max_head_bytes as usize,
        first_byte_timeout: settings.ingress.first_byte_timeout,
        head_timeout: settings.ingress.head_timeout,
    }
}
