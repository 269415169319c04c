//! A certificate and its key, from PEM files to what TLS is spoken with.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use secrecy::zeroize::Zeroizing;
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::{self, ServerConfig, crypto::ring, pki_types::CertificateDer};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::Files;
use crate::{certificates, clock::now_ms};

/// Why the files cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {setting} {path}: {cause}", path = .path.display())]
    Read { setting: &'static str, path: PathBuf, cause: io::Error },
    #[error("{setting} {path} {cause}", path = .path.display())]
    Pem { setting: &'static str, path: PathBuf, cause: certificates::Error },
    #[error("ingress.tls.cert {path} cannot be read as a certificate: {cause}", path = .path.display())]
    Certificate { path: PathBuf, cause: String },
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
        let wrong = |setting, path: &Path| {
            let path = path.to_owned();
            move |cause| Error::Pem { setting, path, cause }
        };
        let chain = certificates::certificates(&pem.cert)
            .map_err(wrong("ingress.tls.cert", &files.cert))?;
        let key =
            certificates::private_key(&pem.key).map_err(wrong("ingress.tls.key", &files.key))?;
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

fn expires_s(path: &Path, chain: &[CertificateDer]) -> Result<i64, Error> {
    let unreadable = |cause: String| Error::Certificate { path: path.to_owned(), cause };
    let own = chain.first().ok_or_else(|| unreadable("there is none".to_owned()))?;
    let (_, own) = X509Certificate::from_der(own).map_err(|cause| unreadable(cause.to_string()))?;
    Ok(own.validity().not_after.timestamp())
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
            (&cert, &encrypted, format!("{KEY} holds an encrypted private key")),
            (&unended, &key, format!("{CERT} is damaged: a section has no -----END")),
            (garbled, &key, format!("{CERT} cannot be read as a certificate: ")),
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
