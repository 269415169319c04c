//! `waypost run`: the daemon.

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Error, read_table};
use crate::{daemon, routing::Table, settings::Settings, shutdown::Signals, telemetry};

/// How long requests are still accepted after the first signal, where nobody said otherwise and
/// nobody sits at a terminal: long enough for a load balancer to notice.
const SHUTDOWN_DELAY: Duration = Duration::from_secs(5);

/// Receive webhooks, journal them, publish them.
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
pub fn main(_: Arguments, mut settings: Settings) -> Result<ExitCode, Error> {
    telemetry::start(&settings.log).map_err(Error::new)?;
    let on_terminal = stderr().is_terminal();
    let delay = if on_terminal { Duration::ZERO } else { SHUTDOWN_DELAY };
    settings.shutdown.delay.get_or_insert(delay);
    let table = read_table(&settings.routes)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(Error::new)?;
    let outcome = runtime.block_on(run(settings, table));
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

async fn run(settings: Settings, table: Table) -> Result<(), daemon::Error> {
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let on_signal = stop.clone();
    let listening = tokio::spawn(async move {
        let signal = signals.next().await;
        tracing::info!(signal, "told to stop");
        on_signal.cancel();
        let signal = signals.next().await;
        tracing::warn!(signal, "told again: ending at once");
        std::process::exit(1);
    });
    let outcome = daemon::run(settings, table, stop).await;
    listening.abort();
    outcome
}
