//! Walks the frames of one segment, and over what is damaged in it.
//!
//! A damaged body costs exactly its record. A damaged header costs what lies before the next place
//! that proves itself a frame of this segment: its marker, its checksum, and a position that can
//! still come. What the disk cannot read at present is stepped over in the same way, and is told
//! apart: it says nothing about the data. Nothing is stepped over silently: every position of the
//! range is either in a [`Frame`] or in a [`Region`].

use std::sync::Arc;

use super::{
    Key,
    frame::{HEADER_BYTES, Header, KEY_BYTES},
    segment::{self, TRAILER_BYTES},
    storage::File,
    window::{CHUNK_BYTES, Window},
};

/// A record, or a note, as it lies in the segment.
pub(super) struct Frame<'a> {
    pub header: Header,
    /// Where its header starts, in bytes from the start of the file.
    pub offset: u64,
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    pub fn keys(&self) -> &'a [Key] {
        self.body[..self.keys_len()].as_chunks().0
    }

    pub fn payload(&self) -> &'a [u8] {
        &self.body[self.keys_len()..]
    }

    fn keys_len(&self) -> usize {
        self.header.key_count as usize * KEY_BYTES
    }
}

/// Positions that cannot be read, and the bytes where they should be (none if they are missing).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub from: u64,
    pub to: u64,
    pub offset: u64,
    pub len: u64,
    pub cause: Cause,
    /// Whether the bytes end here, without a trace of another record.
    pub is_end: bool,
    pub why: &'static str,
}

/// Why a region cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// What lies there is not what was written.
    Damage,
    /// The disk does not say what lies there.
    ReadError,
}

/// What comes next in a segment.
pub(super) enum Step<'a> {
    Record(Frame<'a>),
    Note(Frame<'a>),
    Region(Region),
    End(Ending),
}

/// The same, before it is looked at together with what is beside it.
enum Next {
    /// A frame, and where it starts.
    Frame(Header, u64),
    Region(Region),
    End(Ending),
}

/// How a segment ends whose last record is not known from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With its last record.
    Complete,
    /// With a record that was not written whole: the process or the machine stopped.
    Torn { offset: u64, len: u64 },
    /// With bytes among which no record can be found.
    Unreadable { offset: u64, len: u64, cause: Cause },
}

/// Where to scan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Position expected at `offset`.
    pub from: u64,
    /// Where the range ends, if that is known. All that lies before it is then owed: what is
    /// missing there is damage, not an ending.
    pub limit: Option<u64>,
    /// Byte offset to start at.
    pub offset: u64,
    /// Byte offset to stop at; a trailer before it is no part of what is scanned.
    pub end: u64,
    /// Bodies of positions below this are not checked: the caller steps over them.
    pub verify_from: u64,
}

/// A walk over one segment.
pub(super) struct Scanner {
    file: Arc<dyn File>,
    marker: u64,
    bounds: Bounds,
    /// Whether the highest positions of the segment may never have been given: the end of its bytes
    /// is then no damage.
    is_unsure: bool,
    window: Window,
}

impl Scanner {
    pub fn new(file: Arc<dyn File>, marker: u64, mut bounds: Bounds) -> Scanner {
        // There are two where the disk could not read the first when the segment was closed again.
        while bounds.end >= bounds.offset + TRAILER_BYTES
            && segment::trailer_before(&*file, bounds.end)
                .is_some_and(|trailer| trailer.marker == marker)
        {
            bounds.end -= TRAILER_BYTES;
        }
        Scanner { file, marker, bounds, is_unsure: false, window: Window::default() }
    }

    /// The position that comes next.
    pub fn position(&self) -> u64 {
        self.bounds.from
    }

    /// Goes on in a segment that has grown since.
    pub fn extend(&mut self, limit: u64, end: u64, is_unsure: bool) {
        (self.bounds.limit, self.bounds.end) = (Some(limit), end);
        self.is_unsure = is_unsure;
    }

