//! Real brokers for the tests: each on free loopback ports, in a directory of its own.
//!
//! `start` returns once the broker answers, and panics with the tail of its log when it does not:
//! no test is ever skipped for want of a broker. A broker ends, and its directory goes, with the
//! value that started it or with the process, however that ends (see [`leash`]).
//!
//! Everything here blocks and belongs to no runtime, so that an instance can outlive the test that
//! started it. A test that has tasks running meanwhile wants
//! `#[tokio::test(flavor = "multi_thread")]`: its body may block without holding up the workers.

mod group;
mod kafka;
pub mod leash;
mod nats;
mod nats_cluster;
pub mod ports;
mod rabbitmq;
mod server;

pub use kafka::{Kafka, Listener};
pub use nats::{Access, Nats};
pub use nats_cluster::NatsCluster;
pub use rabbitmq::RabbitMq;
pub use server::Server;

use std::path::{Path, PathBuf};

/// What a broker needs to speak TLS, in PEM.
#[derive(Clone)]
pub struct Tls {
    pub cert: String,
    pub key: String,
    /// Who signs the certificates of clients.
    pub client_ca: String,
    /// Whether a client without a certificate is turned away.
    pub demands_client: bool,
}

/// The same in files.
struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    client_ca: PathBuf,
}

impl Tls {
    fn write(&self, dir: &Path) -> Result<TlsFiles, String> {
        Ok(TlsFiles {
            cert: write(dir.join("cert.pem"), &self.cert)?,
            key: write(dir.join("key.pem"), &self.key)?,
            client_ca: write(dir.join("client-ca.pem"), &self.client_ca)?,
        })
    }
}

/// A file under `.tools`, where `scripts/install.sh test` puts what is not packaged.
fn tool(name: &str) -> Result<PathBuf, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(format!("{} is missing: run `scripts/install.sh test` (or `make test`)", path.display()))
}

/// A directory for one broker, named so that a person finds it.
fn directory(broker: &str) -> Result<tempfile::TempDir, String> {
    let made = tempfile::Builder::new().prefix(&format!("waypost-{broker}-")).tempdir();
    made.map_err(|error| format!("no directory for {broker}: {error}"))
}

/// Writes one of a broker's own files.
fn write(path: PathBuf, content: &str) -> Result<PathBuf, String> {
    match std::fs::write(&path, content) {
        Ok(()) => Ok(path),
        Err(error) => Err(format!("cannot write {}: {error}", path.display())),
    }
}
