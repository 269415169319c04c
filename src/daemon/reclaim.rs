//! Frees what is settled, and keeps room on the disk for the next start.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    clock::now_ms,
    dedupe,
    journal::{self, Journal, Reserve},
    quiet::Quiet,
};

/// How often settled segments are freed.
const RECLAIM_EVERY: Duration = Duration::from_secs(1);

/// How often keys are looked through for those that nobody asks for any more, and the reserve is
/// looked after.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Frees what every place has settled, and keeps what room there is for the next start.
pub async fn reclaim(
    journal: Journal,
    window: Arc<dedupe::Window>,
    reserve: Reserve,
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
        report(journal.release().await);
        if forget_at <= Instant::now() {
            forget_at = Instant::now() + FORGET_EVERY;
            let before_ms = window.holds_none_before_ms(now_ms());
            report(journal.forget_keys(before_ms).await);
            let reserve = reserve.clone();
            tokio::task::spawn_blocking(move || fill(&reserve)).await.map_err(Error::Panicked)?;
        }
    }
    Ok(())
}

/// Nothing depends on the reserve but the next start.
pub fn fill(reserve: &Reserve) {
    if let Err(error) = reserve.fill() {
        tracing::warn!(%error, "no room is kept for the next start");
    }
}
