//! Standard Webhooks' mistakes: see the scheme in [`signature::standard`].

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};

use super::{
    Claim, Diagnosis, Encoding, Mistake, Reading, Signature, Trial, ed25519, header,
    keys::Readings, mac, missing, timestamp,
};
use crate::signature::{
    self, MAX_CANDIDATES,
    standard::{FAMILIES, Key, is_usable_id},
};

const FORM: &str = "v1,<base64>";
const SIGNED: &str = "<id>.<timestamp>.<body>";

/// Why a request with these secrets is as it is.
pub fn diagnose(secrets: &[&SecretString], headers: &HeaderMap, body: &[u8]) -> Diagnosis {
    let mut faults = Vec::new();
    let family = family(headers, &mut faults);
    let [id, time, list] = family.map(|name| {
        let value = header(headers, name, &mut faults);
        if !headers.contains_key(name) {
            faults.push(missing(headers, name));
        }
        value
    });
    if id.is_some_and(|id| !is_usable_id(id)) {
        faults.push(Mistake::UnusableId);
    }
    let (timestamp_s, wrong) = time.map(timestamp).unwrap_or_default();
    faults.extend(wrong);
    let signatures = list.map(|list| signatures(list, family[2], &mut faults)).unwrap_or_default();
    let trial = Trial {
        keys: secrets.iter().map(|secret| keys(secret.expose_secret())).collect(),
        prefixes: prefixes(id, time),
        body,
        signatures,
    };
    let claim = Claim { id: id.map(str::to_owned), timestamp_s };
    Diagnosis { claim, faults, fit: trial.fit() }
}

/// The family whose headers are meant: the one that has more of them.
fn family(headers: &HeaderMap, faults: &mut Vec<Mistake>) -> [&'static str; 3] {
    let of = |family: [&str; 3]| family.map(|name| headers.get(name));
    let [webhook, svix] = FAMILIES.map(of);
    let [webhook_count, svix_count] = [webhook, svix].map(|of| of.iter().flatten().count());
    if webhook_count > 0 && svix_count > 0 && webhook != svix {
        faults.push(Mistake::MixedFamilies);
    }
    FAMILIES[usize::from(svix_count > webhook_count)]
}

fn signatures(
    list: &str,
    name: &'static str,
    faults: &mut Vec<Mistake>,
) -> Vec<Reading<Signature>> {
    let entries = list.split(' ').filter(|entry| !entry.is_empty());
    let found: Vec<_> = entries.take(MAX_CANDIDATES + 1).filter_map(entry).collect();
    if found.len() > MAX_CANDIDATES {
        faults.push(Mistake::TooMany(name));
    }
    if found.is_empty() {
        faults.push(match list.contains("v1") {
            true => Mistake::Undecodable { name, right: Encoding::Base64 },
            false => Mistake::NoSignature { name, form: FORM },
        });
    }
    found
}

fn entry(entry: &str) -> Option<Reading<Signature>> {
    let right = Encoding::Base64;
    match entry.split_once(',') {
        Some(("v1", text)) => return mac(text, right),
        Some(("v1a", text)) => return ed25519(text, right),
        _ => {}
    }
    let mut signature = mac(entry.strip_prefix("v1=").unwrap_or(entry), right)?;
    signature.mistakes.push(Mistake::Unlabelled("v1,"));
    Some(signature)
}

fn keys(secret: &str) -> Vec<Reading<Key>> {
    let Ok(right) = signature::standard::key(secret) else { return Vec::new() };
    let Some(text) = secret.strip_prefix("whsec_") else { return vec![Reading::right(right)] };
    Readings::of(right, &[])
        .or(Some(text.as_bytes()), Mistake::KeyAsText)
        .or(Some(secret.as_bytes()), Mistake::KeyWithPrefix("whsec_"))
        .or_careless(text)
}

fn prefixes(id: Option<&str>, timestamp: Option<&str>) -> Vec<Reading<Vec<u8>>> {
    let wrong = |prefix: String, found| {
        Reading::wrong(prefix.into_bytes(), Mistake::SignedText { found, right: SIGNED })
    };
    let mut prefixes = Vec::new();
    if let (Some(id), Some(t)) = (id, timestamp) {
        prefixes.push(Reading::right(format!("{id}.{t}.").into_bytes()));
    }
    prefixes.extend(timestamp.map(|t| wrong(format!("{t}."), "<timestamp>.<body>")));
    prefixes.extend(id.map(|id| wrong(format!("{id}."), "<id>.<body>")));
    prefixes.push(Reading::wrong(Vec::new(), Mistake::BodyAlone { right: SIGNED }));
    prefixes
}
