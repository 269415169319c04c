//! A visit to the disk: reads about a chunk of a segment, up to what cannot be read.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    Error, Item, Position, Shared,
    place::Member,
    scan::{Bounds, Cause, Region, Scanner, Step},
    segment::{self, DATA_START, Head},
    segments::Located,
    window::CHUNK_BYTES,
};

/// A walk over the segment that holds the next record.
pub(super) struct Walk {
    pub base: u64,
    pub scanner: Scanner,
}

/// What one visit to the disk yields.
pub(super) struct Chunk {
    pub items: VecDeque<Item>,
    pub walk: Option<Walk>,
    /// What comes behind the items and cannot be read.
    pub unread: Option<(u64, Region)>,
}

impl Shared {
    /// Reads about a chunk from `position` on, within one segment and below `end`; at least one
    /// item, or what cannot be read.
    pub(super) fn read_chunk(
        &self,
        walk: Option<Walk>,
        position: u64,
        end: u64,
        member: Option<&Member>,
    ) -> Result<Chunk, Error> {
        let Some(located) = self.segments.locate(position) else {
            let to = self.after_gap(Position(position)).0.min(end);
            let why = "released before it was read".to_owned();
            let item = Item::Damaged { from: Position(position), to: Position(to), why };
            return Ok(Chunk { items: [item].into(), walk: None, unread: None });
        };
        let limit = located.limit.map_or(end, |limit| limit.min(end));
        let fits = |walk: &Walk| walk.base == located.base && walk.scanner.position() == position;
        let mut walk = match walk.filter(fits) {
            Some(walk) => walk,
            None => match self.seek(&located, position) {
                Ok(Ok(walk)) => walk,
                Ok(Err(cause)) => {
                    return Ok(self.without_marker(&located, (position, limit), cause, member));
                }
                Err(Error::Io { source, .. }) => {
                    let is_missing = source.kind() == std::io::ErrorKind::NotFound;
                    let path = located.path(&self.dir);
                    let is_there = |now: Located| now.path(&self.dir) == path;
                    // Released, or set aside, since it was located.
                    if is_missing && !self.segments.locate(position).is_some_and(is_there) {
                        return self.read_chunk(None, position, end, member);
                    }
                    // Just now, moved away by hand, or not to be opened at present: that says nothing
                    // about what it holds.
                    let why = match is_missing {
                        true => "the segment's file is not there",
                        false => "the segment's file cannot be opened",
                    };
                    let (from, to, offset, len) = (position, limit, DATA_START, located.bytes);
                    let (cause, is_end) = (Cause::ReadError, false);
                    let region = Region { from, to, offset, len, cause, is_end, why };
                    return Ok(self.unless_skipped(&located, region, from, member));
                }
                Err(error) => return Err(error),
            },
        };
        walk.scanner.extend(limit, located.bytes, located.unsure > 0);
        let (items, unread) = self.scan(&mut walk, &located, position, member);
        if let (Some(first), Some(last)) = (items.front(), items.back()) {
            // Whoever met it: the opening may have, or another reader.
            self.ledger.readable(located.base, first.position().0, last.next_position().0);
        }
        let walk = unread.is_none().then_some(walk);
        Ok(Chunk { items, walk, unread: unread.map(|region| (located.base, region)) })
    }

    /// Tries again what could not be read.
    pub(super) fn read_hole(
        &self,
        region: &Region,
        member: Option<&Member>,
    ) -> Result<Chunk, Error> {
        let (mut items, mut unread) = (VecDeque::new(), None);
        if let Some(located) = self.segments.locate(region.from) {
            let again = self.read_chunk(None, region.from, region.to, member)?;
            items = again.items;
            let next = items.back().map_or(region.from, |item| item.next_position().0);
            // The rest of it at the next visit, at once.
            let rest = || Region { from: next, ..region.clone() };
            unread = again.unread.or_else(|| (next < region.to).then(|| (located.base, rest())));
        }
        Ok(Chunk { items, walk: None, unread })
    }

    /// A segment whose marker is not known.
    fn without_marker(
        &self,
        located: &Located,
        (from, to): (u64, u64),
        cause: Cause,
        member: Option<&Member>,
    ) -> Chunk {
        let (offset, len, is_end) = (0, located.bytes, false);
        let why = match cause {
            Cause::Damage => "the segment's header is damaged, and its records cannot be told",
            Cause::ReadError => "the disk cannot read what the segment's records are told by",
        };
        let region = Region { from, to, offset, len, cause, is_end, why };
        self.unless_skipped(located, region, from, member)
    }

