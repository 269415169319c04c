//! The daemon: open → recover → bind → spawn → drain. The only module that knows all others.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use bytestring::ByteString;
use futures_util::future::select_all;
use serde::{Deserialize, Serialize};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{self, Admin, Rates, Token, View},
    admit::Admit,
    broker::{Absent, Broker, kafka, log, nats, rabbitmq},
    clock::now_ms,
    dedupe, descriptors,
    dispatch::{self, Capacity, DeadLetters, Dispatcher, Progress, Shared, dead_letter},
    feed::Feed,
    ingress::{self, Ingress},
    journal::{self, Journal, RealDisk, Storage},
    quiet::Quiet,
    routing::{BrokerKind, BrokerSettings, Table, UNROUTED},
    server::{self, Load, Transport, tls},
    service,
    settings::Settings,
};

/// A small journal holds parked messages or dead letters.
const SMALL_SEGMENT_BYTES: u64 = 8 << 20;
const SMALL_TAIL_BYTES: usize = 1 << 20;

/// Segments that a bound is at least made up of: it is told, and space is freed, by whole segments.
const MIN_SEGMENTS: u64 = 8;

/// What may be accepted for a broker between two looks at its backlog, where the bound is small:
/// about a second of a fast network.
const PARKED_HEADROOM_BYTES: u64 = 64 << 20;

/// How often settled segments are freed.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);

/// How often keys are looked through for those that nobody asks for any more.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// How long operators' requests may take to end.
const ADMIN_DRAIN: Duration = Duration::from_secs(2);

/// Connections to the admin listener at once: operators, probes, scrapers.
const MAX_ADMIN_CONNECTIONS: usize = 64;

