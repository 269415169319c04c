//! What is in force and how it is read: `routes.yaml` with the secret files that it names, the last
//! good one for a start where the file is bad, and when to look again ([`watch`]).
//!
//! A file may be met while somebody writes it, and half a routing table often is a valid one. So only
//! what two looks, a moment apart, both saw is taken, and what was read once more after it was
//! compiled. It knows nothing of brokers.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};

use self::watch::Watch;
use super::{Invalid, Table};
use crate::private;

pub mod watch;

/// Between two looks that must agree.
const AGREE_AFTER: Duration = Duration::from_millis(100);

/// Looks at a file that keeps changing, before that is an error.
const LOOKS: usize = 50;

/// Most that is read of any file; a routing table may be no larger.
const MAX_BYTES: u64 = (1 << 20) + 1;

/// The last good table's file in the data directory.
const LAST_GOOD: &str = "routes.last-good.yaml";

/// Of everything that a table was compiled from, secrets too: it stays in memory.
pub type Digest = [u8; 32];

/// Of a file's text, as it is shown: the first 12 hexadecimal digits of its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hash(String);

impl Hash {
    fn of(text: &str) -> Hash {
        let mut hex = const_hex::encode(Sha256::digest(text));
        hex.truncate(12);
        Hash(hex)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a file is no routing table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot read the routing table {}: {cause}; name another with --routes", file.display()
    )]
    Unreadable { file: PathBuf, cause: io::Error },
    #[error("{} or a secret file that it names keeps changing while it is read", file.display())]
    KeepsChanging { file: PathBuf },
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// A table and what it was compiled from.
pub struct Loaded {
    pub table: Table,
    pub text: String,
    pub hash: Hash,
    pub digest: Digest,
    /// The secret files that it names.
    pub secrets: BTreeSet<PathBuf>,
}

/// A file and the secret files that it names, as they were at a time.
pub struct Reading {
    file: PathBuf,
    text: Result<String, io::Error>,
    pub secrets: BTreeSet<PathBuf>,
    pub digest: Digest,
}

impl Reading {
    /// Looks once. Blocks.
    pub fn once(file: &Path) -> Reading {
        let text = read(file).and_then(|bytes| {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            std::str::from_utf8(&bytes).map(str::to_owned).map_err(invalid)
        });
        let mut digest = Sha256::new();
        let mut take = |part: &[u8]| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        match &text {
            Ok(text) => take(text.as_bytes()),
            Err(error) => take(error.to_string().as_bytes()),
        }
        let secrets = text.as_ref().map(|text| secret_files(text)).unwrap_or_default();
        for secret in &secrets {
            match read(secret) {
                Ok(bytes) => take(&bytes),
                // What is wrong with it is for the compiler to say, in its place.
                Err(error) => take(error.to_string().as_bytes()),
            }
        }
        let digest = digest.finalize().into();
        Reading { file: file.to_owned(), text, secrets, digest }
    }

    /// Looks until two looks agree. Blocks.
    pub fn settled(file: &Path) -> Result<Reading, Error> {
        let mut last = Reading::once(file);
        for _ in 0..LOOKS {
            thread::sleep(AGREE_AFTER);
            let now = Reading::once(file);
            if now.digest == last.digest {
                return Ok(now);
            }
            last = now;
        }
        Err(Error::KeepsChanging { file: file.to_owned() })
    }

    /// The table that was read. Blocks while secret files are read.
    pub fn compile(self) -> Result<Loaded, Error> {
        let Reading { file, text, secrets, digest } = self;
        let unreadable = |cause| Error::Unreadable { file: file.clone(), cause };
        let text = text.map_err(unreadable)?;
        let env = |name: &str| std::env::var(name).ok();
        let table = super::compile(&file.display().to_string(), &text, &env)?;
        if Reading::once(&file).digest != digest {
            return Err(Error::KeepsChanging { file });
        }
        let hash = Hash::of(&text);
        Ok(Loaded { table, text, hash, digest, secrets })
    }
}

/// The files of all `${file:…}` in a text, wherever they stand in it.
fn secret_files(text: &str) -> BTreeSet<PathBuf> {
    let references = text.split("${file:").skip(1);
    references.filter_map(|rest| Some(PathBuf::from(rest.split_once('}')?.0))).collect()
}

