//! Commands: how each place of them stands, and what became of its messages.

use std::fmt;

use super::{Families, families::Labels};
use crate::{
    admin::view::View,
    commands::stats::{Shown, State},
    meter::Counter,
};

pub(super) fn write(view: &View, out: &mut Families) -> fmt::Result {
    let commands = view.commands.load();
    let each =
        |value: fn(&Shown) -> u64| commands.iter().map(move |shown| (label(shown), value(shown)));
    let help = "Whether commands are taken from the broker and carried out as they come.";
    let up = each(|shown| shown.stats.condition().state.is_up() as u64);
    out.gauges("waypost_command_up", help, up)?;
    let help = "Whether the API refuses the key, so that commands wait.";
    let denied = each(|shown| (shown.stats.condition().state == State::Denied) as u64);
    out.gauges("waypost_command_denied", help, denied)?;
    let help = "Messages that were taken, each time.";
    out.counters("waypost_commands_taken_total", help, each(|shown| shown.stats.taken.get()))?;
    let outcomes = commands.iter().flat_map(|shown| {
        let stats = &shown.stats;
        let labels =
            |outcome: &str| [("command", shown.name.to_string()), ("outcome", outcome.to_owned())];
        let one = |outcome, count: &Counter| (labels(outcome), count.get());
        [
            one("scheduled", &stats.scheduled),
            one("duplicate", &stats.duplicates),
            one("dead_letter", &stats.dead_letters),
        ]
    });
    let help = "Commands that are done with, by what became of them.";
    out.counters("waypost_commands_total", help, outcomes)?;
    let help = "Calls of the API that failed and were made again.";
    out.counters("waypost_command_retries_total", help, each(|shown| shown.stats.retries.get()))
}

fn label(shown: &Shown) -> Labels<1> {
    [("command", shown.name.to_string())]
}
