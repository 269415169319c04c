//! A limit on requests, and how a refusal says when to come again.

use std::time::Instant;

use chrono::{DateTime, Datelike, Timelike};

/// So many requests a second, saved up for one second.
#[derive(Debug)]
pub struct Rate {
    per_second: f64,
    left: f64,
    at: Instant,
    refused: u64,
}

impl Rate {
    pub fn new(per_second: u32, now: Instant) -> Rate {
        let per_second = f64::from(per_second);
        Rate { per_second, left: per_second, at: now, refused: 0 }
    }

    /// Lets a request through, or says with what `Retry-After` it is refused: seconds and a date in
    /// turn.
    pub fn take(&mut self, now: Instant, now_ms: u64) -> Result<(), String> {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + earned).min(self.per_second);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        self.refused += 1;
        // A date has whole seconds: one more than a second ahead is at least a second ahead.
        Err(if self.refused % 2 == 1 { "1".to_owned() } else { http_date(now_ms + 2000) })
    }
}

/// A time as RFC 9110 wants a date, whole seconds, rounded down.
pub fn http_date(ms: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time = DateTime::from_timestamp_millis(ms as i64).unwrap_or_default();
    let (day, month, year) = (time.day(), MONTHS[time.month0() as usize], time.year());
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", time.weekday())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_date_is_as_rfc_9110_writes_it() {
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn beyond_the_rate_both_forms_of_retry_after_take_turns() {
        let start = Instant::now();
        let mut rate = Rate::new(2, start);
        assert_eq!(rate.take(start, 0), Ok(()));
        assert_eq!(rate.take(start, 0), Ok(()));
        assert_eq!(rate.take(start, 0), Err("1".into()));
        assert_eq!(rate.take(start, 0), Err("Thu, 01 Jan 1970 00:00:02 GMT".into()));
        assert_eq!(rate.take(start, 0), Err("1".into()));
        let later = start + Duration::from_millis(500);
        assert_eq!(rate.take(later, 0), Ok(()));
        assert!(rate.take(later, 0).is_err());
    }
}
