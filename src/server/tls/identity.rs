//! A certificate and its key, from PEM files to what TLS is spoken with.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::Files;
use crate::clock::now_ms;

/// Why the files cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {setting} {path}: {cause}", path = .path.display())]
    Read { setting: &'static str, path: PathBuf, cause: io::Error },
    #[error(
        "ingress.tls.cert {path} holds no certificate; it must be a PEM file (-----BEGIN \
         CERTIFICATE-----) with the daemon's own first, then its issuers", path = .0.display()
    )]
    NoCertificate(PathBuf),
    #[error(
        "ingress.tls.key {path} holds no private key; it must be a PEM file (-----BEGIN PRIVATE \
         KEY-----, or RSA or EC) that is not encrypted", path = .0.display()
    )]
    NoKey(PathBuf),
    #[error("{setting} {path} is damaged: {cause}", path = .path.display())]
    Damaged { setting: &'static str, path: PathBuf, cause: String },
    #[error(
        "the key in {key} does not belong to the first certificate in {cert}",
        key = .0.key.display(), cert = .0.cert.display()
    )]
    Mismatch(Files),
    #[error("cannot speak TLS with {cert} and {key}: {cause}",
        key = .files.key.display(), cert = .files.cert.display())]
    Unusable { files: Files, cause: rustls::Error },
}

impl Error {
    /// Equal for what reads alike.
    pub(super) fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_string()).into()
    }
}

/// What the files hold.
pub(super) struct Pem {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Pem {
    pub(super) fn read(files: &Files) -> Result<Pem, Error> {
        let read = |setting, path: &Path| {
            let path = path.to_owned();
            fs::read(&path).map_err(|cause| Error::Read { setting, path, cause })
        };
        let cert = read("ingress.tls.cert", &files.cert)?;
        let key = Zeroizing::new(read("ingress.tls.key", &files.key)?);
        Ok(Pem { cert, key })
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update((self.cert.len() as u64).to_le_bytes());
        digest.update(&self.cert);
        digest.update(&self.key);
        digest.finalize().into()
    }
}

/// What TLS is spoken with.
pub(super) struct Identity {
    pub(super) config: ServerConfig,
    /// The certificate's notAfter, in seconds since the Unix epoch.
    pub(super) expires_s: i64,
}

impl Identity {
    pub(super) fn parse(files: &Files, pem: &Pem) -> Result<Identity, Error> {
        let chain = chain(&files.cert, &pem.cert)?;
        let key = key(&files.key, &pem.key)?;
        let expires_s = expires_s(&files.cert, &chain)?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map(|config| config.with_no_client_auth())
            .and_then(|config| config.with_single_cert(chain, key))
            .map_err(|cause| match cause {
                rustls::Error::InconsistentKeys(_) => Error::Mismatch(files.clone()),
                cause => Error::Unusable { files: files.clone(), cause },
            })?;
        Ok(Identity { config, expires_s })
    }
}

fn chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|cause| damaged("ingress.tls.cert", path, &cause))?;
    if chain.is_empty() {
        return Err(Error::NoCertificate(path.to_owned()));
    }
    Ok(chain)
}

fn key(path: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_slice(text).map_err(|cause| match cause {
        pem::Error::NoItemsFound => Error::NoKey(path.to_owned()),
        cause => damaged("ingress.tls.key", path, &cause),
    })
}

/// The parser's own words can repeat what the file holds.
fn damaged(setting: &'static str, path: &Path, cause: &pem::Error) -> Error {
    let cause = match cause {
        pem::Error::MissingSectionEnd { .. } => "a section has no -----END line",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "not PEM",
    };
    Error::Damaged { setting, path: path.to_owned(), cause: cause.to_owned() }
}

fn expires_s(path: &Path, chain: &[CertificateDer]) -> Result<i64, Error> {
    let parsed = chain.first().map(|own| X509Certificate::from_der(own));
    match parsed {
        Some(Ok((_, certificate))) => Ok(certificate.validity().not_after.timestamp()),
        Some(Err(cause)) => Err(Error::Damaged {
            setting: "ingress.tls.cert",
            path: path.to_owned(),
            cause: cause.to_string(),
        }),
        None => Err(Error::NoCertificate(path.to_owned())),
    }
}

/// Says which certificate comes into force, and until when. One that has expired is no error: some
/// senders do not look, and to refuse it would take the others' events too.
pub(super) fn log(files: &Files, expires_s: i64) {
    let cert = files.cert.display();
    let since_epoch = Duration::from_secs(u64::try_from(expires_s).unwrap_or(0));
    let expires = humantime::format_rfc3339_seconds(UNIX_EPOCH + since_epoch);
    if since_epoch.as_millis() <= now_ms().into() {
        tracing::warn!(%cert, %expires, "a certificate in force that has expired: renew it");
    } else {
        tracing::info!(%cert, %expires, "a certificate in force");
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;

    const CERT: &str = "ingress.tls.cert /tls/cert.pem";
    const KEY: &str = "ingress.tls.key /tls/key.pem";

    fn parse(cert: &str, key: &str) -> Result<Identity, Error> {
        let files = Files { cert: "/tls/cert.pem".into(), key: "/tls/key.pem".into() };
        let pem = Pem { cert: cert.into(), key: Zeroizing::new(key.into()) };
        Identity::parse(&files, &pem)
    }

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["waypost.test".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, 2);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_says_when_it_expires() {
        let (cert, key) = pair();
        assert_eq!(parse(&cert, &key).unwrap().expires_s, 1_893_542_400);
        // Both in one file, as some tools write them, and in either order.
        let both = format!("{key}{cert}");
        assert!(parse(&both, &both).is_ok());
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_file() {
        let ((cert, key), (_, other)) = (pair(), pair());
        let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
        let unended = cert.replace("-----END CERTIFICATE-----", "");
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let key_of = |text: &str| {
            format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
        };
        for (cert, key, expected) in [
            ("", &*key, format!("{CERT} holds no certificate")),
            (&key, &key, format!("{CERT} holds no certificate")),
            (&cert, "", format!("{KEY} holds no private key")),
            (&cert, &encrypted, format!("{KEY} holds no private key")),
            (&unended, &key, format!("{CERT} is damaged: a section has no -----END")),
            (garbled, &key, format!("{CERT} is damaged: ")),
            (&cert, &key_of("s3cr3t!"), format!("{KEY} is damaged: a section is not base64")),
            (&cert, &key_of("AAAA"), "cannot speak TLS with /tls/cert.pem".to_owned()),
            (&cert, &other, "the key in /tls/key.pem does not belong to the first".to_owned()),
        ] {
            let error = parse(cert, key).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with(&expected), "{error:?} instead of {expected}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