fn read(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    fs::File::open(file)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the daemon starts with.
pub struct Start {
    pub loaded: Loaded,
    /// Why it is the last good table that does; and since when that is.
    pub instead: Option<(Error, SystemTime)>,
    /// What has watched since before the file was read.
    pub watch: Watch,
}

/// Reads the table to start with: the file, or where that is no table, the last good one of the data
/// directory. Blocks.
///
/// # Errors
///
/// What is wrong with the file, where there is no last good one or it does not compile either.
pub fn start(file: &Path, data_dir: &Path) -> Result<Start, Error> {
    let watch = Watch::new(file);
    // What changes now is noticed; a bad one is looked at twice.
    let first = Reading::once(file).compile();
    let error = match first.or_else(|_| Reading::settled(file).and_then(Reading::compile)) {
        Ok(loaded) => return Ok(Start { loaded, instead: None, watch }),
        Err(error) => error,
    };
    let last_good = data_dir.join(LAST_GOOD);
    let Ok(since) = fs::metadata(&last_good).and_then(|file| file.modified()) else {
        return Err(error);
    };
    match Reading::once(&last_good).compile() {
        Ok(loaded) => Ok(Start { loaded, instead: Some((error, since)), watch }),
        Err(worse) => {
            tracing::error!(error = %worse, "the last good routing table cannot be used either");
            Err(error)
        }
    }
}

/// Keeps a text as the last good one, as it was written: references stay references. Durable on
/// return, and nothing is written that is there already. Blocks.
pub fn keep_last_good(data_dir: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(data_dir.join(LAST_GOOD)).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    private::write(data_dir, LAST_GOOD, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "sources: {}\nbrokers: { a: { type: log } }\nroutes: []\n";

    fn file(dir: &tempfile::TempDir, text: &str) -> PathBuf {
        let file = dir.path().join("routes.yaml");
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn the_digest_follows_the_text_and_every_secret_file_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        let text = format!("# ${{file:{}}}\n{GOOD}", secret.display());
        let routes = file(&dir, &text);
        let mut seen = vec![Reading::once(&routes).digest];
        for content in ["one", "two"] {
            fs::write(&secret, content).unwrap();
            seen.push(Reading::once(&routes).digest);
        }
        fs::write(&routes, format!("{text}\n")).unwrap();
        seen.push(Reading::once(&routes).digest);
        fs::remove_file(&routes).unwrap();
        seen.push(Reading::once(&routes).digest);
        let different: BTreeSet<&Digest> = seen.iter().collect();
        assert_eq!(different.len(), seen.len());
        assert_eq!(Reading::once(&routes).digest, seen[4]);
    }

    #[test]
    fn the_hash_that_is_shown_is_of_the_text_alone() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = Reading::settled(&file(&dir, GOOD)).and_then(Reading::compile).unwrap();
        let expected = const_hex::encode(Sha256::digest(GOOD));
        assert_eq!(loaded.hash.to_string(), expected[..12]);
    }

    #[test]
    fn a_bad_file_starts_the_last_good_one_and_without_it_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let routes = file(&dir, "");
        assert!(matches!(start(&routes, dir.path()), Err(Error::Invalid(_))));
        keep_last_good(dir.path(), GOOD).unwrap();
        let started = start(&routes, dir.path()).unwrap();
        assert!(matches!(started.instead, Some((Error::Invalid(_), _))));
        assert_eq!(started.loaded.text, GOOD);
        fs::remove_file(&routes).unwrap();
        let started = start(&routes, dir.path()).unwrap();
        assert!(matches!(started.instead, Some((Error::Unreadable { .. }, _))));
        fs::write(dir.path().join(LAST_GOOD), "brokers: 1").unwrap();
        let error = start(&routes, dir.path()).err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("cannot read the routing table"), "{error}");
        file(&dir, GOOD);
        assert!(start(&routes, dir.path()).unwrap().instead.is_none());
    }

    #[test]
    fn a_file_that_is_no_text_is_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let routes = dir.path().join("routes.yaml");
        fs::write(&routes, [0xff, 0xfe]).unwrap();
        let error = Reading::once(&routes).compile().err().unwrap().to_string();
        assert!(error.contains("utf-8"), "{error}");
    }
}
