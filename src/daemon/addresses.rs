//! Where a running daemon can be reached, for the other commands.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::journal;

/// See the module; written to the data directory.
#[derive(Debug, Serialize, Deserialize)]
pub struct Addresses {
    pub pid: u32,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    /// The file of the certificate that is shown on `listen`, where TLS is spoken there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
}

impl Addresses {
    pub(super) fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("daemon.json")
    }

    /// Removes what a daemon that was killed left: by now anyone may listen there, and the commands
    /// would take it for this one while it is still starting.
    pub(super) fn remove_stale(data_dir: &Path) -> io::Result<()> {
        if journal::is_open(&data_dir.join("journal"))? {
            return Ok(());
        }
        match fs::remove_file(Addresses::file(data_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The addresses of the daemon that is alive on this data directory, if one is and listens.
    ///
    /// # Errors
    ///
    /// The journal's lock cannot be looked at.
    pub fn of_the_living(data_dir: &Path) -> io::Result<Option<Addresses>> {
        let alive = journal::is_open(&data_dir.join("journal"))?;
        Ok(alive.then(|| Addresses::read(data_dir)).flatten())
    }

    /// The addresses that the last daemon of this data directory left; it may have been killed.
    pub fn read(data_dir: &Path) -> Option<Addresses> {
        serde_json::from_slice(&fs::read(Addresses::file(data_dir)).ok()?).ok()
    }
}
