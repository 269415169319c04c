//! The embedded broker: one JSON-lines file a topic, for `tail -f`, `jq` and log shippers.
//!
//! Each line of `DIR/TOPIC.jsonl` is one CloudEvents document ([`cloudevents`](super::cloudevents)).
//! A message is confirmed once its line is on disk (`fdatasync`, after the directory entry of a new
//! file); all that wait share one sync a file. Lines are only ever appended whole, so that a line
//! without its end is one that a crash tore and nobody was promised: it is cut when the file is
//! opened.
//!
//! - A file over `rotate_bytes` is renamed to `TOPIC+0000000001.jsonl` and so on; no topic can have
//!   such a name. Nothing is deleted unless `keep` says how many stay. A file that somebody else
//!   moves or deletes is begun anew.
//! - A full disk or any other error cuts the file back to its last durable line and is reported as
//!   *down*; the dispatcher connects again, which opens the files anew, until there is room.
//! - `DIR/.lock` keeps a second writer out.
//!
//! Invariants: what is confirmed is synced; the files end with a whole line whenever nothing is
//! being written; at most 64 are open.

use std::{path::PathBuf, thread, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use self::writer::{Order, Writer};
use super::{Broker, Confirmation, Error, Publication};
use crate::event::Address;

mod topic;
mod writer;

/// Size at which a file is moved aside unless the settings say otherwise: still comfortable to
/// open, and rarely reached.
pub const ROTATE_BYTES: u64 = 128 << 20;

/// Messages between [`Log`] and its writer. More than one batch needs; the rest waits with the
/// dispatcher.
const ORDERS: usize = 1024;

/// How long a message may wait for the disk. A healthy one takes milliseconds.
const CONFIRM: Duration = Duration::from_secs(30);

/// How long opening the directory, or the last writer's end, may take.
const OPEN: Duration = Duration::from_secs(10);

/// Where and how to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Created if missing; belongs to one broker.
    pub dir: PathBuf,
    /// A file that would grow beyond this is moved aside first.
    pub rotate_bytes: u64,
    /// How many files moved aside each topic keeps; `None` deletes nothing.
    pub keep: Option<usize>,
}

impl Settings {
    /// The defaults, in this directory.
    pub fn new(dir: impl Into<PathBuf>) -> Settings {
        Settings { dir: dir.into(), rotate_bytes: ROTATE_BYTES, keep: None }
    }
}

/// Publishes to files.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    writer: Option<Handle>,
}

/// A writer's thread. Dropping the orders ends it after what it has taken.
#[derive(Debug)]
struct Handle {
    orders: mpsc::Sender<Order>,
    /// Closed when the thread has ended and let go of the directory.
    ended: oneshot::Receiver<()>,
}

impl Log {
    /// Touches nothing until it connects.
    pub fn new(settings: Settings) -> Log {
        Log { settings, writer: None }
    }

    /// Ends the writer; false if it is still stuck after `deadline`, and then kept.
    async fn stop(&mut self, deadline: Duration) -> bool {
        let Some(Handle { orders, mut ended }) = self.writer.take() else { return true };
        drop(orders);
        if timeout(deadline, &mut ended).await.is_ok() {
            return true;
        }
        // Orders to it are closed; only its end is still waited for.
        let (orders, _) = mpsc::channel(1);
        self.writer = Some(Handle { orders, ended });
        false
    }
}

#[async_trait]
impl Broker for Log {
    async fn connect(&mut self) -> Result<(), Error> {
        let dir = self.settings.dir.display().to_string();
        let stuck = || Error::Down(format!("the disk under {dir} does not answer"));
        if !self.stop(OPEN).await {
            return Err(stuck());
        }
        let (orders, receiver) = mpsc::channel(ORDERS);
        let (opened, ready) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let settings = self.settings.clone();
        let write = move || {
            let _end = end;
            let (writer, outcome) = match Writer::open(settings) {
                Ok(writer) => (Some(writer), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody waits any more if the disk took too long; the orders have ended then.
            let _ = opened.send(outcome);
            if let Some(writer) = writer {
                writer.run(receiver);
            }
        };
        thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(write)
            .map_err(|error| Error::Down(format!("cannot start a writer thread: {error}")))?;
        self.writer = Some(Handle { orders, ended });
        match timeout(OPEN, ready).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(stuck()),
        }
    }

    async fn publish(&mut self, publication: &Publication) -> Result<Confirmation, Error> {
        // The latter is what records of version 1 have.
        let (Address::LogTopic(topic) | Address::Topic { topic, .. }) = &publication.address else {
            return Err(Error::Refused("the address is not a topic".to_owned()));
        };
        topic::check_name(topic).map_err(Error::Refused)?;
        let Some(writer) = &self.writer else {
            return Err(Error::Down("not connected".to_owned()));
        };
        let deadline = Instant::now() + CONFIRM;
        let (reply, outcome) = oneshot::channel();
        let order = Order { event: publication.event.clone(), topic: topic.clone(), reply };
        match timeout_at(deadline, writer.orders.send(order)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(gone()),
            Err(_) => return Err(slow()),
        }
        let confirmation = async move {
            match timeout_at(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(gone()),
                Err(_) => Err(slow()),
            }
        };
        Ok(confirmation.boxed())
    }

    async fn close(&mut self, deadline: Duration) {
        if !self.stop(deadline).await {
            tracing::warn!(dir = ?self.settings.dir, "the disk did not answer before the deadline");
        }
    }
}

fn gone() -> Error {
    Error::Down("the files were closed after an error".to_owned())
}

fn slow() -> Error {
    Error::Down(format!("the disk did not answer within {} s", CONFIRM.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc};

    use bytes::Bytes;
    use futures_util::future::join_all;

    use super::*;
    use crate::event::Event;

    fn publication(topic: &str, body: impl Into<Bytes>) -> Publication {
        let event = Event {
            id: "1".into(),
            source: "s".into(),
            kind: "k".into(),
            subject: None,
            time_ms: 0,
            content_type: None,
            traceparent: None,
            extensions: Vec::new(),
            headers: Vec::new(),
            body: body.into(),
        };
        let address = Address::LogTopic(topic.into());
        Publication::binary(Arc::new(event), address)
    }

    async fn publish(log: &mut Log, topic: &str, body: &str) -> Result<(), Error> {
        log.publish(&publication(topic, body.to_owned())).await?.await
    }

    async fn connected(settings: Settings) -> Log {
        let mut log = Log::new(settings);
        log.connect().await.unwrap();
        log
    }

    fn bodies(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|line| {
                let document: serde_json::Value = serde_json::from_str(line).unwrap();
                document["data"].to_string()
            })
            .collect()
    }

    #[tokio::test]
    async fn confirmed_messages_are_in_the_file_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = connected(Settings::new(dir.path().join("deep/log"))).await;
        let mut confirmations = Vec::new();
        for n in 0..2000 {
            let topic = ["even", "odd"][n % 2];
            let confirmation = log.publish(&publication(topic, n.to_string())).await.unwrap();
            confirmations.push(confirmation);
        }
        assert!(join_all(confirmations).await.into_iter().all(|outcome| outcome == Ok(())));
        let even: Vec<_> = (0..2000).step_by(2).map(|n| n.to_string()).collect();
        assert_eq!(bodies(&dir.path().join("deep/log/even.jsonl")), even);
        log.close(Duration::from_secs(10)).await;
    }

