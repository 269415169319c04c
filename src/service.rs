//! What the service manager is told: ready, reloading, stopping, still alive. systemd's protocol, from
//! `sd_notify(3)` and `sd_watchdog_enabled(3)`.
//!
//! Where no manager asked for it (no `NOTIFY_SOCKET`, no `WATCHDOG_USEC`) nothing is told.

use std::{convert::Infallible, future, io, net::SocketAddr, time::Duration};

use sd_notify::NotifyState;
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};

/// How long the manager may take to hear a change of state, before the daemon goes on without.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Requests are taken from now on.
pub async fn ready(listen: SocketAddr) {
    let status = format!("receiving on {listen}");
    change(move || sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)])).await;
}

/// The routing table is read again, because the manager asked for it.
pub async fn reloading() {
    change(|| {
        let since = NotifyState::monotonic_usec_now()?;
        sd_notify::notify(&[NotifyState::Reloading, since])
    })
    .await;
}

/// That is over; whether the file is in force.
pub async fn reloaded(good: bool) {
    let status = if good { "routes.yaml is in force" } else { "routes.yaml is bad: see the log" };
    change(|| sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)])).await;
}

/// The drain has begun.
pub async fn stopping() {
    change(|| sd_notify::notify(&[NotifyState::Stopping, NotifyState::Status("draining")])).await;
}

/// Tells the manager again and again that the daemon is alive, until `failed`: it is for the manager
/// to end what goes on after that. Awaited beside the daemon's own future, in the same task, so that
/// a runtime that is stuck says nothing.
pub async fn watchdog(failed: impl Future) -> Infallible {
    if let Some(within) = sd_notify::watchdog_enabled() {
        ping(within, failed, || tell(|| sd_notify::notify(&[NotifyState::Watchdog]))).await;
    }
    future::pending().await
}

/// Twice as often as the manager demands.
async fn ping<P: Future<Output = ()>>(
    within: Duration,
    failed: impl Future,
    mut ping: impl FnMut() -> P,
) {
    // A zero period would panic; the manager never asks for one.
    let mut due = interval((within / 2).max(Duration::from_millis(1)));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(failed);
    loop {
        tokio::select! {
            biased;
            _ = &mut failed => return,
            _ = due.tick() => ping().await,
        }
    }
}

async fn change(notify: impl FnOnce() -> io::Result<()> + Send + 'static) {
    if timeout(HEARD_WITHIN, tell(notify)).await.is_err() {
        tracing::warn!("the service manager does not listen");
    }
}

/// Not on the runtime's own threads: the socket's queue is short, and a manager that does not read
/// it holds up who writes.
async fn tell(notify: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let told = spawn_blocking(notify).await.map_err(io::Error::from).flatten();
    if let Err(error) = told {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pings_come_twice_an_interval_and_end_with_a_failure() {
        let mut pings = 0;
        let failed = tokio::time::sleep(Duration::from_millis(1_050));
        ping(Duration::from_millis(200), failed, || {
            pings += 1;
            future::ready(())
        })
        .await;
        assert_eq!(pings, 11, "one at once, and one each 100 ms");
    }
}
