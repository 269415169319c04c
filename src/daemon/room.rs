//! Whether the disk of the data directory is as large as the bounds of what it may come to hold.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::brokers::log_dir;
use crate::{
    footprint::{self, Footprint},
    routing::Table,
    settings::Settings,
};

/// The unit of `st_blocks`, whatever the file system.
const BLOCK_BYTES: u64 = 512;

/// Says so where it is not. Nothing is wrong yet, so it is no error. Blocks.
pub fn tell_if_short(settings: &Settings, table: &Table) {
    let dir = &settings.data_dir;
    let Some(left) = footprint::left_bytes(dir) else { return };
    let listed = table.brokers().iter().map(|broker| broker.policy.backlog_bytes);
    // The built-in `unrouted` is one more.
    let backlogs = listed.chain([None]).map(|own| own.unwrap_or(settings.backlog_bytes()));
    let footprint = Footprint::of(settings, backlogs);
    let used = match used_bytes(dir, &log_dir(dir)) {
        Ok(used) => used,
        Err(error) => {
            tracing::debug!(%error, "how much the data directory uses is not known");
            0
        }
    };
    if let Some(words) = shortage(footprint, used, left) {
        tracing::warn!(data_dir = %dir.display(), "{words}");
    }
}

/// What is short, in words.
fn shortage(footprint: Footprint, used: u64, left: u64) -> Option<String> {
    let (limit, has) = (footprint.total_bytes(), used.saturating_add(left));
    if limit <= has {
        return None;
    }
    let parts = footprint.parts().map(|(name, bytes)| format!("{name} {bytes}")).join(" + ");
    Some(format!(
        "the data directory may come to hold {limit} bytes ({parts}; the files of `log` \
         brokers come on top), and its disk has {has} for it \
         ({used} used, {left} left): the disk may be full before these bounds are reached. Give it \
         more room, or lower journal.max_bytes, dispatch.backlog_max_bytes or backlog.max_bytes of \
         brokers, or dead_letters.max_bytes"
    ))
}

/// What the files below a directory take of the disk, but for those below `not_in`.
fn used_bytes(dir: &Path, not_in: &Path) -> io::Result<u64> {
    let (mut used, mut open) = (0, vec![PathBuf::from(dir)]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Files come and go.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !metadata.is_dir() {
                used += metadata.blocks() * BLOCK_BYTES;
            } else if entry.path() != not_in {
                open.push(entry.path());
            }
        }
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_smaller_than_the_bounds_is_told_with_both_numbers() {
        let footprint = Footprint { journal_bytes: 700, parked_bytes: 300, ..Footprint::default() };
        assert_eq!(shortage(footprint, 400, 600), None);
        let words = shortage(footprint, 400, 599).expect("it is short");
        for part in
            ["hold 1000 bytes", "journal 700", "parked 300", "has 999", "400 used", "599 left"]
        {
            assert!(words.contains(part), "{part} is missing: {words}");
        }
        assert_eq!(shortage(footprint, u64::MAX, 1), None);
    }

    #[test]
    fn what_log_brokers_wrote_is_nothing_that_the_bounds_can_use() {
        let dir = tempfile::tempdir().expect("a directory");
        let logs = log_dir(dir.path());
        for (dir, bytes) in [(&logs, 1 << 20), (&dir.path().join("journal"), 100 << 10)] {
            fs::create_dir(dir).expect("a directory");
            fs::write(dir.join("file"), vec![1; bytes]).expect("a file");
        }
        let used = used_bytes(dir.path(), &logs).expect("it can be read");
        assert!((100 << 10..1 << 20).contains(&used), "{used}");
    }
}
