//! What the daemon has set aside, and what its `log` broker wrote, read from its data directory.

use std::{fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep};
use waypost::{
    dispatch::kept::Kept,
    event::Record,
    journal::{self, Item, RealDisk},
};

use super::daemon::command;

/// How long something that must come about may take: retries and their pauses included.
const WITHIN: Duration = Duration::from_secs(90);

/// A dead letter as `waypost dead-letters list --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadLetter {
    pub id: String,
    pub broker: String,
    /// None where it could not be rendered.
    pub address: Option<String>,
    pub reason: String,
    pub attempts: u64,
}

/// All dead letters, oldest first; the daemon may run or not.
pub fn dead_letters(dir: &Path) -> Vec<DeadLetter> {
    let (status, output) = command(dir, &["dead-letters", "list", "--json"]);
    assert!(status.success(), "{output}");
    let letter = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        let text = |name: &str| json[name].as_str().map(str::to_owned);
        DeadLetter {
            id: text("id").expect("an id"),
            broker: text("broker").expect("a broker"),
            address: text("address"),
            reason: text("reason").expect("a reason"),
            attempts: json["attempts"].as_u64().expect("attempts"),
        }
    };
    output.lines().map(letter).collect()
}

/// Waits until there are at least so many dead letters.
pub async fn wait_for_dead_letters(dir: &Path, count: usize) {
    let what = format!("{count} dead letters");
    eventually(&what, || dead_letters(dir).len() >= count).await;
}

/// The ids of the events in a broker's parked journal, also while the daemon writes it. Settled ones
/// stay there until their segment is freed.
pub fn parked(dir: &Path, broker: &str) -> Vec<String> {
    let id = |bytes| Kept::decode(bytes).expect("a message").event.id.to_string();
    records(&dir.join("data/parked").join(broker)).map(id).collect()
}

/// The ids of the events in the main journal, as often as they were appended. Those of segments that
/// were freed are gone.
pub fn appended(dir: &Path) -> Vec<String> {
    let id = |bytes| Record::decode(bytes).expect("a record").event.id.to_string();
    records(&dir.join("data/journal")).map(id).collect()
}

fn records(journal: &Path) -> impl Iterator<Item = Bytes> {
    let items = journal::read_all(Arc::new(RealDisk), journal).expect("a journal");
    items.map(|item| match item.expect("a readable journal") {
        Item::Entry(_, bytes) => bytes,
        damage => panic!("{damage:?}"),
    })
}

/// The ids of the events in a topic of the `log` broker, in order; none if there is no such file.
pub fn logged(dir: &Path, topic: &str) -> Vec<String> {
    logged_in(&dir.join("data/log"), topic)
}

/// The same, where the broker has a directory of its own.
pub fn logged_in(dir: &Path, topic: &str) -> Vec<String> {
    let file = dir.join(format!("{topic}.jsonl"));
    let text = fs::read_to_string(file).unwrap_or_default();
    // A line that is being written has no end yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let id = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
        json["id"].as_str().expect("an id").to_owned()
    };
    whole.lines().map(id).collect()
}

/// Waits until a topic of the `log` broker holds at least so many events.
pub async fn wait_for_logged(dir: &Path, topic: &str, count: usize) {
    let what = format!("{count} events in {topic}");
    eventually(&what, || logged(dir, topic).len() >= count).await;
}

/// Waits until something is so.
pub async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WITHIN, "{what}: not within {WITHIN:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
