//! TLS to brokers: whom to trust, who we are, and what a failed handshake means.
//!
//! RabbitMQ and NATS are spoken to through rustls; Kafka's client has OpenSSL and takes the same PEM
//! text, checked here first. A broker's certificate is always verified, its host name too.

use std::{error, io, iter, sync::Arc};

use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, InconsistentKeys, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::material::{self, Material};

/// How to speak TLS to a broker. The default trusts the system's CAs and shows no certificate.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The only CAs that are trusted, in PEM; `None`: those of the system.
    pub ca: Option<Material>,
    pub identity: Option<Identity>,
}

/// What is shown to a broker that asks who we are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Our certificate, and those between it and its CA, in PEM.
    pub cert: Material,
    /// The certificate's private key, in PEM, not encrypted.
    pub key: Material,
}

/// Why the settings cannot be used. Names the setting and the file, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("tls.{setting}: {cause}")]
    Material { setting: &'static str, cause: material::Error },
    #[error("tls.{setting}: {shown} is no valid PEM: {cause}")]
    Pem { setting: &'static str, shown: String, cause: &'static str },
    #[error("tls.{setting}: {shown} holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate { setting: &'static str, shown: String },
    #[error("tls.ca: certificate {number} in {shown} is unusable: {cause}")]
    Authority { number: usize, shown: String, cause: rustls::Error },
    #[error("tls.key: {0} holds no private key (-----BEGIN PRIVATE KEY-----)")]
    NoKey(String),
    #[error(
        "tls.key: the key in {0} is encrypted, which is not supported: decrypt it (openssl pkey -in \
         KEY -out DECRYPTED) into a file that only waypost may read"
    )]
    EncryptedKey(String),
    #[error("tls.key: the key in {key} does not belong to the certificate in {cert}")]
    Mismatch { key: String, cert: String },
    #[error(
        "tls.key: the key in {shown} is unusable ({cause}): it must be RSA of 2048 to 8192 bits, \
         ECDSA P-256 or P-384, or Ed25519"
    )]
    Key { shown: String, cause: rustls::Error },
    #[error(
        "this system has no CA certificates{0}: install ca-certificates, or name the broker's CA in \
         tls.ca"
    )]
    NoSystemAuthorities(String),
}

impl From<Error> for super::Error {
    /// At a reconnect: files were well at the start, and may be mended.
    fn from(error: Error) -> super::Error {
        super::Error::Down(error.to_string())
    }
}

/// What the settings name, read and checked.
#[derive(Debug)]
pub struct Loaded {
    ca: Option<Authorities>,
    identity: Option<LoadedIdentity>,
}

#[derive(Debug)]
struct Authorities {
    pem: SecretString,
    roots: RootCertStore,
}

#[derive(Debug)]
struct LoadedIdentity {
    cert_pem: SecretString,
    key_pem: SecretString,
    certified: CertifiedKey,
}

impl Settings {
    /// Reads the files. Blocks.
    pub fn load(&self) -> Result<Loaded, Error> {
        Ok(Loaded {
            ca: self.ca.as_ref().map(Authorities::load).transpose()?,
            identity: self.identity.as_ref().map(LoadedIdentity::load).transpose()?,
        })
    }

    /// The rustls configuration of a connection. Blocks while files are read.
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        let Loaded { ca, identity } = self.load()?;
        let roots = match ca {
            Some(authorities) => authorities.roots,
            None => system_authorities()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring supports the default versions")
            .with_root_certificates(roots);
        Ok(match identity {
            Some(identity) => builder
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified))),
            None => builder.with_no_client_auth(),
        })
    }

    /// [`client_config`](Self::client_config) for a reconnect: files were well at the start, and may
    /// be mended.
    pub async fn prepare(&self) -> Result<ClientConfig, super::Error> {
        let settings = self.clone();
        let prepared = tokio::task::spawn_blocking(move || settings.client_config()).await;
        match prepared {
            Ok(config) => Ok(config?),
            Err(panic) => Err(super::Error::Down(format!("reading TLS settings: {panic}"))),
        }
    }

    /// What a failed handshake means, and what to check.
    pub fn why(&self, error: &rustls::Error) -> String {
        match error {
            rustls::Error::InvalidCertificate(cause) => self.why_untrusted(cause),
            rustls::Error::AlertReceived(alert) => self.why_refused(*alert),
            rustls::Error::InvalidMessage(_) => {
                format!("{error}: check that the port speaks TLS")
            }
            _ => format!("TLS: {error}"),
        }
    }

    fn why_untrusted(&self, cause: &CertificateError) -> String {
        use CertificateError::*;
        let refused = format!("the broker's certificate is refused ({cause})");
        match cause {
            UnknownIssuer if self.ca.is_some() => {
                format!("{refused}: no CA in `tls.ca` has signed it")
            }
            UnknownIssuer => {
                format!("{refused}: no CA of this system has signed it; name its CA in `tls.ca`")
            }
            // The cause holds the time, which would make of every attempt a trouble of its own.
            Expired | ExpiredContext { .. } => {
                "the broker's certificate has expired: renew it".to_owned()
            }
            NotValidYet | NotValidYetContext { .. } => {
                "the broker's certificate is not valid yet: check this machine's clock".to_owned()
            }
            NotValidForName | NotValidForNameContext { .. } => format!(
                "{refused}: use a host name that it is for, or have it issued for this one too"
            ),
            _ => refused,
        }
    }

    fn why_refused(&self, alert: AlertDescription) -> String {
        use AlertDescription::*;
        let concerns_us = matches!(
            alert,
            CertificateRequired
                | BadCertificate
                | UnsupportedCertificate
                | CertificateRevoked
                | CertificateExpired
                | CertificateUnknown
                | UnknownCA
                | AccessDenied
                | HandshakeFailure
        );
        match (concerns_us, &self.identity) {
            (true, None) => format!(
                "the broker ended the handshake ({alert:?}): if it demands a client certificate, \
                 give `tls.cert` and `tls.key`"
            ),
            (true, Some(_)) => format!(
                "the broker refuses the client certificate ({alert:?}): check that it trusts who \
                 signed `tls.cert`, and that it has not expired"
            ),
            (false, _) => format!("the broker ended the TLS handshake ({alert:?})"),
        }
    }
}

