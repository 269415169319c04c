//! miibo's mistakes: see the scheme in [`signature::miibo`].

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Claim, Diagnosis, Encoding, Mistake, Reading, Trial, header, keys::Readings, mac, missing,
};
use crate::signature::{self, miibo::HEADER, standard::Key};

/// Why a request with these secrets is as it is.
pub fn diagnose(secrets: &[&SecretString], headers: &HeaderMap, body: &[u8]) -> Diagnosis {
    let mut faults = Vec::new();
    let mut signatures = Vec::new();
    match header(headers, HEADER, &mut faults) {
        None => faults.push(missing(headers, HEADER)),
        Some("") => faults.push(Mistake::NoSignature { name: HEADER, form: "<hex>" }),
        Some(text) => match mac(text, Encoding::Hex) {
            Some(signature) => signatures.push(signature),
            None => faults.push(Mistake::Undecodable { name: HEADER, right: Encoding::Hex }),
        },
    }
    let trial = Trial {
        keys: secrets.iter().map(|secret| keys(secret.expose_secret())).collect(),
        prefixes: vec![Reading::right(Vec::new())],
        body,
        signatures,
    };
    Diagnosis { claim: Claim::default(), faults, fit: trial.fit() }
}

fn keys(secret: &str) -> Vec<Reading<Key>> {
    let Ok(right) = signature::miibo::key(secret) else { return Vec::new() };
    let rest = secret.strip_prefix("whsec_").map(str::as_bytes);
    Readings::of(Key::Shared(right), secret.as_bytes())
        .or(rest, Mistake::KeyWithoutPrefix("whsec_"))
        .or_decoded(secret)
        .or_careless(secret)
}
