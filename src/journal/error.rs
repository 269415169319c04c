//! What can go wrong with a journal, and how an append says so.

use std::{io, path::Path, path::PathBuf, sync::Arc};

/// Why a journal cannot be opened, read, or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation on a file failed; nothing is known to be damaged.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// `fdatasync` or `fsync` failed: what the disk holds is unknown from here on.
    #[error("cannot make {} durable: {source}", path.display())]
    Sync { path: PathBuf, source: io::Error },
    /// What the journal's frames are told by cannot be read at present.
    #[error(
        "the disk cannot read {}: {source}; start again once it can. If it never will, move the file \
         away: the journal makes another, and reads what it holds by what the segments say themselves",
        path.display()
    )]
    UnreadIdentity { path: PathBuf, source: io::Error },
    /// Another process has the journal open.
    #[error("{} is in use by another process; stop it, or choose another directory", dir.display())]
    Locked { dir: PathBuf },
    /// A file was written by a newer version.
    #[error(
        "{} has format version {version}, which this version of waypost does not know; \
         run the version that wrote it",
        path.display()
    )]
    UnknownVersion { path: PathBuf, version: u32 },
    #[error("{} is no segment of a journal that can be read", path.display())]
    NotASegment { path: PathBuf },
    /// A place's name is empty or longer than a file name can be.
    #[error("{0:?} cannot name a place: it is empty or too long")]
    PlaceName(String),
    /// A place is open already.
    #[error("the place of {0:?} is in use already")]
    PlaceInUse(String),
    #[error("the journal is closed")]
    Closed,
    /// The writer met a fatal error earlier; this is its cause.
    #[error("the journal has failed: {0}")]
    Failed(Arc<Error>),
    /// The writer's or a reader's thread panicked.
    #[error("a thread of the journal panicked")]
    Panicked,
}

impl Error {
    /// Whether the disk or a quota is full, before anything was claimed to be durable. A full disk
    /// met while syncing is not this: what was written before it is then unknown.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::Io { source, .. } if is_no_space(source))
    }

    /// For `map_err`: names what was being done, and to which file.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { doing, path: path.to_owned(), source }
    }

    /// For `map_err` of a sync.
    pub(super) fn sync(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Sync { path: path.to_owned(), source }
    }
}

/// Whether this says that the disk or a quota is full.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why an entry was not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// `max_bytes` is reached; there is room again when segments are released.
    #[error("the journal is full")]
    Full,
    /// The disk or a quota is full; appends succeed again when there is room.
    #[error("the disk is full")]
    NoSpace,
    /// Larger than `max_record_bytes`; will never be taken.
    #[error("the entry is larger than a journal record may be")]
    TooLarge,
    /// The disk has not answered for `commit_timeout`. This one left no trace; appends succeed again
    /// once it does.
    #[error("the disk does not answer")]
    Hung,
    /// Whether it is durable was not known within `commit_timeout`, and may become known yet.
    #[error("it is not known yet whether the entry is durable")]
    Unknown,
    #[error("the journal is closed")]
    Closed,
    /// The journal can take nothing more in this process.
    #[error("the journal has failed: {0}")]
    Failed(Arc<Error>),
}
