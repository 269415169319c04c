//! Bounds that undo each other: each is good by itself, and with the other it cannot do what it is for.
//!
//! What would cost everybody is refused. What costs only the largest events is said: they may never
//! come, and an operator who has little disk left must be able to lower a bound first and think later.

use super::Settings;

/// What an event takes on disk beside its body and its head: the frame, its keys, the messages that
/// it owes. A generous measure, since that is for the routing table to say.
const EVENT_HEADROOM_BYTES: u64 = 4 << 10;

/// What a journal's files begin with.
const SEGMENT_HEAD_BYTES: u64 = 4 << 10;

/// A full journal has at least about this many segments: see `journal.segment_bytes`.
const SEGMENTS_AT_LEAST: u64 = 4;

/// And as many make up what one broker may hold back.
const SEGMENTS_OF_A_BACKLOG: u64 = 8;

impl Settings {
    /// The largest event that a sender may get in, as it is kept.
    fn largest_event_bytes(&self) -> u64 {
        let ingress = &self.ingress;
        u64::from(ingress.max_body_bytes) + u64::from(ingress.max_head_bytes) + EVENT_HEADROOM_BYTES
    }

    /// When a segment of the journal is closed: a bound below has the last word, for it is told and
    /// freed by whole segments.
    pub fn segment_bytes(&self) -> u64 {
        self.journal.segment_bytes.min(self.backlog_bytes() / SEGMENTS_OF_A_BACKLOG)
    }

    /// Bounds that undo each other: what they are, and what to write.
    pub(super) fn contradictions(&self) -> Vec<String> {
        [self.backlog_above_the_journal(), self.dead_letters_below_an_event()]
            .into_iter()
            .flatten()
            .collect()
    }

    /// A broker is relieved only once it holds back more than its bound. The journal must not be full
    /// before that: the segment that is written and the one that is about to be freed have room beside
    /// it.
    fn backlog_above_the_journal(&self) -> Option<String> {
        let (backlog, max) = (self.backlog_bytes(), self.journal.max_bytes);
        let segments = 2 * self.segment_bytes().min(max / SEGMENTS_AT_LEAST);
        if backlog.saturating_add(segments) <= max {
            return None;
        }
        let at_most = max - 2 * self.journal.segment_bytes.min(max / SEGMENTS_AT_LEAST);
        let at_least = backlog.saturating_add(2 * self.segment_bytes());
        Some(format!(
            "`dispatch.backlog_max_bytes` is {backlog} and `journal.max_bytes` is {max}: one broker that \
             is away would fill the journal before it is relieved of what waits for it ({backlog} and two \
             segments of the journal, {segments}, are {}), and events for all others would be refused. \
             Write at most {at_most} for `dispatch.backlog_max_bytes` (0 is half of the journal), or at \
             least {at_least} for `journal.max_bytes`",
            backlog.saturating_add(segments)
        ))
    }

    /// What is given up on must have room, or it stays with its broker for ever.
    fn dead_letters_below_an_event(&self) -> Option<String> {
        let (max, body) = (self.dead_letters.max_bytes, u64::from(self.ingress.max_body_bytes));
        let needed = self.largest_event_bytes() + SEGMENT_HEAD_BYTES;
        if needed <= max {
            return None;
        }
        let beside = needed - body;
        let or = match max.checked_sub(beside).filter(|bytes| *bytes > 0) {
            Some(bytes) => format!(", or at most {bytes} for `ingress.max_body_bytes`"),
            None => String::new(),
        };
        Some(format!(
            "`dead_letters.max_bytes` is {max} and `ingress.max_body_bytes` is {body}: an event that large \
             could never become a dead letter (with its headers and what it owes, {beside}, it takes \
             {needed}). Write at least {needed} for `dead_letters.max_bytes`{or}"
        ))
    }

