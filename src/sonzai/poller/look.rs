//! What one look at a list came to, and what follows from it.

/// Counts of one answer's items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Whether there may be more than was listed.
    pub full: bool,
    pub listed: usize,
    /// Items that will not be listed any more, or need nothing any more (`take: false`).
    pub done: usize,
    /// Items that were just taken, and listed again all the same.
    pub cached: usize,
    /// When the oldest item that stays pending was created; Unix time.
    pub oldest_pending_ms: Option<u64>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Everything that is pending was seen.
    Enough,
    /// There may be more, and it will be listed now.
    Again,
    /// There may be more, once the list is made anew upstream.
    Later,
    /// There may be more behind items that cannot be taken.
    Behind,
}

impl Look {
    /// An item stays pending.
    pub fn stays(&mut self, created_ms: Option<u64>) {
        self.oldest_pending_ms = [self.oldest_pending_ms, created_ms].into_iter().flatten().min();
    }

    /// Never [`Next::Again`] without progress, so that asking at once comes to an end. Where a list
    /// can be narrowed, items that stay are gone around as soon as they take half of a page.
    pub fn next(&self, can_be_narrowed: bool) -> Next {
        let stay = self.listed.saturating_sub(self.done + self.cached);
        match *self {
            Look { full: false, .. } => Next::Enough,
            Look { listed, .. } if can_be_narrowed && 2 * stay >= listed => Next::Behind,
            Look { done: 1.., .. } => Next::Again,
            Look { cached: 1.., .. } => Next::Later,
            _ => Next::Behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_page_is_followed_by_what_can_bring_more() {
        for (full, done, cached, narrowed, whole) in [
            (false, 10, 0, Next::Enough, Next::Enough),
            (false, 0, 0, Next::Enough, Next::Enough),
            (true, 10, 0, Next::Again, Next::Again),
            (true, 1, 9, Next::Again, Next::Again),
            (true, 6, 0, Next::Again, Next::Again),
            // Half of each page would be for nothing, if there is another way.
            (true, 5, 0, Next::Again, Next::Behind),
            (true, 0, 10, Next::Later, Next::Later),
            (true, 0, 6, Next::Later, Next::Later),
            (true, 0, 5, Next::Later, Next::Behind),
            (true, 0, 0, Next::Behind, Next::Behind),
        ] {
            let look = Look { full, listed: 10, done, cached, oldest_pending_ms: None };
            assert_eq!(look.next(false), narrowed, "{look:?}");
            assert_eq!(look.next(true), whole, "{look:?}");
        }
    }
}
