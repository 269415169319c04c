//! TLS to brokers: whom to trust, who we are, and what a failed handshake means.
//!
//! RabbitMQ and NATS are spoken to through rustls; Kafka's client has OpenSSL and takes the same PEM
//! text, checked here first. A broker's certificate is always verified, its host name too.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls::{
    self, AlertDescription, CertificateError, ClientConfig, InconsistentKeys, RootCertStore,
    crypto::{CryptoProvider, ring},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::material::{self, Material};
use crate::certificates::{self, NoAuthorities};

/// How to speak TLS to a broker. The default trusts the system's CAs and shows no certificate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The only CAs that are trusted, in PEM; `None`: those of the system.
    pub ca: Option<Material>,
    pub identity: Option<Identity>,
}

/// What is shown to a broker that asks who we are.
#[derive(Clone, Debug, PartialEq)]
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
    #[error("tls.{setting}: {shown} {cause}")]
    Pem { setting: &'static str, shown: String, cause: certificates::Error },
    #[error("tls.key: the key in {key} does not belong to the certificate in {cert}")]
    Mismatch { key: String, cert: String },
    #[error(
        "tls.key: the key in {shown} is unusable ({cause}): it must be RSA of 2048 to 8192 bits, \
         ECDSA P-256 or P-384, or Ed25519"
    )]
    Key { shown: String, cause: rustls::Error },
    #[error("{0}, or name the broker's CA in tls.ca")]
    NoAuthorities(#[from] NoAuthorities),
}

impl From<Error> for super::Error {
    /// At a reconnect: files were well at the start, and may be mended.
    fn from(error: Error) -> super::Error {
        super::Error::Down(error.to_string())
    }
}

impl Error {
    /// The setting within `tls:`, if it is one.
    pub fn setting(&self) -> Option<&'static str> {
        match self {
            Error::Material { setting, .. } | Error::Pem { setting, .. } => Some(setting),
            Error::Mismatch { .. } | Error::Key { .. } => Some("key"),
            Error::NoAuthorities(_) => None,
        }
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

    /// Everything that is wrong with what the settings name, at most one thing for each. Blocks while
    /// files are read.
    pub fn faults(&self) -> Vec<Error> {
        let mut faults: Vec<Error> = Vec::new();
        faults.extend(self.ca.as_ref().and_then(|ca| Authorities::load(ca).err()));
        let Some(identity) = &self.identity else { return faults };
        let Identity { cert, key } = identity;
        let own = [
            read("cert", cert)
                .and_then(|pem| parse("cert", cert, &pem, certificates::certificates).map(drop)),
            read("key", key)
                .and_then(|pem| parse("key", key, &pem, certificates::private_key).map(drop)),
        ];
        let before = faults.len();
        faults.extend(own.into_iter().filter_map(Result::err));
        if faults.len() == before {
            faults.extend(LoadedIdentity::load(identity).err());
        }
        faults
    }

    /// The rustls configuration of a connection. Blocks while files are read.
    pub fn client_config(&self) -> Result<ClientConfig, Error> {
        let Loaded { ca, identity } = self.load()?;
        let roots = match ca {
            Some(authorities) => authorities.roots,
            None => certificates::system_authorities()?,
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
            // A bad signature is that of another CA of the same name.
            UnknownIssuer | BadSignature if self.ca.is_some() => {
                format!("{refused}: no CA in `tls.ca` has signed it")
            }
            UnknownIssuer | BadSignature => {
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
            own if certificates::is_an_authoritys_own(own) => {
                "the broker shows a CA's own certificate (CA:TRUE), as `openssl req -x509` makes \
                 them: have one issued for the host, or make it with -addext \
                 basicConstraints=critical,CA:FALSE"
                    .to_owned()
            }
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
    fn load(ca: &Material) -> Result<Authorities, Error> {
        let pem = read("ca", ca)?;
        let roots = parse("ca", ca, &pem, certificates::authorities)?;
        Ok(Authorities { pem, roots })
    }
}

impl LoadedIdentity {
    fn load(Identity { cert, key }: &Identity) -> Result<LoadedIdentity, Error> {
        let cert_pem = read("cert", cert)?;
        let chain = parse("cert", cert, &cert_pem, certificates::certificates)?;
        let key_pem = read("key", key)?;
        let private_key = parse("key", key, &key_pem, certificates::private_key)?;
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

fn parse<T>(
    setting: &'static str,
    material: &Material,
    pem: &SecretString,
    parse: fn(&[u8]) -> Result<T, certificates::Error>,
) -> Result<T, Error> {
    parse(pem.expose_secret().as_bytes()).map_err(|cause| Error::Pem {
        setting,
        shown: material.to_string(),
        cause,
    })
}

/// Named, so that it never depends on which others are compiled in.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