    /// The next frame, the next region, or the end; after that, the end is complete. What cannot be
    /// read in a row, for the same cause, is one region.
    pub fn step(&mut self) -> Step<'_> {
        match self.next() {
            Next::Frame(header, offset) => {
                let body = self.window.at(offset, header.frame_len()).get(HEADER_BYTES..);
                let frame = Frame { header, offset, body: body.unwrap_or_default() };
                if header.is_note { Step::Note(frame) } else { Step::Record(frame) }
            }
            Next::Region(region) => Step::Region(self.with_its_neighbours(region)),
            Next::End(ending) => Step::End(ending),
        }
    }

    fn with_its_neighbours(&mut self, mut region: Region) -> Region {
        loop {
            let before = self.bounds;
            match self.next() {
                Next::Region(next)
                    if next.cause == region.cause
                        && next.from == region.to
                        && next.offset == region.offset + region.len
                        && !(next.is_end && self.is_unsure) =>
                {
                    region.to = next.to;
                    region.len += next.len;
                }
                _ => {
                    self.bounds = before;
                    return region;
                }
            }
        }
    }

    fn next(&mut self) -> Next {
        if self.bounds.limit.is_some_and(|limit| self.bounds.from >= limit) {
            return Next::End(Ending::Complete);
        }
        if self.bounds.offset >= self.bounds.end {
            return self.ending(Ending::Complete, "the segment ends before its last record");
        }
        let offset = self.bounds.offset;
        match self.header_at(offset) {
            Some(header) => self.frame(header),
            None if self.bounds.end - offset < HEADER_BYTES as u64 => match self.cause(offset) {
                Cause::Damage => self.torn(),
                Cause::ReadError => self.unreadable(offset),
            },
            None => self.resynchronise(),
        }
    }

    /// Steps to the frame whose header is at the present offset.
    fn frame(&mut self, header: Header) -> Next {
        let Bounds { from, limit, offset, end, verify_from } = self.bounds;
        let position = header.position;
        if position > from {
            let to = limit.map_or(position, |limit| limit.min(position));
            self.bounds.from = to;
            let why = "records are missing before this one";
            let (len, cause, is_end) = (0, Cause::Damage, false);
            return Next::Region(Region { from, to, offset, len, cause, is_end, why });
        }
        let len = header.frame_len();
        if end - offset < len {
            return self.torn();
        }
        let to = position + u64::from(!header.is_note);
        (self.bounds.from, self.bounds.offset) = (to, offset + len);
        self.window.load(&*self.file, offset, len, end);
        let body = self.window.at(offset, len).get(HEADER_BYTES..).unwrap_or_default();
        let whole = body.len() as u64 == header.body_len();
        if whole && (position < verify_from || crc32c::crc32c(body) == header.body_crc) {
            return Next::Frame(header, offset);
        }
        let cause = self.cause_of(offset, len);
        let why = match cause {
            Cause::Damage => "the record does not match its checksum",
            Cause::ReadError => "the disk cannot read the record",
        };
        let (from, is_end) = (position, false);
        Next::Region(Region { from, to, offset, len, cause, is_end, why })
    }

    /// The header at `offset`, if one is there that can still come.
    fn header_at(&mut self, offset: u64) -> Option<Header> {
        let end = self.bounds.end;
        let bytes = self.window.get(&*self.file, offset, HEADER_BYTES as u64, end);
        let header = Header::decode(bytes, self.marker);
        header.filter(|header| header.position >= self.bounds.from)
    }

    /// Goes on at the next frame after a header that cannot be read.
    fn resynchronise(&mut self) -> Next {
        let Bounds { from, limit, offset: start, end, .. } = self.bounds;
        let (marker, mut at) = (self.marker.to_le_bytes(), start + 1);
        while let Some(found) = self.window.find(&*self.file, at, end, &marker) {
            if let Some(header) = self.header_at(found) {
                let to = limit.map_or(header.position, |limit| limit.min(header.position));
                let (len, cause) = (found - start, self.cause_of(start, found - start));
                let why = match cause {
                    Cause::Damage => "a record's header is damaged",
                    Cause::ReadError => "the disk cannot read a record's header",
                };
                (self.bounds.from, self.bounds.offset) = (to, found);
                let (offset, is_end) = (start, false);
                return Next::Region(Region { from, to, offset, len, cause, is_end, why });
            }
            at = found + 1;
        }
        // A file system may give a file its length before its contents: zeros were never a record.
        if self.all_zero(start) { self.torn() } else { self.unreadable(start) }
    }

    fn all_zero(&mut self, mut at: u64) -> bool {
        while at < self.bounds.end {
            let bytes = self.window.get(&*self.file, at, CHUNK_BYTES, self.bounds.end);
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return false;
            }
            at += bytes.len() as u64;
        }
        true
    }

    /// Why what lies from `offset` on cannot be read.
    fn cause(&self, offset: u64) -> Cause {
        self.cause_of(offset, self.bounds.end - offset)
    }

    fn cause_of(&self, offset: u64, len: u64) -> Cause {
        match self.window.is_readable(offset, offset + len) {
            true => Cause::Damage,
            false => Cause::ReadError,
        }
    }

    fn unreadable(&mut self, offset: u64) -> Next {
        let (len, cause) = (self.bounds.end - offset, self.cause(offset));
        let ending = Ending::Unreadable { offset, len, cause };
        self.ending(ending, "no record can be found from here on")
    }

    fn torn(&mut self) -> Next {
        let (offset, len) = (self.bounds.offset, self.bounds.end - self.bounds.offset);
        self.ending(Ending::Torn { offset, len }, "the segment ends within a record")
    }

    /// The end of the bytes: of the segment, or of what it still owes.
    fn ending(&mut self, ending: Ending, why: &'static str) -> Next {
        let Bounds { from, limit, offset, end, .. } = self.bounds;
        self.bounds.offset = end.max(offset);
        let Some(limit) = limit else { return Next::End(ending) };
        self.bounds.from = limit;
        let len = end.saturating_sub(offset);
        let (to, cause) = (limit, self.cause_of(offset, len));
        let is_end = !matches!(ending, Ending::Unreadable { .. });
        Next::Region(Region { from, to, offset, len, cause, is_end, why })
    }
}

#[cfg(test)]
mod tests {
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
}
