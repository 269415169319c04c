//! What the data directory may come to hold: the sum of its bounds.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{commands, settings::Settings};

/// What may be accepted for a broker between two looks at its backlog, where the bound is small:
/// about a second of a fast network.
const PARKED_HEADROOM_BYTES: u64 = 64 << 20;

/// Journals that are no broker's: the main one, the dead letters, the commands.
const OWN_JOURNALS: u64 = 3;

/// A remembered key on disk, with its time.
const KEY_BYTES: u64 = 24;

/// See the module. The files of `log` brokers are not in it: nothing but their own settings bounds
/// them. Neither is what is small: places, secrets, the last good routing table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// `journal.max_bytes`.
    pub journal_bytes: u64,
    /// Of all brokers, each with twice its backlog and some room.
    pub parked_bytes: u64,
    /// `dead_letters.max_bytes`.
    pub dead_letters_bytes: u64,
    /// `dedupe.max_keys`, of segments that are gone, and as many of those that are there.
    pub keys_bytes: u64,
    /// `journal.quarantine_max_bytes`, of each journal: the main one, the dead letters, the commands, and
    /// what is parked for each broker.
    pub quarantine_bytes: u64,
    /// `journal.reserve_bytes`.
    pub reserve_bytes: u64,
    /// Which commands were begun and done.
    pub commands_bytes: u64,
}

impl Footprint {
    /// With brokers that may have so many bytes parked, each.
    pub fn of(settings: &Settings, backlogs: impl IntoIterator<Item = u64>) -> Footprint {
        let parked: Vec<u64> = backlogs.into_iter().map(parked_max_bytes).collect();
        let journals = OWN_JOURNALS + parked.len() as u64;
        Footprint {
            journal_bytes: settings.journal.max_bytes,
            parked_bytes: parked.into_iter().fold(0, u64::saturating_add),
            dead_letters_bytes: settings.dead_letters.max_bytes,
            keys_bytes: (settings.dedupe.max_keys as u64).saturating_mul(2 * KEY_BYTES),
            quarantine_bytes: settings.journal.quarantine_max_bytes.saturating_mul(journals),
            reserve_bytes: settings.journal.reserve_bytes,
            commands_bytes: commands::LEDGER_MAX_BYTES,
        }
    }

    /// All of it.
    pub fn total_bytes(&self) -> u64 {
        self.parts().into_iter().map(|(_, bytes)| bytes).fold(0, u64::saturating_add)
    }

    /// What it is made up of, by name.
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        let Footprint {
            journal_bytes,
            parked_bytes,
            dead_letters_bytes,
            keys_bytes,
            quarantine_bytes,
            reserve_bytes,
            commands_bytes,
        } = *self;
        [
            ("journal", journal_bytes),
            ("parked", parked_bytes),
            ("dead letters", dead_letters_bytes),
            ("keys", keys_bytes),
            ("quarantine", quarantine_bytes),
            ("reserve", reserve_bytes),
            ("commands", commands_bytes),
        ]
    }
}

/// What a broker's parked messages may take, where their bound is `backlog_bytes`: room beyond that,
/// at which events are refused, for those that are in already.
pub fn parked_max_bytes(backlog_bytes: u64) -> u64 {
    backlog_bytes.saturating_mul(2).saturating_add(PARKED_HEADROOM_BYTES)
}

/// What may still be written to the disk of a directory, if that can be told. May block.
pub fn left_bytes(dir: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_all_bounds() {
        const MIB: u64 = 1 << 20;
        let mut settings = Settings::default();
        let keys = 48_000_000;
        let by_default = (8 * 1024 + 1024 + 3 * 256 + 12 + 64) * MIB + keys;
        assert_eq!(Footprint::of(&settings, []).total_bytes(), by_default);
        let (broker, its_quarantine) = (2 * 4 * 1024 * MIB + 64 * MIB, 256 * MIB);
        let half = settings.backlog_bytes();
        let two = Footprint::of(&settings, [half, half]);
        assert_eq!(two.total_bytes(), by_default + 2 * (broker + its_quarantine));
        assert_eq!(two.parked_bytes, 2 * broker);
        settings.journal.max_bytes = MIB;
        settings.dead_letters.max_bytes = 2 * MIB;
        settings.journal.quarantine_max_bytes = 0;
        settings.journal.reserve_bytes = 0;
        settings.dedupe.max_keys = 1;
        let small = Footprint::of(&settings, [settings.backlog_bytes()]);
        assert_eq!(small.total_bytes(), (1 + 1 + 64 + 2 + 64) * MIB + 48);
        // A bound that nothing can reach is no overflow.
        assert_eq!(Footprint::of(&settings, [u64::MAX, 1]).total_bytes(), u64::MAX);
    }
}
