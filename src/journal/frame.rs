//! One record's bytes: a header that proves itself, then keys and payload that it vouches for.
//!
//! ```text
//!  0  u64  marker       the segment's own random number
//!  8  u32  payload_len
//! 12  u32  key_count    its highest bit says that this is a note (version 2)
//! 16  u32  body_crc     crc32c of keys and payload
//! 20  u64  position
//! 28  u64  time_ms
//! 36  u64  proven       every position below it was durable before this frame was written
//! 44  u32  header_crc   crc32c of the 44 bytes before
//! 48       keys, 16 bytes each, then the payload
//! ```
//!
//! A note is no record: it takes no position, and says the one that comes next. Places ride in it.
//!
//! Integers are little-endian. The marker is unknown to senders, so no payload can hold bytes that
//! pass for a frame when a damaged one is stepped over.

use super::Key;

/// Length of a frame's header.
pub(super) const HEADER_BYTES: usize = 48;

/// Length of a key.
pub(super) const KEY_BYTES: usize = size_of::<Key>();

/// In `key_count`: the frame is a note.
const NOTE: u32 = 1 << 31;

/// What stands before a record's keys and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub position: u64,
    pub time_ms: u64,
    pub proven: u64,
    pub payload_len: u32,
    pub key_count: u32,
    pub body_crc: u32,
    /// Whether it is no record.
    pub is_note: bool,
}

impl Header {
    /// Of a note that stands before the record at `next`.
    pub fn of_note(next: u64, proven: u64, payload: &[u8]) -> Header {
        Header {
            position: next,
            time_ms: 0,
            proven,
            payload_len: payload.len() as u32,
            key_count: 0,
            body_crc: body_crc(&[], payload),
            is_note: true,
        }
    }

    pub fn encode(&self, marker: u64) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(&marker.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        let key_count = self.key_count | if self.is_note { NOTE } else { 0 };
        out[12..16].copy_from_slice(&key_count.to_le_bytes());
        out[16..20].copy_from_slice(&self.body_crc.to_le_bytes());
        out[20..28].copy_from_slice(&self.position.to_le_bytes());
        out[28..36].copy_from_slice(&self.time_ms.to_le_bytes());
        out[36..44].copy_from_slice(&self.proven.to_le_bytes());
        let crc = crc32c::crc32c(&out[..44]);
        out[44..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if it is one of this segment's and intact.
    pub fn decode(bytes: &[u8], marker: u64) -> Option<Header> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>()?;
        let intact =
            u64_at(bytes, 0) == marker && u32_at(bytes, 44) == crc32c::crc32c(&bytes[..44]);
        intact.then(|| Header {
            payload_len: u32_at(bytes, 8),
            key_count: u32_at(bytes, 12) & !NOTE,
            is_note: u32_at(bytes, 12) & NOTE != 0,
            body_crc: u32_at(bytes, 16),
            position: u64_at(bytes, 20),
            time_ms: u64_at(bytes, 28),
            proven: u64_at(bytes, 36),
        })
    }

    /// Length of keys and payload together.
    pub fn body_len(&self) -> u64 {
        u64::from(self.key_count) * KEY_BYTES as u64 + u64::from(self.payload_len)
    }

    /// Length of the whole frame.
    pub fn frame_len(&self) -> u64 {
        HEADER_BYTES as u64 + self.body_len()
    }
}

/// The checksum that a header carries for what follows it.
pub(super) fn body_crc(keys: &[Key], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(keys.as_flattened()), payload)
}

/// A little-endian integer at a fixed place; callers stay within the bytes they have.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

/// A little-endian integer at a fixed place; callers stay within the bytes they have.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        position: 7,
        time_ms: 1_700_000_000_000,
        proven: 5,
        payload_len: 3,
        key_count: 2,
        body_crc: 0xdead_beef,
        is_note: false,
    };

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        let bytes = HEADER.encode(42);
        assert_eq!(Header::decode(&bytes, 42), Some(HEADER));
        let note = Header { is_note: true, ..HEADER };
        assert_eq!(Header::decode(&note.encode(42), 42), Some(note));
        assert_eq!(note.frame_len(), HEADER.frame_len());
        assert_eq!(HEADER.frame_len(), 48 + 32 + 3);
    }

    #[test]
    fn a_header_of_another_segment_does_not_count() {
        assert_eq!(Header::decode(&HEADER.encode(42), 43), None);
    }

    #[test]
    fn a_header_with_any_bit_flipped_or_missing_does_not_count() {
        let bytes = HEADER.encode(42);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&damaged, 42), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(Header::decode(&bytes[..len], 42), None, "{len} bytes");
        }
    }

    #[test]
    fn the_body_checksum_covers_keys_and_payload() {
        let whole = body_crc(&[[1; 16]], b"abc");
        assert_ne!(whole, body_crc(&[[2; 16]], b"abc"));
        assert_ne!(whole, body_crc(&[[1; 16]], b"abd"));
    }
}
