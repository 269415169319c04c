//! Which futures have something to say, in the order in which they were woken.
//!
//! Unlike a `FuturesUnordered`, taking until nothing is left proves that every future woken before
//! has been taken, which is what the [`ledger`](super::ledger) asks of its caller.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Wake, Waker},
};

use tokio::sync::Notify;

use super::ledger::PublishId;

/// The publishes whose future was woken and not polled since. Bounded: a future wakes its waker
/// once for each time it is polled.
#[derive(Debug, Default)]
pub struct Woken {
    ids: Mutex<Vec<PublishId>>,
    notify: Notify,
}

impl Woken {
    /// A waker that reports this publish.
    pub fn waker(self: &Arc<Self>, id: PublishId) -> Waker {
        Waker::from(Arc::new(Flag { id, woken: Arc::clone(self) }))
    }

    /// Takes what was woken so far.
    pub fn take(&self) -> Vec<PublishId> {
        mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until something is woken.
    pub async fn wait(&self) {
        self.notify.notified().await
    }
}

struct Flag {
    id: PublishId,
    woken: Arc<Woken>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref()
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.ids.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        self.woken.notify.notify_one();
    }
}
