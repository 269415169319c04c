//! Walks the frames of one segment, and over what is damaged in it.
//!
//! A damaged body costs exactly its record. A damaged header costs what lies before the next place
//! that proves itself a frame of this segment: its marker, its checksum, and a position that can
//! still come. A block that the disk cannot read is damage like any other, and never the sign of a
//! record that was not written whole. Nothing is stepped over silently: every position of the range is either in a
//! [`Frame`] or in a [`Region`].

use std::{io, sync::Arc};

use super::{
    Key,
    frame::{HEADER_BYTES, Header, KEY_BYTES},
    storage::File,
    window::{CHUNK_BYTES, Window},
};

/// A record as it lies in the segment.
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
    pub why: &'static str,
}

/// What comes next in a segment.
pub(super) enum Step<'a> {
    Frame(Frame<'a>),
    Damage(Region),
    End(Ending),
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// With its last record.
    Complete,
    /// With a record that was not written whole: the process or the machine stopped.
    Torn { offset: u64, len: u64 },
    /// With bytes among which no record can be found.
    Unreadable { offset: u64, len: u64 },
}

/// Where to scan.
pub(super) struct Bounds {
    /// Position expected at `offset`.
    pub from: u64,
    /// Where the range ends, if that is known. All that lies before it is then owed: what is
    /// missing there is damage, not an ending.
    pub limit: Option<u64>,
    /// Byte offset to start at.
    pub offset: u64,
    /// Byte offset to stop at.
    pub end: u64,
    /// Bodies of positions below this are not checked: the caller steps over them.
    pub verify_from: u64,
}

/// A walk over one segment.
pub(super) struct Scanner {
    file: Arc<dyn File>,
    marker: u64,
    bounds: Bounds,
    window: Window,
}

impl Scanner {
    pub fn new(file: Arc<dyn File>, marker: u64, bounds: Bounds) -> Scanner {
        Scanner { file, marker, bounds, window: Window::default() }
    }

    /// The position that comes next.
    pub fn position(&self) -> u64 {
        self.bounds.from
    }

    /// Goes on in a segment that has grown since.
    pub fn extend(&mut self, limit: u64, end: u64) {
        (self.bounds.limit, self.bounds.end) = (Some(limit), end);
    }

