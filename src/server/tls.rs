//! TLS on the ingress: the certificate in force, and its exchange when the files change.
//!
//! The files are read every few seconds and compared, which sees whatever an editor, an ACME client
//! or Kubernetes (`..data`) does to them. Connections finish with the certificate they began with.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::preface::Version;
use crate::{clock::now_ms, meter::Counter, quiet::Quiet};

mod identity;

pub use identity::Error;
use identity::{Identity, Pem};

/// How often the files are read.
const LOOK_EVERY: Duration = Duration::from_secs(2);

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Where the certificate and its key are.
#[derive(Clone, Debug)]
pub struct Files {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Speaks TLS with the certificate in force.
pub struct Tls {
    files: Files,
    http2: bool,
    in_force: ArcSwap<InForce>,
    failed_handshakes: Counter,
    trouble: Quiet,
}

struct InForce {
    config: Arc<ServerConfig>,
    expires_s: i64,
}

/// What a connection turned out to be.
pub enum Accepted {
    Tls(Version, Box<TlsStream<TcpStream>>),
    /// Words in plain, unread as yet.
    PlainHttp(TcpStream),
}

impl Tls {
    /// Reads the files; with `http2` it is offered beside HTTP/1.1. The watch keeps the certificate
    /// what the files say.
    ///
    /// # Errors
    ///
    /// A file that is missing, holds nothing of its kind, or does not fit the other.
    pub fn open(files: Files, http2: bool) -> Result<(Arc<Tls>, Watch), Error> {
        let pem = Pem::read(&files)?;
        let seen = pem.digest();
        let in_force = ArcSwap::from_pointee(InForce::new(&files, &pem, http2)?);
        let (failed_handshakes, trouble) = Default::default();
        let tls = Arc::new(Tls { files, http2, in_force, failed_handshakes, trouble });
        let watch = Watch { tls: tls.clone(), seen, judged: seen };
        Ok((tls, watch))
    }

    /// When the certificate in force ends (its notAfter), in seconds since the Unix epoch.
    pub fn expires_s(&self) -> i64 {
        self.in_force.load().expires_s
    }

    /// Connections that ended within their handshake, since the start. Deadlines are not among them.
    pub fn failed_handshakes(&self) -> u64 {
        self.failed_handshakes.get()
    }

    /// Waits for the first byte, which tells plain HTTP (a method's letter) from a handshake, and does
    /// the handshake. The caller bounds the time.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            // A probe of the port, as load balancers make them.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[0].is_ascii_uppercase() {
            return Ok(Accepted::PlainHttp(stream));
        }
        let config = self.in_force.load().config.clone();
        let accepted = TlsAcceptor::from(config).accept(stream).await;
        let stream = accepted.inspect_err(|error| self.failed(error))?;
        let version = match stream.get_ref().1.alpn_protocol() {
            Some(HTTP2) => Version::Http2,
            _ => Version::Http1,
        };
        Ok(Accepted::Tls(version, Box::new(stream)))
    }

    fn failed(&self, error: &io::Error) {
        self.failed_handshakes.inc();
        if let Some(more) = self.trouble.speaks(now_ms()) {
            tracing::info!(%error, more, "a TLS handshake failed");
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl InForce {
    fn new(files: &Files, pem: &Pem, http2: bool) -> Result<InForce, Error> {
        let Identity { mut config, expires_s } = Identity::parse(files, pem)?;
        config.alpn_protocols = match http2 {
            true => vec![HTTP2.to_vec(), HTTP1.to_vec()],
            false => vec![HTTP1.to_vec()],
        };
        identity::log(files, expires_s);
        Ok(InForce { config: Arc::new(config), expires_s })
    }
}

/// Keeps a [`Tls`] what its files say.
pub struct Watch {
    tls: Arc<Tls>,
    /// What the files held when they were last read.
    seen: Digest,
    /// What they held when they were last taken, or found wrong.
    judged: Digest,
}

/// Of both files, or of the reason why they cannot be read.
type Digest = [u8; 32];

impl Watch {
    /// Looks at the files until `stop`. A bad pair leaves the old one in force and is told once.
    pub async fn run(mut self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let files = self.tls.files.clone();
            let read = tokio::task::spawn_blocking(move || Pem::read(&files)).await;
            // Reading does not panic; a runtime that shuts down asks no more.
            let Ok(read) = read else { return };
            self.look(read);
        }
    }

    fn look(&mut self, read: Result<Pem, Error>) {
        let digest = read.as_ref().map_or_else(Error::digest, Pem::digest);
        if !self.is_news(digest) {
            return;
        }
        let tls = &self.tls;
        match read.and_then(|pem| InForce::new(&tls.files, &pem, tls.http2)) {
            Ok(new) => tls.in_force.store(Arc::new(new)),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }

    /// Two files do not change at the same moment: only what was seen twice counts, and once.
    fn is_news(&mut self, digest: Digest) -> bool {
        let settled = std::mem::replace(&mut self.seen, digest) == digest;
        settled && std::mem::replace(&mut self.judged, digest) != digest
    }
}