impl Loaded {
    /// The CAs in PEM; `None`: those of the system.
    pub fn ca(&self) -> Option<&SecretString> {
        self.ca.as_ref().map(|ca| &ca.pem)
    }

    /// Our certificate and its key in PEM.
    pub fn identity(&self) -> Option<(&SecretString, &SecretString)> {
        self.identity.as_ref().map(|identity| (&identity.cert_pem, &identity.key_pem))
    }
}

impl Authorities {
    fn load(material: &Material) -> Result<Authorities, Error> {
        let pem = read("ca", material)?;
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates("ca", material, &pem)?.into_iter().enumerate() {
            let (number, shown) = (index + 1, material.to_string());
            roots.add(certificate).map_err(|cause| Error::Authority { number, shown, cause })?;
        }
        Ok(Authorities { pem, roots })
    }
}

impl LoadedIdentity {
    fn load(Identity { cert, key }: &Identity) -> Result<LoadedIdentity, Error> {
        let cert_pem = read("cert", cert)?;
        let chain = certificates("cert", cert, &cert_pem)?;
        let key_pem = read("key", key)?;
        let private_key = private_key(key, &key_pem)?;
        let certified = CertifiedKey::from_der(chain, private_key, &provider());
        let certified = certified.map_err(|cause| match cause {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                Error::Mismatch { key: key.to_string(), cert: cert.to_string() }
            }
            cause => Error::Key { shown: key.to_string(), cause },
        })?;
        Ok(LoadedIdentity { cert_pem, key_pem, certified })
    }
}

fn read(setting: &'static str, material: &Material) -> Result<SecretString, Error> {
    material.read().map_err(|cause| Error::Material { setting, cause })
}

fn certificates(
    setting: &'static str,
    material: &Material,
    pem: &SecretString,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let parsed: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.expose_secret().as_bytes()).collect();
    let shown = || material.to_string();
    let certificates = parsed.map_err(|error| not_pem(setting, shown(), &error))?;
    if certificates.is_empty() {
        return Err(Error::NoCertificate { setting, shown: shown() });
    }
    Ok(certificates)
}

fn private_key(key: &Material, pem: &SecretString) -> Result<PrivateKeyDer<'static>, Error> {
    let (text, shown) = (pem.expose_secret(), key.to_string());
    // PKCS #8 says so in its first line, the older formats in a header below it (RFC 1421).
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(Error::EncryptedKey(shown));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::NoKey(shown),
        error => not_pem("key", shown, &error),
    })
}

/// Without the parser's words, which may quote a line: the whole key, where line breaks were lost.
fn not_pem(setting: &'static str, shown: String, error: &pem::Error) -> Error {
    let cause = match error {
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => {
            "an -----END line is missing; were its line breaks lost?"
        }
        pem::Error::Base64Decode(_) => "what stands between -----BEGIN and -----END is not base64",
        _ => "it cannot be parsed",
    };
    Error::Pem { setting, shown, cause }
}

/// The CAs of this system; those that cannot be parsed are left out, as everybody does.
fn system_authorities() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let cause = found.errors.first().map(|error| format!(" ({error})"));
        return Err(Error::NoSystemAuthorities(cause.unwrap_or_default()));
    }
    Ok(roots)
}

/// Named, so that it never depends on which others are compiled in.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The error of TLS at the bottom of another one, if that is what it is.
pub fn cause<'e>(error: &'e (dyn error::Error + 'static)) -> Option<&'e rustls::Error> {
    iter::successors(Some(error), |error| match error.downcast_ref::<io::Error>() {
        // An I/O error's own `source` skips what it wraps.
        Some(error) => error.get_ref().map(|inner| inner as &(dyn error::Error + 'static)),
        None => error.source(),
    })
    .find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests;
