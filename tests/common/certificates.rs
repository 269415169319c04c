//! Certificates of an authority of the tests' own, and a client that trusts it.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};

use super::raw;

/// The names of every server of the tests.
pub const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// Issues certificates.
pub struct Authority {
    pub name: &'static str,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Authority {
        Authority::named("tests")
    }

    /// The name tells it from the others: a client looks for the signer of a certificate by it.
    pub fn named(name: &'static str) -> Authority {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        Authority { name, issuer }
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its own certificate as if it were a host's.
    pub fn own(&self) -> Pair {
        Pair { cert: self.pem(), key: self.issuer.key().serialize_pem() }
    }

    /// A certificate for these names, for very long.
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 4000)
    }

    /// The same up to a year's first day.
    pub fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.sign(params)
    }

    /// A certificate for a client of this name, for very long.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(named(name))
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// For the common name `name`.
fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Pair {
    /// Writes `cert.pem` and `key.pem` into a directory.
    pub fn write(&self, dir: &Path) {
        std::fs::write(dir.join("cert.pem"), &self.cert).expect("to write a certificate");
        std::fs::write(dir.join("key.pem"), &self.key).expect("to write a key");
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).expect("a certificate")
    }
}

/// What a client offers.
#[derive(Clone, Copy)]
pub struct Offer<'o> {
    pub name: &'o str,
    pub alpn: &'o [&'o [u8]],
    pub version: &'static SupportedProtocolVersion,
}

impl Default for Offer<'_> {
    fn default() -> Self {
        Offer { name: "localhost", alpn: &[], version: &TLS13 }
    }
}

impl Offer<'_> {
    pub fn old() -> Self {
        Offer { version: &TLS12, ..Offer::default() }
    }
}

pub type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Connects and does the handshake, trusting an authority alone.
pub fn connect(address: SocketAddr, authority: &Authority, offer: Offer) -> Result<Tls, String> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.issuer.der().clone()).expect("an authority");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[offer.version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = offer.alpn.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(offer.name.to_owned()).expect("a name");
    let mut connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut socket = raw::socket(address).map_err(|error| error.to_string())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    Ok(StreamOwned::new(connection, socket))
}
