//! The file of a place: two slots, written in turn and in place, so that a full disk still takes
//! them and a torn write leaves the last one whole.
//!
//! ```text
//!  0  8 bytes  "WPCURSOR"
//!  8  u32      version (2)
//! 12  u64      generation  the intact slot of the higher one counts
//! 20  u64      cursor      all below it is settled
//! 28  u64      end         all of the journal below it was durable
//! 36  u32      count       of the ranges
//! 40  u32      crc32c of the 40 bytes before and the ranges
//! 44           ranges that are settled above the cursor: u64 from, u64 to
//! ```
//!
//! Each has [`SLOT_BYTES`], and they lie [`DISTANCE`] apart, with a hole between. Version 1 had the
//! cursor alone, in 32 bytes, 4096 apart: generation, cursor, crc32c of the 28 bytes before.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Error,
    frame::{u32_at, u64_at},
    segment::{PLAIN, VERSION},
    settled::Settled,
    storage::{self, File, Storage},
};

const MAGIC: &[u8; 8] = b"WPCURSOR";
const HEAD_BYTES: usize = 44;
const RANGE_BYTES: usize = 16;

/// Ranges that a place remembers above its cursor when it is written down.
pub(super) const MAX_RANGES: usize = 256;

/// Length of a slot.
const SLOT_BYTES: usize = 8192;

/// From one slot to the other: whatever a device damages at once never reaches both.
const DISTANCE: u64 = 128 << 10;

/// The same in version 1.
const PLAIN_BYTES: usize = 32;
const PLAIN_DISTANCE: u64 = 4096;

/// What a slot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub settled: Settled,
    /// All of the journal below this was durable when it was written.
    pub end: u64,
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Saved {
    Content(Content),
    /// No slot is intact.
    Damaged,
    /// None that the disk can read is intact. What it cannot read may be.
    Unread(io::Error),
}

/// An open file of a place.
pub(super) struct SlotFile {
    file: Arc<dyn File>,
    path: PathBuf,
    version: u32,
    generation: u64,
}

impl SlotFile {
    /// Opens `dir/name` to be written in this version, so that what it holds is durable: a slot that
    /// was read may be in the page cache alone, where a failed sync has left it, and the next save
    /// would overwrite the one that is on disk. A file of this version is written in place, which
    /// takes no room; any other is made anew.
    pub fn open(
        storage: &dyn Storage,
        dir: &Path,
        name: &str,
        version: u32,
        content: &Content,
    ) -> Result<SlotFile, Error> {
        let path = dir.join(name);
        let slots = match storage.open_read(&path) {
            Ok(file) => read_slots(&*file).0,
            Err(_) => Vec::new(),
        };
        let newest = slots.iter().max_by_key(|slot| slot.generation);
        if let Some(newest) = newest.filter(|slot| slot.version == version) {
            let file = storage.open_or_create(&path).map_err(Error::io("open", &path))?;
            let generation = newest.generation;
            // The newest again, as it was read; then what counts now.
            let mut slot = SlotFile { file, path, version, generation: generation - 1 };
            slot.save(&newest.content)?;
            slot.save(content)?;
            return Ok(slot);
        }
        let generation = 2;
        let file = storage::publish(storage, dir, name, |file| {
            for generation in [generation - 1, generation] {
                write(file, version, generation, content)?;
            }
            Ok(())
        })?;
        Ok(SlotFile { file, path, version, generation })
    }

    /// Writes the other slot. Durable when it returns. After an error the old content or the new one
    /// counts, and another save may be tried.
    pub fn save(&mut self, content: &Content) -> Result<(), Error> {
        let generation = self.generation + 1;
        write(&*self.file, self.version, generation, content)
            .map_err(Error::io("write", &self.path))?;
        self.file.sync_data().map_err(Error::sync(&self.path))?;
        self.generation = generation;
        Ok(())
    }
}

/// What a file holds; `None` if there is none. Where the disk cannot read one slot, the other counts.
pub(super) fn read(storage: &dyn Storage, path: &Path) -> Result<Option<Saved>, Error> {
    let file = match storage.open_read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("open", path))?,
    };
    let (slots, unread) = read_slots(&*file);
    if let Some(newest) = slots.into_iter().max_by_key(|slot| slot.generation) {
        return Ok(Some(Saved::Content(newest.content)));
    }
    let mut head = [0; 12];
    let has_head = storage::read_full(&*file, 0, &mut head).is_ok_and(|read| read == head.len());
    let version = u32_at(&head, 8);
    if has_head && &head[..8] == MAGIC && !(PLAIN..=VERSION).contains(&version) {
        return Err(Error::UnknownVersion { path: path.to_owned(), version });
    }
    Ok(Some(unread.map_or(Saved::Damaged, Saved::Unread)))
}

