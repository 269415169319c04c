//! Each broker's dispatcher: how it stands, how far it is behind, what became of its messages.

use std::fmt;

use super::{Families, families::Labels};
use crate::{
    admin::view::{Broker, View},
    dispatch::{State, Stats},
};

pub(super) fn write(view: &View, out: &mut Families) -> fmt::Result {
    let brokers = view.brokers.load();
    connection(view, &brokers, out)?;
    backlog(view, &brokers, out)?;
    messages(view, &brokers, out)
}

fn connection(view: &View, brokers: &[Broker], out: &mut Families) -> fmt::Result {
    let kinds = brokers.iter().map(|broker| {
        ([("broker", broker.name.to_string()), ("type", broker.role().name().to_owned())], 1_u64)
    });
    out.gauges("waypost_broker_info", "The type of each broker.", kinds)?;
    let up = |broker: &Broker| {
        let state = broker.stats.condition().state;
        matches!(state, State::Connected | State::Draining) as u64
    };
    let help = "Whether the broker is connected, as far as is known.";
    let there = brokers.iter().filter(|broker| broker.role.is_there());
    let there = there.map(|broker| (label(broker), up(broker)));
    out.gauges("waypost_broker_up", help, there)?;
    let help =
        "Whether the broker is connected and takes nothing for now, such as RabbitMQ's alarms.";
    let blocked = each(brokers, |broker| view.holds.reason(&broker.name).is_some() as u64);
    out.gauges("waypost_broker_blocked", help, blocked)?;
    let help = "Connections made, the first one included.";
    out.counters(
        "waypost_broker_connections_total",
        help,
        stats(brokers, |s| s.connections.get()),
    )?;
    let help = "Attempts to connect that failed.";
    let failures = stats(brokers, |stats| stats.connect_failures.get());
    out.counters("waypost_broker_connect_failures_total", help, failures)
}

fn backlog(view: &View, brokers: &[Broker], out: &mut Families) -> fmt::Result {
    let help = "Journal records that the broker has not settled.";
    out.gauges(
        "waypost_broker_lag_records",
        help,
        each(brokers, |broker| view.lag(broker).records),
    )?;
    let help = "About how many bytes those are: whole segments.";
    out.gauges("waypost_broker_lag_bytes", help, each(brokers, |broker| view.lag(broker).bytes))?;
    let help = "How long the first message that the broker is owed has waited; 0 if none waits.";
    let oldest = each(brokers, |broker| broker.oldest_waiting().as_secs_f64());
    out.gauges("waypost_broker_oldest_waiting_seconds", help, oldest)?;
    let help = "Messages set aside on disk, still to be delivered.";
    out.gauges("waypost_broker_parked_messages", help, each(brokers, Broker::parked))?;
    let help = "About how many bytes those are: whole segments.";
    out.gauges("waypost_broker_parked_bytes", help, each(brokers, Broker::parked_bytes))?;
    let help = "What the broker may have parked.";
    let limits = each(brokers, |broker| broker.backlog_bytes);
    out.gauges("waypost_broker_backlog_limit_bytes", help, limits)?;
    let full = each(brokers, |broker| view.backlogs.is_full(&broker.name) as u64);
    let help = "Whether events that the broker is owed are refused.";
    out.gauges("waypost_broker_backlog_full", help, full)
}

fn messages(view: &View, brokers: &[Broker], out: &mut Families) -> fmt::Result {
    let help = "Messages that the client has and that are not confirmed.";
    out.gauges("waypost_broker_in_flight", help, stats(brokers, |stats| stats.in_flight.get()))?;
    let help = "Messages that failed and wait to be tried again.";
    out.gauges("waypost_broker_retrying", help, stats(brokers, |stats| stats.retrying.get()))?;
    let window = view.limits.window;
    let help = "dispatch.window_messages.";
    out.gauge("waypost_broker_window_limit", help, window.messages as u64)?;
    let help = "dispatch.window_bytes.";
    out.gauge("waypost_broker_window_limit_bytes", help, window.bytes as u64)?;
    let help = "Messages handed to the client, each time.";
    out.counters("waypost_broker_published_total", help, stats(brokers, |s| s.published.get()))?;
    let help = "Those that were handed over again after they failed by themselves.";
    out.counters("waypost_broker_retries_total", help, stats(brokers, |s| s.retries.get()))?;
    let help = "Messages confirmed.";
    out.counters("waypost_broker_confirmed_total", help, stats(brokers, |s| s.confirmed.get()))?;
    let times = brokers.iter().map(|b| (label(b), b.stats.confirm_times.read()));
    let help = "From the hand-over of a message to its confirmation.";
    out.times_by("waypost_broker_publish_duration_seconds", help, times)?;
    let failures = brokers.iter().flat_map(|broker| {
        let labels =
            |class: &str| [("broker", broker.name.to_string()), ("class", class.to_owned())];
        broker.stats.failures().into_iter().map(move |(class, count)| (labels(class), count))
    });
    let help = "Messages that failed or were refused, each time; and connections lost (down).";
    out.counters("waypost_broker_failures_total", help, failures)?;
    let help = "Messages set aside.";
    out.counters("waypost_broker_messages_parked_total", help, stats(brokers, |s| s.parked.get()))?;
    let help = "Messages given up on.";
    out.counters(
        "waypost_broker_dead_letters_total",
        help,
        stats(brokers, |s| s.dead_letters.get()),
    )?;
    let help = "Records that the broker may have been owed and that were damaged on disk.";
    out.counters("waypost_broker_lost_records_total", help, each(brokers, |b| view.lost(b)))
}

fn label(broker: &Broker) -> Labels<1> {
    [("broker", broker.name.to_string())]
}

fn each<V>(
    brokers: &[Broker],
    value: impl Fn(&Broker) -> V,
) -> impl Iterator<Item = (Labels<1>, V)> {
    brokers.iter().map(move |broker| (label(broker), value(broker)))
}

fn stats(brokers: &[Broker], value: fn(&Stats) -> u64) -> impl Iterator<Item = (Labels<1>, u64)> {
    each(brokers, move |broker| value(&broker.stats))
}
