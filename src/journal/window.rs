//! The part of a file that is in memory while it is walked, and what of it the disk cannot read.

use std::{io, ops::Range};

use super::storage::{self, File};

/// Bytes read at a time: large enough for sequential speed, small enough to hold for each reader.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// What a disk fails to read at once; most have physical sectors of this size.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// Stands in memory for a byte that cannot be read. Not 0: zeros are what a tail that was never
/// written is told by.
const UNREADABLE: u8 = 0xff;

/// The part of the file that is in memory.
#[derive(Default)]
pub(super) struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// Of the file, what of it the disk cannot read; [`UNREADABLE`] stands for it.
    holes: Vec<Range<u64>>,
}

impl Window {
    /// `len` bytes at `offset`, fewer only where `end` or the file's end cuts them.
    pub fn get(&mut self, file: &dyn File, offset: u64, len: u64, end: u64) -> io::Result<&[u8]> {
        let len = len.min(end.saturating_sub(offset));
        self.load(file, offset, len, end)?;
        Ok(self.at(offset, len))
    }

    /// Sees to it that `len` bytes at `offset` are in memory, as far as there are so many.
    pub fn load(&mut self, file: &dyn File, offset: u64, len: u64, end: u64) -> io::Result<()> {
        let len = len.min(end.saturating_sub(offset)) as usize;
        if self.holds(offset, len) {
            return Ok(());
        }
        let want = CHUNK_BYTES.max(len as u64).min(end - offset) as usize;
        self.start = offset;
        self.holes.clear();
        self.bytes.resize(want, 0);
        let read = match storage::read_full(file, offset, &mut self.bytes) {
            Err(error) => self.read_blocks(file, error),
            read => read,
        };
        // After a failed read nothing here is the file's.
        self.bytes.truncate(*read.as_ref().unwrap_or(&0));
        read.map(drop)
    }

    /// What is in memory of `len` bytes at `offset`.
    pub fn at(&self, offset: u64, len: u64) -> &[u8] {
        let at = (offset - self.start) as usize;
        &self.bytes[at..(at + len as usize).min(self.bytes.len())]
    }

    /// Reads what can be read of the window, after a read of all of it has failed.
    fn read_blocks(&mut self, file: &dyn File, error: io::Error) -> io::Result<usize> {
        let (mut done, mut any) = (0, false);
        while done < self.bytes.len() {
            let offset = self.start + done as u64;
            let some = (BLOCK_BYTES - offset % BLOCK_BYTES) as usize;
            let block_end = (done + some).min(self.bytes.len());
            let block = &mut self.bytes[done..block_end];
            match storage::read_full(file, offset, block) {
                Ok(read) => {
                    any |= read > 0;
                    if read < block.len() {
                        done += read;
                        break;
                    }
                }
                Err(_) => {
                    block.fill(UNREADABLE);
                    self.holes.push(offset..offset + block.len() as u64);
                }
            }
            done = block_end;
        }
        // The disk itself may be gone for a while: then nothing is known to be damaged.
        if any || is_readable_elsewhere(file, &self.holes) { Ok(done) } else { Err(error) }
    }

    /// Whether the disk could read what is in memory of this range.
    pub fn is_readable(&self, from: u64, to: u64) -> bool {
        self.holes.iter().all(|hole| hole.end <= from || to <= hole.start)
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        let end = self.start + self.bytes.len() as u64;
        (self.start..=end).contains(&offset) && offset + len as u64 <= end
    }
}

/// Whether any block at the start of the file can be read, of those that are not known to be bad.
fn is_readable_elsewhere(file: &dyn File, holes: &[Range<u64>]) -> bool {
    [0, BLOCK_BYTES].into_iter().any(|offset| {
        let known = holes.iter().any(|hole| hole.contains(&offset));
        !known && storage::read_full(file, offset, &mut [0]).is_ok_and(|read| read > 0)
    })
}
