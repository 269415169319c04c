//! A named position that only goes forward and survives everything.
//!
//! A cursor file is two blocks of 4096 bytes, each starting with one slot:
//!
//! ```text
//!  0  8 bytes  "WPCURSOR"
//!  8  u32      version (1)
//! 12  u64      generation
//! 20  u64      position
//! 28  u32      crc32c of the 28 bytes before
//! ```
//!
//! The intact slot of the higher generation counts. A save writes the other one, so a torn write
//! leaves the last saved position whole. Opening a cursor writes the file anew: the slot that was
//! read may be only in the page cache, where a failed sync has left it, and the next save would
//! overwrite the one that is on disk.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{
    Error, Position,
    frame::{u32_at, u64_at},
    storage::{self, File, Storage},
};

const MAGIC: &[u8; 8] = b"WPCURSOR";
const VERSION: u32 = 1;
const SLOT_BYTES: usize = 32;
/// Slots are a block apart: one torn block write never reaches both.
const BLOCK_BYTES: u64 = 4096;
/// An encoded name leaves room for a suffix within the 255 bytes of a file name.
const MAX_NAME_BYTES: usize = 200;
/// A dot is encoded too: no cursor can be named like a directory or a temporary file.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A reader's saved position: everything below it is settled. Open each name only once at a time.
pub struct Cursor {
    file: Arc<dyn File>,
    path: PathBuf,
    position: Position,
    generation: u64,
}

impl Cursor {
    /// The saved position.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Saves a position. Blocks; durable when it returns. After an error the saved position is the
    /// old or the new one, and another save may be tried.
    pub fn save(&mut self, position: Position) -> Result<(), Error> {
        if position == self.position {
            return Ok(());
        }
        if position < self.position {
            let back = io::Error::new(io::ErrorKind::InvalidInput, "a cursor never goes back");
            return Err(Error::io("write", &self.path)(back));
        }
        let slot = Slot { generation: self.generation + 1, position: position.0 };
        slot.write(&*self.file).map_err(Error::io("write", &self.path))?;
        self.file.sync_data().map_err(Error::sync(&self.path))?;
        (self.generation, self.position) = (slot.generation, position);
        Ok(())
    }
}

/// What a cursor file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Position(u64),
    /// Neither slot is intact.
    Damaged,
}

/// The directory `cursors/` of a journal.
pub(super) fn dir_of(journal: &Path) -> PathBuf {
    journal.join("cursors")
}

/// All cursors by name.
pub(super) fn names(storage: &dyn Storage, dir: &Path) -> Result<Vec<String>, Error> {
    let files = storage.list(dir).map_err(Error::io("list", dir))?;
    let files = files.iter().filter(|file| !file.ends_with(storage::TEMPORARY));
    let mut names: Vec<String> = files
        .filter_map(|file| percent_decode_str(file).decode_utf8().ok())
        .map(|name| name.into_owned())
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The file name of a cursor.
pub(super) fn file_name(name: &str) -> Result<String, Error> {
    let encoded = utf8_percent_encode(name, ENCODED).to_string();
    if encoded.is_empty() || encoded.len() > MAX_NAME_BYTES {
        return Err(Error::CursorName(name.to_owned()));
    }
    Ok(encoded)
}

/// What is saved under a name; `None` if nothing ever was. A slot that the disk cannot read is as
/// good as a damaged one: the other counts, and without either the cursor starts again.
pub(super) fn read(storage: &dyn Storage, dir: &Path, name: &str) -> Result<Option<Saved>, Error> {
    let path = dir.join(file_name(name)?);
    let file = match storage.open_read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(Error::io("open", &path))?,
    };
    let mut slots = [Decoded::Damaged; 2];
    for (offset, slot) in (0..).step_by(BLOCK_BYTES as usize).zip(&mut slots) {
        let mut bytes = [0; SLOT_BYTES];
        match storage::read_full(&*file, offset, &mut bytes) {
            Ok(_) => *slot = Slot::decode(&bytes),
            Err(error) => {
                let file = path.display();
                tracing::error!(%file, offset, %error, "a block of a cursor cannot be read");
            }
        }
    }
    let newest = slots.iter().filter_map(|slot| match slot {
        Decoded::Slot(slot) => Some(slot),
        _ => None,
    });
    match (newest.max_by_key(|slot| slot.generation), slots) {
        (Some(slot), _) => Ok(Some(Saved::Position(slot.position))),
        (None, [Decoded::Version(version), Decoded::Version(other)]) if version == other => {
            Err(Error::UnknownVersion { path, version })
        }
        (None, _) => Ok(Some(Saved::Damaged)),
    }
}

