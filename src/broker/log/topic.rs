//! One topic's file: whole lines, in order, and how many of its bytes are durable.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// What a file name takes at most on the usual file systems.
const MAX_FILE_NAME: usize = 255;

/// Digits of a rotated file's number: enough for ever, and names sort by age.
const DIGITS: usize = 10;

/// The longest topic: its rotated file is `TOPIC+0000000001.jsonl`.
const MAX_TOPIC: usize = MAX_FILE_NAME - (1 + DIGITS + SUFFIX.len());

const SUFFIX: &str = ".jsonl";

/// Stands between a topic and a rotated file's number. No topic may contain it, so no rotated file
/// is ever taken for a topic's; and it sorts before the dot, so `TOPIC+*` come before the live file.
const ROTATED: char = '+';

/// How much is read at a time while looking for the last whole line.
const TAIL_CHUNK: u64 = 64 << 10;

/// Kafka's rule for topic names, without a leading dot and short enough to be rotated.
pub fn check_name(topic: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.starts_with('.') || !topic.chars().all(allowed) {
        return Err(format!(
            "{topic:?} is not a topic: letters, digits, '.', '_' and '-', no leading dot"
        ));
    }
    if topic.len() > MAX_TOPIC {
        return Err(format!("a topic has at most {MAX_TOPIC} characters, it becomes a file name"));
    }
    Ok(())
}

/// A topic's live file, open for appending.
#[derive(Debug)]
pub struct TopicFile {
    dir: PathBuf,
    topic: String,
    file: File,
    /// The file holds this much, all of it synced. What is beyond is of no account.
    durable_bytes: u64,
    unwritten: Vec<u8>,
}

impl TopicFile {
    /// Opens or creates the file of a checked topic and cuts a torn last line off.
    pub fn open(dir: &Path, topic: &str) -> io::Result<TopicFile> {
        let path = live_path(dir, topic);
        let existed = path.try_exists()?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        if !existed {
            sync_dir(dir)?;
        }
        let durable_bytes = cut_torn_line(&mut file, &path)?;
        let (dir, topic) = (dir.to_owned(), topic.to_owned());
        Ok(TopicFile { dir, topic, file, durable_bytes, unwritten: Vec::new() })
    }

    /// Adds a line to what the next [`commit`](Self::commit) writes.
    pub fn push(&mut self, line: &[u8]) {
        self.unwritten.extend_from_slice(line);
        self.unwritten.push(b'\n');
    }

