//! What the rest relies on, of any journal: on real files, of which a process that is killed leaves
//! all that it wrote, and on a disk that loses its power.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use waypost::journal::{Entry, Journal, Opened, Options, Position, RealDisk, Storage};

use crate::common::{
    journal_disk::{DIR, entry, read_from, small, sort},
    sim_disk::SimDisk,
};

mod places;
mod records;
mod room;

/// One function a promise.
mod promises {
    pub use super::{places::*, records::*, room::*};
}

/// Where a journal lies.
trait Ground: Send {
    fn open_with(&self, options: Options) -> Opened;
    /// The process that has it open is gone, at this very moment.
    fn crash(&mut self);
    /// Flips a byte of the journal's lowest segment.
    fn damage(&self, offset: usize);

    fn open(&self) -> Journal {
        self.open_with(small()).journal
    }
}

/// Files as they are; the newest directory counts.
struct Files(Vec<tempfile::TempDir>);

impl Files {
    fn new() -> Files {
        Files(vec![tempfile::tempdir().unwrap()])
    }

    fn dir(&self) -> PathBuf {
        self.0.last().unwrap().path().join("journal")
    }
}

impl Ground for Files {
    fn open_with(&self, options: Options) -> Opened {
        Journal::open(Arc::new(RealDisk), &self.dir(), options).unwrap()
    }

    /// What is on the disk now is all that there is: who still has it open goes on elsewhere.
    fn crash(&mut self) {
        let before = self.dir();
        self.0.push(tempfile::tempdir().unwrap());
        copy(&before, &self.dir()).unwrap();
    }

    fn damage(&self, offset: usize) {
        let path = lowest(&RealDisk, &self.dir());
        let mut bytes = fs::read(&path).unwrap();
        bytes[offset] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

/// A disk that keeps what was synced, and any part of the rest.
struct Power(SimDisk, fastrand::Rng);

impl Power {
    fn new() -> Power {
        Power(SimDisk::new(7), fastrand::Rng::with_seed(7))
    }
}

impl Ground for Power {
    fn open_with(&self, options: Options) -> Opened {
        Journal::open(Arc::new(self.0.clone()), Path::new(DIR), options).unwrap()
    }

    fn crash(&mut self) {
        let left = self.0.image().power_lost(&mut self.1);
        self.0 = SimDisk::holding(left, self.1.u64(..));
    }

    fn damage(&self, offset: usize) {
        self.0.damage(&lowest(&self.0, Path::new(DIR)), |bytes| bytes[offset] ^= 1);
    }
}

/// The same, in the format of the version before.
struct Before(Power);

impl Ground for Before {
    fn open_with(&self, options: Options) -> Opened {
        self.0.open_with(Options { write_version: 1, ..options })
    }

    fn crash(&mut self) {
        self.0.crash();
    }

    fn damage(&self, offset: usize) {
        self.0.damage(offset);
    }
}

fn lowest(storage: &dyn Storage, dir: &Path) -> PathBuf {
    let names = storage.list(dir).unwrap();
    dir.join(names.iter().filter(|name| name.ends_with(".seg")).min().unwrap())
}

macro_rules! promises {
    ($of:ident: $ground:expr; $($promise:ident),* $(,)?) => {
        mod $of {
            use super::promises;

            $(#[tokio::test]
            async fn $promise() {
                promises::$promise(&mut $ground).await;
            })*
        }
    };
}

macro_rules! all_promises {
    ($of:ident: $ground:expr) => {
        promises!(
            $of: $ground;
            an_append_answered_ok_is_there_after_every_crash,
            positions_are_given_once_and_greater_is_later,
            many_who_append_at_once_find_their_records_where_they_were_told,
            a_place_reads_in_order_what_it_has_not_settled,
            nothing_is_released_that_a_place_has_not_settled,
            a_new_place_begins_at_the_floor_and_not_at_what_is_kept_below_it,
            a_place_that_comes_back_within_the_kept_past_gets_nothing_twice,
            a_retired_place_pins_nothing_and_is_cleared_away,
            where_all_places_have_retired_nothing_is_settled,
            how_far_behind_and_how_full_come_as_answers,
            records_are_settled_in_any_order,
            of_more_than_256_ranges_the_highest_count_as_open,
            what_was_saved_or_carried_never_comes_back,
            there_is_one_place_of_a_name_at_a_time,
            keys_outlive_their_segments,
            an_append_that_finds_it_full_leaves_no_trace,
            one_record_that_fills_it_can_be_released_once_the_next_is_refused,
            bounds_can_change,
            what_waits_is_committed_before_close_and_refused_after,
            damage_is_told_once_over_all_starts,
            the_kept_past_goes_before_anything_is_refused,
            the_floor_never_goes_back,
        );
    };
}

all_promises!(on_files: super::Files::new());
all_promises!(on_a_disk_that_loses_power: super::Power::new());

// What was settled above a cursor is not among what the version before could write down.
promises!(
    written_for_the_way_back: super::Before(super::Power::new());
    an_append_answered_ok_is_there_after_every_crash,
    positions_are_given_once_and_greater_is_later,
    many_who_append_at_once_find_their_records_where_they_were_told,
    nothing_is_released_that_a_place_has_not_settled,
    a_new_place_begins_at_the_floor_and_not_at_what_is_kept_below_it,
    a_retired_place_pins_nothing_and_is_cleared_away,
    where_all_places_have_retired_nothing_is_settled,
    there_is_one_place_of_a_name_at_a_time,
    keys_outlive_their_segments,
    an_append_that_finds_it_full_leaves_no_trace,
    what_waits_is_committed_before_close_and_refused_after,
    damage_is_told_once_over_all_starts,
    the_floor_never_goes_back,
    what_the_version_before_cannot_write_down_is_not_durable,
);

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Records that are young.
async fn append_now(journal: &Journal, numbers: Range<u64>) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in numbers {
        let entry = Entry { time_ms: now_ms(), ..entry(number) };
        positions.push(journal.append_durable(entry).await.unwrap());
    }
    positions
}

fn keeping() -> Options {
    Options { keep: Duration::from_secs(3600), ..small() }
}

async fn all(journal: &Journal) -> Vec<u64> {
    let (delivered, damaged) = sort(&read_from(journal, Position::FIRST).await);
    assert_eq!(damaged, Vec::<u64>::new());
    delivered
}
