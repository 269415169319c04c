//! Where a running daemon can be reached, for the other commands.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

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

    /// The addresses of the daemon that runs on this data directory, if one does.
    pub fn read(data_dir: &Path) -> Option<Addresses> {
        serde_json::from_slice(&fs::read(Addresses::file(data_dir)).ok()?).ok()
    }
}
