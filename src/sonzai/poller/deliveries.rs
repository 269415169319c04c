//! Whether the platform gets through to us: what became of its newest attempts to deliver.

use std::time::Duration;

use crate::{
    sonzai::{
        client::{Attempt, Client, Error},
        webhooks::plan::Wanted,
    },
    source::sonzai::settings::{Register, Scope},
};

/// What is looked at of a webhook's attempts: the newest ones.
const NEWEST: u32 = 20;

/// Webhooks that are looked at.
const MAX_WEBHOOKS: usize = 100;

/// For how long a failed attempt counts that nothing followed.
const COUNTS_FOR: Duration = Duration::from_secs(3600);

/// Whether the newest attempt of any type that is registered, and that leads to this source, failed.
/// What somebody else does not take says nothing of us.
pub async fn fail(client: &Client, ours: Wanted<'_>, now_ms: u64) -> Result<bool, Error> {
    let (scope, types) = registered(client, ours.register).await?;
    for event_type in types.iter().take(MAX_WEBHOOKS) {
        match client.attempts(&scope, event_type, NEWEST, None).await {
            Ok(page) if newest_failed(&page.attempts, event_type, ours, now_ms) => {
                return Ok(true);
            }
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

fn newest_failed(attempts: &[Attempt], event_type: &str, ours: Wanted, now_ms: u64) -> bool {
    // One that does not say where it went may have been ours.
    let is_ours = |url: &str| url.is_empty() || ours.leads_here(event_type, url);
    let attempts = attempts.iter().filter(|attempt| is_ours(&attempt.webhook_url));
    // In doubt the first: the API lists the newest first.
    let newest = attempts.enumerate();
    let newest = newest.max_by_key(|(at, attempt)| (attempt.created_ms, std::cmp::Reverse(*at)));
    newest.is_some_and(|(_, attempt)| {
        let age_ms = attempt.created_ms.map_or(0, |ms| now_ms.saturating_sub(ms));
        failed(attempt) && age_ms < COUNTS_FOR.as_millis() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::path::Path;

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
            let path = Path::parse("/h/{type}").unwrap();
            let ours = Wanted { register: None, path: &path, authorization: None };
            assert_eq!(newest_failed(&attempts, "t", ours, now), expected, "{attempts:?}");
        }
    }

    #[test]
    fn what_leads_elsewhere_says_nothing_of_us() {
        let register = Register {
            public_url: "https://us".to_owned(),
            scope: Scope::Tenant,
            types: vec!["t".to_owned()],
        };
        let path = Path::parse("/h/{type}").unwrap();
        let fails = |url: &str, register| {
            let attempts = [attempt("failed", Some(2)), attempt("success", Some(1))];
            let [mut newest, before] = attempts;
            newest.webhook_url = url.to_owned();
            let ours = Wanted { register, path: &path, authorization: None };
            newest_failed(&[newest, before], "t", ours, 3)
        };
        for (url, with_register, without) in [
            ("https://us/h/t", true, true),
            ("https://they/h/t", false, true),
            ("https://they/t", false, false),
            ("https://us/h/other", false, false),
            ("", true, true),
        ] {
            let found = (fails(url, Some(&register)), fails(url, None));
            assert_eq!(found, (with_register, without), "{url}");
        }
    }
}
