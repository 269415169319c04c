//! TLS and SASL, in librdkafka's settings.

use rdkafka::ClientConfig;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::super::tls;
use crate::secret::same;

/// Who we are to the cluster.
#[derive(Clone, Debug)]
pub struct Sasl {
    pub mechanism: Mechanism,
    pub user: SecretString,
    pub password: SecretString,
}

impl PartialEq for Sasl {
    fn eq(&self, other: &Sasl) -> bool {
        let Sasl { mechanism, user, password } = self;
        *mechanism == other.mechanism && same(user, &other.user) && same(password, &other.password)
    }
}

/// How we prove it. `Plain` shows the broker the password, the others that we know it (RFC 5802).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mechanism {
    Plain,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

impl Mechanism {
    pub const ALL: [Mechanism; 3] =
        [Mechanism::Plain, Mechanism::ScramSha256, Mechanism::ScramSha512];

    /// As `routes.yaml` says it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "plain",
            Mechanism::ScramSha256 => "scram-sha-256",
            Mechanism::ScramSha512 => "scram-sha-512",
        }
    }
}

/// Adds to `config` what protects a connection. Blocks while files are read.
pub fn secure(
    config: &mut ClientConfig,
    tls: Option<&tls::Settings>,
    sasl: Option<&Sasl>,
) -> Result<(), tls::Error> {
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(sasl) = sasl {
        config
            .set("sasl.mechanisms", sasl.mechanism.name().to_ascii_uppercase())
            .set("sasl.username", sasl.user.expose_secret())
            .set("sasl.password", sasl.password.expose_secret());
    }
    let Some(tls) = tls else { return Ok(()) };
    let loaded = tls.load()?;
    // As text, so that librdkafka uses what was checked. Its defaults verify certificate and name.
    if let Some(ca) = loaded.ca() {
        config.set("ssl.ca.pem", ca.expose_secret());
    }
    if let Some((cert, key)) = loaded.identity() {
        config.set("ssl.certificate.pem", cert.expose_secret());
        config.set("ssl.key.pem", key.expose_secret());
    }
    Ok(())
}