/// Writes a cursor anew, durably, and opens it.
pub(super) fn create(
    storage: &dyn Storage,
    dir: &Path,
    name: &str,
    position: Position,
) -> Result<Cursor, Error> {
    let file_name = file_name(name)?;
    let generation = 2;
    let file = storage::publish(storage, dir, &file_name, |file| {
        for generation in [generation - 1, generation] {
            Slot { generation, position: position.0 }.write(file)?;
        }
        Ok(())
    })?;
    Ok(Cursor { file, path: dir.join(file_name), position, generation })
}

#[derive(Clone, Copy)]
struct Slot {
    generation: u64,
    position: u64,
}

#[derive(Clone, Copy)]
enum Decoded {
    Slot(Slot),
    Version(u32),
    Damaged,
}

impl Slot {
    fn write(self, file: &dyn File) -> io::Result<()> {
        let mut out = [0; SLOT_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..20].copy_from_slice(&self.generation.to_le_bytes());
        out[20..28].copy_from_slice(&self.position.to_le_bytes());
        let crc = crc32c::crc32c(&out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        let offset = self.generation % 2 * BLOCK_BYTES;
        storage::write_all(file, offset, &mut [IoSlice::new(&out)])
    }

    fn decode(bytes: &[u8; SLOT_BYTES]) -> Decoded {
        let version = u32_at(bytes, 8);
        if &bytes[..8] != MAGIC {
            Decoded::Damaged
        } else if version != VERSION {
            Decoded::Version(version)
        } else if crc32c::crc32c(&bytes[..28]) != u32_at(bytes, 28) {
            Decoded::Damaged
        } else {
            Decoded::Slot(Slot { generation: u64_at(bytes, 12), position: u64_at(bytes, 20) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::storage::RealDisk;

    fn saved(dir: &Path) -> Option<Saved> {
        read(&RealDisk, dir, "a").unwrap()
    }

    fn flip(path: &Path, at: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn the_last_saved_position_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(saved(dir.path()), None);
        let mut cursor = create(&RealDisk, dir.path(), "a", Position(5)).unwrap();
        assert_eq!(saved(dir.path()), Some(Saved::Position(5)));
        for position in [6, 9, 100] {
            cursor.save(Position(position)).unwrap();
            assert_eq!(saved(dir.path()), Some(Saved::Position(position)));
        }
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursor = create(&RealDisk, dir.path(), "a", Position(5)).unwrap();
        assert!(cursor.save(Position(4)).is_err());
        cursor.save(Position(5)).unwrap();
        assert_eq!(cursor.position(), Position(5));
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        for at in 0..SLOT_BYTES {
            let dir = tempfile::tempdir().unwrap();
            let mut cursor = create(&RealDisk, dir.path(), "a", Position(5)).unwrap();
            cursor.save(Position(6)).unwrap();
            flip(&dir.path().join("a"), BLOCK_BYTES as usize + at);
            assert_eq!(saved(dir.path()), Some(Saved::Position(5)), "byte {at}");
            flip(&dir.path().join("a"), at);
            let both = read(&RealDisk, dir.path(), "a");
            assert!(matches!(both, Ok(Some(Saved::Damaged)) | Err(Error::UnknownVersion { .. })));
        }
    }

    #[test]
    fn any_name_makes_a_file_name_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["plain", "../up", ".", "a.tmp", "name with é/%"] {
            create(&RealDisk, dir.path(), name, Position(0)).unwrap();
        }
        let names = names(&RealDisk, dir.path()).unwrap();
        assert_eq!(names, [".", "../up", "a.tmp", "name with é/%", "plain"]);
        assert!(matches!(file_name(""), Err(Error::CursorName(_))));
        assert!(matches!(file_name(&"x".repeat(201)), Err(Error::CursorName(_))));
    }
}
