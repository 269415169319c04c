//! Verifies that a request was signed by who holds a secret: pure functions of keys, headers, body
//! and time, one file a scheme.
//!
//! Every key is tried against every candidate in constant time with no early exit, and a timestamp
//! is looked at only once the signature over it is known to be right.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

pub mod miibo;
pub mod sonzai;

/// How far a signed timestamp may be from now, either way, in seconds.
pub const TOLERANCE_S: u64 = 300;

/// Longest signature header that is looked at, in bytes.
const MAX_HEADER_BYTES: usize = 4096;

/// Most signatures in one header that are tried.
const MAX_CANDIDATES: usize = 32;

/// A signature that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Which of the keys matched: its index in the configured list.
    pub key: usize,
    /// The signed timestamp, Unix seconds, where the scheme has one.
    pub timestamp: Option<u64>,
}

/// Why a request is not accepted as signed. All are answered alike; logs may tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the signature header is missing or holds no signature")]
    Missing,
    #[error("the signature header is malformed")]
    Malformed,
    #[error("no signature matches any secret")]
    Mismatch,
    /// The signature is right but its time is not: a late delivery, a replay, or our clock.
    #[error("the signature is right, but its timestamp {timestamp} is too far from our clock")]
    Expired { timestamp: u64 },
}

/// An HMAC-SHA256 key, hashed once so that each verification starts from the keyed state.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key([redacted])")
    }
}

/// A secret that cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret is empty")]
pub struct EmptySecret;

impl Key {
    fn new(secret: &[u8]) -> Result<Key, EmptySecret> {
        if secret.is_empty() {
            return Err(EmptySecret);
        }
        Ok(Key(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length")))
    }

    /// The MAC over the concatenation of `parts`.
    fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// The index of the last key whose MAC over `parts` is among `candidates`.
fn matching_key(keys: &[Key], candidates: &[[u8; 32]], parts: &[&[u8]]) -> Result<usize, Error> {
    let mut found = None;
    for (index, key) in keys.iter().enumerate() {
        let mac = key.mac(parts);
        for candidate in candidates {
            if bool::from(mac.ct_eq(candidate)) {
                found = Some(index);
            }
        }
    }
    found.ok_or(Error::Mismatch)
}

/// The one value of a header that may stand only once.
fn single<'h>(headers: &'h http::HeaderMap, name: &str) -> Result<&'h [u8], Error> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Error::Missing)?.as_bytes();
    if values.next().is_some() || value.len() > MAX_HEADER_BYTES {
        return Err(Error::Malformed);
    }
    Ok(value)
}

/// A MAC written as 64 hex digits of either case; `None` for anything else.
fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    let mut mac = [0; 32];
    const_hex::decode_to_slice(text, &mut mac).ok().map(|()| mac)
}

fn check_time(timestamp: u64, now_s: u64) -> Result<(), Error> {
    if timestamp.abs_diff(now_s) > TOLERANCE_S {
        return Err(Error::Expired { timestamp });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    #[derive(serde::Deserialize)]
    struct Vectors {
        tolerance_seconds: u64,
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        scheme: String,
        secrets: Vec<String>,
        now: u64,
        headers: Vec<(String, String)>,
        body: String,
        expect: String,
    }

    fn verify(case: &Case) -> Option<Result<Verified, Error>> {
        let mut headers = HeaderMap::new();
        for (name, value) in &case.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let keys = |key: fn(&str) -> Result<Key, EmptySecret>| -> Vec<Key> {
            case.secrets.iter().map(|s| key(s).unwrap()).collect()
        };
        let body = case.body.as_bytes();
        match case.scheme.as_str() {
            "sonzai" => Some(sonzai::verify(&keys(sonzai::key), &headers, body, case.now)),
            "miibo" => Some(miibo::verify(&keys(miibo::key), &headers, body)),
            _ => None,
        }
    }

    #[test]
    fn every_published_case_is_judged_as_expected() {
        let vectors: Vectors =
            serde_json::from_str(include_str!("../tests/vectors/signatures.json")).unwrap();
        assert_eq!(vectors.tolerance_seconds, TOLERANCE_S);
        let mut judged = 0;
        for case in &vectors.cases {
            let Some(verdict) = verify(case) else { continue };
            let verdict = match verdict {
                Ok(_) => "ok",
                Err(Error::Missing) => "missing",
                Err(Error::Malformed) => "malformed",
                Err(Error::Mismatch) => "mismatch",
                Err(Error::Expired { .. }) => "expired",
            };
            assert_eq!(verdict, case.expect, "{} {}", case.scheme, case.name);
            judged += 1;
        }
        assert_eq!(judged, 17);
    }
}
