//! Sonzai's mistakes: see the scheme in [`signature::sonzai`].

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Claim, Diagnosis, Encoding, Mistake, Reading, Signature, Trial, header, keys::Readings, mac,
    missing, timestamp,
};
use crate::signature::{self, MAX_CANDIDATES, sonzai::HEADER, standard::Key};

/// An older name of the header, of a page that signs the body alone.
const OLD_HEADER: &str = "x-sonzai-signature";

const FORM: &str = "t=<Unix seconds>,v1=<hex>";
const SIGNED: &str = "<t>.<body>";

/// Why a request with these secrets is as it is.
pub fn diagnose(secrets: &[&SecretString], headers: &HeaderMap, body: &[u8]) -> Diagnosis {
    let mut faults = Vec::new();
    let mut presented = Presented::default();
    if let Some(text) = header(headers, HEADER, &mut faults) {
        presented = Presented::parse(text, &mut faults);
    } else if let Some(text) = header(headers, OLD_HEADER, &mut Vec::new()) {
        presented = Presented::parse(text, &mut Vec::new());
        faults.push(Mistake::HeaderName { found: OLD_HEADER, right: HEADER });
    } else {
        faults.push(missing(headers, HEADER));
    }
    let (timestamp_s, wrong) = presented.timestamp.map(timestamp).unwrap_or_default();
    faults.extend(wrong);
    let trial = Trial {
        keys: secrets.iter().map(|secret| keys(secret.expose_secret())).collect(),
        prefixes: prefixes(presented.timestamp),
        body,
        signatures: presented.signatures,
    };
    Diagnosis { claim: Claim { id: None, timestamp_s }, faults, fit: trial.fit() }
}

/// What the header says, however it is written.
#[derive(Default)]
struct Presented<'h> {
    timestamp: Option<&'h str>,
    signatures: Vec<Reading<Signature>>,
}

impl<'h> Presented<'h> {
    fn parse(text: &'h str, faults: &mut Vec<Mistake>) -> Presented<'h> {
        let mut presented = Presented::default();
        let parts = text.split(',').map(str::trim);
        for part in parts.take(MAX_CANDIDATES + 1) {
            match part.split_once('=') {
                Some(("t", _)) if presented.timestamp.is_some() => {
                    faults.push(Mistake::Repeated("t="));
                }
                Some(("t", text)) if !text.is_empty() => presented.timestamp = Some(text),
                Some(("v1", text)) => presented.signatures.extend(mac(text, Encoding::Hex)),
                _ => presented.signatures.extend(mac(part, Encoding::Hex).map(|mut bare| {
                    bare.mistakes.push(Mistake::Unlabelled("v1="));
                    bare
                })),
            }
        }
        if presented.timestamp.is_none() {
            faults.push(Mistake::NoTimestamp("`t=`"));
        }
        if presented.signatures.is_empty() {
            faults.push(match text.contains("v1=") && !text.ends_with("v1=") {
                true => Mistake::Undecodable { name: HEADER, right: Encoding::Hex },
                false => Mistake::NoSignature { name: HEADER, form: FORM },
            });
        }
        if presented.signatures.len() > MAX_CANDIDATES {
            faults.push(Mistake::TooMany(HEADER));
        }
        presented
    }
}

fn keys(secret: &str) -> Vec<Reading<Key>> {
    let Ok(right) = signature::sonzai::key(secret) else { return Vec::new() };
    let text = secret.strip_prefix("whsec_").unwrap_or(secret);
    Readings::of(Key::Shared(right), text.as_bytes())
        .or(Some(secret.as_bytes()), Mistake::KeyWithPrefix("whsec_"))
        .or_decoded(text)
        .or_careless(text)
}

fn prefixes(timestamp: Option<&str>) -> Vec<Reading<Vec<u8>>> {
    let with_timestamp = timestamp.into_iter().flat_map(|t| {
        let without_dot = Mistake::SignedText { found: "<t><body>", right: SIGNED };
        [
            Reading::right(format!("{t}.").into_bytes()),
            Reading::wrong(t.as_bytes().to_vec(), without_dot),
        ]
    });
    let alone = Reading::wrong(Vec::new(), Mistake::BodyAlone { right: SIGNED });
    with_timestamp.chain([alone]).collect()
}
