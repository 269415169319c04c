//! Connections, requests, verification, duplicates.

use std::fmt;

use super::{Families, families::Labels};
use crate::{admin::view::View, routing::Table, server::Load, source::Stats};

pub(super) fn write(view: &View, out: &mut Families) -> fmt::Result {
    connections(view, out)?;
    requests(view, out)?;
    verification(view, out)?;
    let window = &view.window;
    out.gauge("waypost_dedupe_keys", "Keys of events remembered.", window.len() as u64)?;
    let max_keys = window.limits().max_keys as u64;
    out.gauge("waypost_dedupe_limit_keys", "dedupe.max_keys.", max_keys)?;
    let seconds = window.limits().window.as_secs_f64();
    out.gauge("waypost_dedupe_window_seconds", "dedupe.window.", seconds)
}

fn connections(view: &View, out: &mut Families) -> fmt::Result {
    let listeners = [("ingress", &view.connections), ("admin", &view.admin_connections)];
    let each = |value: fn(&Load) -> u64| {
        listeners.map(|(name, load)| ([("listener", name.to_owned())], value(load)))
    };
    let help = "Connections open now.";
    out.gauges("waypost_connections", help, each(Load::open))?;
    let help = "The most connections at once.";
    out.gauges("waypost_connections_limit", help, each(|load| load.max_connections as u64))?;
    let help = "Connections taken.";
    out.counters("waypost_connections_accepted_total", help, each(Load::accepted))?;
    let help = "Connections over the limit, answered 503 or closed.";
    out.counters("waypost_connections_shed_total", help, each(|load| load.shed.get()))?;
    let failures = listeners.into_iter().flat_map(|(name, load)| {
        let labels = |reason: &str| [("listener", name.to_owned()), ("reason", reason.to_owned())];
        load.failures().map(move |(reason, count)| (labels(reason), count))
    });
    let help = "Connections that ended early, before or between requests or in the middle of one.";
    out.counters("waypost_connections_failed_total", help, failures)?;
    let Some(tls) = &view.tls else { return Ok(()) };
    let help = "Connections that ended within their TLS handshake; deadlines apart.";
    out.counter("waypost_tls_failed_handshakes_total", help, tls.failed_handshakes())?;
    let help = "When the certificate in force ends, since the Unix epoch.";
    out.gauge("waypost_tls_certificate_expires_seconds", help, tls.expires_s())
}

fn requests(view: &View, out: &mut Families) -> fmt::Result {
    let (ingress, table) = (&view.ingress, view.table.load());
    let sources = table.sources().map(|(_, source)| (&*source.name, &source.stats.answers));
    let answers = sources.chain([("", &ingress.stats().strangers)]);
    let answers = answers.flat_map(|(source, answers)| {
        let labels = |code: &str| [("source", source.to_owned()), ("code", code.to_owned())];
        answers.read().map(move |(code, count)| (labels(code), count))
    });
    let help = "Requests answered; without a source, on a path that no source has.";
    out.counters("waypost_ingress_requests_total", help, answers)?;
    let help = "From a request's head to its answer.";
    out.times("waypost_ingress_request_duration_seconds", help, &ingress.stats().took.read())?;
    let help = "Requests not answered yet.";
    let in_flight = ingress.in_flight_requests();
    out.gauge("waypost_ingress_in_flight_requests", help, in_flight)?;
    let help = "The most requests at once beyond the first 8 of each connection.";
    let max_further = ingress.limits().max_further_requests as u64;
    out.gauge("waypost_ingress_in_flight_limit_requests", help, max_further)?;
    let help = "Bytes of bodies that were read.";
    let bodies = each(&table, |stats| stats.body_bytes.get());
    out.counters("waypost_ingress_body_bytes_total", help, bodies)?;
    let help = "The largest body.";
    let max_body_bytes = ingress.limits().max_body_bytes as u64;
    out.gauge("waypost_ingress_body_limit_bytes", help, max_body_bytes)?;
    let help = "Bytes of bodies being read or committed.";
    out.gauge("waypost_ingress_in_flight_bytes", help, ingress.in_flight_bytes() as u64)?;
    let help = "The most bytes of bodies being read or committed.";
    let max_in_flight_bytes = ingress.limits().max_in_flight_bytes as u64;
    out.gauge("waypost_ingress_in_flight_limit_bytes", help, max_in_flight_bytes)?;
    let help = "Events known already, answered as the first.";
    out.counters("waypost_duplicates_total", help, each(&table, |stats| stats.duplicates.get()))?;
    let help = "Events that no route took and that the source's `unrouted: drop` let go.";
    let dropped = each(&table, |stats| stats.unrouted_dropped.get());
    out.counters("waypost_events_unrouted_dropped_total", help, dropped)?;
    let help = "Events to which a route's condition could not be applied: no match.";
    let errors = table
        .conditional_routes()
        .map(|(name, stats)| ([("route", name.to_string())], stats.condition_errors.get()));
    out.counters("waypost_route_condition_errors_total", help, errors)
}

fn verification(view: &View, out: &mut Families) -> fmt::Result {
    let table = view.table.load();
    let sources = || table.sources().map(|(_, source)| source);
    let verified = sources().flat_map(|source| {
        let labels = |key: &str| [("source", source.name.to_string()), ("key", key.to_owned())];
        source.verified().map(move |(key, count)| (labels(&key), count))
    });
    let help = "Requests verified, by the index of the secret in its list, or where it is from.";
    out.counters("waypost_verified_total", help, verified)?;
    let failures = sources().flat_map(|source| {
        let name = &source.name;
        let labels = |reason: &str| [("source", name.to_string()), ("reason", reason.to_owned())];
        source.stats.failures().map(move |(reason, count)| (labels(reason), count))
    });
    let help = "Requests not verified; stale ones apart.";
    out.counters("waypost_verification_failures_total", help, failures)?;
    let help = "Right signatures with a timestamp too far from our clock.";
    out.counters("waypost_stale_signatures_total", help, each(&table, |stats| stats.stale.get()))?;
    let help = "Verified requests whose body names another event type than their path.";
    let disagreements = each(&table, |stats| stats.type_disagreements.get());
    out.counters("waypost_type_disagreements_total", help, disagreements)
}

/// A value of each source.
fn each(table: &Table, value: fn(&Stats) -> u64) -> impl Iterator<Item = (Labels<1>, u64)> {
    table
        .sources()
        .map(move |(_, source)| ([("source", source.name.to_string())], value(&source.stats)))
}
