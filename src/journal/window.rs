//! The part of a file that is in memory while it is walked, and what of it the disk cannot read.

use std::ops::Range;

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
    /// What of the file the disk could not read so far; [`UNREADABLE`] stands for it.
    holes: Vec<Range<u64>>,
}

impl Window {
    /// `len` bytes at `offset`, fewer only where `end` or the file's end cuts them.
    pub fn get(&mut self, file: &dyn File, offset: u64, len: u64, end: u64) -> &[u8] {
        let len = len.min(end.saturating_sub(offset));
        self.load(file, offset, len, end);
        self.at(offset, len)
    }

    /// Sees to it that `len` bytes at `offset` are in memory, as far as there are so many.
    pub fn load(&mut self, file: &dyn File, offset: u64, len: u64, end: u64) {
        let len = len.min(end.saturating_sub(offset)) as usize;
        if self.holds(offset, len) {
            return;
        }
        let want = CHUNK_BYTES.max(len as u64).min(end - offset) as usize;
        self.start = offset;
        self.bytes.resize(want, 0);
        let read = storage::read_full(file, offset, &mut self.bytes);
        let read = read.unwrap_or_else(|_| self.read_blocks(file));
        self.bytes.truncate(read);
    }

    /// What is in memory of `len` bytes at `offset`.
    pub fn at(&self, offset: u64, len: u64) -> &[u8] {
        let at = (offset - self.start) as usize;
        &self.bytes[at..(at + len as usize).min(self.bytes.len())]
    }

    /// Where `what` is next found from `at` on, before `end`.
    pub fn find(&mut self, file: &dyn File, mut at: u64, end: u64, what: &[u8]) -> Option<u64> {
        loop {
            let bytes = self.get(file, at, CHUNK_BYTES, end);
            if bytes.len() < what.len() {
                return None;
            }
            if let Some(found) = bytes.windows(what.len()).position(|bytes| bytes == what) {
                return Some(at + found as u64);
            }
            // The next chunk overlaps, for what lies across the border.
            at += (bytes.len() - what.len() + 1) as u64;
        }
    }

    /// Reads what can be read of the window, after a read of all of it has failed.
    fn read_blocks(&mut self, file: &dyn File) -> usize {
        let mut done = 0;
        while done < self.bytes.len() {
            let offset = self.start + done as u64;
            let some = (BLOCK_BYTES - offset % BLOCK_BYTES) as usize;
            let block_end = (done + some).min(self.bytes.len());
            let block = &mut self.bytes[done..block_end];
            match storage::read_full(file, offset, block) {
                Ok(read) if read < block.len() => return done + read,
                Ok(_) => {}
                Err(_) => {
                    block.fill(UNREADABLE);
                    let block_end = offset + block.len() as u64;
                    match self.holes.last_mut() {
                        Some(last) if last.end == offset => last.end = block_end,
                        _ => self.holes.push(offset..block_end),
                    }
                }
            }
            done = block_end;
        }
        done
    }

    /// Whether the disk could read all of this range, as far as it was asked to.
    pub fn is_readable(&self, from: u64, to: u64) -> bool {
        self.holes.iter().all(|hole| hole.end <= from || to <= hole.start)
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        let end = self.start + self.bytes.len() as u64;
        (self.start..=end).contains(&offset) && offset + len as u64 <= end
    }
}
