//! Whether the platform gets through to us: what became of its newest attempts to deliver.

use std::time::Duration;

use crate::{
    sonzai::client::{Attempt, Client, Error},
    source::sonzai::settings::{Register, Scope},
};

/// What is looked at of a webhook's attempts: the newest ones.
const NEWEST: u32 = 20;

/// Webhooks that are looked at.
const MAX_WEBHOOKS: usize = 100;

/// For how long a failed attempt counts that nothing followed.
const COUNTS_FOR: Duration = Duration::from_secs(3600);

/// Whether the newest attempt of any type that is registered failed.
pub async fn fail(
    client: &Client,
    register: Option<&Register>,
    now_ms: u64,
) -> Result<bool, Error> {
    let (scope, types) = registered(client, register).await?;
    for event_type in types.iter().take(MAX_WEBHOOKS) {
        match client.attempts(&scope, event_type, NEWEST, None).await {
            Ok(page) if newest_failed(&page.attempts, now_ms) => return Ok(true),
            // It is not registered (yet).
            Err(error) if !error.is_gone() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}

/// Which types are registered, and where: as the routing table says, else as the API does.
pub async fn registered(
    client: &Client,
    register: Option<&Register>,
) -> Result<(Scope, Vec<String>), Error> {
    if let Some(register) = register {
        return Ok((register.scope.clone(), register.types.clone()));
    }
    let webhooks = client.webhooks(&Scope::Tenant).await?;
    let active = webhooks.into_iter().filter(|webhook| webhook.is_active);
    Ok((Scope::Tenant, active.map(|webhook| webhook.event_type).collect()))
}

/// Whether an attempt did not bring its event.
pub fn failed(attempt: &Attempt) -> bool {
    attempt.status != "success"
}

fn newest_failed(attempts: &[Attempt], now_ms: u64) -> bool {
    // In doubt the first: the API lists the newest first.
    let newest = attempts.iter().enumerate();
    let newest = newest.max_by_key(|(at, attempt)| (attempt.created_ms, std::cmp::Reverse(*at)));
    newest.is_some_and(|(_, attempt)| {
        let age_ms = attempt.created_ms.map_or(0, |ms| now_ms.saturating_sub(ms));
        failed(attempt) && age_ms < COUNTS_FOR.as_millis() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(status: &str, created_ms: Option<u64>) -> Attempt {
        Attempt {
            attempt_id: String::new(),
            event_type: String::new(),
            webhook_url: String::new(),
            response_code: 0,
            attempt_number: 1,
            status: status.to_owned(),
            created_ms,
            created_at: String::new(),
            error_message: None,
            request_body: None,
            unreadable_body: false,
            duration_ms: None,
        }
    }

    #[test]
    fn the_newest_attempt_counts_whatever_the_order() {
        let now = 10_000_000;
        let (good, bad) = ("success", "failed");
        for (attempts, expected) in [
            (vec![], false),
            (vec![(good, Some(now))], false),
            (vec![(bad, Some(now))], true),
            (vec![(bad, Some(now)), (good, Some(now - 1))], true),
            (vec![(good, Some(now - 1)), (bad, Some(now))], true),
            (vec![(bad, Some(now - 1)), (good, Some(now))], false),
            (vec![(bad, None), (good, None)], true),
            (vec![(good, None), (bad, None)], false),
            (vec![(bad, Some(now - 3_599_999))], true),
            (vec![(bad, Some(now - 3_600_000))], false),
        ] {
            let attempts: Vec<_> = attempts.iter().map(|(s, ms)| attempt(s, *ms)).collect();
            assert_eq!(newest_failed(&attempts, now), expected, "{attempts:?}");
        }
    }
}
