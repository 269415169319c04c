//! A journal as a process that died has left it, and what lies where in its files.

use std::{ops::Range, path::Path, path::PathBuf, sync::Arc};

use bytes::Bytes;
use waypost::journal::{Entry, Item, Journal, Opened, Options};

use crate::common::{
    journal_disk::{DIR, files, key},
    sim_disk::{Image, SimDisk},
};

/// The name of the place there is.
pub const PLACE: &str = "a";

/// Two closed segments of some 256 KiB and one that was being written, with records of 100 B to 9 KB;
/// the place has settled the first.
pub struct Scene {
    pub image: Image,
    pub segments: Vec<PathBuf>,
    pub records: u64,
}

/// Where a record lies in its file.
pub struct Lies {
    pub number: u64,
    pub bytes: Range<usize>,
}

impl Scene {
    pub async fn set() -> Scene {
        let disk = SimDisk::new(5);
        let journal = open(&disk, options()).journal;
        let place = journal.place(PLACE).unwrap();
        let (mut records, mut first) = (0, None);
        while files(&disk, ".seg").len() < 3 || journal.room().bytes < 700 << 10 {
            let position = journal.append_durable(entry(records)).await.unwrap();
            assert_eq!(position.ordinal(), records);
            first.get_or_insert(position);
            records += 1;
        }
        first.map(|position| place.settle(position));
        place.save().unwrap();
        Scene { image: disk.image(), segments: files(&disk, ".seg"), records }
    }

    pub fn disk(&self) -> SimDisk {
        SimDisk::holding(self.image.clone(), 1)
    }

    /// The records of a segment.
    pub fn lies(&self, segment: &Path) -> Vec<Lies> {
        let bytes = self.disk().read(segment);
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (mut lies, mut at) = (Vec::new(), 4096);
        let marker = bytes[20..28].to_vec();
        while bytes.get(at..at + 8) == Some(&marker) {
            let (payload, keys) = (u32_at(at + 8) as usize, u32_at(at + 12));
            let number = u64::from_le_bytes(bytes[at + 20..at + 28].try_into().unwrap());
            let end = at + 48 + (keys & 0xffff) as usize * 16 + payload;
            if keys >> 31 == 0 {
                lies.push(Lies { number, bytes: at..end });
            }
            at = end;
        }
        lies
    }

    /// The records of a segment that are not what they were.
    pub fn harmed(&self, disk: &SimDisk, segment: &Path) -> Vec<u64> {
        let (before, after) = (self.disk().read(segment), disk.read(segment));
        let harmed = |lies: &Lies| before[lies.bytes.clone()] != after[lies.bytes.clone()];
        self.lies(segment).into_iter().filter(harmed).map(|lies| lies.number).collect()
    }
}

pub fn options() -> Options {
    Options { segment_bytes: 256 << 10, tail_bytes: 0, ..Options::default() }
}

pub fn open(disk: &SimDisk, options: Options) -> Opened {
    Journal::open(Arc::new(disk.clone()), Path::new(DIR), options).unwrap()
}

fn entry(number: u64) -> Entry {
    Entry { payload: payload(number), keys: vec![key(number)], time_ms: number }
}

/// Bytes of which none is likely to be zero.
pub fn payload(number: u64) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(number);
    let mut bytes = vec![0; rng.usize(100..9000)];
    rng.fill(&mut bytes);
    bytes.into()
}

/// The numbers of what was delivered, and of what was told as damaged; no payload is a wrong one.
pub fn sort(items: &[Item]) -> (Vec<u64>, Vec<u64>) {
    let (mut delivered, mut damaged) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Entry(position, bytes) => {
                assert_eq!(*bytes, payload(position.ordinal()), "a wrong payload at {position}");
                delivered.push(position.ordinal());
            }
            Item::Damaged { from, to, .. } => damaged.extend(from.ordinal()..to.ordinal()),
            Item::Void { .. } => {}
        }
    }
    (delivered, damaged)
}
