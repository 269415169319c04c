//! What is written down of the damage of a segment: a file beside it, `<base>.damage`, a JSON object a
//! line.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{scan::Region, storage::Storage};

/// What the name of such a file ends in.
pub(super) const SUFFIX: &str = ".damage";

/// A damaged region as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub from: u64,
    pub to: u64,
    pub offset: u64,
    pub len: u64,
    pub why: String,
    /// Whether anybody had not settled it.
    pub lost: bool,
    /// Whether that was told.
    #[serde(default)]
    pub told: bool,
}

impl Known {
    /// The same positions; where there are none, the same bytes.
    pub fn is(&self, region: &Region) -> bool {
        let is_empty = self.from == self.to;
        (self.from, self.to) == (region.from, region.to)
            && (!is_empty || self.offset == region.offset)
    }

    pub fn covers(&self, region: &Region) -> bool {
        self.from <= region.from && region.to <= self.to
    }

    pub fn is_to_tell(&self) -> bool {
        self.lost && !self.told
    }
}

/// The files of known damage in a directory.
pub(super) fn notes(storage: &dyn Storage, dir: &Path) -> Vec<PathBuf> {
    let names = storage.list(dir).unwrap_or_default();
    let notes = names.into_iter().filter(|name| name.ends_with(SUFFIX));
    notes.map(|name| dir.join(name)).collect()
}

/// What a file of known damage says; a line that makes no sense is left out.
pub(super) fn decode(bytes: &[u8]) -> Vec<Known> {
    let lines = bytes.split(|byte| *byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

/// The file of what is known of the damage of the segment at `base`.
pub(super) fn file_name(base: u64) -> String {
    format!("{base:020}{SUFFIX}")
}