    /// What is likely not meant, in words for the log of a start.
    pub fn doubts(&self) -> Vec<String> {
        let (max, event) = (self.journal.max_bytes, self.largest_event_bytes());
        let (backlog, body) = (self.backlog_bytes(), u64::from(self.ingress.max_body_bytes));
        let segment = self.segment_bytes().min(max / SEGMENTS_AT_LEAST);
        let taken = backlog.saturating_add(segment).saturating_add(SEGMENT_HEAD_BYTES);
        if taken.saturating_add(event) <= max {
            return Vec::new();
        }
        let least = match self.dispatch.backlog_max_bytes {
            // The backlog is half of it, and a segment no more than an eighth of that.
            0 => (event + SEGMENT_HEAD_BYTES) * 16 / 7 + 1,
            backlog => backlog
                .saturating_add(self.segment_bytes())
                .saturating_add(SEGMENT_HEAD_BYTES + event),
        };
        vec![format!(
            "`journal.max_bytes` is {max} and `ingress.max_body_bytes` is {body}: while a broker holds back \
             what it may ({backlog}) and beside the segment that is written ({segment}), an event that \
             large ({event} with its headers and what it owes) finds no room and is answered 503. Write at \
             least {least} for `journal.max_bytes`, or less for `ingress.max_body_bytes`"
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `journal.max_bytes`, `journal.segment_bytes`, `dispatch.backlog_max_bytes`,
    /// `dead_letters.max_bytes`, `ingress.max_body_bytes`; 0 is the default.
    fn settings([max, segment, backlog, dead, body]: [u64; 5]) -> Settings {
        let mut settings = Settings::default();
        let set = |to: &mut u64, value: u64| *to = if value == 0 { *to } else { value };
        set(&mut settings.journal.max_bytes, max);
        set(&mut settings.journal.segment_bytes, segment);
        settings.dispatch.backlog_max_bytes = backlog;
        set(&mut settings.dead_letters.max_bytes, dead);
        if body > 0 {
            settings.ingress.max_body_bytes = body as u32;
        }
        settings
    }

    const MB: u64 = 1_000_000;

    #[test]
    fn bounds_that_undo_each_other_are_named_with_what_to_write() {
        let (backlog, dead) = ("dispatch.backlog_max_bytes", "dead_letters.max_bytes");
        for (given, expected) in [
            ([0, 0, 0, 0, 0], None),
            // Small ones that make sense.
            ([64 << 10, 4 << 10, 0, 0, 1000], None),
            ([2 * MB, 65_536, 0, 0, 0], None),
            ([100_000, 20_000, 10_000, 0, 0], None),
            ([8 << 30, 64 << 20, 8 << 20, 0, 16 << 20], None),
            ([8 << 30, 64 << 20, 7 << 30, 0, 0], None),
            ([0, 0, 0, 4 << 20, 0], None),
            ([0, 0, 0, 64 << 10, 1000], None),
            // A broker's bound at and above the journal's.
            ([2 * MB, 100_000, 50 * MB, 0, 0], Some((backlog, "2000000", "at most 1800000"))),
            ([2 * MB, 100_000, 2 * MB, 0, 0], Some((backlog, "at least 2200000", "200000"))),
            ([2 * MB, 100_000, 1_800_001, 0, 0], Some((backlog, "1800001", "2000001"))),
            ([2 * MB, 100_000, 1_800_000, 0, 0], None),
            ([100_000, 1 << 26, u64::MAX, 0, 0], Some((backlog, "at most 50000", "100000"))),
            // No dead letter can be as large as an event.
            ([0, 0, 0, 64 << 10, 0], Some((dead, "ingress.max_body_bytes", "at least 2121728"))),
            ([0, 0, 0, MB, 0], Some((dead, "at most 975424 for", "2097152"))),
            ([0, 0, 0, 2_121_728, 0], None),
            ([0, 0, 0, 2_121_727, 0], Some((dead, "2121727", "24576"))),
        ] {
            let told = settings(given).contradictions();
            match expected {
                None => assert!(told.is_empty(), "{given:?}: {told:?}"),
                Some((name, one, other)) => {
                    let [told] = &told[..] else { panic!("{given:?}: {told:?}") };
                    for part in [name, one, other] {
                        assert!(told.contains(part), "{part} is missing: {told}");
                    }
                }
            }
        }
    }

    /// Whoever writes what he is told to is told nothing more.
    #[test]
    fn what_is_to_be_written_is_good() {
        for given in [
            [2 * MB, 100_000, 50 * MB, 0, 0],
            [100_000, 1 << 26, 99_000, 0, 1000],
            [1 << 30, 64 << 20, 2 << 30, 0, 0],
        ] {
            let [max, segment, backlog, dead, body] = given;
            let told = settings(given).contradictions().remove(0);
            let number = |after: &str| -> u64 {
                let (_, rest) = told.split_once(after).unwrap();
                rest.split(' ').next().unwrap().parse().unwrap()
            };
            let lower = settings([max, segment, number("Write at most "), dead, body]);
            let higher = settings([number("or at least "), segment, backlog, dead, body]);
            assert!(lower.contradictions().is_empty(), "{told}");
            assert!(higher.contradictions().is_empty(), "{told}");
        }
    }

    #[test]
    fn a_journal_in_which_the_largest_events_may_find_no_room_is_doubted() {
        assert!(Settings::default().doubts().is_empty());
        assert!(settings([64 << 10, 4 << 10, 0, 0, 1000]).doubts().is_empty());
        for given in [[2 * MB, 65_536, 0, 0, 0], [8 * MB, 65_536, 7 * MB, 0, 0]] {
            let told = settings(given).doubts().remove(0);
            assert!(told.contains("`journal.max_bytes` is") && told.contains("2097152"), "{told}");
            let (_, rest) = told.split_once("at least ").unwrap();
            let least: u64 = rest.split(' ').next().unwrap().parse().unwrap();
            let [_, segment, backlog, dead, body] = given;
            assert!(settings([least, segment, backlog, dead, body]).doubts().is_empty(), "{told}");
        }
    }
}
