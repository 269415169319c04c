//! Counting and measuring: plain atomics, so that what is counted thousands of times a second costs
//! next to nothing. Whoever counts owns its meters; who looks reads them.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number that only grows, from 0 at the start of the process.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number as it is now.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds for times, in nanoseconds: 0.1 ms to 30 s.
const TIMES: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// Upper bounds for sizes of batches.
const SIZES: [u64; 12] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096];

/// How values are spread. Two additions a value; a reading may be one value ahead in its sum.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One a bound, and one for what is above the last.
    buckets: Box<[Counter]>,
    sum: Counter,
}

/// What a histogram holds at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub sum: u64,
    /// Each upper bound, inclusive, with how many values lie between it and the one before. `None`
    /// is the last: no bound.
    pub buckets: Vec<(Option<u64>, u64)>,
}

impl Histogram {
    /// For times; its unit is the nanosecond.
    pub fn of_times() -> Histogram {
        Histogram::new(&TIMES)
    }

    /// For sizes of batches.
    pub fn of_sizes() -> Histogram {
        Histogram::new(&SIZES)
    }

    fn new(bounds: &'static [u64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Histogram { bounds, buckets, sum: Counter::default() }
    }

    pub fn observe(&self, value: u64) {
        self.buckets[self.bounds.partition_point(|bound| *bound < value)].inc();
        self.sum.add(value);
    }

    pub fn observe_time(&self, took: Duration) {
        self.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn read(&self) -> Reading {
        let sum = self.sum.get();
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(self.buckets.iter().map(Counter::get)).collect();
        Reading { sum, buckets }
    }
}

impl Reading {
    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_at_a_bound_is_below_it() {
        let sizes = Histogram::of_sizes();
        for value in [0, 1, 2, 3, 4, 4096, 4097, u64::MAX / 2] {
            sizes.observe(value);
        }
        let counts: Vec<u64> = sizes.read().buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn bounds_ascend() {
        assert!(TIMES.is_sorted_by(|a, b| a < b) && SIZES.is_sorted_by(|a, b| a < b));
    }

    proptest! {
        #[test]
        fn every_value_is_counted_once_and_summed(values in prop::collection::vec(0u64..1 << 40, 0..50)) {
            let times = Histogram::of_times();
            values.iter().for_each(|value| times.observe_time(Duration::from_nanos(*value)));
            let reading = times.read();
            prop_assert_eq!(reading.sum, values.iter().sum::<u64>());
            prop_assert_eq!(reading.count(), values.len() as u64);
            let mut below = 0;
            for (bound, count) in reading.buckets {
                below += count;
                let bound = bound.unwrap_or(u64::MAX);
                prop_assert_eq!(below, values.iter().filter(|value| **value <= bound).count() as u64);
            }
        }
    }
}
