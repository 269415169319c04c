//! Running time: neither a wall clock that is set moves it on, nor time in which the daemon is down.

use tokio::time::Instant;

/// How much of the time between two entries of an earlier process counts at the most: how much of it
/// was downtime or a jump of its wall clock cannot be told any more. More, and a jump would make what
/// lies before it seem old; less, and what a quiet daemon knows would stay for long.
const GAP_S: u32 = 3600;

/// The time at a start: far from 0, so that what is older has one as well.
pub const START_S: u32 = u32::MAX / 2;

/// Counts it, in seconds.
pub struct Running(Instant);

impl Running {
    pub fn start() -> Running {
        Running(Instant::now())
    }

    pub fn now_s(&self) -> u32 {
        let ran_s = u32::try_from(self.0.elapsed().as_secs()).unwrap_or(u32::MAX);
        START_S.saturating_add(ran_s)
    }
}

/// The running times of entries of earlier processes, as far as they can be told, in their order: from
/// their times by the wall clock, in seconds, oldest first. The last came just before the start.
pub fn of_earlier(wall_s: impl Iterator<Item = u32> + Clone) -> impl Iterator<Item = u32> {
    let span_s = gaps(wall_s.clone()).fold(0, u32::saturating_add);
    let first_s = START_S.saturating_sub(span_s);
    gaps(wall_s).scan(first_s, |run_s, gap_s| {
        *run_s = run_s.saturating_add(gap_s).min(START_S);
        Some(*run_s)
    })
}

/// What counts of the time since the one before; what the wall clock was set back by is none.
fn gaps(wall_s: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    wall_s.scan(None, |last_s: &mut Option<u32>, wall_s| {
        let last_s = last_s.replace(wall_s).unwrap_or(wall_s);
        Some(wall_s.saturating_sub(last_s).min(GAP_S))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_of_earlier_entries_count_what_is_sure_and_no_jump_makes_them_old() {
        const DAY_S: u32 = 24 * 3600;
        for (wall_s, ages_s) in [
            (vec![], vec![]),
            (vec![5], vec![0]),
            (vec![100, 110, 110, 3700], vec![3600, 3590, 3590, 0]),
            // A long pause, or a jump, or both.
            (vec![100, 100 + DAY_S, 101 + DAY_S], vec![3601, 1, 0]),
            // Set forward by mistake, and back again.
            (vec![100, 101 + 3 * DAY_S, 102, 103], vec![3601, 1, 1, 0]),
            (vec![3 * DAY_S, 10, 20], vec![10, 10, 0]),
            // No clock is trusted so far that it could make more than there is.
            (vec![0, u32::MAX, 0, u32::MAX], vec![7200, 3600, 3600, 0]),
        ] {
            let ages: Vec<u32> = of_earlier(wall_s.iter().copied()).map(|s| START_S - s).collect();
            assert_eq!(ages, ages_s, "{wall_s:?}");
        }
    }
}
