use rcgen::{Certificate, CertificateParams, KeyPair};

use super::*;

/// A certificate that has signed itself, and its key.
fn pair() -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap(), key)
}

fn text(text: &str) -> Material {
    Material::Text(text.into())
}

fn trusting(ca: &str) -> Settings {
    Settings { ca: Some(text(ca)), identity: None }
}

fn showing(cert: &str, key: &str) -> Settings {
    Settings { ca: None, identity: Some(Identity { cert: text(cert), key: text(key) }) }
}

#[test]
fn good_material_is_loaded_as_it_was_written() {
    let (cert, key) = pair();
    let (cert, key) = (format!("a comment\n{}", cert.pem()), key.serialize_pem());
    let bundle = format!("{cert}{cert}");
    let settings = Settings { ca: Some(text(&bundle)), ..showing(&cert, &key) };
    let loaded = settings.load().unwrap();
    assert_eq!(loaded.ca().map(|ca| ca.expose_secret()), Some(&*bundle));
    let (loaded_cert, loaded_key) = loaded.identity().unwrap();
    assert_eq!((loaded_cert.expose_secret(), loaded_key.expose_secret()), (&*cert, &*key));
    assert!(settings.client_config().unwrap().client_auth_cert_resolver.has_certs());
    let debug = format!("{settings:?} {loaded:?}");
    let secret = key.lines().nth(1).unwrap();
    assert!(!debug.contains(secret), "{debug}");
}

#[test]
fn unusable_material_is_named_by_setting_and_never_shown() {
    let (cert, key) = pair();
    let (cert, key) = (cert.pem(), key.serialize_pem());
    let (_, another) = pair();
    let another = another.serialize_pem();
    let missing = Material::File { path: "/nowhere/ca.pem".into(), shown: "${CA}".into() };
    let one_line = key.replace('\n', " ");
    let not_der = "-----BEGIN CERTIFICATE-----\naGk=\n-----END CERTIFICATE-----\n";
    let no_key = not_der.replace("CERTIFICATE", "PRIVATE KEY");
    let cases = [
        (Settings { ca: Some(missing), identity: None }, "tls.ca: cannot read ${CA}: No such file"),
        (trusting(""), "tls.ca: the given text holds no certificate"),
        (trusting(&key), "tls.ca: the given text holds no certificate"),
        (trusting(not_der), "tls.ca: the given text holds a certificate, number 1, that cannot"),
        (showing(&key, &key), "tls.cert: the given text holds no certificate"),
        (showing(&cert, &cert), "tls.key: the given text holds no private key"),
        (
            showing(&cert, &one_line),
            "tls.key: the given text is damaged: a section has no -----END",
        ),
        (showing(&cert, &no_key), "tls.key: the key in the given text is unusable"),
        (showing(&cert, &another), "does not belong to the certificate in the given text"),
    ];
    let secrets = [&key, &another].map(|pem| pem.lines().nth(1).unwrap().to_owned());
    for (settings, expected) in cases {
        let error = settings.load().unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        let printed = format!("{error} {error:?}");
        assert!(!secrets.iter().any(|secret| printed.contains(&**secret)), "{printed}");
    }
}

#[test]
fn a_failed_handshake_says_what_to_check() {
    let (cert, key) = pair();
    let system = Settings::default();
    let own = trusting(&cert.pem());
    let shown = showing(&cert.pem(), &key.serialize_pem());
    let untrusted = |cause| rustls::Error::InvalidCertificate(cause);
    let cases = [
        (&system, untrusted(CertificateError::UnknownIssuer), "name its CA in `tls.ca`"),
        (&own, untrusted(CertificateError::UnknownIssuer), "no CA in `tls.ca` has signed it"),
        (&own, untrusted(CertificateError::BadSignature), "no CA in `tls.ca` has signed it"),
        (&own, untrusted(CertificateError::Expired), "has expired"),
        (&own, untrusted(CertificateError::NotValidYet), "clock"),
        (&own, untrusted(CertificateError::NotValidForName), "host name"),
        (
            &own,
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
            "give `tls.cert` and `tls.key`",
        ),
        (
            &shown,
            rustls::Error::AlertReceived(AlertDescription::UnknownCA),
            "refuses the client certificate",
        ),
        (
            &own,
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
            "check that the port speaks TLS",
        ),
    ];
    for (settings, error, expected) in cases {
        let why = settings.why(&error);
        assert!(why.contains(expected), "{expected}: {why}");
    }
}