/// Why the daemon could not start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot use the data directory {path}: {cause}", path = .path.display())]
    DataDir { path: PathBuf, cause: io::Error },
    #[error("cannot listen on {address}: {cause}; choose another with --{flag}")]
    Bind { address: SocketAddr, flag: &'static str, cause: io::Error },
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Journal(#[from] journal::Error),
    #[error(transparent)]
    Token(#[from] admin::TokenError),
    #[error("the journal failed, and what the disk holds is unknown: {0}; restart to recover")]
    JournalFailed(Arc<journal::Error>),
    #[error("broker `{broker}`: {cause}")]
    Broker { broker: ByteString, cause: String },
    #[error("the dispatcher of broker `{broker}` ended: {cause}; restart to recover")]
    Dispatcher { broker: ByteString, cause: dispatch::Error },
    #[error("{0} ended without being told to")]
    Ended(&'static str),
    #[error("a task of the daemon panicked: {0}")]
    Panicked(tokio::task::JoinError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where a running daemon can be reached; written to the data directory for the other commands.
#[derive(Debug, Serialize, Deserialize)]
pub struct Addresses {
    pub pid: u32,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// The file of the certificate that is shown on `listen`, where TLS is spoken there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
}

impl Addresses {
    fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("daemon.json")
    }

    /// The addresses of the daemon that runs on this data directory, if one does.
    pub fn read(data_dir: &Path) -> Option<Addresses> {
        serde_json::from_slice(&fs::read(Addresses::file(data_dir)).ok()?).ok()
    }
}

/// Everything that is open before the daemon takes a request.
struct Opened {
    main: Journal,
    dead_letters: DeadLetters,
    /// One a broker.
    parked: Vec<Journal>,
    dispatchers: Vec<(Dispatcher, Named)>,
    window: Arc<dedupe::Window>,
    shared: Shared,
    token: Token,
}

/// Where requests come in.
struct Doors {
    listener: TcpListener,
    transport: Transport,
    watch: Option<tls::Watch>,
    admin_listener: TcpListener,
}

/// Runs until `stop` is cancelled and everything is drained, or something fails that it cannot go on
/// without.
pub async fn run(settings: Settings, table: Table, stop: CancellationToken) -> Result<(), Error> {
    let (transport, watch) = transport(&settings)?;
    let opened = open(&settings, &table)?;
    let (listener, admin_listener) = (
        bind(settings.listen, "listen").await?,
        bind(settings.admin_listen, "admin-listen").await?,
    );
    let addresses = Addresses {
        pid: std::process::id(),
        listen: listener.local_addr()?,
        admin_listen: admin_listener.local_addr()?,
        tls_cert: settings.tls_files().map(|(cert, _)| path::absolute(cert)).transpose()?,
    };
    tracing::info!(
        listen = %addresses.listen, admin_listen = %addresses.admin_listen,
        tls = transport.tls.is_some(), data_dir = %settings.data_dir.display(), "waypost is ready"
    );
    let addresses_file = Addresses::file(&settings.data_dir);
    let cannot = |cause| Error::DataDir { path: addresses_file.clone(), cause };
    fs::write(&addresses_file, serde_json::to_vec(&addresses).map_err(io::Error::from)?)
        .map_err(cannot)?;
    service::ready(addresses.listen).await;
    let journal = opened.main.clone();
    let doors = Doors { listener, transport, watch, admin_listener };
    let outcome = tokio::select! {
        outcome = serve(&settings, table, opened, doors, stop) => outcome,
        never = service::watchdog(journal.failed()) => match never {},
    };
    // A file that stays names a daemon that does not answer, which the commands then say.
    if let Err(error) = fs::remove_file(&addresses_file) {
        tracing::warn!(%error, file = %addresses_file.display(), "cannot remove a file");
    }
    outcome
}

async fn bind(address: SocketAddr, flag: &'static str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|cause| Error::Bind { address, flag, cause })
}

/// What the ingress speaks, and the watch over its certificate.
fn transport(settings: &Settings) -> Result<(Transport, Option<tls::Watch>), Error> {
    let http2 = settings.ingress.http2;
    let Some((cert, key)) = settings.tls_files() else {
        return Ok((Transport { tls: None, http2 }, None));
    };
    let files = tls::Files { cert: cert.to_owned(), key: key.to_owned() };
    let (tls, watch) = tls::Tls::open(files, http2)?;
    Ok((Transport { tls: Some(tls), http2 }, Some(watch)))
}

fn open(settings: &Settings, table: &Table) -> Result<Opened, Error> {
    let dir = &settings.data_dir;
    let storage: Arc<dyn Storage> = Arc::new(RealDisk);
    storage.create_dir_all(dir).map_err(|cause| Error::DataDir { path: dir.clone(), cause })?;
    let limits =
        dedupe::Limits { window: settings.dedupe.window, max_keys: settings.dedupe.max_keys };
    let backlog_bytes = settings.backlog_bytes();
    let main = Journal::open(
        storage.clone(),
        &dir.join("journal"),
        journal::Options {
            segment_bytes: settings.journal.segment_bytes.min(backlog_bytes / MIN_SEGMENTS),
            max_bytes: settings.journal.max_bytes,
            tail_bytes: settings.journal.tail_bytes,
            keys_since_ms: now_ms().saturating_sub(limits.window.as_millis() as u64),
            max_keys: limits.max_keys,
            ..journal::Options::default()
        },
    )?;
    let window = dedupe::Window::new(limits, main.keys);
    // The journal's lock is held by now: no other daemon makes one at the same time.
    let token = Token::open(dir)?;
    let dead_letters = Journal::open(
        storage.clone(),
        &dead_letter::dir(dir),
        small_journal(settings.dead_letters.max_bytes),
    )?;
    let shared = Shared {
        main: main.journal.clone(),
        dead_letters: DeadLetters::new(dead_letters.journal),
        backlogs: Arc::default(),
        progress: Arc::default(),
        feed: Feed::default(),
    };
    let mut all_parked = Vec::new();
    let dispatchers = brokers(table, &main.journal, dir)?
        .into_iter()
        .map(|named| {
            let name = &named.name;
            let parked_dir = dir.join("parked").join(&**name);
            // Room beyond the bound at which events are refused, for those that are in already.
            let room = backlog_bytes.saturating_mul(2).saturating_add(PARKED_HEADROOM_BYTES);
            let options = journal::Options { max_bytes: room, ..small_journal(backlog_bytes) };
            let parked = Journal::open(storage.clone(), &parked_dir, options)?.journal;
            all_parked.push(parked.clone());
            let dispatcher =
                Dispatcher::open(name.clone(), dispatch_limits(settings), parked, shared.clone());
            let dispatcher =
                dispatcher.map_err(|cause| Error::Dispatcher { broker: name.clone(), cause })?;
            Ok((dispatcher, named))
        })
        .collect::<Result<_, Error>>()?;
    Ok(Opened {
        main: main.journal,
        dead_letters: shared.dead_letters.clone(),
        parked: all_parked,
        dispatchers,
        window,
        shared,
        token,
    })
}

/// A journal whose bound is `max_bytes`.
fn small_journal(max_bytes: u64) -> journal::Options {
    journal::Options {
        segment_bytes: SMALL_SEGMENT_BYTES.min(max_bytes / MIN_SEGMENTS),
        tail_bytes: SMALL_TAIL_BYTES,
        max_bytes,
        ..journal::Options::default()
    }
}

fn dispatch_limits(settings: &Settings) -> dispatch::Limits {
    dispatch::Limits {
        window: Capacity {
            messages: settings.dispatch.window_messages,
            bytes: settings.dispatch.window_bytes,
        },
        retry_for: settings.dispatch.retry_for,
        backlog_bytes: settings.backlog_bytes(),
        drain: settings.shutdown.deadline,
    }
}

/// A broker with its name, and what kind it is for whoever looks.
struct Named {
    name: ByteString,
    kind: &'static str,
    broker: Box<dyn Broker>,
}

impl Named {
    /// One that is not there.
    fn absent(name: impl Into<ByteString>, kind: &'static str, reason: &str) -> Named {
        Named { name: name.into(), kind, broker: Box::new(Absent::new(reason)) }
    }
}

/// The brokers of the table, the built-in one, and one that only writes dead letters for each name
/// that has a cursor but is in the table no more: what it is still owed must not stay for ever.
fn brokers(table: &Table, journal: &Journal, data_dir: &Path) -> Result<Vec<Named>, Error> {
    let build = |settings: &BrokerSettings| {
        let (name, kind) = (settings.name.clone(), settings.kind.name());
        Ok(Named { name, kind, broker: broker(settings, data_dir)? })
    };
    let mut brokers: Vec<Named> =
        table.brokers().iter().map(build).collect::<Result<_, Error>>()?;
    let known: BTreeSet<ByteString> = brokers.iter().map(|named| named.name.clone()).collect();
    brokers.push(Named::absent(UNROUTED, "unrouted", "no route takes the event"));
    for name in journal.cursor_names()? {
        if name != UNROUTED && !known.contains(&*name) {
            tracing::warn!(
                broker = name,
                "not in the routing table; what it is owed becomes dead letters"
            );
            let reason = format!("broker `{name}` is not in the routing table");
            brokers.push(Named::absent(name, "removed", &reason));
        }
    }
    Ok(brokers)
}

/// Builds the client of a broker of the table; connects to nothing.
fn broker(settings: &BrokerSettings, data_dir: &Path) -> Result<Box<dyn Broker>, Error> {
    let wrong = |cause: String| Error::Broker { broker: settings.name.clone(), cause };
    Ok(match &settings.kind {
        BrokerKind::Kafka(settings) => {
            Box::new(kafka::Kafka::new(settings.clone()).map_err(|e| wrong(e.to_string()))?)
        }
        BrokerKind::RabbitMq(settings) => {
            Box::new(rabbitmq::RabbitMq::new(settings.clone()).map_err(|e| wrong(e.to_string()))?)
        }
        BrokerKind::Nats(settings) => {
            Box::new(nats::Nats::new(settings.clone()).map_err(|e| wrong(e.to_string()))?)
        }
        BrokerKind::Log { dir, rotate_bytes, keep } => {
            let dir = dir.clone().unwrap_or_else(|| data_dir.join("log"));
            let rotate_bytes = rotate_bytes.unwrap_or(log::ROTATE_BYTES);
            Box::new(log::Log::new(log::Settings { dir, rotate_bytes, keep: *keep }))
        }
    })
}

async fn serve(
    settings: &Settings,
    table: Table,
    opened: Opened,
    doors: Doors,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Doors { listener, transport, watch, admin_listener } = doors;
    let Opened { main, dead_letters, parked, dispatchers, window, shared, token } = opened;
    let (stop_requests, stop_brokers, stop_admin) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());

    let table = Arc::new(ArcSwap::from_pointee(table));
    let admit = Admit::new(main.clone(), window.clone(), shared.backlogs.clone());
    let ingress = Ingress::new(table.clone(), admit, ingress_limits(settings));
    let limits = server_limits(settings);
    let admin_limits = server::Limits { max_connections: MAX_ADMIN_CONNECTIONS, ..limits };
    let view = Arc::new(View {
        started: std::time::Instant::now(),
        started_ms: now_ms(),
        data_dir: settings.data_dir.clone(),
        stop: stop.clone(),
        table,
        ingress: ingress.clone(),
        tls: transport.tls.clone(),
        connections: Arc::new(Load::new(&limits)),
        admin_connections: Arc::new(Load::new(&admin_limits)),
        window,
        main: main.clone(),
        dead_letters: dead_letters.journal().clone(),
        backlogs: shared.backlogs.clone(),
        limits: dispatch_limits(settings),
        brokers: dispatchers.iter().zip(&parked).map(viewed).collect(),
        rates: Rates::default(),
    });
    let receiving = ingress.clone();
    let requests = server::serve(
        listener,
        transport,
        limits,
        view.connections.clone(),
        move |request| receiving.clone().receive(request),
        stop_requests.clone(),
    );
    let on_loopback = admin_listener.local_addr()?.ip().is_loopback();
    let admin =
        Admin::new(view.clone(), shared.feed.clone(), token, on_loopback, stop_admin.clone());
    let operators = server::serve(
        admin_listener,
        Transport::default(),
        admin_limits,
        view.admin_connections.clone(),
        move |request| admin.clone().answer(request),
        stop_admin.clone(),
    );

    let mut requests = tokio::spawn(requests);
    let mut operators = tokio::spawn(operators);
    let mut tasks = JoinSet::new();
    for (dispatcher, named) in dispatchers {
        let stop = stop_brokers.clone();
        tasks.spawn(async move {
            let ended = dispatcher.run(named.broker, stop).await;
            ended.map_err(|cause| Error::Dispatcher { broker: named.name, cause })
        });
    }
    let stop_noting = stop_brokers.clone();
    tasks.spawn(async move {
        view.note_rates(stop_noting).await;
        Ok(())
    });
    if let Some(watch) = watch {
        let stop = stop_brokers.clone();
        tasks.spawn(async move {
            watch.run(stop).await;
            Ok(())
        });
    }
    tasks.spawn(reclaim(
        main.clone(),
        shared.progress.clone(),
        settings.dedupe.window,
        stop_brokers.clone(),
    ));

    // What ends by itself before it is told to is a failure.
    let journals = [&main, dead_letters.journal()].into_iter().chain(&parked);
    let failed = tokio::select! {
        () = stop.cancelled() => None,
        (error, ..) = select_all(journals.map(|journal| Box::pin(journal.failed()))) => {
            Some(Error::JournalFailed(error))
        }
        Some(ended) = tasks.join_next() => failure(ended).or(Some(Error::Ended("a dispatcher"))),
        ended = &mut requests => server_ended(ended, "the ingress"),
        ended = &mut operators => server_ended(ended, "the admin listener"),
    };
    if let Some(error) = failed {
        return Err(error);
    }

    // The order matters: first no new requests, then no new messages, then nothing to write.
    let deadline = settings.shutdown.deadline;
    tracing::info!("draining");
    service::stopping().await;
    tokio::time::sleep(settings.shutdown.delay.unwrap_or_default()).await;
    ingress.drain();
    stop_requests.cancel();
    if timeout(deadline, &mut requests).await.is_err() {
        tracing::warn!("requests were still running at the deadline");
        requests.abort();
    }
    stop_brokers.cancel();
    while let Some(ended) = tasks.join_next().await {
        if let Some(error) = failure(ended) {
            return Err(error);
        }
    }
    stop_admin.cancel();
    if timeout(ADMIN_DRAIN, &mut operators).await.is_err() {
        tracing::warn!("the admin listener was still busy at the deadline");
        operators.abort();
    }
    main.close().await;
    dead_letters.journal().clone().close().await;
    tracing::info!("drained");
    Ok(())
}

fn viewed(((dispatcher, named), parked): (&(Dispatcher, Named), &Journal)) -> admin::Broker {
    let (name, kind) = (named.name.clone(), named.kind);
    admin::Broker { name, kind, stats: dispatcher.stats(), parked: parked.clone() }
}

fn server_ended(ended: Result<(), tokio::task::JoinError>, what: &'static str) -> Option<Error> {
    Some(ended.map_or_else(Error::Panicked, |()| Error::Ended(what)))
}

fn failure(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> Option<Error> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(panic) => Some(Error::Panicked(panic)),
    }
}

/// Frees what every cursor has passed.
async fn reclaim(
    journal: Journal,
    progress: Arc<Progress>,
    keys_for: Duration,
    stop: CancellationToken,
) -> Result<(), Error> {
    let trouble = Quiet::default();
    // What cannot be freed now is freed later; nothing acknowledged depends on it.
    let report = |freed: Result<(), journal::Error>| {
        if let (Err(error), Some(more)) = (freed, trouble.speaks(now_ms())) {
            tracing::warn!(%error, more, "cannot free what is settled");
        }
    };
    let mut forget_at = Instant::now();
    while stop.run_until_cancelled(tokio::time::sleep(RECLAIM_EVERY)).await.is_some() {
        if let Some(settled) = progress.lowest() {
            report(journal.release(settled).await);
        }
        if forget_at <= Instant::now() {
            forget_at = Instant::now() + FORGET_EVERY;
            let before_ms = now_ms().saturating_sub(keys_for.as_millis() as u64);
            report(journal.forget_keys(before_ms).await);
        }
    }
    Ok(())
}

fn ingress_limits(settings: &Settings) -> ingress::Limits {
    ingress::Limits {
        max_body_bytes: settings.ingress.max_body_bytes as usize,
        max_in_flight_bytes: settings.ingress.max_in_flight_bytes as usize,
        max_requests: settings.ingress.max_connections as usize,
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
