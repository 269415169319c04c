//! Reads what the embedded `log` broker has published: one CloudEvents document a line, a file a
//! topic.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

/// How long what was accepted may take to be published.
const PATIENCE: Duration = Duration::from_secs(60);

/// One published event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    pub topic: String,
    pub id: String,
    pub kind: String,
    /// As it was received.
    pub body: Vec<u8>,
}

#[derive(Deserialize)]
struct Document<'a> {
    id: String,
    r#type: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

/// Everything published so far below a data directory, topic by topic, each in order.
pub fn read(data_dir: &Path) -> Vec<Published> {
    let Ok(files) = fs::read_dir(data_dir.join("log")) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    paths.iter().flat_map(|path| read_topic(path)).collect()
}

/// The same, once there are at least so many.
pub fn wait_for(data_dir: &Path, at_least: usize) -> Vec<Published> {
    let started = Instant::now();
    loop {
        let published = read(data_dir);
        if published.len() >= at_least {
            return published;
        }
        let count = published.len();
        assert!(started.elapsed() < PATIENCE, "{count} of {at_least} are published");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read_topic(path: &Path) -> Vec<Published> {
    let text = fs::read_to_string(path).expect("a topic's file");
    let topic = path.file_stem().and_then(|stem| stem.to_str()).expect("a topic");
    // A line without its end is still being written.
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(|line| published(topic, line)).collect()
}

fn published(topic: &str, line: &str) -> Published {
    let document: Document = serde_json::from_str(line).expect("a CloudEvents document");
    let body = match (document.data, document.data_base64) {
        (Some(data), None) => data.get().as_bytes().to_vec(),
        // What `null` is read as.
        (None, None) if line.ends_with(",\"data\":null}\n") => b"null".to_vec(),
        (None, Some(text)) => BASE64_STANDARD.decode(text).expect("base64"),
        _ => panic!("one of data and data_base64: {line}"),
    };
    Published { topic: topic.to_owned(), id: document.id, kind: document.r#type, body }
}
