//! Certificates and keys in PEM, and whom to trust: what TLS has in common on the ingress, in the
//! commands and to the brokers.

use std::{error, io, iter};

use tokio_rustls::rustls::{
    self, CertificateError, RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
};

/// How PEM begins, and a NATS `.creds` file, which is framed alike.
pub const PEM_SIGN: &str = "-----BEGIN";

/// Why a PEM text cannot be used; follows the name of its file. Quotes nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("holds no private key (-----BEGIN PRIVATE KEY-----, or RSA or EC)")]
    NoKey,
    #[error(
        "holds an encrypted private key, which is not supported: decrypt it (openssl pkey -in KEY \
         -out DECRYPTED) into a file that only waypost may read"
    )]
    EncryptedKey,
    #[error("is damaged: {0}")]
    Damaged(&'static str),
    #[error("holds a certificate, number {number}, that cannot be used: {cause}")]
    Authority { number: usize, cause: rustls::Error },
}

/// No authority of this system could be read, for these reasons.
#[derive(Debug, thiserror::Error)]
#[error("this system has no CA certificates {causes:?}: install ca-certificates")]
pub struct NoAuthorities {
    causes: Vec<String>,
}

/// The certificates in a text, at least one.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| damaged(&error))?;
    if found.is_empty() { Err(Error::NoCertificate) } else { Ok(found) }
}

/// The first private key in a text.
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    let holds = |mark: &[u8]| text.windows(mark.len()).any(|part| part == mark);
    // PKCS #8 says so in its first line, the older formats in a header below it (RFC 1421).
    if holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED") {
        return Err(Error::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::NoKey,
        error => damaged(&error),
    })
}

/// Without the parser's words, which may quote a line: the whole key, where line breaks were lost.
fn damaged(error: &pem::Error) -> Error {
    Error::Damaged(match error {
        pem::Error::MissingSectionEnd { .. } | pem::Error::IllegalSectionStart { .. } => {
            "a section has no -----END line; were its line breaks lost?"
        }
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "not PEM",
    })
}

/// The authorities in a text, at least one.
pub fn authorities(text: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(text)?.into_iter().enumerate() {
        let added = roots.add(certificate);
        added.map_err(|cause| Error::Authority { number: index + 1, cause })?;
    }
    Ok(roots)
}

/// The authorities of this system; those that cannot be parsed are left out, as everybody does.
pub fn system_authorities() -> Result<RootCertStore, NoAuthorities> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(found.certs).0 == 0 {
        let causes = found.errors.iter().map(ToString::to_string).collect();
        return Err(NoAuthorities { causes });
    }
    Ok(roots)
}

/// Whether a host showed an authority's own certificate (CA:TRUE), as `openssl req -x509` makes them.
/// The library has no name for it.
pub fn is_an_authoritys_own(cause: &CertificateError) -> bool {
    matches!(cause, CertificateError::Other(why) if why.to_string().contains("CaUsedAsEndEntity"))
}

/// The error of TLS at the bottom of another one, if that is what it is.
pub fn tls_cause<'e>(error: &'e (dyn error::Error + 'static)) -> Option<&'e rustls::Error> {
    iter::successors(Some(error), |error| match error.downcast_ref::<io::Error>() {
        // An I/O error's own `source` skips what it wraps.
        Some(error) => error.get_ref().map(|inner| inner as &(dyn error::Error + 'static)),
        None => error.source(),
    })
    .find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn the_error_of_tls_is_found_below_others() {
        let tls = || rustls::Error::HandshakeNotComplete;
        let io = io::Error::new(io::ErrorKind::InvalidData, tls());
        assert_eq!(tls_cause(&io), Some(&tls()));
        let amqp = lapin::Error::from(io);
        assert_eq!(tls_cause(&amqp), Some(&tls()));
        assert_eq!(tls_cause(&io::Error::from(io::ErrorKind::BrokenPipe)), None);
    }

    #[test]
    fn a_text_is_told_apart_from_a_damaged_one_and_never_quoted() {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::default().self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        let both = format!("a comment\n{key}{cert}");
        assert_eq!(certificates(both.as_bytes()).unwrap().len(), 1);
        assert!(private_key(both.as_bytes()).is_ok());

        let secret = key.lines().nth(1).unwrap();
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n-----END RSA PRIVATE \
                   KEY-----";
        for (text, expected) in [
            (String::new(), "holds no private key"),
            (cert.clone(), "holds no private key"),
            (key.replace('\n', " "), "were its line breaks lost?"),
            (key[..key.len() - 12].to_owned(), "has no -----END line"),
            (key.replace('M', "?"), "is not base64"),
            (key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "is not supported: decrypt it"),
            (old.to_owned(), "is not supported: decrypt it"),
        ] {
            let error = private_key(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(expected), "{expected}: {error}");
            assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
        }
        let no_der = "-----BEGIN CERTIFICATE-----\naGk=\n-----END CERTIFICATE-----\n";
        let second = format!("{cert}{no_der}");
        let error = authorities(second.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("holds a certificate, number 2, that cannot be used"), "{error}");
        assert!(matches!(authorities(key.as_bytes()), Err(Error::NoCertificate)));
    }
}
