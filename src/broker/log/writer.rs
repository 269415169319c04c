//! The thread that writes: it takes all that waits, writes it to each topic's file, syncs each file
//! once, and only then confirms.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
    sync::Arc,
};

use bytestring::ByteString;
use tokio::sync::{mpsc, oneshot};

use super::{
    Settings,
    topic::{TopicFile, sync_dir},
};
use crate::{
    broker::{Error, cloudevents},
    event::Event,
};

/// Bytes of bodies written before a sync: with the largest body this bounds the writer's memory.
const BATCH_BYTES: usize = 8 << 20;

/// Messages written before a sync, so that a flood of small ones is confirmed in time.
const BATCH_MESSAGES: usize = 4096;

/// Topic files open at a time; topics may hold payload text, so there is no end to them. Also the
/// topics of one batch.
const MAX_OPEN: usize = 64;

/// No topic begins with a dot.
const LOCK: &str = ".lock";

/// A message on its way to its topic's file.
pub struct Order {
    pub event: Arc<Event>,
    pub topic: ByteString,
    pub reply: oneshot::Sender<Result<(), Error>>,
}

/// Writes until the orders end or a file fails, which everybody waiting is told as *down*.
pub struct Writer {
    settings: Settings,
    files: HashMap<ByteString, Open>,
    batches: u64,
    /// An order that did not fit the last batch.
    next: Option<Order>,
    _lock: File,
}

struct Open {
    file: TopicFile,
    last_batch: u64,
}

impl Writer {
    /// Takes the directory, which no other writer may have.
    pub fn open(settings: Settings) -> Result<Writer, Error> {
        let dir = &settings.dir;
        let lock = create(dir)
            .and_then(|()| {
                let path = dir.join(LOCK);
                OpenOptions::new().write(true).create(true).truncate(false).open(path)
            })
            .map_err(|error| down(dir, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Down(format!(
                    "{} is in use by another `log` broker; give each a `dir:` of its own",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(down(dir, &error)),
        }
        Ok(Writer { settings, files: HashMap::new(), batches: 0, next: None, _lock: lock })
    }

    /// Blocks: to be run on a thread of its own.
    pub fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        while let Some(batch) = self.take_batch(&mut orders) {
            if !self.write(batch) {
                return;
            }
        }
    }

    /// Waits for an order and takes those that wait with it.
    fn take_batch(&mut self, orders: &mut mpsc::Receiver<Order>) -> Option<Vec<Order>> {
        let mut batch = vec![self.next.take().or_else(|| orders.blocking_recv())?];
        let mut bytes = batch[0].event.body.len();
        let mut topics = HashSet::from([batch[0].topic.clone()]);
        while batch.len() < BATCH_MESSAGES
            && let Ok(order) = orders.try_recv()
        {
            bytes += order.event.body.len();
            let too_many = !topics.contains(&order.topic) && topics.len() == MAX_OPEN;
            if bytes > BATCH_BYTES || too_many {
                self.next = Some(order);
                break;
            }
            topics.insert(order.topic.clone());
            batch.push(order);
        }
        Some(batch)
    }

    /// Writes a batch and answers everyone in it. False if a file failed.
    fn write(&mut self, batch: Vec<Order>) -> bool {
        self.batches += 1;
        let mut by_topic: HashMap<ByteString, Vec<Order>> = HashMap::new();
        for order in batch {
            by_topic.entry(order.topic.clone()).or_default().push(order);
        }
        let mut healthy = true;
        for (topic, orders) in by_topic {
            let written = self.append(&topic, &orders);
            healthy &= written.is_ok();
            let outcome = written.map_err(|error| down(&self.settings.dir, &error));
            for order in orders {
                // Whoever asked may have stopped waiting; nothing is owed to it then.
                let _ = order.reply.send(outcome.clone());
            }
        }
        healthy
    }

    /// Appends a topic's messages durably.
    fn append(&mut self, topic: &ByteString, orders: &[Order]) -> io::Result<()> {
        let Settings { rotate_bytes, keep, .. } = self.settings;
        let file = self.file(topic)?;
        for order in orders {
            file.push(&cloudevents::document(&order.event));
        }
        if file.is_full(rotate_bytes) {
            file.rotate(keep)?;
        }
        file.commit()
    }

    /// The topic's file, opened if need be at the expense of the one unused for longest.
    fn file(&mut self, topic: &ByteString) -> io::Result<&mut TopicFile> {
        let stale = match self.files.get(topic) {
            Some(open) => open.file.is_stale()?,
            None => true,
        };
        if stale {
            self.files.remove(topic);
            if self.files.len() >= MAX_OPEN {
                let oldest = self.files.iter().min_by_key(|(_, open)| open.last_batch);
                if let Some(oldest) = oldest.map(|(topic, _)| topic.clone()) {
                    self.files.remove(&oldest);
                }
            }
            let file = TopicFile::open(&self.settings.dir, topic)?;
            self.files.insert(topic.clone(), Open { file, last_batch: 0 });
        }
        let open = self.files.get_mut(topic).expect("it was there or has just been inserted");
        open.last_batch = self.batches;
        Ok(&mut open.file)
    }
}

/// Creates the directory and makes the way to it durable, and the names that an earlier process may
/// have left in it.
fn create(dir: &Path) -> io::Result<()> {
    let there = dir.ancestors().find(|path| path.exists()).map(Path::to_owned);
    fs::create_dir_all(dir)?;
    sync_dir(dir)?;
    for path in dir.ancestors().skip(1) {
        let here = path.as_os_str().is_empty();
        sync_dir(if here { Path::new(".") } else { path })?;
        // What was there before it was ours is not ours to sync, but for the name of the directory.
        if there.as_deref().is_some_and(|there| there == path || there == dir) {
            break;
        }
    }
    Ok(())
}

fn down(dir: &Path, error: &io::Error) -> Error {
    let dir = dir.display();
    Error::Down(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("disk full ({error}): make room where {dir} is")
        }
        _ => format!("cannot write in {dir}: {error}"),
    })
}
