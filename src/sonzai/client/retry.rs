//! When a call is tried again, and after which pause. Pure.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use http::{
    HeaderMap, StatusCode,
    header::{DATE, RETRY_AFTER},
};

use super::error::Why;
use crate::backoff::Backoff;

/// Before the second attempt, about.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// A longer `Retry-After` is taken for this one: nobody who comes back after a day was in a hurry.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What may be well the next time.
const TRANSIENT: [StatusCode; 6] = [
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// The pause before attempt `attempts + 1`, or `None` if there is none. `changes` says whether the
/// call changes something: then an answer that came, but cannot be read, is not asked for again.
pub fn pause(
    why: &Why,
    changes: bool,
    attempts: u32,
    max_attempts: u32,
    max_pause: Duration,
) -> Option<Duration> {
    if attempts >= max_attempts {
        return None;
    }
    let backoff = Backoff { first: FIRST_PAUSE.min(max_pause), max: max_pause };
    let backoff = || backoff.jittered(attempts);
    match why {
        Why::Unreachable { .. } | Why::Cut { .. } | Why::Late { .. } => Some(backoff()),
        Why::Malformed { .. } => (!changes).then(backoff),
        Why::Refused(refusal) if TRANSIENT.contains(&refusal.status) => match refusal.retry_after {
            Some(wanted) => (wanted <= max_pause).then(|| wanted.max(backoff())),
            None => Some(backoff()),
        },
        Why::Refused(_) | Why::Redirected { .. } | Why::TooLarge { .. } | Why::Unaskable(_) => None,
    }
}

/// `Retry-After` in any of its forms (RFC 9110, 10.2.3): seconds, here fractional ones, too, or a
/// date. A date counts from the answer's own `Date`, where it has one: the clocks may differ.
pub fn retry_after(headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wanted = match text.as_bytes().first()? {
        b'0'..=b'9' => text
            .parse()
            .ok()
            .map(|seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(MAX_RETRY_AFTER))?,
        _ => {
            let date = |text: &str| http_date_ms(text.trim());
            let now = headers.get(DATE).and_then(|value| date(value.to_str().ok()?));
            let now_ms = now.unwrap_or(i64::try_from(now_ms).unwrap_or(i64::MAX));
            let wait_ms = date(text)?.saturating_sub(now_ms);
            Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0))
        }
    };
    Some(wanted.min(MAX_RETRY_AFTER))
}

/// A date of HTTP (RFC 9110, 5.6.7), today's form or one of the two old ones, in Unix milliseconds.
fn http_date_ms(text: &str) -> Option<i64> {
    let old = |form| NaiveDateTime::parse_from_str(text, form).map(|time| time.and_utc());
    DateTime::parse_from_rfc2822(text)
        .map(|time| time.to_utc())
        .or_else(|_| old("%A, %d-%b-%y %H:%M:%S GMT"))
        .or_else(|_| old("%a %b %e %H:%M:%S %Y"))
        .map(|time| time.timestamp_millis())
        .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::error::Refusal, *};

    const MAX_PAUSE: Duration = Duration::from_secs(30);

    fn refused(status: u16, retry_after: Option<f64>) -> Why {
        let retry_after = retry_after.map(Duration::from_secs_f64);
        Why::Refused(Box::new(Refusal::bare(
            "h",
            StatusCode::from_u16(status).unwrap(),
            retry_after,
        )))
    }

    fn cut() -> Why {
        Why::Cut { host: String::new(), cause: String::new() }
    }

    fn malformed() -> Why {
        Why::Malformed { host: String::new(), cause: String::new() }
    }

    #[test]
    fn what_may_be_well_the_next_time_is_tried_again() {
        for status in 300..600 {
            let again = pause(&refused(status, None), true, 1, 4, MAX_PAUSE).is_some();
            let expected = matches!(status, 408 | 429 | 500 | 502 | 503 | 504);
            assert_eq!(again, expected, "{status}");
        }
        for (why, changes, expected) in [
            (cut(), true, true),
            (malformed(), false, true),
            (malformed(), true, false),
            (Why::TooLarge { limit: 1 }, false, false),
            (Why::Unaskable(String::new()), false, false),
            (Why::Redirected { host: String::new(), status: StatusCode::FOUND }, false, false),
        ] {
            let again = pause(&why, changes, 1, 4, MAX_PAUSE).is_some();
            assert_eq!(again, expected, "{why:?} {changes}");
        }
        assert_eq!(pause(&cut(), false, 4, 4, MAX_PAUSE), None);
    }

    #[test]
    fn a_longer_wait_than_is_waited_ends_the_call() {
        let wait = |wanted| pause(&refused(429, Some(wanted)), false, 1, 4, MAX_PAUSE);
        assert_eq!(wait(30.0), Some(MAX_PAUSE));
        assert_eq!(wait(30.001), None);
        assert!(wait(0.0) >= Some(FIRST_PAUSE / 2));
    }

    #[test]
    fn retry_after_is_read_in_all_its_forms() {
        const AT: u64 = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (text, date, expected) in [
            ("3", None, Some(3.0)),
            (" 1.5 ", None, Some(1.5)),
            ("0", None, Some(0.0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", None, Some(10.0)),
            ("Sunday, 06-Nov-94 08:49:47 GMT", None, Some(10.0)),
            ("Sun Nov  6 08:49:47 1994", None, Some(10.0)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", None, Some(0.0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some("Sun, 06 Nov 1994 08:49:45 GMT"), Some(2.0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some("whenever"), Some(10.0)),
            ("99999999999999999999999999", None, Some(86_400.0)),
            ("Sat, 06 Nov 2094 08:49:47 GMT", None, Some(86_400.0)),
            ("-1", None, None),
            ("soon", None, None),
            ("", None, None),
            ("1 s", None, None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            date.map(|date| headers.insert(DATE, date.parse().unwrap()));
            let expected = expected.map(Duration::from_secs_f64);
            assert_eq!(retry_after(&headers, AT), expected, "{text:?} {date:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), AT), None);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_it_may_be(attempts in 1u32..1000, max_ms in 0u64..100_000) {
            let max = Duration::from_millis(max_ms);
            let pause = pause(&cut(), true, attempts, u32::MAX, max).unwrap();
            prop_assert!(pause <= max);
            prop_assert!(pause >= FIRST_PAUSE.min(max) / 2);
        }

        #[test]
        fn no_header_is_a_crash(text in "[ -~]{0,40}", date in "[ -~]{0,40}", now_ms: u64) {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            headers.insert(DATE, date.parse().unwrap());
            let _ = retry_after(&headers, now_ms);
        }
    }
}
