//! Whom a command trusts when it speaks TLS.

use std::{io, path::Path, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
        SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::Error;
use crate::certificates;

/// What the other side must show.
pub enum Trust<'a> {
    /// A certificate for its host, from one of the system's authorities.
    System,
    /// The same, from one of the authorities in this PEM file.
    Authorities(&'a Path),
    /// The first certificate of this PEM file, whatever host it is for: that of a daemon which was
    /// found by its data directory, and is asked at an address that no certificate names.
    Exactly(&'a Path),
}

/// A trust made ready for one host.
pub struct Tls {
    connector: TlsConnector,
    host: ServerName<'static>,
}

impl Tls {
    pub fn new(host: &str, trust: Trust) -> Result<Tls, Error> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let host = ServerName::try_from(bare)
            .map_err(|_| Error(format!("{host} is no host that a certificate can be for")))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(Error::new)?;
        let config = match trust {
            Trust::System => builder.with_root_certificates(system()?).with_no_client_auth(),
            Trust::Authorities(file) => {
                let roots = read(file, certificates::authorities)?;
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::Exactly(file) => {
                let certificate = read(file, certificates::certificates)?.swap_remove(0);
                let pinned = Pinned { certificate, provider };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(pinned))
                    .with_no_client_auth()
            }
        };
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), host })
    }

    pub async fn connect(
        &self,
        authority: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Error> {
        self.connector
            .connect(self.host.clone(), stream)
            .await
            .map_err(|cause| Error(format!("no TLS with {authority}: {cause}{}", advice(&cause))))
    }
}

fn advice(error: &io::Error) -> &'static str {
    use CertificateError::{ApplicationVerificationFailure, BadSignature, UnknownIssuer};
    use rustls::Error::{InvalidCertificate, InvalidMessage};

    match error.get_ref().and_then(|cause| cause.downcast_ref()) {
        Some(InvalidCertificate(UnknownIssuer | BadSignature)) => {
            "\nName the authority's file with --cacert."
        }
        Some(InvalidCertificate(ApplicationVerificationFailure)) => {
            "\nThe daemon shows another certificate than its file holds. If the file has just \
             changed, try again in some seconds; else use --url and --cacert."
        }
        Some(InvalidCertificate(own)) if certificates::is_an_authoritys_own(own) => {
            "\nIt shows an authority's own certificate (CA:TRUE), as `openssl req -x509` makes them. \
             Issue one for the host: -addext basicConstraints=critical,CA:FALSE"
        }
        Some(InvalidMessage(_)) => "\nDoes it speak plain HTTP? Then write http:// with --url.",
        _ => "",
    }
}

fn system() -> Result<RootCertStore, Error> {
    certificates::system_authorities()
        .map_err(|cause| Error(format!("{cause}, or name a file with --cacert")))
}

/// What a PEM file holds.
fn read<T>(file: &Path, parse: fn(&[u8]) -> Result<T, certificates::Error>) -> Result<T, Error> {
    let name = file.display();
    let text =
        std::fs::read(file).map_err(|cause| Error(format!("cannot read {name}: {cause}")))?;
    parse(&text).map_err(|cause| Error(format!("{name} {cause}")))
}

/// Accepts one certificate, and its owner alone.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer,
        _: &[CertificateDer],
        _: &ServerName,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *shown != self.certificate {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, shown, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, shown, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