    /// Nothing but a region that is damaged, or cannot be read.
    fn unless_skipped(
        &self,
        located: &Located,
        region: Region,
        from: u64,
        member: Option<&Member>,
    ) -> Chunk {
        if region.cause == Cause::ReadError && !self.ledger.is_skipped(located.base, &region) {
            let (items, unread) = (VecDeque::new(), Some((located.base, region)));
            return Chunk { items, walk: None, unread };
        }
        let items = [self.damaged(located.base, &region, from, member)].into();
        Chunk { items, walk: None, unread: None }
    }

    /// Opens a segment at the known place nearest to `position`; or says why its marker is not known.
    fn seek(&self, located: &Located, position: u64) -> Result<Result<Walk, Cause>, Error> {
        let path = located.path(&self.dir);
        let file = self.storage.open_read(&path).map_err(Error::io("open", &path))?;
        let marker = match located.marker {
            Some(marker) => marker,
            None => match segment::read(&*file, &path, located.base, Some(&self.identity))?.head {
                Head::Intact(meta) => meta.marker,
                Head::Damaged(Some(marker)) | Head::Unread(Some(marker)) => marker,
                Head::Damaged(None) => return Ok(Err(Cause::Damage)),
                Head::Unread(None) => return Ok(Err(Cause::ReadError)),
            },
        };
        let (from, offset) = located.near;
        let (limit, end) = (located.limit, located.bytes);
        let bounds = Bounds { from, limit, offset, end, verify_from: position };
        Ok(Ok(Walk { base: located.base, scanner: Scanner::new(file, marker, bounds) }))
    }

    /// Items up to about a chunk, or up to what cannot be read.
    fn scan(
        &self,
        walk: &mut Walk,
        located: &Located,
        from: u64,
        member: Option<&Member>,
    ) -> (VecDeque<Item>, Option<Region>) {
        let (mut items, mut bytes) = (VecDeque::new(), 0);
        while bytes < CHUNK_BYTES {
            match walk.scanner.step() {
                Step::Record(frame) if frame.header.position < from => {}
                Step::Record(frame) => {
                    bytes += frame.header.frame_len();
                    // A copy: a slice would hold its whole chunk for as long as the record lives.
                    let payload = Bytes::copy_from_slice(frame.payload());
                    items.push_back(Item::Entry(Position(frame.header.position), payload));
                }
                Step::Note(_) => {}
                // Of a record that is not asked for, or of none.
                Step::Region(region) if region.to <= region.from.max(from) => {
                    if region.cause == Cause::Damage {
                        self.ledger.met(walk.base, &region);
                    }
                }
                Step::Region(region) if region.cause == Cause::ReadError => {
                    let rest = Region { from: region.from.max(from), ..region };
                    if !self.ledger.is_skipped(walk.base, &rest) {
                        return (items, Some(rest));
                    }
                    items.push_back(self.damaged(walk.base, &rest, from, member));
                }
                Step::Region(region) => {
                    let may_be_void = |limit: u64| region.from + located.unsure >= limit;
                    let is_void = region.is_end && located.limit.is_some_and(may_be_void);
                    items.push_back(match is_void {
                        true => Item::Void {
                            from: Position(region.from.max(from)),
                            to: Position(region.to),
                        },
                        false => self.damaged(walk.base, &region, from, member),
                    });
                }
                Step::End(_) => break,
            }
        }
        (items, None)
    }

    /// Up to where, not including, in a region all positions were given to records.
    fn surely_given(&self, region: &Region) -> u64 {
        let located = self.segments.locate(region.from);
        let sure = located.and_then(|located| Some(located.limit?.saturating_sub(located.unsure)));
        sure.map_or(region.to, |sure| region.to.min(sure))
    }

    /// A damaged region, as far as it lies from `from` on; lost to the one who reads it.
    fn damaged(&self, base: u64, region: &Region, from: u64, member: Option<&Member>) -> Item {
        if region.cause == Cause::Damage {
            self.ledger.met(base, region);
        }
        if let Some(member) = member {
            let (settled, sure) = (member.settled(), self.surely_given(region));
            // Of what may never have been given nobody knows more than whether the first of it is missing.
            let first = region.from.max(sure);
            let one = u64::from(first < region.to) * settled.open_in(first, first + 1);
            let lost = settled.open_in(region.from.max(from), sure) + one;
            member.lost.add(lost);
            if lost > 0 {
                self.lost(base, region);
            }
        }
        let (from, to) = (Position(region.from.max(from)), Position(region.to));
        Item::Damaged { from, to, why: region.why.to_owned() }
    }
}
