//! `waypost run`: the daemon.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use super::Error;
use crate::{
    daemon::{self, Boot, ReadAgain, Told},
    routing::reload::{self, Instead},
    settings::Settings,
    shutdown::{Asked, Signals},
    telemetry::{self, Lines},
};

/// How long requests are still accepted after the first signal, where nobody said otherwise and
/// nobody sits at a terminal: long enough for a load balancer to notice.
const SHUTDOWN_DELAY: Duration = Duration::from_secs(5);

/// Receive webhooks, journal them, publish them.
///
/// A routes.yaml that changes is put in force at once; SIGHUP and `waypost reload` do the same. A bad
/// one changes nothing. Other settings need a restart.
///
/// The first SIGTERM or Ctrl-C drains: requests are finished, what can be published is, cursors are
/// saved. The second ends at once; nothing acknowledged is lost either way.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost run
  waypost run --routes /etc/waypost/routes.yaml --data-dir /var/lib/waypost
  waypost run --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0      (free ports, logged)")]
pub struct Arguments {}

/// What keeps it from starting is said to whoever started it; what ends it later is in the log.
pub fn main(_: Arguments, settings: Settings, read_again: ReadAgain) -> Result<ExitCode, Error> {
    let log = telemetry::start(&settings.log).map_err(Error::new)?;
    // From here on standard error is the log's: one that nobody reads must not hold up the end.
    Ok(run(settings, read_again, log.lines()).unwrap_or_else(|error| {
        log.say(&format!("waypost: {error}"));
        ExitCode::FAILURE
    }))
}

fn run(settings: Settings, read_again: ReadAgain, log: Arc<Lines>) -> Result<ExitCode, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Error::new)?;
    // First of all: the system's answer to SIGHUP is to kill.
    let signals = runtime.block_on(async { Signals::listen() }).map_err(Error::new)?;
    let told = Told::default();
    runtime.spawn(listen(signals, told.clone(), log.clone()));
    let start = reload::start(&settings.routes, &settings.data_dir).map_err(Error::new)?;
    if let Some(Instead { error, .. }) = &start.instead {
        let hash = &start.loaded.hash;
        tracing::error!(%error, %hash, "the last good routing table is in force instead of the file");
    }
    let on_terminal = stderr().is_terminal();
    let shutdown_delay = if on_terminal { Duration::ZERO } else { SHUTDOWN_DELAY };
    let boot = Boot { settings, shutdown_delay, read_again, start, log };
    let outcome = runtime.block_on(daemon::run(boot, told));
    // What is still running has nothing left to lose: a stuck client must not hold up the exit.
    runtime.shutdown_background();
    Ok(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "waypost ends");
            ExitCode::FAILURE
        }
    })
}

/// Passes on what signals ask for, until the process ends. What is asked for is done before it is said.
async fn listen(mut signals: Signals, Told { stop, reload }: Told, log: Arc<Lines>) {
    loop {
        match signals.next().await {
            Asked::Reload => {
                reload.notify_one();
                tracing::info!(signal = "SIGHUP", "told to reload");
            }
            Asked::Stop(signal) if !stop.is_cancelled() => {
                stop.cancel();
                tracing::info!(signal, "told to stop");
            }
            Asked::Stop(signal) => {
                tracing::warn!(signal, "told again: ending at once");
                log.settle();
                std::process::exit(1);
            }
        }
    }
}
