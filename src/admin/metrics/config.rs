//! The routing table in force, and what became of attempts to change it: by the names that other
//! Prometheus exporters use for theirs.

use std::fmt;

use super::Families;
use crate::admin::config::Config;

pub(super) fn write(config: &Config, out: &mut Families) -> fmt::Result {
    let help = "Whether routes.yaml, as it was last looked at, is in force.";
    out.gauge("waypost_config_last_reload_successful", help, config.is_good() as u64)?;
    let help = "When it last was found in force or put in force, since the Unix epoch.";
    out.gauge("waypost_config_last_reload_success_timestamp_seconds", help, config.success_s())?;
    let hash = [("hash", config.facts().in_force.hash)];
    let help = "The routing table in force: the first 12 digits of the SHA-256 of its text.";
    out.gauges("waypost_config_info", help, [(hash, 1_u64)])?;
    let attempts =
        config.attempts().map(|(outcome, count)| ([("outcome", outcome.to_owned())], count));
    let help = "Attempts to put routes.yaml in force since the start.";
    out.counters("waypost_config_reloads_total", help, attempts)
}
