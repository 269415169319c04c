//! The journal, the dead letters, and the disk they are on.

use std::fmt;

use super::{Families, families::Labels};
use crate::{
    admin::{damage::Named, view::View},
    journal::Journal,
};

pub(super) fn write(view: &View, out: &mut Families) -> fmt::Result {
    store(view, out)?;
    damage(view, out)
}

fn store(view: &View, out: &mut Families) -> fmt::Result {
    let (main, stats) = (&view.main, view.main.stats());
    let room = main.room();
    out.gauge("waypost_journal_bytes", "Bytes of the journal's segments.", room.bytes)?;
    out.gauge("waypost_journal_limit_bytes", "journal.max_bytes.", room.max_bytes)?;
    let help = "Records in the journal's segments, settled ones that are not freed yet included.";
    out.gauge("waypost_journal_records", help, room.records)?;
    let help = "Records made durable.";
    out.counter("waypost_journal_appended_records_total", help, stats.appended.get())?;
    let refusals = stats.refusals().map(|(reason, count)| ([("reason", reason.to_owned())], count));
    let help = "Appends refused.";
    out.counters("waypost_journal_refused_appends_total", help, refusals)?;
    let help = "Time of each group commit's fdatasync.";
    out.times("waypost_journal_commit_duration_seconds", help, &stats.syncs.read())?;
    let help = "Records of each group commit.";
    out.sizes("waypost_journal_commit_records", help, &stats.batches.read())?;
    let help = "How long a group commit has taken, where that is longer than it may; else 0.";
    let hangs =
        view.hangs().map(|(name, hangs)| ([("journal", name.to_owned())], hangs.as_secs_f64()));
    out.gauges("waypost_journal_commit_hangs_seconds", help, hangs)?;
    let help = "journal.commit_timeout.";
    let limit = view.settings.journal.commit_timeout.as_secs_f64();
    out.gauge("waypost_journal_commit_limit_seconds", help, limit)?;
    let help = "What the data directory may come to hold, but for the files of log brokers.";
    out.gauge("waypost_data_dir_limit_bytes", help, view.footprint().total_bytes())?;
    if let Some(left) = view.disk_left_bytes() {
        let help = "What may still be written to the disk of the data directory.";
        out.gauge("waypost_disk_left_bytes", help, left)?;
    }
    let help = "journal.reserve_bytes: kept on the disk for a start on a full one.";
    out.gauge("waypost_disk_reserve_limit_bytes", help, view.settings.journal.reserve_bytes)?;
    let kept = view.dead_letters.room();
    out.gauge("waypost_dead_letters_kept", "Dead letters on disk.", kept.records)?;
    out.gauge("waypost_dead_letters_bytes", "Bytes of dead letters.", kept.bytes)?;
    out.gauge("waypost_dead_letters_limit_bytes", "dead_letters.max_bytes.", kept.max_bytes)
}

/// Of every journal, what of it is damaged or cannot be read. One look at the disk a journal.
fn damage(view: &View, out: &mut Families) -> fmt::Result {
    let journals = view.journals();
    let each = |value: fn(&Journal) -> u64| {
        journals.iter().map(move |named| (label(named), value(&named.journal)))
    };
    let help = "Regions that were found damaged.";
    let damaged = each(|journal| journal.troubles_met().0);
    out.counters("waypost_journal_damaged_regions_total", help, damaged)?;
    let help = "Regions that the disk could not read when they were first asked for.";
    let errors = each(|journal| journal.troubles_met().1);
    out.counters("waypost_journal_read_errors_total", help, errors)?;
    let help = "Regions that the disk cannot read at present.";
    let unread = journals.iter().map(Named::unread_regions);
    out.gauge("waypost_journal_unreadable_regions", help, unread.sum::<u64>())?;
    let help = "Released files that could not be removed, each time.";
    let failures = each(|journal| journal.stats().unlink_failures.get());
    out.counters("waypost_journal_unlink_failures_total", help, failures)?;
    let kept = journals.iter().filter_map(|named| Some((label(named), named.quarantine()?)));
    let kept: Vec<_> = kept.collect();
    let help = "Files in quarantine: damaged ones, and what is known of their damage.";
    let files = kept.iter().map(|(label, kept)| (label.clone(), kept.files));
    out.gauges("waypost_journal_quarantine_files", help, files)?;
    let help = "Bytes of those files.";
    let bytes = kept.iter().map(|(label, kept)| (label.clone(), kept.bytes));
    out.gauges("waypost_journal_quarantine_bytes", help, bytes)?;
    let help = "journal.quarantine_max_bytes: of each journal.";
    let limits = kept.iter().map(|(label, kept)| (label.clone(), kept.max_bytes));
    out.gauges("waypost_journal_quarantine_limit_bytes", help, limits)
}

fn label(named: &Named) -> Labels<2> {
    [("journal", named.kind.to_owned()), ("broker", named.broker.clone())]
}
