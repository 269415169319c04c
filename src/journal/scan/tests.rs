use std::io::{self, IoSlice};

use super::{super::frame::body_crc, *};

const MARKER: u64 = 0x0123_4567_89ab_cdef;

/// Bytes that are a file.
struct Bytes(Vec<u8>, Option<std::ops::Range<u64>>);

impl File for Bytes {
    fn write_at(&self, _: u64, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let end = offset + buf.len() as u64;
        if self.1.as_ref().is_some_and(|bad| bad.start < end && offset < bad.end) {
            return Err(io::Error::other("input/output error"));
        }
        let bytes = self.0.get(offset as usize..).unwrap_or_default();
        // One byte less than asked for: short reads happen.
        let len = bytes.len().min(buf.len().saturating_sub(1).max(1));
        buf[..len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn frame(marker: u64, position: u64, payload: &[u8]) -> Vec<u8> {
    let keys = [[position as u8; 16]];
    let header = Header {
        position,
        time_ms: 0,
        proven: 0,
        payload_len: payload.len() as u32,
        key_count: 1,
        body_crc: body_crc(&keys, payload),
        is_note: false,
    };
    [&header.encode(marker)[..], keys.as_flattened(), payload].concat()
}

fn frames(positions: std::ops::Range<u64>) -> Vec<u8> {
    positions.flat_map(|position| frame(MARKER, position, b"payload")).collect()
}

#[derive(Debug, PartialEq)]
enum Seen {
    Frame(u64),
    Note(u64),
    Damage(u64, u64),
    ReadError(u64, u64),
    End(Ending),
}

fn scan(bytes: Vec<u8>, limit: Option<u64>) -> Vec<Seen> {
    scan_with(bytes, None, limit)
}

fn scan_with(
    bytes: Vec<u8>,
    unreadable: Option<std::ops::Range<u64>>,
    limit: Option<u64>,
) -> Vec<Seen> {
    let end = bytes.len() as u64;
    let bounds = Bounds { from: 5, limit, offset: 0, end, verify_from: 0 };
    let mut scanner = Scanner::new(Arc::new(Bytes(bytes, unreadable)), MARKER, bounds);
    let mut seen = Vec::new();
    loop {
        seen.push(match scanner.step() {
            Step::Note(frame) => Seen::Note(frame.header.position),
            Step::Record(frame) => {
                assert_eq!(frame.keys(), [[frame.header.position as u8; 16]]);
                Seen::Frame(frame.header.position)
            }
            Step::Region(Region { from, to, cause, .. }) => match cause {
                Cause::Damage => Seen::Damage(from, to),
                Cause::ReadError => Seen::ReadError(from, to),
            },
            Step::End(ending) => {
                seen.push(Seen::End(ending));
                return seen;
            }
        });
    }
}

fn len() -> usize {
    frames(0..1).len()
}

const COMPLETE: Seen = Seen::End(Ending::Complete);

#[test]
fn frames_come_in_order_up_to_the_limit() {
    let all = [Seen::Frame(5), Seen::Frame(6), Seen::Frame(7), COMPLETE];
    assert_eq!(scan(frames(5..8), None), all);
    assert_eq!(scan(frames(5..8), Some(8)), all);
    assert_eq!(scan(frames(5..8), Some(6)), [Seen::Frame(5), COMPLETE]);
    assert_eq!(scan(Vec::new(), None), [COMPLETE]);
}

#[test]
fn what_is_owed_and_not_there_is_damage() {
    let short = [Seen::Frame(5), Seen::Damage(6, 9), COMPLETE];
    assert_eq!(scan(frames(5..6), Some(9)), short);
    let mut torn = frames(5..7);
    torn.pop();
    assert_eq!(scan(torn, Some(9)), short);
    let garbage = [frames(5..6), vec![1; 200]].concat();
    assert_eq!(scan(garbage, Some(9)), short);
    let gap = [frames(5..6), frames(8..9)].concat();
    let seen = [Seen::Frame(5), Seen::Damage(6, 8), Seen::Frame(8), COMPLETE];
    assert_eq!(scan(gap, None), seen);
}

#[test]
fn a_superseded_frame_is_not_read_in_place_of_a_missing_one() {
    let bytes = [frames(5..6), frames(9..11)].concat();
    assert_eq!(scan(bytes, Some(7)), [Seen::Frame(5), Seen::Damage(6, 7), COMPLETE]);
}

#[test]
fn an_ending_tells_a_torn_record_from_lost_ones() {
    let (start, record) = (frames(5..6), frames(6..7));
    for len in 1..record.len() {
        let torn = [&start[..], &record[..len]].concat();
        let ending = Ending::Torn { offset: start.len() as u64, len: len as u64 };
        assert_eq!(scan(torn, None), [Seen::Frame(5), Seen::End(ending)], "{len}");
    }
    let zeros = [&start[..], &[0; 100]].concat();
    let ending = Ending::Torn { offset: start.len() as u64, len: 100 };
    assert_eq!(scan(zeros, None), [Seen::Frame(5), Seen::End(ending)]);
    let garbage = [&start[..], &[1; 100]].concat();
    let (offset, cause) = (start.len() as u64, Cause::Damage);
    let ending = Ending::Unreadable { offset, len: 100, cause };
    assert_eq!(scan(garbage, None), [Seen::Frame(5), Seen::End(ending)]);
}

#[test]
fn damage_costs_its_record_alone() {
    for offset in len()..2 * len() {
        let mut bytes = frames(5..8);
        bytes[offset] ^= 4;
        let seen = [Seen::Frame(5), Seen::Damage(6, 7), Seen::Frame(7), COMPLETE];
        assert_eq!(scan(bytes, None), seen, "byte {offset}");
    }
}

#[test]
fn the_next_record_is_found_across_the_border_of_a_chunk() {
    let around = CHUNK_BYTES as usize;
    for garbage in [around - 9, around - 7, around - 1, around, around + 1, 2 * around - 3] {
        let bytes = [vec![1; garbage], frames(6..7)].concat();
        let seen = [Seen::Damage(5, 6), Seen::Frame(6), COMPLETE];
        assert_eq!(scan(bytes, None), seen, "{garbage}");
    }
}

#[test]
fn only_the_segments_own_marker_makes_a_frame() {
    let with = |marker: u64| {
        let mut outer = frame(MARKER, 5, &frame(marker, 6, b"forged"));
        outer[20] ^= 1;
        scan([outer, frames(7..8)].concat(), None)
    };
    assert_eq!(with(MARKER ^ 1), [Seen::Damage(5, 7), Seen::Frame(7), COMPLETE]);
    // What the marker is there to prevent.
    let forged = [Seen::Damage(5, 6), Seen::Frame(6), Seen::Frame(7), COMPLETE];
    assert_eq!(with(MARKER), forged);
}

#[test]
fn a_note_takes_no_position_and_a_damaged_one_costs_none() {
    let note = Header::of_note(6, 5, b"note");
    let note = [&note.encode(MARKER)[..], b"note"].concat();
    let mut bytes = [frames(5..6), note, frames(6..7)].concat();
    let seen = [Seen::Frame(5), Seen::Note(6), Seen::Frame(6), COMPLETE];
    assert_eq!(scan(bytes.clone(), None), seen);
    for at in [len(), len() + HEADER_BYTES] {
        bytes[at] ^= 1;
        let seen = [Seen::Frame(5), Seen::Damage(6, 6), Seen::Frame(6), COMPLETE];
        assert_eq!(scan(bytes.clone(), None), seen, "byte {at}");
    }
}

#[test]
fn what_the_disk_cannot_read_is_no_damage() {
    let record = len() as u64;
    // Blocks of the disk are larger than these records.
    let bytes = || [frames(5..7), frame(MARKER, 7, &[7; 9000]), frames(8..10)].concat();
    let big = 2 * record..2 * record + frame(MARKER, 7, &[7; 9000]).len() as u64;
    for (bad, first, last) in
        [(0..1, 5, 7), (5000..5001, 7, 7), (big.start + 9000..big.start + 9001, 7, 9)]
    {
        let seen = scan_with(bytes(), Some(bad), Some(10));
        let mut expected: Vec<Seen> = (5..first).map(Seen::Frame).collect();
        let of_one = seen.iter().filter(|seen| matches!(seen, Seen::ReadError(..))).count();
        for seen in &seen[first as usize - 5..] {
            match seen {
                Seen::ReadError(from, to) => assert!(first <= *from && *to <= last + 1),
                Seen::Frame(position) => assert!(*position > last),
                other => assert_eq!(other, &COMPLETE),
            }
        }
        assert!(of_one > 0);
        expected.truncate(seen.len());
        assert_eq!(seen[..expected.len()], expected);
    }
    let cause = Cause::ReadError;
    let seen = scan_with(frames(5..7), Some(record + 50..record + 51), None);
    let ending = Ending::Unreadable { offset: 0, len: 2 * record, cause };
    assert_eq!(seen, [Seen::End(ending)]);
}

#[test]
fn what_cannot_be_read_in_a_row_is_one_region() {
    let mut bytes = frames(5..9);
    // A body, and the header behind it.
    for at in [2 * len() - 1, 2 * len()] {
        bytes[at] ^= 1;
    }
    let seen = [Seen::Frame(5), Seen::Damage(6, 8), Seen::Frame(8), COMPLETE];
    assert_eq!(scan(bytes, None), seen);
}
