//! Recovery from whatever lies in the directory. Damage costs the records that it touches, each is
//! reported, none comes back with another payload, and the journal goes on from there.

#![no_main]

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};
use waypost::journal::{Error, Item, Position, Storage};

use common::{
    journal_disk::{DIR, append, files, read_from, sort, try_open, written},
    sim_disk::SimDisk,
};

/// What the project's own tests of the journal use.
#[allow(dead_code)]
#[path = "../../tests/common"]
mod common {
    pub mod journal_disk;
    pub mod sim_disk;
}

/// Where a segment's frames start, and the length of a frame's header.
const DATA_START: usize = 4096;
const FRAME_HEADER_BYTES: usize = 48;
const KEY_BYTES: usize = 16;

/// In the number of a frame's keys: it is a note, and no record.
const NOTE: u32 = 1 << 31;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A journal of so many records, damaged.
    Damaged { records: u8, damage: Vec<Damage<'a>> },
    /// Files that never were a journal.
    Foreign { files: Vec<Foreign<'a>> },
}

#[derive(Arbitrary, Debug)]
enum Damage<'a> {
    Overwrite { file: u8, at: u16, bytes: &'a [u8] },
    Truncate { file: u8, at: u16 },
    Extend { file: u8, bytes: &'a [u8] },
    Remove { file: u8 },
}

#[derive(Arbitrary, Debug)]
struct Foreign<'a> {
    kind: Kind,
    base: u64,
    bytes: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Segment,
    Keys,
    Cursor,
    Temporary,
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

fuzz_target!(|input: Input| RUNTIME.block_on(async {
    match input {
        Input::Damaged { records, damage } => damaged(u64::from(records % 24), &damage).await,
        Input::Foreign { files } => foreign(&files).await,
    }
}));

async fn damaged(records: u64, damage: &[Damage<'_>]) {
    let disk = written(0..records).await;
    let segments = files(&disk, ".seg");
    let mut segments: Vec<Segment> =
        segments.iter().map(|path| Segment::read(&disk, path)).collect();
    for damage in damage {
        suffer(&disk, &mut segments, damage);
    }
    let survivors: Vec<u64> = segments.iter().flat_map(Segment::survivors).collect();

    let mut appended = Vec::new();
    let mut seen: Option<Vec<u64>> = None;
    for _ in 0..2 {
        let opened = match try_open(&disk) {
            Ok(opened) => opened,
            // Bytes that say so, checksum and all.
            Err(Error::UnknownVersion { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let journal = opened.journal;
        let next = journal.fence().ordinal();
        append(&journal, next..next + 1).await;
        appended.push(next);
        let (delivered, _) = sort(&read_from(&journal, Position::FIRST).await);
        for position in survivors.iter().chain(&appended) {
            assert!(delivered.contains(position), "{position} is lost: {delivered:?}");
        }
        // What was read once is read again.
        let again = seen.iter().flatten().all(|position| delivered.contains(position));
        assert!(again, "{seen:?}, and then {delivered:?}");
        seen = Some(delivered);
        journal.close().await;
    }
}

/// A segment file before it was damaged, and the ranges of it that were.
struct Segment {
    path: PathBuf,
    /// Positions, each with the range of its frame.
    frames: Vec<(u64, Range<usize>)>,
    touched: Vec<Range<usize>>,
    removed: bool,
}

impl Segment {
    fn read(disk: &SimDisk, path: &Path) -> Segment {
        let bytes = disk.read(path);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let mut frames = Vec::new();
        let mut at = DATA_START;
        // Behind the last frame there may be a trailer, which is shorter than a frame.
        while at + FRAME_HEADER_BYTES <= bytes.len() {
            let keys = u32_at(at + 12);
            let body = u32_at(at + 8) as usize + (keys & !NOTE) as usize * KEY_BYTES;
            let end = at + FRAME_HEADER_BYTES + body;
            if keys & NOTE == 0 {
                frames.push((u64::from(u32_at(at + 20)), at..end));
            }
            at = end;
        }
        Segment { path: path.to_owned(), frames, touched: Vec::new(), removed: false }
    }

    /// The positions that nothing of the damage touches. What they are told by is known without the
    /// segment.
    fn survivors(&self) -> Vec<u64> {
        if self.removed {
            return Vec::new();
        }
        let untouched = self.frames.iter().filter(|(_, range)| !self.touches(range));
        untouched.map(|(position, _)| *position).collect()
    }

    fn touches(&self, range: &Range<usize>) -> bool {
        self.touched.iter().any(|touched| touched.start < range.end && range.start < touched.end)
    }
}

fn suffer(disk: &SimDisk, segments: &mut [Segment], damage: &Damage) {
    let (Damage::Overwrite { file, .. }
    | Damage::Truncate { file, .. }
    | Damage::Extend { file, .. }
    | Damage::Remove { file }) = *damage;
    let Some(which) = usize::from(file).checked_rem(segments.len()) else { return };
    let segment = &mut segments[which];
    if segment.removed {
        return;
    }
    match *damage {
        Damage::Overwrite { at, bytes, .. } => disk.damage(&segment.path, |old| {
            let at = usize::from(at).min(old.len());
            let end = (at + bytes.len()).min(old.len());
            old[at..end].copy_from_slice(&bytes[..end - at]);
            segment.touched.push(at..end);
        }),
        Damage::Truncate { at, .. } => disk.damage(&segment.path, |old| {
            old.truncate(at.into());
            segment.touched.push(at.into()..usize::MAX);
        }),
        Damage::Extend { bytes, .. } => {
            disk.damage(&segment.path, |old| old.extend_from_slice(bytes));
        }
        Damage::Remove { .. } => {
            disk.remove(&segment.path).expect("to remove a file");
            segment.removed = true;
        }
    }
}

async fn foreign(foreign: &[Foreign<'_>]) {
    let disk = SimDisk::new(1);
    let dir = Path::new(DIR);
    for dir in [dir.to_owned(), dir.join("cursors")] {
        disk.create_dir_all(&dir).expect("a directory");
    }
    for Foreign { kind, base, bytes } in foreign {
        let path = match kind {
            Kind::Segment => dir.join(format!("{base:020}.seg")),
            Kind::Keys => dir.join(format!("{base:020}.keys")),
            Kind::Cursor => dir.join(format!("cursors/{base}")),
            Kind::Temporary => dir.join(format!("{base}.tmp")),
        };
        if disk.create_new(&path).is_ok() {
            disk.damage(&path, |contents| contents.extend_from_slice(bytes));
        }
    }
    let mut expected: Option<Vec<Item>> = None;
    for _ in 0..2 {
        let journal = match try_open(&disk) {
            Ok(opened) => opened.journal,
            Err(Error::UnknownVersion { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        for name in journal.place_names() {
            let place = journal.place(&name).expect("a place");
            assert!(place.behind().records <= journal.fence().ordinal());
        }
        let mut items = read_from(&journal, Position::FIRST).await;
        items.retain(|item| matches!(item, Item::Entry(..)));
        // The second time, what was appended the first time is there, after all that was before.
        assert!(expected.is_none_or(|expected| expected == items), "{items:?}");
        let fence = journal.fence();
        append(&journal, fence.ordinal()..fence.ordinal() + 1).await;
        items.extend(read_from(&journal, fence).await);
        expected = Some(items);
        journal.close().await;
    }
}
