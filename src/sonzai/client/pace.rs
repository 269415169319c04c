//! How fast a client asks: its requests are spread evenly, over all that it does.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Spreads requests. Whoever comes first goes first.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    /// When the next request may go.
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most this many a second, and at least one.
    pub fn per_second(requests: u32) -> Pace {
        Pace { interval: Duration::from_secs(1) / requests.max(1), next: Mutex::new(None) }
    }

    /// Returns when it is the caller's turn. A turn that is not waited for is lost.
    pub async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.interval);
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// On the runtime's paused clock, which moves only when everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_second_holds_as_many_requests_as_it_may() {
        let pace = Pace::per_second(50);
        let start = Instant::now();
        let turns = (0..500).map(|_| async {
            pace.turn().await;
            start.elapsed()
        });
        let mut went: Vec<Duration> = join_all(turns).await;
        went.sort();
        assert_eq!(went[0], Duration::ZERO);
        for (index, at) in went.iter().enumerate() {
            let until = *at + Duration::from_secs(1);
            let within = went[index..].iter().take_while(|later| **later < until).count();
            assert!(within <= 50, "{within} requests in the second from {at:?}");
        }
        assert!(start.elapsed() < Duration::from_secs(11));
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_nobody_used_is_not_saved_up() {
        let pace = Pace::per_second(10);
        pace.turn().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..11 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_secs(1));
    }
}
