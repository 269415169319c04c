//! Reads files on threads that may block, and waits for none of them for ever: a file system may hang,
//! and then nothing can end what reads it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use super::Error;

/// How long a reading may take, the wait for its turn included. Who asks for a reload waits longer.
pub const READ_WITHIN: Duration = Duration::from_secs(10);

/// Readings at a time: those that hang keep their threads.
const MAX_READERS: usize = 4;

/// See the module. A cheap handle.
#[derive(Clone)]
pub struct Reader(Arc<Semaphore>);

impl Default for Reader {
    fn default() -> Reader {
        Reader(Arc::new(Semaphore::new(MAX_READERS)))
    }
}

impl Reader {
    /// What was read; `None` where that took too long. The error is a panic.
    pub async fn read<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let reading = async {
            let turn = self.0.acquire_owned().await;
            let read = move || {
                let _until_it_ends = turn;
                work()
            };
            spawn_blocking(read).await.map_err(Error::Panicked)
        };
        timeout(READ_WITHIN, reading).await.ok().transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::{join, time::advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_given_up_on_and_what_follows_is_read() {
        let reader = Reader::default();
        let mut hanging = Vec::new();
        for _ in 0..MAX_READERS {
            assert_eq!(reader.clone().read(|| 1).await.unwrap(), Some(1));
            let (end, ended) = mpsc::channel::<()>();
            // It ends when the test lets go of the sender.
            let hangs = reader.clone().read(move || ended.recv().is_ok());
            assert_eq!(join!(hangs, advance(READ_WITHIN)).0.unwrap(), None);
            hanging.push(end);
        }
        // No more threads than that are given away.
        assert_eq!(join!(reader.clone().read(|| 1), advance(READ_WITHIN)).0.unwrap(), None);
        hanging.clear();
        assert_eq!(reader.clone().read(|| 1).await.unwrap(), Some(1));
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let panics = Reader::default().read(|| -> u8 { panic!("a mistake") });
        assert!(matches!(panics.await, Err(Error::Panicked(_))));
    }
}