    #[tokio::test]
    async fn a_torn_last_line_is_cut_when_the_broker_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        fs::write(&path, "{\"data\":1}\n{\"data\":2").unwrap();
        let mut log = connected(Settings::new(dir.path())).await;
        publish(&mut log, "t", "3").await.unwrap();
        assert_eq!(bodies(&path), ["1", "3"]);
    }

    #[tokio::test]
    async fn more_topics_than_files_may_be_open_are_all_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = connected(Settings::new(dir.path())).await;
        for round in 0..3 {
            let mut confirmations = Vec::new();
            for n in 0..200 {
                let publication = publication(&format!("t{n}"), round.to_string());
                confirmations.push(log.publish(&publication).await.unwrap());
            }
            assert!(join_all(confirmations).await.into_iter().all(|outcome| outcome == Ok(())));
        }
        for n in 0..200 {
            assert_eq!(bodies(&dir.path().join(format!("t{n}.jsonl"))), ["0", "1", "2"]);
        }
    }

    #[tokio::test]
    async fn a_topic_in_a_record_of_version_1_is_written_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = connected(Settings::new(dir.path())).await;
        let mut old = publication("t", "1");
        old.address = Address::Topic { topic: "t".into(), key: None };
        log.publish(&old).await.unwrap().await.unwrap();
        assert_eq!(bodies(&dir.path().join("t.jsonl")), ["1"]);
    }

    #[tokio::test]
    async fn what_is_no_topic_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = connected(Settings::new(dir.path().join("log"))).await;
        for bad in ["", "..", "../escape", ".lock", "a/b", "a+1"] {
            let outcome = publish(&mut log, bad, "1").await;
            assert!(matches!(outcome, Err(Error::Refused(_))), "{bad}: {outcome:?}");
        }
        let mut exchange = publication("t", "1");
        exchange.address = Address::Subject("s".into());
        assert!(matches!(log.publish(&exchange).await.err(), Some(Error::Refused(_))));
        assert_eq!(fs::read_dir(dir.path().join("log")).unwrap().count(), 1, "only the lock");
    }

    #[tokio::test]
    async fn a_second_writer_is_kept_out_until_the_first_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = connected(Settings::new(dir.path())).await;
        let mut second = Log::new(Settings::new(dir.path()));
        let outcome = second.connect().await;
        let Err(Error::Down(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.contains("dir:"), "{text}");
        first.connect().await.expect("connecting again is not a second writer");
        first.close(Duration::from_secs(10)).await;
        second.connect().await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_is_down_and_another_topic_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/dev/full", dir.path().join("full.jsonl")).unwrap();
        let mut log = connected(Settings::new(dir.path())).await;
        let outcome = publish(&mut log, "full", "1").await;
        let Err(Error::Down(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.starts_with("disk full"), "{text}");
        log.connect().await.unwrap();
        publish(&mut log, "t", "1").await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_somebody_deletes_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let mut log = connected(Settings::new(dir.path())).await;
        publish(&mut log, "t", "1").await.unwrap();
        fs::remove_file(&path).unwrap();
        publish(&mut log, "t", "2").await.unwrap();
        assert_eq!(bodies(&path), ["2"]);
    }

    #[tokio::test]
    async fn rotation_keeps_every_line_unless_told() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { rotate_bytes: 300, ..Settings::new(dir.path()) };
        let mut log = connected(settings).await;
        for n in 0..50 {
            publish(&mut log, "t", &n.to_string()).await.unwrap();
        }
        let mut paths: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        paths.sort_unstable();
        assert!(paths.len() > 10, "{}", paths.len());
        let all: Vec<_> = paths.iter().flat_map(|path| bodies(path)).collect();
        assert_eq!(all, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn closing_finishes_what_is_in_flight() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = connected(Settings::new(dir.path())).await;
        let confirmation = log.publish(&publication("t", "1")).await.unwrap();
        log.close(Duration::from_secs(10)).await;
        assert_eq!(confirmation.await, Ok(()));
        let outcome = publish(&mut log, "t", "2").await;
        assert!(matches!(outcome, Err(Error::Down(_))), "{outcome:?}");
    }
}
