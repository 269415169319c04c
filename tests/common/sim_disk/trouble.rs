//! What a disk does wrong that has its power: it loses what was written, changes it, or refuses to
//! read it.

use std::{io, ops::Range, path::Path, sync::Arc};

use super::{Change, SimDisk};

/// How often a range refuses to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    Once,
    /// So many reads that touch it.
    Reads(usize),
    UntilHealed,
}

/// What is wrong with a disk now, and what will be.
#[derive(Default)]
pub(super) struct Trouble {
    refusals: Vec<Refusal>,
    /// Files and the ranges of them that keep what they hold, whatever is written there.
    stuck: Vec<(usize, Range<u64>)>,
    /// What happens once so many operations are done.
    later: Vec<(usize, Happens)>,
}

type Happens = Box<dyn FnOnce(&SimDisk) + Send>;

struct Refusal {
    inode: usize,
    range: Range<u64>,
    /// `None` is without end.
    left: Option<usize>,
}

/// In front of, and around, what a disk does with a file.
impl Trouble {
    /// Whether a read of a file fails.
    pub fn read(&mut self, inode: usize, bytes: Range<u64>) -> io::Result<()> {
        let touched = self.refusals.iter_mut().find(|refusal| {
            refusal.inode == inode && touches(&refusal.range, &bytes) && refusal.left != Some(0)
        });
        let Some(refusal) = touched else { return Ok(()) };
        refusal.left = refusal.left.map(|left| left - 1);
        Err(io::Error::from_raw_os_error(EIO))
    }

    /// Puts back into a write what a file holds and keeps.
    pub fn write(&self, inode: usize, held: &[u8], offset: u64, data: &mut [u8]) {
        let of_file = self.stuck.iter().filter(|(its, _)| *its == inode);
        for (byte, at) in data.iter_mut().zip(offset..) {
            if of_file.clone().any(|(_, range)| range.contains(&at)) {
                *byte = held.get(at as usize).copied().unwrap_or(0);
            }
        }
    }
}

const EIO: i32 = 5;

fn touches(range: &Range<u64>, other: &Range<u64>) -> bool {
    range.start < other.end && other.start < range.end
}

impl SimDisk {
    /// A range of a file reads as zeros from now on, durably.
    pub fn lose(&self, path: &Path, range: Range<u64>) {
        self.change(path, range, |byte| *byte = 0);
    }

    /// What is written to a range of a file from now on never gets there: it reads as its old
    /// contents, and as zeros where the file had none.
    pub fn lose_writes(&self, path: &Path, range: Range<u64>) {
        let mut state = self.state();
        let inode = state.image.names[path];
        state.trouble.stuck.push((inode, range));
    }

    /// Every bit of a range of a file is another from now on, durably.
    pub fn flip(&self, path: &Path, range: Range<u64>) {
        self.change(path, range, |byte| *byte = !*byte);
    }

    /// Reads that touch this range of a file fail with `EIO`.
    pub fn refuse_reads(&self, path: &Path, range: Range<u64>, times: Times) {
        let left = match times {
            Times::Once => Some(1),
            Times::Reads(reads) => Some(reads),
            Times::UntilHealed => None,
        };
        let mut state = self.state();
        let inode = state.image.names[path];
        state.trouble.refusals.push(Refusal { inode, range, left });
    }

    /// Reads and writes work again. What is lost or flipped stays so.
    pub fn heal(&self) {
        let mut state = self.state();
        state.trouble.refusals.clear();
        state.trouble.stuck.clear();
    }

    /// Something happens to the disk before the operation that comes after `operations` more.
    pub fn after(&self, operations: usize, happens: impl FnOnce(&SimDisk) + Send + 'static) {
        let mut state = self.state();
        let at = state.operations + operations;
        state.trouble.later.push((at, Box::new(happens)));
    }

    /// What was put off until now happens.
    pub(super) fn let_happen(&self) {
        let due: Vec<(usize, Happens)> = {
            let mut state = self.state();
            let now = state.operations;
            state.trouble.later.extract_if(.., |(at, _)| *at <= now).collect()
        };
        due.into_iter().for_each(|(_, happens)| happens(self));
    }

    /// Changes what there is of a range, as a process sees it, on the platter, and on the way there.
    fn change(&self, path: &Path, range: Range<u64>, change: impl Fn(&mut u8)) {
        let mut state = self.state();
        let inode = state.image.names[path];
        let contents = Arc::make_mut(&mut state.image.files[inode]);
        let change_of = |bytes: &mut [u8], offset: u64| {
            let touched = bytes.iter_mut().zip(offset..).filter(|(_, at)| range.contains(at));
            touched.for_each(|(byte, _)| change(byte));
        };
        change_of(&mut contents.seen, 0);
        change_of(&mut contents.durable, 0);
        for pending in &mut contents.pending {
            if let Change::Write(offset, data) = pending {
                change_of(data, *offset);
            }
        }
    }
}
