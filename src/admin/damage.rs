//! What of the journals is damaged, or cannot be read at present, for whoever looks.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::view::View;
use crate::journal::{Journal, QuarantineUse, Trouble, UnreadRegion};

/// Regions that are shown each; the others are counted.
const MAX_SHOWN: usize = 100;

/// A journal, and what it is for.
pub(super) struct Named {
    /// `main`, `dead_letters` or `parked`.
    pub kind: &'static str,
    /// Whose parked messages it holds; empty for the others.
    pub broker: String,
    pub journal: Journal,
}

impl Named {
    /// What is damaged, and what cannot be read; nothing is known of either while the disk hangs: whoever
    /// asked it might never come back. Blocks.
    pub fn trouble(&self) -> Trouble {
        self.journal.hangs().map_or_else(|| self.journal.trouble(), |_| Trouble::default())
    }

    /// How many regions cannot be read, likewise; without a look at the disk.
    pub fn unread_regions(&self) -> u64 {
        self.journal.hangs().map_or_else(|| self.journal.unread_regions(), |_| 0)
    }

    /// What is in quarantine; not told while the disk hangs. Blocks.
    pub fn quarantine(&self) -> Option<QuarantineUse> {
        self.journal.hangs().map_or_else(|| Some(self.journal.quarantine()), |_| None)
    }

    /// Its directory below the data directory.
    fn dir(&self) -> PathBuf {
        match self.kind {
            "main" => "journal".into(),
            "dead_letters" => "dead-letters".into(),
            _ => PathBuf::from("parked").join(&self.broker),
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamageStatus {
    /// Damaged regions of what is kept on disk, and those of them by which somebody lost something.
    pub damaged_regions: u64,
    pub lost_regions: u64,
    /// Records that brokers lost, since the start.
    pub lost_records: u64,
    /// Where damaged files are, if there are any.
    pub kept: Vec<Kept>,
    pub unreadable: Unreadable,
}

impl DamageStatus {
    /// Whether something was lost, or cannot be had at present.
    pub fn is_trouble(&self) -> bool {
        self.lost_regions > 0 || self.unreadable.regions > 0
    }
}

/// Damaged files of one journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub dir: PathBuf,
    /// What is in quarantine there, and the bound.
    pub files: u64,
    pub bytes: u64,
    pub max_bytes: u64,
}

/// What the disk cannot read at present.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    pub regions: u64,
    /// The most that lie in them.
    pub records: u64,
    /// Of some of them: where, since when, and why.
    pub some: Vec<Region>,
}

/// One region that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    pub file: PathBuf,
    pub offset: u64,
    pub bytes: u64,
    pub records: u64,
    pub for_seconds: u64,
    pub error: String,
}

impl Unreadable {
    fn add(&mut self, region: UnreadRegion) {
        self.regions += 1;
        self.records += region.records;
        if self.some.len() < MAX_SHOWN {
            let UnreadRegion { file, offset, len: bytes, records, for_seconds, error } = region;
            self.some.push(Region { file, offset, bytes, records, for_seconds, error });
        }
    }
}

impl View {
    /// All journals that the daemon delivers from.
    pub(super) fn journals(&self) -> Vec<Named> {
        let own = |kind, journal: &Journal| Named {
            kind,
            broker: String::new(),
            journal: journal.clone(),
        };
        let brokers = self.brokers.load();
        let parked = brokers.iter().map(|broker| Named {
            broker: broker.name.to_string(),
            ..own("parked", &broker.parked)
        });
        let own = [own("main", &self.main), own("dead_letters", &self.dead_letters)];
        own.into_iter().chain(parked).collect()
    }

    /// What is damaged and what cannot be read. Asks the disk, so it may block.
    pub(super) fn damage(&self) -> DamageStatus {
        let mut status = DamageStatus::default();
        for named in self.journals() {
            let Trouble { damaged_regions, lost_regions, unread } = named.trouble();
            status.damaged_regions += damaged_regions;
            status.lost_regions += lost_regions;
            unread.into_iter().for_each(|region| status.unreadable.add(region));
            let QuarantineUse { files, bytes, max_bytes } = named.quarantine().unwrap_or_default();
            if damaged_regions + files > 0 {
                let dir = self.data_dir.join(named.dir());
                let dir = if files > 0 { dir.join("quarantine") } else { dir };
                status.kept.push(Kept { dir, files, bytes, max_bytes });
            }
        }
        status.lost_records = self.brokers.load().iter().map(|broker| self.lost(broker)).sum();
        status
    }
}
