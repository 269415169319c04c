//! The note that copies of places ride in.

use bytes::{Buf, BufMut, BytesMut};

use super::Settled;

/// The kind of such a note: its first byte.
pub(super) const COPIES: u8 = 1;

/// ```text
/// u16  length of the name, and the name in UTF-8
/// u64  cursor
/// u16  count of ranges, and each: u64 from, u64 to
/// ```
pub(super) fn put_copy(out: &mut BytesMut, name: &str, settled: &Settled) {
    out.put_u16_le(name.len() as u16);
    out.put_slice(name.as_bytes());
    out.put_u64_le(settled.cursor());
    out.put_u16_le(settled.above().len() as u16);
    for (from, to) in settled.above() {
        out.put_u64_le(from);
        out.put_u64_le(to);
    }
}

/// The copies in a note, as far as it holds any.
pub(super) fn decode(mut note: &[u8]) -> Vec<(String, Settled)> {
    let mut copies = Vec::new();
    if note.try_get_u8() != Ok(COPIES) {
        return copies;
    }
    while let Some((name, settled)) = get_copy(&mut note) {
        copies.push((name, settled));
    }
    copies
}

fn get_copy(note: &mut &[u8]) -> Option<(String, Settled)> {
    let len = usize::from(note.try_get_u16_le().ok()?);
    let name = std::str::from_utf8(note.get(..len)?).ok()?.to_owned();
    note.advance(len);
    let mut settled = Settled::below(note.try_get_u64_le().ok()?);
    for _ in 0..note.try_get_u16_le().ok()? {
        let (from, to) = (note.try_get_u64_le().ok()?, note.try_get_u64_le().ok()?);
        settled.settle(from, to);
    }
    Some((name, settled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_come_back_as_they_were_put() {
        let mut settled = Settled::below(4);
        settled.settle(7, 9);
        let mut out = BytesMut::new();
        out.put_u8(COPIES);
        put_copy(&mut out, "a/é", &settled);
        put_copy(&mut out, "b", &Settled::below(1));
        let copies = [("a/é".to_owned(), settled), ("b".to_owned(), Settled::below(1))];
        assert_eq!(decode(&out), copies);
        for len in 0..out.len() {
            assert!(decode(&out[..len]).len() < 2, "{len} bytes");
        }
        out[0] = 9;
        assert!(decode(&out).is_empty());
    }
}
