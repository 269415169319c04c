//! What is in force and how it is read: `routes.yaml` with the secret files that it names, the last
//! good one for a start where the file is bad, and when to look again ([`watch`]).
//!
//! A file may be met while somebody writes it, and half a routing table often is a valid one. So only
//! what two looks, a moment apart, both saw is taken, and what was read once more after it was
//! compiled. It knows nothing of brokers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};

use self::{outline::Outline, watch::Watch};
use super::{Invalid, Table};
use crate::{private, small_file};

pub mod outline;
pub mod watch;

/// Between two looks that must agree.
const AGREE_AFTER: Duration = Duration::from_millis(100);

/// Looks at a file that keeps changing, before that is an error.
const LOOKS: usize = 50;

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
    #[error(
        "{} cannot be compiled: waypost panicked, which is a mistake of its own; the log says where",
        file.display()
    )]
    Panicked { file: PathBuf },
}

/// A table and what it was compiled from.
pub struct Loaded {
    pub table: Table,
    pub text: String,
    pub hash: Hash,
    pub digest: Digest,
    pub secrets: Secrets,
    pub outline: Outline,
}

/// The secret files that a text names, each with a digest of what was read of it.
pub type Secrets = BTreeMap<PathBuf, Digest>;

/// A file and the secret files that it names, as they were at a time.
pub struct Reading {
    file: PathBuf,
    text: Result<String, io::Error>,
    pub secrets: Secrets,
    pub digest: Digest,
}

impl Reading {
    /// Looks once. Blocks.
    pub fn once(file: &Path) -> Reading {
        let text = small_file::read_text(file).map(|mut text| std::mem::take(&mut *text));
        let files = text.as_ref().map(|text| secret_files(text)).unwrap_or_default();
        // What is wrong with one is for the compiler to say, in its place.
        let secrets: Secrets = files
            .into_iter()
            .map(|file| {
                let read = digest_of(small_file::read(&file));
                (file, read)
            })
            .collect();
        let mut digest = Sha256::new_with_prefix(digest_of(text.as_ref()));
        secrets.values().for_each(|secret| digest.update(secret));
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
        let name = file.display().to_string();
        let table = guarded(&file, || super::compile(&name, &text, &env))?;
        let outline = Outline::of(&text, &secrets);
        if Reading::once(&file).digest != digest {
            return Err(Error::KeepsChanging { file });
        }
        let hash = Hash::of(&text);
        Ok(Loaded { table, text, hash, digest, secrets, outline })
    }
}

/// The files of all `${file:…}` in a text, wherever they stand in it.
fn secret_files(text: &str) -> BTreeSet<PathBuf> {
    let references = text.split("${file:").skip(1);
    references.filter_map(|rest| Some(PathBuf::from(rest.split_once('}')?.0))).collect()
}

/// Of what was read, or of why nothing was.
fn digest_of(read: Result<impl AsRef<[u8]>, impl fmt::Display>) -> Digest {
    let digest = Sha256::new();
    match read {
        Ok(bytes) => digest.chain_update([0]).chain_update(bytes),
        Err(error) => digest.chain_update([1]).chain_update(error.to_string()),
    }
    .finalize()
    .into()
}

/// A panic is that of one file, and no reason to end.
fn guarded<T>(file: &Path, compile: impl FnOnce() -> Result<T, Invalid>) -> Result<T, Error> {
    // What it was about is dropped with it.
    let compiled = catch_unwind(AssertUnwindSafe(compile));
    compiled.map_err(|_| Error::Panicked { file: file.to_owned() })?.map_err(Error::Invalid)
}

/// What the daemon starts with.
pub struct Start {
    pub loaded: Loaded,
    /// Where it is the last good table.
    pub instead: Option<Instead>,
    /// What has watched since before the file was read.
    pub watch: Watch,
}

/// Why the last good table is in force and not the file.
pub struct Instead {
    pub error: Error,
    /// Since when it is the last good one.
    pub since: SystemTime,
    /// Of the file; `None` where that could not be told.
    pub digest: Option<Digest>,
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
    let (mut digest, first) = (None, Reading::once(file).compile());
    let second = |_| {
        let reading = Reading::settled(file)?;
        digest = Some(reading.digest);
        reading.compile()
    };
    let error = match first.or_else(second) {
        Ok(loaded) => return Ok(Start { loaded, instead: None, watch }),
        Err(error) => error,
    };
    let last_good = data_dir.join(LAST_GOOD);
    let Ok(since) = fs::metadata(&last_good).and_then(|file| file.modified()) else {
        return Err(error);
    };
    match Reading::once(&last_good).compile() {
        Ok(loaded) => Ok(Start { loaded, instead: Some(Instead { error, since, digest }), watch }),
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
        let instead = start(&routes, dir.path()).unwrap().instead.unwrap();
        assert!(matches!(instead.error, Error::Invalid(_)));
        assert_eq!(instead.digest, Some(Reading::once(&routes).digest), "it has been seen");
        let started = start(&routes, dir.path()).unwrap();
        assert_eq!(started.loaded.text, GOOD);
        fs::remove_file(&routes).unwrap();
        let started = start(&routes, dir.path()).unwrap();
        assert!(matches!(started.instead.unwrap().error, Error::Unreadable { .. }));
        fs::write(dir.path().join(LAST_GOOD), "brokers: 1").unwrap();
        let error = start(&routes, dir.path()).err().map(|error| error.to_string()).unwrap();
        assert!(error.starts_with("cannot read the routing table"), "{error}");
        file(&dir, GOOD);
        assert!(start(&routes, dir.path()).unwrap().instead.is_none());
    }

    #[test]
    fn a_panic_is_an_error_of_the_file() {
        let compile = || -> Result<(), Invalid> { panic!("a mistake") };
        let error = guarded(Path::new("routes.yaml"), compile).unwrap_err().to_string();
        assert!(error.starts_with("routes.yaml cannot be compiled"), "{error}");
        guarded(Path::new("routes.yaml"), || Ok(())).unwrap();
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