    /// The next frame, the next damage, or the end; after that, the end is complete.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        if self.bounds.limit.is_some_and(|limit| self.bounds.from >= limit) {
            return Ok(Step::End(Ending::Complete));
        }
        if self.bounds.offset >= self.bounds.end {
            return Ok(self.ending(Ending::Complete, "the segment ends before its last record"));
        }
        let offset = self.bounds.offset;
        match self.header_at(offset)? {
            Some(header) => self.record(header),
            None if self.bounds.end - offset < HEADER_BYTES as u64 => {
                if self.window.is_readable(offset, self.bounds.end) {
                    return Ok(self.torn());
                }
                Ok(self.unreadable(offset))
            }
            None => self.resynchronise(),
        }
    }

    /// Steps to the record whose header is at the present offset.
    fn record(&mut self, header: Header) -> io::Result<Step<'_>> {
        let Bounds { from, limit, offset, end, verify_from } = self.bounds;
        let position = header.position;
        if position > from {
            let to = limit.map_or(position, |limit| limit.min(position));
            self.bounds.from = to;
            let why = "records are missing before this one";
            return Ok(Step::Damage(Region { from, to, offset, len: 0, why }));
        }
        if end - offset < header.frame_len() {
            return Ok(self.torn());
        }
        self.bounds.from = position + 1;
        self.bounds.offset = offset + header.frame_len();
        self.window.load(&*self.file, offset, header.frame_len(), end)?;
        let body = self.window.at(offset, header.frame_len()).get(HEADER_BYTES..);
        let body = body.unwrap_or_default();
        let whole = body.len() as u64 == header.body_len();
        if !whole || (position >= verify_from && crc32c::crc32c(body) != header.body_crc) {
            let (to, len) = (position + 1, header.frame_len());
            let why = match self.window.is_readable(offset, offset + len) {
                true => "the record does not match its checksum",
                false => "the disk cannot read the record",
            };
            return Ok(Step::Damage(Region { from: position, to, offset, len, why }));
        }
        Ok(Step::Frame(Frame { header, offset, body }))
    }

    /// The header at `offset`, if one is there that can still come.
    fn header_at(&mut self, offset: u64) -> io::Result<Option<Header>> {
        let end = self.bounds.end;
        let bytes = self.window.get(&*self.file, offset, HEADER_BYTES as u64, end)?;
        let header = Header::decode(bytes, self.marker);
        Ok(header.filter(|header| header.position >= self.bounds.from))
    }

    /// Goes on at the next frame after a header that cannot be read.
    fn resynchronise(&mut self) -> io::Result<Step<'_>> {
        let start = self.bounds.offset;
        let mut at = start + 1;
        while let Some(found) = self.find_marker(at)? {
            if let Some(header) = self.header_at(found)? {
                let to = self.bounds.limit.map_or(header.position, |l| l.min(header.position));
                let why = "a record's header is damaged";
                let region =
                    Region { from: self.bounds.from, to, offset: start, len: found - start, why };
                (self.bounds.from, self.bounds.offset) = (to, found);
                return Ok(Step::Damage(region));
            }
            at = found + 1;
        }
        // A file system may give a file its length before its contents: zeros were never a record.
        if self.all_zero(start)? {
            return Ok(self.torn());
        }
        Ok(self.unreadable(start))
    }

    fn find_marker(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        let (end, marker) = (self.bounds.end, self.marker.to_le_bytes());
        loop {
            let bytes = self.window.get(&*self.file, at, CHUNK_BYTES, end)?;
            if bytes.len() < marker.len() {
                return Ok(None);
            }
            if let Some(found) = bytes.windows(marker.len()).position(|bytes| bytes == marker) {
                return Ok(Some(at + found as u64));
            }
            // The next chunk overlaps, for a marker across the border.
            at += (bytes.len() - marker.len() + 1) as u64;
        }
    }

    fn all_zero(&mut self, mut at: u64) -> io::Result<bool> {
        while at < self.bounds.end {
            let bytes = self.window.get(&*self.file, at, CHUNK_BYTES, self.bounds.end)?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            at += bytes.len() as u64;
        }
        Ok(true)
    }

    fn unreadable(&mut self, offset: u64) -> Step<'_> {
        let len = self.bounds.end - offset;
        self.ending(Ending::Unreadable { offset, len }, "no record can be found from here on")
    }

    fn torn(&mut self) -> Step<'_> {
        let (offset, len) = (self.bounds.offset, self.bounds.end - self.bounds.offset);
        self.ending(Ending::Torn { offset, len }, "the segment ends within a record")
    }

    /// The end of the bytes: of the segment, or of what it still owes.
    fn ending(&mut self, ending: Ending, why: &'static str) -> Step<'_> {
        let Bounds { from, limit, offset, end, .. } = self.bounds;
        self.bounds.offset = end.max(offset);
        let Some(limit) = limit else { return Step::End(ending) };
        self.bounds.from = limit;
        Step::Damage(Region { from, to: limit, offset, len: end.saturating_sub(offset), why })
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use super::{super::frame::body_crc, *};

    const MARKER: u64 = 0x0123_4567_89ab_cdef;

    /// Bytes that are a file.
    struct Bytes(Vec<u8>);

    impl File for Bytes {
        fn write_at(&self, _: u64, _: &[IoSlice<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
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
        };
        [&header.encode(marker)[..], keys.as_flattened(), payload].concat()
    }

    fn frames(positions: std::ops::Range<u64>) -> Vec<u8> {
        positions.flat_map(|position| frame(MARKER, position, b"payload")).collect()
    }

    #[derive(Debug, PartialEq)]
    enum Seen {
        Frame(u64),
        Damage(u64, u64),
        End(Ending),
    }

    fn scan(bytes: Vec<u8>, limit: Option<u64>) -> Vec<Seen> {
        let end = bytes.len() as u64;
        let bounds = Bounds { from: 5, limit, offset: 0, end, verify_from: 0 };
        let mut scanner = Scanner::new(Arc::new(Bytes(bytes)), MARKER, bounds);
        let mut seen = Vec::new();
        loop {
            seen.push(match scanner.step().unwrap() {
                Step::Frame(frame) => {
                    assert_eq!(frame.keys(), [[frame.header.position as u8; 16]]);
                    Seen::Frame(frame.header.position)
                }
                Step::Damage(region) => Seen::Damage(region.from, region.to),
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
        let ending = Ending::Unreadable { offset: start.len() as u64, len: 100 };
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
}