    /// Writes what was pushed in one go and syncs it. On an error nothing of it counts, and the
    /// file is cut back to what was durable before; it must be opened again.
    pub fn commit(&mut self) -> io::Result<()> {
        let lines = std::mem::take(&mut self.unwritten);
        let written = self.file.write_all(&lines).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.durable_bytes += lines.len() as u64,
            Err(_) => self.cut_back(),
        }
        written
    }

    /// Whether this is no longer the file as we left it: somebody moved, deleted or cut it. It must
    /// be opened again then.
    pub fn is_stale(&self) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        if ours.len() != self.durable_bytes {
            return Ok(true);
        }
        match fs::metadata(live_path(&self.dir, &self.topic)) {
            Ok(there) => Ok((there.dev(), there.ino()) != (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether what was pushed makes a file that has lines larger than `rotate_bytes`.
    pub fn is_full(&self, rotate_bytes: u64) -> bool {
        self.durable_bytes > 0 && self.durable_bytes + self.unwritten.len() as u64 > rotate_bytes
    }

    /// Moves the live file aside and goes on in a new one. Of the files moved aside the newest
    /// `keep` stay, or all.
    pub fn rotate(&mut self, keep: Option<usize>) -> io::Result<()> {
        let mut old = rotated(&self.dir, &self.topic)?;
        let number = old.last().map_or(1, |(number, _)| number + 1);
        let aside = self.dir.join(format!("{}{ROTATED}{number:0DIGITS$}{SUFFIX}", self.topic));
        fs::rename(live_path(&self.dir, &self.topic), &aside)?;
        old.push((number, aside));

        let unwritten = std::mem::take(&mut self.unwritten);
        // Opening syncs the directory, and with it the rename, before anything goes into the file.
        *self = TopicFile::open(&self.dir, &self.topic)?;
        self.unwritten = unwritten;
        if let Some(keep) = keep {
            let surplus = old.len().saturating_sub(keep);
            for (_, path) in &old[..surplus] {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn cut_back(&mut self) {
        // Also after a failed sync: what the disk then holds of these pages is unknown, and a
        // hole in front of later lines would garble the first of them. But never longer: somebody
        // may have cut the file meanwhile (logrotate's `copytruncate`), and NULs would fill it up.
        let cut = self.file.metadata().and_then(|now| match now.len() > self.durable_bytes {
            true => self.file.set_len(self.durable_bytes),
            false => Ok(()),
        });
        if let Err(error) = cut {
            let path = live_path(&self.dir, &self.topic);
            tracing::error!(?path, %error, "cannot cut unconfirmed lines off");
        }
    }
}

/// Makes names created or changed in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn live_path(dir: &Path, topic: &str) -> PathBuf {
    dir.join(format!("{topic}{SUFFIX}"))
}

/// The files of a topic that were moved aside, oldest first.
fn rotated(dir: &Path, topic: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(topic)?.strip_prefix(ROTATED))
            .and_then(|rest| rest.strip_suffix(SUFFIX)?.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Cuts what follows the last line break, which no confirmation was given for. The length left.
fn cut_torn_line(file: &mut File, path: &Path) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let whole = whole_lines(file, len)?;
    if whole < len {
        tracing::warn!(?path, bytes = len - whole, "cut an incomplete last line off");
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(whole)
}

/// The length up to and with the last line break.
fn whole_lines(file: &mut File, len: u64) -> io::Result<u64> {
    let mut end = len;
    // Nearly always the last byte is the line break.
    let mut chunk_bytes = 1;
    while end > 0 {
        let start = end.saturating_sub(chunk_bytes);
        let mut chunk = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut chunk)?;
        if let Some(index) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + index as u64 + 1);
        }
        end = start;
        chunk_bytes = TAIL_CHUNK;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_topic_is_kafkas_rule_without_a_leading_dot_or_a_name_too_long_for_a_file() {
        let longest = "t".repeat(MAX_TOPIC);
        for good in ["a", "agent.message", "A-b_9", "a..b", &longest] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        let long = "t".repeat(MAX_TOPIC + 1);
        for bad in
            ["", ".", "..", ".lock", "a/b", "../a", "a\0", "a b", "a+1", "ä", "a\n", "a*", &long]
        {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_torn_last_line_is_cut() {
        let long = "x".repeat(3 * TAIL_CHUNK as usize);
        let long_whole = format!("{long}\n{long}");
        let cases = [
            ("", ""),
            ("one\n", "one\n"),
            ("one\ntwo\n", "one\ntwo\n"),
            ("one\ntw", "one\n"),
            ("on", ""),
            (&*long, ""),
            (&*long_whole, &long_whole[..long.len() + 1]),
        ];
        for (before, after) in cases {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("t.jsonl");
            fs::write(&path, before).unwrap();
            let mut file = TopicFile::open(dir.path(), "t").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
            file.push(b"next");
            file.commit().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{after}next\n"));
        }
    }

    #[test]
    fn nothing_is_in_the_file_before_a_commit_and_whole_lines_after() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = TopicFile::open(dir.path(), "t").unwrap();
        file.push(b"one");
        file.push(b"two");
        assert_eq!(fs::read(dir.path().join("t.jsonl")).unwrap(), b"");
        file.commit().unwrap();
        assert_eq!(fs::read(dir.path().join("t.jsonl")).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn rotation_deletes_nothing_unless_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = TopicFile::open(dir.path(), "t").unwrap();
        for line in ["one", "two", "three"] {
            file.push(line.as_bytes());
            if file.is_full(4) {
                file.rotate(None).unwrap();
            }
            file.commit().unwrap();
        }
        let expected = ["t+0000000001.jsonl", "t+0000000002.jsonl", "t.jsonl"];
        assert_eq!(names(dir.path()), expected);
        let lines: Vec<_> =
            expected.map(|name| fs::read_to_string(dir.path().join(name)).unwrap()).into();
        assert_eq!(lines, ["one\n", "two\n", "three\n"]);

        file.rotate(Some(2)).unwrap();
        assert_eq!(
            names(dir.path()),
            ["t+0000000002.jsonl", "t+0000000003.jsonl", "t.jsonl"],
            "the oldest goes, numbers go on"
        );
    }

    #[test]
    fn a_line_larger_than_a_file_may_be_is_kept_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = TopicFile::open(dir.path(), "t").unwrap();
        file.push(b"larger than four");
        assert!(!file.is_full(4), "an empty file is not moved aside");
        file.commit().unwrap();
    }

    #[test]
    fn a_topic_rotates_only_its_own_files() {
        let dir = tempfile::tempdir().unwrap();
        for other in ["t-1", "t.1", "tt"] {
            let mut file = TopicFile::open(dir.path(), other).unwrap();
            file.rotate(None).unwrap();
        }
        let mut file = TopicFile::open(dir.path(), "t").unwrap();
        file.rotate(Some(0)).unwrap();
        assert_eq!(
            names(dir.path()),
            [
                "t-1+0000000001.jsonl",
                "t-1.jsonl",
                "t.1+0000000001.jsonl",
                "t.1.jsonl",
                "t.jsonl",
                "tt+0000000001.jsonl",
                "tt.jsonl"
            ]
        );
    }

    #[test]
    fn a_file_moved_away_by_somebody_else_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = TopicFile::open(dir.path(), "t").unwrap();
        assert!(!file.is_stale().unwrap());
        fs::rename(dir.path().join("t.jsonl"), dir.path().join("elsewhere")).unwrap();
        assert!(file.is_stale().unwrap());
        fs::write(dir.path().join("t.jsonl"), "another").unwrap();
        assert!(file.is_stale().unwrap());
    }

    #[test]
    fn a_file_cut_by_somebody_else_is_noticed_and_never_filled_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.jsonl");
        let mut file = TopicFile::open(dir.path(), "t").unwrap();
        file.push(b"one");
        file.commit().unwrap();
        assert!(!file.is_stale().unwrap());
        fs::write(&path, "").unwrap();
        file.cut_back();
        assert_eq!(fs::read(&path).unwrap(), b"");
        assert!(file.is_stale().unwrap());
        let mut file = TopicFile::open(dir.path(), "t").unwrap();
        file.push(b"two");
        file.commit().unwrap();
        assert!(!file.is_stale().unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two\n");
    }
}
