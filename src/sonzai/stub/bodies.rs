//! The bodies that requests may have.

use chrono::DateTime;
use http::HeaderMap;
use secrecy::SecretString;

use super::{checks::Members, problem::Problem};

/// Milliseconds in an hour.
const HOUR_MS: i64 = 3_600_000;

/// `UpsertWebhookInputBody`
#[derive(Debug)]
pub struct Registration {
    pub webhook_url: String,
    pub auth_header: Option<SecretString>,
}

impl Registration {
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Registration, Problem> {
        let mut members = Members::parse(headers, body)?;
        let webhook_url = members.text("webhook_url");
        let auth_header = members.optional_text("auth_header").map(SecretString::from);
        members.done()?;
        Ok(Registration { webhook_url, auth_header })
    }
}

/// `AcknowledgeProjectNotificationsInputBody`
pub fn notification_ids(headers: &HeaderMap, body: &[u8]) -> Result<Vec<String>, Problem> {
    let mut members = Members::parse(headers, body)?;
    let ids = members.texts("notification_ids");
    members.done()?;
    Ok(ids)
}

/// `ScheduleWakeupInputBody`
#[derive(Debug)]
pub struct NewWakeup {
    pub user_id: String,
    pub check_type: String,
    pub intent: String,
    pub occasion: Option<String>,
    pub interest_topic: Option<String>,
    pub event_description: Option<String>,
    /// From `scheduled_at`, or `delay_hours` from now.
    pub scheduled_ms: u64,
}

impl NewWakeup {
    pub fn read(headers: &HeaderMap, body: &[u8], now_ms: u64) -> Result<NewWakeup, Problem> {
        let mut members = Members::parse(headers, body)?;
        let delay_hours = members.integer("delay_hours");
        let scheduled_at = members.optional_text("scheduled_at");
        let absolute = scheduled_at.as_deref().map(DateTime::parse_from_rfc3339);
        let scheduled_ms = match absolute {
            None => (now_ms as i64).saturating_add(delay_hours.saturating_mul(HOUR_MS)),
            Some(Ok(time)) => time.timestamp_millis(),
            Some(Err(_)) => {
                let message = "expected string to be RFC 3339 date-time";
                members.refuse("scheduled_at", message, scheduled_at);
                0
            }
        };
        let wakeup = NewWakeup {
            user_id: members.text("user_id"),
            check_type: members.text("check_type"),
            intent: members.text("intent"),
            occasion: members.optional_text("occasion"),
            interest_topic: members.optional_text("interest_topic"),
            event_description: members.optional_text("event_description"),
            scheduled_ms: u64::try_from(scheduled_ms).unwrap_or(0),
        };
        members.done()?;
        Ok(wakeup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_767_225_600_000;

    fn wakeup(more: &str) -> Result<NewWakeup, Problem> {
        let body = format!(r#"{{"user_id":"u","check_type":"c","intent":"i"{more}}}"#);
        NewWakeup::read(&HeaderMap::new(), body.as_bytes(), NOW_MS)
    }

    #[test]
    fn a_wakeup_is_due_at_its_time_or_after_its_delay() {
        for (more, due_ms) in [
            (r#","delay_hours":0"#, NOW_MS),
            (r#","delay_hours":24"#, NOW_MS + 86_400_000),
            (r#","delay_hours":24,"scheduled_at":"2026-01-01T00:00:01Z""#, NOW_MS + 1000),
            (r#","delay_hours":0,"scheduled_at":"2026-01-01T02:00:00+02:00""#, NOW_MS),
            (r#","delay_hours":-1"#, NOW_MS - 3_600_000),
        ] {
            assert_eq!(wakeup(more).unwrap().scheduled_ms, due_ms, "{more}");
        }
    }

    #[test]
    fn a_wakeup_that_the_document_forbids_is_refused() {
        for (more, location) in [
            ("", "body"),
            (r#","delay_hours":"1""#, "body.delay_hours"),
            (r#","delay_hours":1.5"#, "body.delay_hours"),
            (r#","delay_hours":1,"scheduled_at":"tomorrow""#, "body.scheduled_at"),
            (r#","delay_hours":1,"context":"x""#, "body.context"),
            (r#","delay_hours":1,"occasion":null"#, "body.occasion"),
        ] {
            let problem = wakeup(more).unwrap_err();
            assert_eq!(problem.status, 422, "{more}");
            assert_eq!(problem.errors[0].location, location, "{more}");
        }
    }

    #[test]
    fn a_registration_has_a_url_and_nothing_else_but_an_authorization() {
        for (body, taken) in [
            (r#"{"webhook_url":"https://h"}"#, true),
            (r#"{"webhook_url":"https://h","auth_header":"Bearer t"}"#, true),
            (r#"{"auth_header":"Bearer t"}"#, false),
            (r#"{"webhook_url":null}"#, false),
            (r#"{"webhook_url":"https://h","event_type":"x"}"#, false),
        ] {
            let read = Registration::read(&HeaderMap::new(), body.as_bytes());
            assert_eq!(read.is_ok(), taken, "{body}");
        }
    }

    #[test]
    fn a_batch_to_acknowledge_may_be_null_but_not_absent() {
        for (body, taken) in [
            (r#"{"notification_ids":["a","b"]}"#, true),
            (r#"{"notification_ids":[]}"#, true),
            (r#"{"notification_ids":null}"#, true),
            (r#"{"notification_ids":"a"}"#, false),
            (r#"{"notification_ids":[1]}"#, false),
            ("{}", false),
        ] {
            let read = notification_ids(&HeaderMap::new(), body.as_bytes());
            assert_eq!(read.is_ok(), taken, "{body}");
        }
    }
}
