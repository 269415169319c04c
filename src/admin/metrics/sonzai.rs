//! What concerns Sonzai's API: secrets and their changes.

use std::{fmt, sync::Arc};

use super::{Families, families::Labels};
use crate::{
    admin::view::View,
    clock::now_ms,
    sonzai::{service::Account, store::Store},
};

pub(super) fn write(view: &View, out: &mut Families) -> fmt::Result {
    let accounts = view.sonzai.accounts();
    let each = |value: fn(&Store) -> f64| {
        let labels = |account: &Account| -> Labels<1> { [("source", account.source.to_string())] };
        let values = accounts.iter().map(move |it| (labels(it), value(&it.store)));
        values.collect::<Vec<_>>()
    };
    let help = "Secrets that Sonzai's API gave, and that sign now.";
    out.gauges("waypost_sonzai_secrets", help, each(|store| store.secrets() as f64))?;
    let help = "Secrets being changed: deliveries that they may have signed are answered 503.";
    let changing = each(|store| store.changes().len() as f64);
    out.gauges("waypost_sonzai_secret_changing", help, changing)?;
    let help = "How long the oldest change of a secret has been under way; 0 if none is.";
    let oldest = each(|store| oldest_change_s(store, now_ms()));
    out.gauges("waypost_sonzai_secret_changing_seconds", help, oldest)?;
    let help = "sonzai.rotation_hold.";
    let hold_s = view.sonzai.settings().rotation_hold.as_secs_f64();
    out.gauge("waypost_sonzai_rotation_hold_seconds", help, hold_s)?;
    let help = "Whether the file with a source's secrets cannot be read, or is behind.";
    let troubled = each(|store| f64::from(store.trouble().is_some() || store.is_behind()));
    out.gauges("waypost_sonzai_secrets_troubled", help, troubled)?;
    let changes = accounts.iter().flat_map(|account| {
        let stats = &account.store.stats;
        let labels = |outcome: &str| {
            [("source", account.source.to_string()), ("outcome", outcome.to_owned())]
        };
        let counted = [
            ("changed", &stats.changed),
            ("refused", &stats.refused),
            ("uncertain", &stats.uncertain),
        ];
        counted.map(|(outcome, count)| (labels(outcome), count.get()))
    });
    let help = "Changes of secrets by what became of them; an uncertain one is made again.";
    out.counters("waypost_sonzai_secret_changes_total", help, changes)?;
    requests(&accounts, out)
}

/// Of each account's client; one that is made anew, with another `api:`, begins at nothing.
fn requests(accounts: &[Arc<Account>], out: &mut Families) -> fmt::Result {
    let counts = accounts.iter().flat_map(|account| {
        let stats = account.client.stats();
        let labels = |outcome: &str| {
            [("source", account.source.to_string()), ("outcome", outcome.to_owned())]
        };
        let counted = [
            ("ok", &stats.ok),
            ("retried", &stats.retried),
            ("refused", &stats.refused),
            ("failed", &stats.failed),
            ("unreachable", &stats.unreachable),
        ];
        counted.map(|(outcome, count)| (labels(outcome), count.get()))
    });
    let help = "Requests to Sonzai's API by what became of them; one that is retried is followed by \
                another.";
    out.counters("waypost_sonzai_requests_total", help, counts)?;
    let times = accounts.iter().map(|account| {
        let labels: Labels<1> = [("source", account.source.to_string())];
        (labels, account.client.stats().time.read())
    });
    let help = "Requests to Sonzai's API, from the connection to the last byte or the failure.";
    out.times_by("waypost_sonzai_request_duration_seconds", help, times)
}

fn oldest_change_s(store: &Store, now_ms: u64) -> f64 {
    let changes = store.changes();
    let since_ms = changes.iter().map(|(change, _)| change.since_ms).min();
    since_ms.map_or(0.0, |since_ms| now_ms.saturating_sub(since_ms) as f64 / 1000.0)
}
