//! Events a second, in and out, over about the last minute: counters are noted every few seconds,
//! and a rate is the difference to the oldest note over the time since.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytestring::ByteString;

/// How often counters are noted.
pub const NOTE_EVERY: Duration = Duration::from_secs(5);

/// How many notes are kept: a minute's.
const NOTES: usize = 12;

/// Counters at a time, by name: they come and go.
#[derive(Clone, Debug)]
pub struct Note {
    pub at: Instant,
    pub counters: BTreeMap<ByteString, u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rates(Mutex<VecDeque<Note>>);

impl Rates {
    pub fn note(&self, note: Note) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() == NOTES {
            notes.pop_front();
        }
        notes.push_back(note);
    }

    /// What each counter grew by a second, and since when.
    pub fn until(&self, now: &Note) -> (BTreeMap<ByteString, f64>, Duration) {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = notes.front().unwrap_or(now);
        let since = now.at.saturating_duration_since(oldest.at);
        let seconds = since.as_secs_f64();
        let rate = |(name, now): (&ByteString, &u64)| {
            let then = oldest.counters.get(name).copied().unwrap_or_default();
            let grown = now.saturating_sub(then) as f64;
            (name.clone(), if seconds > 0.0 { grown / seconds } else { 0.0 })
        };
        (now.counters.iter().map(rate).collect(), since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_last_minute_or_what_there_is_of_it() {
        let (rates, start) = (Rates::default(), Instant::now());
        let note = |s: u64, counters: [u64; 2]| Note {
            at: start + Duration::from_secs(s),
            counters: ["a".into(), "b".into()].into_iter().zip(counters).collect(),
        };
        let read = |now: &Note| {
            let (rates, since) = rates.until(now);
            (rates.into_values().collect::<Vec<f64>>(), since)
        };
        assert_eq!(read(&note(0, [5, 0])), (vec![0.0, 0.0], Duration::ZERO));
        rates.note(note(0, [0, 0]));
        assert_eq!(read(&note(0, [5, 0])).0, [0.0, 0.0]);
        assert_eq!(read(&note(2, [5, 1])), (vec![2.5, 0.5], Duration::from_secs(2)));
        for step in 1..=20 {
            rates.note(note(step * 5, [step * 100, 0]));
        }
        let (last, since) = read(&note(102, [2000, 0]));
        assert_eq!(since, Duration::from_secs(57));
        assert_eq!(last, [(2000.0 - 900.0) / 57.0, 0.0]);
    }

    #[test]
    fn counters_come_and_go() {
        let (rates, start) = (Rates::default(), Instant::now());
        let note = |s: u64, name: &'static str, counter| Note {
            at: start + Duration::from_secs(s),
            counters: [(name.into(), counter)].into(),
        };
        rates.note(note(0, "gone", 7));
        let (now, _) = rates.until(&note(2, "new", 4));
        assert_eq!(now, [("new".into(), 2.0)].into());
    }
}
