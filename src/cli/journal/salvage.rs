//! `waypost journal salvage`: sends on what can be read in a file that the journal is done with.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use tokio::time::sleep;

use super::super::{Error, block_on, operator, print, printable};
use crate::{
    admin::{Salvage, SalvageAnswer, SalvagedRecord, Token, Verdict},
    backoff::Backoff,
    dedupe::{self, Key},
    dispatch::kept::Kept,
    event::Record,
    journal::{self, RealDisk, Salvaged},
    settings::Settings,
};

/// The admin API's page.
const PAGE: &str = "/api/journal/salvage";

/// How long the daemon may take for one batch.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// A batch is sent once it has so many records or bytes.
const BATCH_RECORDS: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

/// Between attempts where there is no room.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) };

/// How often in a row, before the command says how far it came.
const MAX_ATTEMPTS: u32 = 30;

/// Names that are shown of a broker, type or reason.
const MAX_CHARS: usize = 100;

/// Send on what can be read in a damaged file, through the running daemon.
///
/// FILE is one in a `quarantine` or `aside` directory of the main journal or of a broker's parked
/// messages, or a copy of one. Records go out as they were routed when they were received, each with
/// what it is known by: one that the daemon knows is not sent again, so this can be run again.
///
/// Without --all only what was lost to somebody is sent, as the .damage file beside it says. A broker
/// that had had a record gets it again where another had not. Ends with 0 only if all was sent, or is known.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost journal salvage data/journal/quarantine/00000000000000000000-00000000000000012729.seg --dry-run
  waypost journal salvage data/journal/quarantine/00000000000000000000-00000000000000012729.seg
  waypost journal salvage --all /backup/00000000000000000000.seg")]
pub struct Arguments {
    /// The segment's file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Send nothing, and only show what would be
    #[arg(long)]
    dry_run: bool,
    /// Everything that can be read, and not only what was lost
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    identity: operator::Identity,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let found = read(&arguments.file, arguments.all)?;
    print(&found.text(&arguments.file))?;
    if found.is_untold > 0 {
        return Err(Error(format!(
            "nothing is written beside {} about what was lost of it: with --all everything that can \
             be read is sent, whoever has had it already",
            arguments.file.display()
        )));
    }
    if arguments.dry_run || found.records.is_empty() {
        return Ok(ended(found.unknown == 0));
    }
    let (address, token) = arguments.identity.address_and_token(settings)?;
    let mut sent = Sent::default();
    let outcome = block_on(send_all(address, &token, &found.records, &mut sent));
    print(&sent.text())?;
    if let Err(Error(words)) = outcome {
        let hint = "run this again: what was sent is known";
        return Err(Error(format!("{words}; {hint}")));
    }
    Ok(ended(found.unknown == 0 && sent.not_taken == 0))
}

fn ended(all: bool) -> ExitCode {
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a file holds.
#[derive(Default)]
struct Found {
    records: Vec<SalvagedRecord>,
    /// Of those, by type of event and broker.
    counts: BTreeMap<(String, String), u64>,
    /// Records that can be read and were lost to nobody.
    had: u64,
    /// Records of which it is not known whether they were lost.
    is_untold: u64,
    /// Records that say nothing to this version.
    unknown: u64,
    /// Regions that cannot be read.
    unreadable: u64,
}

fn read(file: &Path, all: bool) -> Result<Found, Error> {
    let absolute = std::path::absolute(file).map_err(Error::new)?;
    let is_of = |name: &str| absolute.components().any(|part| part.as_os_str() == name);
    if is_of("dead-letters") || is_of("commands") {
        return Err(Error(format!(
            "{} is no file of the journal or of parked messages, and nothing of it is to be sent: \
             `waypost dead-letters list` reads dead letters",
            file.display()
        )));
    }
    let mut found = Found::default();
    let take = |salvaged: Salvaged| {
        match salvaged.was_lost {
            Some(false) if !all => found.had += 1,
            None if !all => found.is_untold += 1,
            _ => found.take(salvaged),
        }
        Ok(())
    };
    let unreadable = journal::salvage(&RealDisk, file, take).map_err(|error| {
        let hint = "FILE is a .seg file of a journal or of its quarantine, or a copy with its name";
        Error(format!("{error}; {hint}"))
    })?;
    Ok(Found { unreadable, ..found })
}

/// What a payload is, and what it is known by.
fn decode(salvaged: Salvaged) -> Option<(Record, Vec<Key>)> {
    let Salvaged { payload, keys, .. } = salvaged;
    // A message that was set aside, which has no keys; those of its event say that it came in.
    if let Ok(Kept { event, message, .. }) = Kept::decode(payload.clone()) {
        let (source, id) = (event.source.as_bytes(), event.id.as_bytes());
        let (route, broker) = (message.route.as_bytes(), message.broker.as_bytes());
        let key = dedupe::of_parts(&[b"salvaged", source, id, route, broker]);
        return Some((Record { event, messages: vec![message] }, vec![key]));
    }
    Record::decode(payload).ok().map(|record| (record, keys))
}

impl Found {
    fn take(&mut self, salvaged: Salvaged) {
        let Some((record, keys)) = decode(salvaged) else {
            self.unknown += 1;
            return;
        };
        for message in &record.messages {
            let kind = printable(&record.event.kind, MAX_CHARS);
            *self.counts.entry((kind, message.broker.to_string())).or_default() += 1;
        }
        self.records.push(SalvagedRecord::new(&record.encode(), &keys));
    }

    fn text(&self, file: &Path) -> String {
        let mut out = format!("{}: {} records to send\n", file.display(), self.records.len());
        for ((kind, broker), count) in &self.counts {
            out += &format!("  {count:>8}  {kind} to {broker}\n");
        }
        for (count, words) in [
            (self.had, "records were lost to nobody (--all sends them, too)"),
            (self.is_untold, "records, of which nothing says whether they were lost"),
            (self.unknown, "records are of no version that this command knows"),
            (self.unreadable, "regions cannot be read"),
        ] {
            if count > 0 {
                out += &format!("{count} {words}\n");
            }
        }
        out
    }
}

/// What became of what was sent.
#[derive(Default)]
struct Sent {
    sent: u64,
    known: u64,
    not_taken: u64,
    /// Why, each once.
    reasons: BTreeSet<String>,
}

impl Sent {
    /// Whether that is the end of it.
    fn note(&mut self, verdict: &Verdict) -> bool {
        match verdict {
            Verdict::Sent => self.sent += 1,
            Verdict::Known => self.known += 1,
            Verdict::Later(_) => return false,
            Verdict::NoBroker(names) => {
                self.not_taken += 1;
                let names = printable(&names.join(", "), MAX_CHARS);
                self.reasons.insert(format!("no such broker in routes.yaml: {names}"));
            }
            Verdict::Unreadable(words) => {
                self.not_taken += 1;
                self.reasons.insert(printable(words, MAX_CHARS));
            }
        }
        true
    }

    fn text(&self) -> String {
        let Sent { sent, known, not_taken, reasons } = self;
        let mut out = format!("{sent} sent, {known} known already, {not_taken} not taken\n");
        for reason in reasons {
            out += &format!("  not taken: {reason}\n");
        }
        out
    }
}

/// Sends batch after batch, in order; waits where there is no room.
async fn send_all(
    address: SocketAddr,
    token: &Token,
    records: &[SalvagedRecord],
    sent: &mut Sent,
) -> Result<(), Error> {
    let mut rest = records;
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(batch_len(rest));
        send(address, token, batch.to_vec(), sent).await?;
        rest = behind;
    }
    Ok(())
}

