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
mod tests;
