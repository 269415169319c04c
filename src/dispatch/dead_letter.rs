//! Dead letters: messages given up on, kept on disk with the reason. A journal of their own.

use std::path::{Path, PathBuf};

use super::kept::{Kept, set_aside};
use crate::journal::{self, Journal, Storage};
use std::sync::Arc;

/// Where dead letters are kept, below the data directory.
pub fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("dead-letters")
}

/// The dead letters of all brokers.
#[derive(Clone)]
pub struct DeadLetters(Journal);

impl DeadLetters {
    pub fn new(journal: Journal) -> DeadLetters {
        DeadLetters(journal)
    }

    pub fn journal(&self) -> &Journal {
        &self.0
    }

    /// Keeps a message; durable on return, however long the disk takes.
    pub async fn keep(&self, kept: Kept) -> Result<(), journal::AppendError> {
        set_aside(&self.0, kept.at_ms, kept).await
    }
}

/// Reads all dead letters, oldest first, also while a daemon writes them.
pub fn list(
    storage: Arc<dyn Storage>,
    data_dir: &Path,
) -> Result<impl Iterator<Item = Result<Kept, String>>, journal::Error> {
    let items = journal::read_all(storage, &dir(data_dir))?;
    Ok(items.map(|item| match item {
        Ok(journal::Item::Entry(position, bytes)) => {
            Kept::decode(bytes).map_err(|error| format!("dead letter {position}: {error}"))
        }
        Ok(journal::Item::Damaged { from, to, why }) => {
            Err(format!("dead letters from {from} up to {to} are damaged: {why}"))
        }
        Ok(journal::Item::Void { from, .. }) => Err(format!("there is no dead letter {from}")),
        Err(error) => Err(error.to_string()),
    }))
}