fn batch_len(records: &[SalvagedRecord]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&SalvagedRecord| {
        bytes += record.payload.len();
        bytes <= BATCH_BYTES
    };
    records.iter().take(BATCH_RECORDS).take_while(fits).count().max(1)
}

async fn send(
    address: SocketAddr,
    token: &Token,
    mut records: Vec<SalvagedRecord>,
    sent: &mut Sent,
) -> Result<(), Error> {
    let mut failures = 0;
    while !records.is_empty() {
        let json = serde_json::to_vec(&Salvage { records: records.clone() }).map_err(Error::new)?;
        let body = operator::have_done(address, PAGE, token, json, ANSWER_WITHIN).await?;
        let answer: SalvageAnswer = serde_json::from_slice(&body).map_err(|error| {
            let hint = "is the daemon of another version?";
            Error(format!("{address} says what this command does not understand ({error}); {hint}"))
        })?;
        let (before, mut why) = (records.len(), None);
        let mut verdicts = answer.verdicts.into_iter();
        records.retain(|_| match verdicts.next() {
            Some(verdict) if sent.note(&verdict) => false,
            Some(Verdict::Later(words)) => {
                why = Some(words);
                true
            }
            _ => true,
        });
        let Some(why) = why else { continue };
        failures = if records.len() < before { 1 } else { failures + 1 };
        if failures > MAX_ATTEMPTS {
            let why = printable(&why, MAX_CHARS);
            return Err(Error(format!("the daemon takes no more at present: {why}")));
        }
        sleep(RETRY.jittered(failures)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{binary, plain};

    fn salvaged(payload: bytes::Bytes, keys: Vec<Key>) -> Salvaged {
        Salvaged { payload, keys, time_ms: 1, was_lost: Some(true) }
    }

    #[test]
    fn a_record_and_a_parked_message_are_told_apart_and_each_is_known_by_a_key() {
        let message = |broker: &str| binary("r", broker, Err("no".into()));
        let record =
            Record { event: plain("1", "{}"), messages: vec![message("live"), message("local")] };
        let keys = vec![[7; 16]];
        let decoded = decode(salvaged(record.encode(), keys.clone()));
        assert_eq!(decoded, Some((record.clone(), keys)));

        let kept = |broker: &str| Kept {
            event: plain("1", "{}"),
            message: message(broker),
            attempts: 1,
            first_ms: 0,
            at_ms: 2,
            reason: "waits".into(),
        };
        let of = |broker: &str| decode(salvaged(kept(broker).encode(), Vec::new()));
        let (live, live_keys) = of("live").expect("a record");
        assert_eq!((live.event, live.messages), (record.event, vec![message("live")]));
        let (_, local_keys) = of("local").expect("a record");
        assert_ne!(live_keys, local_keys, "two brokers' messages of one event");
        assert_eq!(decode(salvaged(bytes::Bytes::from_static(&[9, 9]), Vec::new())), None);
    }

    #[test]
    fn a_batch_is_bounded_by_records_and_bytes_and_never_empty() {
        let record = |len: usize| SalvagedRecord { payload: "x".repeat(len), keys: Vec::new() };
        assert_eq!(batch_len(&vec![record(1); BATCH_RECORDS + 1]), BATCH_RECORDS);
        assert_eq!(batch_len(&[record(BATCH_BYTES / 2), record(BATCH_BYTES)]), 1);
        assert_eq!(batch_len(&[record(BATCH_BYTES + 1), record(1)]), 1);
    }
}
