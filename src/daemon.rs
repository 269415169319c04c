//! The daemon: open → recover → bind → spawn → drain. The only module that knows all others.

use std::{
    borrow::Cow,
    fs, io,
    net::SocketAddr,
    path::{self, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytestring::ByteString;
use tokio::{net::TcpListener, sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::TokenError,
    dispatch,
    journal::{self, is_no_space},
    routing::reload::Start,
    server::{Transport, tls},
    service,
    settings::Settings,
    sonzai,
    telemetry::Lines,
};

mod addresses;
mod brokers;
mod damage;
mod facts;
mod fleet;
mod open;
mod reader;
mod reclaim;
mod reload;
mod restart;
mod room;
mod running;

pub use addresses::Addresses;
pub use restart::ReadAgain;

use fleet::Fleet;
use running::Running;

/// How long a file that is of no use any more may take to be removed: its disk may hang.
const REMOVE: Duration = Duration::from_secs(1);

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
    Token(#[from] TokenError),
    #[error("the journal failed, and what the disk holds is unknown: {0}; restart to recover")]
    JournalFailed(Arc<journal::Error>),
    #[error("broker `{broker}`: {cause}")]
    Broker { broker: ByteString, cause: String },
    #[error("the dispatcher of broker `{broker}` ended: {cause}; restart to recover")]
    Dispatcher { broker: ByteString, cause: dispatch::Error },
    #[error(transparent)]
    Sonzai(#[from] sonzai::service::Error),
    #[error(
        "the disk did not answer within {}: what was left to be written is not. Nothing acknowledged \
         is lost, and what was published since may be published again; see to the disk of the data \
         directory, then start again",
        humantime::format_duration(*within)
    )]
    DiskHangs { within: Duration },
    #[error("{0} ended without being told to")]
    Ended(Cow<'static, str>),
    #[error("a task of the daemon panicked: {0}")]
    Panicked(tokio::task::JoinError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where requests come in.
struct Doors {
    listener: TcpListener,
    transport: Transport,
    watch: Option<tls::Watch>,
    admin_listener: TcpListener,
}

/// What a daemon is made of.
pub struct Boot {
    /// As they were read.
    pub settings: Settings,
    /// How long requests are still accepted after the daemon was told to stop, where the settings do
    /// not say it.
    pub shutdown_delay: Duration,
    /// To notice settings that have changed.
    pub read_again: ReadAgain,
    /// The routing table to start with.
    pub start: Start,
    /// What waits to be written to the log.
    pub log: Arc<Lines>,
}

/// What a daemon is told while it runs.
#[derive(Clone, Default)]
pub struct Told {
    pub stop: CancellationToken,
    /// To read the routing table again.
    pub reload: Arc<Notify>,
}

/// Runs until told to stop and everything is drained, or something fails that it cannot go on
/// without.
pub async fn run(boot: Boot, told: Told) -> Result<(), Error> {
    let settings = Arc::new(boot.settings.clone());
    settings.doubts().iter().for_each(|doubt| tracing::warn!("{doubt}"));
    let delay = settings.shutdown.delay.unwrap_or(boot.shutdown_delay);
    let (transport, watch) = transport(&settings)?;
    let data_dir = &settings.data_dir;
    Addresses::remove_stale(data_dir)
        .map_err(|cause| Error::DataDir { path: data_dir.clone(), cause })?;
    let opened = open::open(&settings)?;
    let fleet = Fleet::new(opened.opener.clone());
    let prepared = fleet.prepare_first(&boot.start.loaded.table)?;
    room::tell_if_short(&settings, &boot.start.loaded.table);
    // One whose brokers cannot be built is not good, and must not take the place of one that was.
    if boot.start.instead.is_none() {
        reload::keep_first(&boot.start.loaded, &settings.data_dir, &opened.opener.reserve);
    }
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
    let addresses_json = serde_json::to_vec(&addresses).map_err(io::Error::from)?;
    let written =
        opened.opener.reserve.open(|| fs::write(&addresses_file, &addresses_json), is_no_space);
    written.map_err(cannot)?;
    reclaim::fill(&opened.opener.reserve);
    service::ready(addresses.listen).await;
    let journal = opened.main.clone();
    let doors = Doors { listener, transport, watch, admin_listener };
    let outcome = tokio::select! {
        outcome = async {
            let mut running = Running::start(boot, opened, (fleet, prepared), doors, &told)?;
            running.until(&told.stop).await?;
            running.drain(delay, settings.shutdown.deadline, settings.journal.commit_timeout).await
        } => outcome,
        never = service::watchdog(journal.failed()) => match never {},
    };
    // A file that stays names a daemon that does not answer, which the commands then say.
    let told = addresses_file.clone();
    let removing = tokio::task::spawn_blocking(move || fs::remove_file(&told));
    match timeout(REMOVE, removing).await {
        Ok(removed) => {
            if let Err(error) = removed.map_err(io::Error::from).flatten() {
                tracing::warn!(%error, file = %addresses_file.display(), "cannot remove a file");
            }
        }
        // The disk hangs, which the outcome says.
        Err(_late) => {}
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
