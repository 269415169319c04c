//! Tells of damage by which somebody lost something: a dead letter a region, and the keys of what is
//! lost are forgotten, so that a sender who comes again gets in.
//!
//! One [`Teller`] a journal. It waits for room among the dead letters as long as that takes; nobody
//! waits for it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytestring::ByteString;
use serde_json::json;

use crate::{
    backoff::Backoff,
    clock::now_ms,
    dedupe,
    dispatch::{DeadLetters, kept::Kept},
    journal::{Damage, Journal},
    quiet::Quiet,
};

/// Between two attempts to keep a dead letter.
const RETRY: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(30) };

/// See the module.
pub struct Teller {
    pub journal: Journal,
    /// Whose it is, for whoever reads a dead letter: [`MAIN`], [`DEAD_LETTERS`], or the broker whose
    /// parked messages it holds.
    pub whose: ByteString,
    pub dead_letters: DeadLetters,
    pub data_dir: PathBuf,
    /// Of the main journal: what is known by keys that it holds.
    pub window: Option<Arc<dedupe::Window>>,
}

/// The main journal, in a dead letter's place of a broker.
pub const MAIN: ByteString = ByteString::from_static("journal");

/// The dead letters' own.
pub const DEAD_LETTERS: ByteString = ByteString::from_static("dead-letters");

impl Teller {
    /// Tells, until nobody wants that any more.
    pub async fn run(self) -> Infallible {
        let mut waiting = VecDeque::new();
        loop {
            let Some(damage) = waiting.pop_front() else {
                waiting.push_back(self.next().await);
                continue;
            };
            let mut keeping = Box::pin(self.keep(&damage));
            // What is lost is forgotten at once, however long a dead letter waits for room.
            loop {
                tokio::select! {
                    () = &mut keeping => break,
                    more = self.next() => waiting.push_back(more),
                }
            }
            drop(keeping);
            let (journal, told) = (self.journal.clone(), damage);
            // It blocks, and is to be done once the dead letter is durable, whoever waits for it.
            let told = tokio::task::spawn_blocking(move || journal.told(&told)).await;
            if let Err(error) = told {
                tracing::error!(%error, "a dead letter of damage may come again");
            }
        }
    }

    /// The next that is lost; what was known by it is so no more. Cancel-safe.
    async fn next(&self) -> Damage {
        let damage = self.journal.next_lost().await;
        if let Some(window) = &self.window {
            window.forget_keys(&damage.keys);
        }
        damage
    }

    /// Keeps the dead letter: durable on return.
    async fn keep(&self, damage: &Damage) {
        let (quiet, mut failures) = (Quiet::default(), 0);
        let letter = letter(&self.whose, damage, &self.data_dir, now_ms());
        while let Err(error) = self.dead_letters.keep(letter.clone()).await {
            if let Some(more) = quiet.speaks(now_ms()) {
                tracing::error!(
                    journal = %self.whose, %error, more,
                    "damage cannot be told by a dead letter yet; it is tried again"
                );
            }
            failures += 1;
            tokio::time::sleep(RETRY.jittered(failures)).await;
        }
    }
}

/// The dead letter of a damaged region. Its id is the same whenever it is written.
fn letter(whose: &ByteString, damage: &Damage, data_dir: &Path, now_ms: u64) -> Kept {
    let Damage { offset, len, why, .. } = damage;
    let file = damage.file.strip_prefix(data_dir).unwrap_or(&damage.file).display().to_string();
    let (from, to) = (damage.from.ordinal(), damage.to.ordinal());
    let records = to.saturating_sub(from);
    let reason = format!(
        "up to {records} records were damaged on disk before all brokers had them ({why}: {len} \
         bytes of {file} from {offset} on); docs/journal.md says what to do"
    );
    let body = json!({
        "file": file, "offset": offset, "len": len, "from": from, "to": to, "why": why,
    });
    let id = format!("{file}@{offset}+{from}");
    Kept::of_damage(id.into(), whose.clone(), body.to_string().into(), reason.into(), now_ms)
}

#[cfg(test)]
mod tests {
    use crate::journal::{Entry, Options, RealDisk};

    use super::*;

    fn open(dir: &Path, max_bytes: u64) -> Journal {
        // Nothing of it is in memory: all is read from the disk.
        let options = Options { max_bytes, tail_bytes: 0, ..Options::default() };
        Journal::open(Arc::new(RealDisk), dir, options).expect("a journal").journal
    }

