//! What stands where in the files of a journal, told from their bytes alone.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use waypost::{dispatch::kept::Kept, event::Record};

/// A file's header takes so much; its frames follow, each of which starts with the same number.
pub const FRAMES_START: usize = 4096;
const MARKER_BYTES: usize = 8;

/// A frame: a header of so much, keys, and the payload.
const HEADER_BYTES: usize = 48;
const KEY_BYTES: usize = 16;

/// Set in the number of keys of a frame that holds no record.
const NO_RECORD: u32 = 1 << 31;

/// A record in a segment file.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its event's id.
    pub id: String,
    /// Where in the file it stands.
    pub bytes: Range<usize>,
}

/// The files of a journal that end so, in order.
pub fn files(journal: &Path, extension: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(journal).expect("the journal");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|its| its == extension));
    paths.sort();
    paths
}

/// The records of an intact segment file, in the order in which they stand in it.
pub fn records(segment: &[u8]) -> Vec<Found> {
    find(segment, |payload| Record::decode(payload).expect("a record").event.id.to_string())
}

/// The messages in an intact segment file of those that were set aside.
pub fn messages(segment: &[u8]) -> Vec<Found> {
    find(segment, |payload| Kept::decode(payload).expect("a message").event.id.to_string())
}

fn find(segment: &[u8], id_of: impl Fn(Bytes) -> String) -> Vec<Found> {
    let marker = &segment[FRAMES_START..FRAMES_START + MARKER_BYTES];
    let (mut found, mut from) = (Vec::new(), FRAMES_START);
    // What stands between records is passed over, whatever it is.
    while let Some(next) = segment[from..].windows(MARKER_BYTES).position(|bytes| bytes == marker) {
        let start = from + next;
        let Some(header) = header(&segment[start..]) else { break };
        from = start + HEADER_BYTES;
        if let Some((keys, payload_len)) = header {
            let payload = from + keys * KEY_BYTES;
            from = payload + payload_len;
            let id = id_of(Bytes::copy_from_slice(&segment[payload..from]));
            found.push(Found { id, bytes: start..from });
        }
    }
    found
}

/// The number of keys and the length of the payload in a frame's header; none of a frame that holds
/// no record.
fn header(bytes: &[u8]) -> Option<Option<(usize, usize)>> {
    let (fields, _) = bytes.split_at_checked(HEADER_BYTES)?;
    let u32_at = |at: usize| u32::from_le_bytes(*fields[at..].first_chunk().expect("four bytes"));
    assert_eq!(crc32c::crc32c(&fields[..44]), u32_at(44), "a frame's header is intact");
    let keys = u32_at(12);
    Some((keys & NO_RECORD == 0).then(|| (keys as usize, u32_at(8) as usize)))
}

/// Nothing stands before, between or behind the records.
#[track_caller]
pub fn assert_records_alone(path: &Path, segment: &[u8]) {
    let mut at = FRAMES_START;
    while at < segment.len() {
        let Some(Some((keys, payload_len))) = header(&segment[at..]) else {
            panic!("{} holds no record at {at}", path.display());
        };
        at += HEADER_BYTES + keys * KEY_BYTES + payload_len;
    }
    assert_eq!(at, segment.len(), "{} ends with a record", path.display());
}