struct Slot {
    version: u32,
    generation: u64,
    content: Content,
}

/// The intact slots, of either version, and why one cannot be read.
fn read_slots(file: &dyn File) -> (Vec<Slot>, Option<io::Error>) {
    let (mut slots, mut unread) = (Vec::new(), None);
    for offset in [0, PLAIN_DISTANCE, DISTANCE] {
        let mut bytes = vec![0; SLOT_BYTES];
        match storage::read_full(file, offset, &mut bytes) {
            Ok(read) => slots.extend(decode(&bytes[..read])),
            Err(error) => {
                tracing::error!(offset, %error, "a slot of a place cannot be read");
                unread = Some(error);
            }
        }
    }
    (slots, unread)
}

fn write(file: &dyn File, version: u32, generation: u64, content: &Content) -> io::Result<()> {
    let second = generation % 2;
    let (offset, bytes) = match version {
        PLAIN => (second * PLAIN_DISTANCE, encode_plain(generation, content).to_vec()),
        _ => (second * DISTANCE, encode(generation, content)),
    };
    storage::write_all(file, offset, &mut [IoSlice::new(&bytes)])
}

fn encode(generation: u64, content: &Content) -> Vec<u8> {
    let mut out = vec![0; SLOT_BYTES];
    let Content { settled, end } = content;
    let ranges = settled.above().take(MAX_RANGES);
    let count = ranges.len();
    for (at, (from, to)) in (HEAD_BYTES..).step_by(RANGE_BYTES).zip(ranges) {
        out[at..at + 8].copy_from_slice(&from.to_le_bytes());
        out[at + 8..at + 16].copy_from_slice(&to.to_le_bytes());
    }
    put_head(&mut out, VERSION, generation, settled.cursor());
    out[28..36].copy_from_slice(&end.to_le_bytes());
    out[36..40].copy_from_slice(&(count as u32).to_le_bytes());
    let crc = crc_of(&out, count);
    out[40..44].copy_from_slice(&crc.to_le_bytes());
    out
}

fn encode_plain(generation: u64, content: &Content) -> [u8; PLAIN_BYTES] {
    let mut out = [0; PLAIN_BYTES];
    put_head(&mut out, PLAIN, generation, content.settled.cursor());
    let crc = crc32c::crc32c(&out[..28]);
    out[28..].copy_from_slice(&crc.to_le_bytes());
    out
}

fn put_head(out: &mut [u8], version: u32, generation: u64, cursor: u64) {
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&version.to_le_bytes());
    out[12..20].copy_from_slice(&generation.to_le_bytes());
    out[20..28].copy_from_slice(&cursor.to_le_bytes());
}

fn crc_of(slot: &[u8], count: usize) -> u32 {
    let head = crc32c::crc32c(&slot[..40]);
    crc32c::crc32c_append(head, &slot[HEAD_BYTES..HEAD_BYTES + count * RANGE_BYTES])
}

fn decode(bytes: &[u8]) -> Option<Slot> {
    if bytes.len() < PLAIN_BYTES || &bytes[..8] != MAGIC {
        return None;
    }
    let (version, generation) = (u32_at(bytes, 8), u64_at(bytes, 12));
    let mut settled = Settled::below(u64_at(bytes, 20));
    let end = match version {
        PLAIN if crc32c::crc32c(&bytes[..28]) == u32_at(bytes, 28) => settled.cursor(),
        VERSION if bytes.len() >= HEAD_BYTES => {
            let count = u32_at(bytes, 36) as usize;
            let len = HEAD_BYTES + count.min(MAX_RANGES) * RANGE_BYTES;
            if count > MAX_RANGES || bytes.len() < len || crc_of(bytes, count) != u32_at(bytes, 40)
            {
                return None;
            }
            for at in (HEAD_BYTES..len).step_by(RANGE_BYTES) {
                settled.settle(u64_at(bytes, at), u64_at(bytes, at + 8));
            }
            u64_at(bytes, 28)
        }
        _ => return None,
    };
    Some(Slot { version, generation, content: Content { settled, end } })
}

#[cfg(test)]
mod tests;