    /// A journal with a damaged record that somebody had not settled.
    async fn damaged(dir: &Path) -> Journal {
        let journal = open(dir, 1 << 20);
        drop(journal.place("live").expect("a place"));
        for n in 0..3 {
            let keys = vec![[n; 16]];
            let entry = Entry { keys, ..Entry::new(vec![n; 100].into(), 1000) };
            journal.append_durable(entry).await.expect("to append");
        }
        let files = std::fs::read_dir(dir).expect("a directory").flatten();
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "seg");
        let file = files.map(|entry| entry.path()).find(is_segment).expect("a segment");
        let mut bytes = std::fs::read(&file).expect("its bytes");
        let at = bytes.windows(100).position(|bytes| bytes == [1; 100]).expect("the record");
        bytes[at] = 9;
        std::fs::write(file, bytes).expect("to damage it");
        journal
    }

    async fn read_all(journal: &Journal) {
        let place = journal.place("live").expect("a place");
        let (mut reader, mut seen) = (place.reader(), 0);
        while seen < 3 {
            seen += reader.next(10, 1 << 20).await.expect("items").len();
        }
    }

    async fn eventually(what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..1000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} does not come about");
    }

    fn told(data_dir: &Path) -> Vec<Kept> {
        let letters = crate::dispatch::dead_letter::list(Arc::new(RealDisk), data_dir);
        let letters: Vec<Kept> = letters.expect("dead letters").map(Result::unwrap).collect();
        assert!(letters.iter().all(Kept::is_damage));
        letters
    }

    fn teller(journal: &Journal, dead_letters: &Journal, data_dir: &Path) -> Teller {
        let limits = dedupe::Limits { window: Duration::from_secs(1 << 30), max_keys: 100 };
        let keys = (0..3).map(|n| ([n; 16], now_ms())).collect();
        Teller {
            journal: journal.clone(),
            whose: MAIN,
            dead_letters: DeadLetters::new(dead_letters.clone()),
            data_dir: data_dir.to_owned(),
            window: Some(dedupe::Window::new(limits, keys)),
        }
    }

    #[tokio::test]
    async fn what_is_lost_is_told_once_over_all_starts_and_known_no_more() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let data_dir = data_dir.path();
        let dead_letters = open(&data_dir.join("dead-letters"), 1 << 20);
        let journal = damaged(&data_dir.join("journal")).await;
        let teller = teller(&journal, &dead_letters, data_dir);
        let window = teller.window.clone().expect("a window");
        let running = tokio::spawn(teller.run());
        read_all(&journal).await;
        eventually("a dead letter", || told(data_dir).len() == 1).await;
        let letter = told(data_dir).remove(0);
        assert_eq!((&*letter.message.broker, &*letter.event.source), ("journal", ""));
        let body: serde_json::Value = serde_json::from_slice(&letter.event.body).expect("JSON");
        assert_eq!((&body["from"], &body["to"]), (&1.into(), &2.into()));
        assert!(body["file"].as_str().is_some_and(|file| file.starts_with("journal/")), "{body}");
        let knows = |n: u8| window.knows(&dedupe::Keys::known_by([n; 16]), now_ms());
        assert_eq!([0, 1, 2].map(knows), [true, false, true]);
        eventually("that it was told", || {
            let notes = std::fs::read_dir(data_dir.join("journal")).expect("a directory").flatten();
            let text = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path()).ok();
            let mut notes = notes.filter(|it| it.path().extension().is_some_and(|e| e == "damage"));
            notes.next().and_then(text).is_some_and(|text| text.contains(r#""told":true"#))
        })
        .await;
        running.abort();
        journal.close().await;

        let journal = open(&data_dir.join("journal"), 1 << 20);
        read_all(&journal).await;
        let again = tokio::time::timeout(Duration::from_millis(200), journal.next_lost()).await;
        assert!(again.is_err(), "{again:?}");
        journal.close().await;
        dead_letters.close().await;
    }

    #[tokio::test]
    async fn without_room_it_waits_and_is_told_once_there_is_some() {
        let data_dir = tempfile::tempdir().expect("a directory");
        let data_dir = data_dir.path();
        let dead_letters = open(&data_dir.join("dead-letters"), 64 << 10);
        let letter = |len| Kept::of_damage("1".into(), MAIN, vec![0; len].into(), "".into(), 1);
        let keeps = DeadLetters::new(dead_letters.clone());
        let mut full = 0;
        // Until not even what is smaller than the one to come has room.
        for len in [4096, 0] {
            while keeps.keep(letter(len)).await.is_ok() {
                full += 1;
            }
        }
        let refused = || dead_letters.stats().refusals().find(|(why, _)| *why == "journal_full");
        let before = refused();
        let journal = damaged(&data_dir.join("journal")).await;
        let teller = teller(&journal, &dead_letters, data_dir);
        let running = tokio::spawn(teller.run());
        read_all(&journal).await;
        eventually("a refusal", || refused() > before).await;
        assert_eq!(told(data_dir).len(), full);
        dead_letters.set_bounds(1 << 20, 1 << 20);
        eventually("a dead letter", || told(data_dir).len() == full + 1).await;
        running.abort();
    }
}
