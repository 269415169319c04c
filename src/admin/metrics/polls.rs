//! What is asked of Sonzai's API, and what its pending notifications bring.

use std::{fmt, sync::Arc};

use super::{Families, families::Labels};
use crate::{
    admin::view::View,
    sonzai::{poller::Stats, service::Account},
    source::sonzai::settings::Poll,
};

pub(super) fn write(view: &View, out: &mut Families) -> fmt::Result {
    let accounts = view.sonzai.accounts();
    let polls: Vec<(&Account, &Poll, &Arc<Stats>)> = accounts
        .iter()
        .filter_map(|it| Some((&**it, it.settings.poll.as_ref()?, &it.polled)))
        .collect();
    let each = |value: fn(&Stats) -> u64| {
        let labelled =
            |(account, _, stats): &(&Account, &Poll, &Arc<Stats>)| (source(account), value(stats));
        polls.iter().map(labelled).collect::<Vec<_>>()
    };
    for (name, help, value) in counters() {
        out.counters(name, help, each(value))?;
    }
    for (name, help, value) in gauges() {
        out.gauges(name, help, each(value))?;
    }
    let help = "How long the oldest item that is still pending has been; 0 if none is.";
    let oldest = polls.iter().map(|(it, _, stats)| (source(it), stats.oldest_pending_seconds()));
    out.gauges("waypost_poll_oldest_pending_seconds", help, oldest)?;
    let help = "When a list last answered, since the Unix epoch; 0 if never.";
    let seconds = |stats: &Stats| stats.last_success_ms.get() as f64 / 1000.0;
    let last = polls.iter().map(|(account, _, stats)| (source(account), seconds(stats)));
    out.gauges("waypost_poll_last_success_timestamp_seconds", help, last)?;
    let settings = view.sonzai.settings();
    let help = "sonzai.max_agents.";
    out.gauge("waypost_poll_agents_limit", help, settings.max_agents as u64)?;
    let help = "sonzai.max_concurrent_lists.";
    out.gauge("waypost_poll_lists_limit", help, settings.max_concurrent_lists as u64)
}

type Of = (&'static str, &'static str, fn(&Stats) -> u64);

fn counters() -> [Of; 8] {
    [
        ("waypost_poll_looks_total", "Looks at lists.", |stats| stats.looks.get()),
        (
            "waypost_poll_failures_total",
            "Looks that failed, or whose items could not all be let in \
         and taken.",
            |stats| stats.failures.get(),
        ),
        (
            "waypost_poll_listed_total",
            "Items in lists, those that were seen before included.",
            |stats| stats.listed.get(),
        ),
        ("waypost_poll_unreadable_total", "Entries of lists that could not be read.", |stats| {
            stats.unreadable.get()
        }),
        ("waypost_poll_appended_total", "Items that no webhook had brought.", |stats| {
            stats.appended.get()
        }),
        ("waypost_poll_duplicates_total", "Items that were known already.", |stats| {
            stats.duplicates.get()
        }),
        (
            "waypost_poll_dropped_total",
            "Items that no route takes, of a source that says unrouted: \
         drop.",
            |stats| stats.dropped.get(),
        ),
        ("waypost_poll_taken_total", "Items that were acknowledged or consumed.", |stats| {
            stats.taken.get()
        }),
    ]
}

fn gauges() -> [Of; 10] {
    [
        ("waypost_poll_up", "1 unless something keeps the source from being polled.", |stats| {
            u64::from(!stats.is_in_trouble())
        }),
        (
            "waypost_poll_denied",
            "1 while the key is refused, or may not do this: polling waits for \
         somebody to mend that.",
            |stats| u64::from(stats.is_open()),
        ),
        (
            "waypost_poll_fast",
            "1 while it polls often: mode always, or push does not work.",
            |stats| u64::from(stats.why().is_fast()),
        ),
        (
            "waypost_poll_deliveries_fail",
            "1 while the newest attempts to deliver to a webhook fail.",
            |stats| stats.deliveries_fail.get(),
        ),
        ("waypost_poll_stuck", "Items that are durable and cannot be taken.", |stats| {
            stats.stuck.get()
        }),
        ("waypost_poll_too_large", "Items that are larger than the journal takes.", |stats| {
            stats.too_large.get()
        }),
        (
            "waypost_poll_hidden_lists",
            "Lists whose pages are full of what stays pending: what is \
         behind them is out of sight.",
            |stats| stats.hidden_lists.get(),
        ),
        (
            "waypost_poll_lists_in_trouble",
            "Lists that cannot be polled while others can.",
            |stats| stats.lists_in_trouble.get(),
        ),
        ("waypost_poll_agents", "Agents that are polled.", |stats| stats.agents.get()),
        (
            "waypost_poll_agents_left_out",
            "1 if there are more agents than may be polled.",
            |stats| stats.agents_left_out.get(),
        ),
    ]
}

fn source(account: &Account) -> Labels<1> {
    [("source", account.source.to_string())]
}
