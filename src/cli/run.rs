//! `waypost run`: the daemon.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use super::Error;
use crate::{
    daemon::{self, Boot, ReadAgain, Told},
    routing::reload::{self, Instead},
    settings::Settings,
    shutdown::{Asked, Signals},
    telemetry,
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

/// What keeps it from starting is an error; what ends it later is in the log.
pub fn main(_: Arguments, settings: Settings, read_again: ReadAgain) -> Result<ExitCode, Error> {
    telemetry::start(&settings.log).map_err(Error::new)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Error::new)?;
    // First of all: the system's answer to SIGHUP is to kill.
    let signals = runtime.block_on(async { Signals::listen() }).map_err(Error::new)?;
    let told = Told::default();
    runtime.spawn(listen(signals, told.clone()));
    let start = reload::start(&settings.routes, &settings.data_dir).map_err(Error::new)?;
    if let Some(Instead { error, .. }) = &start.instead {
        let hash = &start.loaded.hash;
        tracing::error!(%error, %hash, "the last good routing table is in force instead of the file");
    }
    let on_terminal = stderr().is_terminal();
    let shutdown_delay = if on_terminal { Duration::ZERO } else { SHUTDOWN_DELAY };
    let boot = Boot { settings, shutdown_delay, read_again, start };
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

/// Passes on what signals ask for, until the process ends.
async fn listen(mut signals: Signals, Told { stop, reload }: Told) {
    loop {
        match signals.next().await {
            Asked::Reload => {
                tracing::info!(signal = "SIGHUP", "told to reload");
                reload.notify_one();
            }
            Asked::Stop(signal) if !stop.is_cancelled() => {
                tracing::info!(signal, "told to stop");
                stop.cancel();
            }
            Asked::Stop(signal) => {
                tracing::warn!(signal, "told again: ending at once");
                std::process::exit(1);
            }
        }
    }
}
