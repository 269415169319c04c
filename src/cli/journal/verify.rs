//! `waypost journal verify`: reads all journals, beside the daemon that has them open, too.

use std::{
    fs,
    io::{self, IoSlice, IsTerminal, stderr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::super::{Error, print, printable};
use crate::{
    journal::{self, File, Finding, LockGuard, RealDisk, Storage, Verified},
    settings::Settings,
};

/// Longest reason that is shown.
const MAX_REASON_CHARS: usize = 300;

/// Read all journals in the data directory, and say what is damaged or cannot be read.
///
/// It changes nothing, and the daemon may be running or not. A line is a file, where in it, how much, how
/// many records that is at the most, and why. Ends with 0 only if nothing was found. What was damaged
/// before and is kept in quarantine is not looked at.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost journal verify
  waypost journal verify --data-dir /var/lib/waypost
  waypost journal verify --json | jq 'select(.read_error)'")]
pub struct Arguments {
    /// One JSON object a finding, and one for each journal
    #[arg(long)]
    json: bool,
}

pub fn main(arguments: Arguments, settings: &Settings) -> Result<ExitCode, Error> {
    let data_dir = &settings.data_dir;
    let journals = journals(data_dir)?;
    if journals.is_empty() {
        let hint = "name its data directory with --data-dir";
        return Err(Error(format!("no daemon has run in {}; {hint}", data_dir.display())));
    }
    let bar = bar(journals.iter().map(|dir| bytes_of(dir)).sum());
    let disk = Counting { disk: RealDisk, bar: bar.clone() };
    let (mut all, mut printed) = (Verified::default(), Ok(true));
    for dir in journals {
        if let Some(bar) = &bar {
            bar.set_message(relative(&dir, data_dir));
        }
        let mut tell = |finding: Finding| {
            let line = if arguments.json { as_json(&finding) } else { as_text(&finding) };
            let said = above(bar.as_ref(), || print(&line));
            if printed.is_ok() {
                printed = said;
            }
        };
        let verified = journal::verify(&disk, &dir, &mut tell).map_err(|error| {
            Error(format!("{error}; run this again, as a user who may read all of it"))
        })?;
        if arguments.json {
            let Verified { segments, records, findings } = verified;
            let line = json!({
                "journal": relative(&dir, data_dir), "segments": segments, "records": records,
                "findings": findings,
            });
            above(bar.as_ref(), || print(&format!("{line}\n")))?;
        }
        all.segments += verified.segments;
        all.records += verified.records;
        all.findings += verified.findings;
    }
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    printed?;
    let Verified { segments, records, findings } = all;
    if !arguments.json {
        print(&match findings {
            0 => format!("nothing is damaged: {records} records in {segments} segments\n"),
            _ => format!(
                "\n{findings} findings; {records} records in {segments} segments can be read\n\
                 The daemon steps over what is damaged and keeps the files: docs/journal.md says \
                 what to do.\n"
            ),
        })?;
    }
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The directories of all journals that there are.
fn journals(data_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let own = ["journal", "dead-letters", "commands"].map(|name| data_dir.join(name));
    let mut all: Vec<PathBuf> = own.into_iter().filter(|dir| dir.is_dir()).collect();
    let parked = data_dir.join("parked");
    match fs::read_dir(&parked) {
        Ok(entries) => {
            let dirs = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
            let mut dirs: Vec<PathBuf> = dirs.collect();
            dirs.sort();
            all.extend(dirs);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error(format!("cannot read {}: {error}", parked.display()))),
    }
    Ok(all)
}

/// About how much there is to read.
fn bytes_of(journal: &Path) -> u64 {
    let dirs = [journal.to_owned(), journal.join("aside")];
    let files = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).filter(|it| it.is_file()).map(|it| it.len()).sum()
}

fn bar(bytes: u64) -> Option<ProgressBar> {
    stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("[{bar:30}] {bytes}/{total_bytes}  {msg}");
        let bar = ProgressBar::new(bytes);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    })
}

/// Does something with the bar out of the way.
fn above<T>(bar: Option<&ProgressBar>, work: impl FnOnce() -> T) -> T {
    match bar {
        Some(bar) => bar.suspend(work),
        None => work(),
    }
}

fn relative(dir: &Path, data_dir: &Path) -> String {
    dir.strip_prefix(data_dir).unwrap_or(dir).display().to_string()
}

fn as_text(finding: &Finding) -> String {
    let Finding { file, offset, len, records, is_read_error, why } = finding;
    let what = if *is_read_error { "CANNOT BE READ" } else { "damaged" };
    let place = match len {
        0 => String::new(),
        len => format!(" at {offset}, {len} bytes, up to {records} records"),
    };
    format!("{}{place}: {what}: {}\n", file.display(), printable(why, MAX_REASON_CHARS))
}

fn as_json(finding: &Finding) -> String {
    let Finding { file, offset, len, records, is_read_error, why } = finding;
    let line = json!({
        "file": file, "offset": offset, "bytes": len, "records": records,
        "read_error": is_read_error, "why": why,
    });
    format!("{line}\n")
}

/// A disk that is only read, and shows how far that is.
struct Counting {
    disk: RealDisk,
    bar: Option<ProgressBar>,
}

struct CountingFile {
    file: Arc<dyn File>,
    bar: ProgressBar,
}

impl Storage for Counting {
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open_read(path)?;
        Ok(match &self.bar {
            Some(bar) => Arc::new(CountingFile { file, bar: bar.clone() }),
            None => file,
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn create_new(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        read_only()
    }

    fn open_or_create(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        read_only()
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        read_only()
    }

    fn lock(&self, _: &Path) -> io::Result<LockGuard> {
        read_only()
    }
}

impl File for CountingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(offset, buf)?;
        self.bar.inc(read as u64);
        Ok(read)
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn write_at(&self, _: u64, _: &[IoSlice<'_>]) -> io::Result<usize> {
        read_only()
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        read_only()
    }

    fn sync_data(&self) -> io::Result<()> {
        read_only()
    }
}

/// Nothing that reads alone comes here.
fn read_only<T>() -> io::Result<T> {
    Err(io::ErrorKind::ReadOnlyFilesystem.into())
}
