//! Verifies that a request was signed by who holds a secret: pure functions of keys, headers, body
//! and time, one file a scheme.
//!
//! Every key is tried against every candidate in constant time with no early exit, and a timestamp
//! is looked at only once the signature over it is known to be right.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

pub mod diagnosis;
pub mod miibo;
pub mod sonzai;
pub mod standard;

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

/// An HMAC-SHA256 key, hashed once so that each verification starts from the keyed state. That state
/// is as good as the secret to who reads it, and the library does not zero it when it is dropped.
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

    /// Whether the MAC over `parts` is among `candidates`; all are compared.
    fn matches(&self, candidates: &[[u8; 32]], parts: &[&[u8]]) -> bool {
        let mac = self.mac(parts);
        let equal = |candidate: &[u8; 32]| mac.ct_eq(candidate);
        candidates.iter().map(equal).fold(Choice::from(0), |found, equal| found | equal).into()
    }
}

/// The index of the last key that matches; all are tried.
fn matching<'k, K: 'k>(
    keys: impl IntoIterator<Item = &'k K>,
    matches: impl Fn(&K) -> bool,
) -> Result<usize, Error> {
    let mut found = None;
    for (index, key) in keys.into_iter().enumerate() {
        if matches(key) {
            found = Some(index);
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
    // The decoder would also take digits behind a `0x`.
    let digits = text.len() == 2 * mac.len();
    (digits && const_hex::decode_to_slice(text, &mut mac).is_ok()).then_some(mac)
}

/// A timestamp, Unix seconds, as it is written in a header.
fn unix_seconds(text: &str) -> Result<u64, Error> {
    if text.is_empty() {
        return Err(Error::Missing);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(Error::Malformed)
}

fn check_time(timestamp: u64, now_s: u64) -> Result<(), Error> {
    if timestamp.abs_diff(now_s) > TOLERANCE_S {
        return Err(Error::Expired { timestamp });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    #[derive(serde::Deserialize)]
    pub(crate) struct Vectors {
        tolerance_seconds: u64,
        pub(crate) cases: Vec<Case>,
    }

    /// A request of some sender, and what must come of it.
    #[derive(serde::Deserialize)]
    pub(crate) struct Case {
        pub(crate) name: String,
        pub(crate) scheme: String,
        pub(crate) secrets: Vec<String>,
        /// Unix seconds.
        pub(crate) now: u64,
        pub(crate) headers: Vec<(String, String)>,
        pub(crate) body: String,
        pub(crate) expect: String,
        /// What was signed as the id, where the scheme has one.
        id: Option<String>,
    }

    pub(crate) fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../tests/vectors/signatures.json")).unwrap()
    }

    fn verify(case: &Case) -> Result<Verified, Error> {
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
            "sonzai" => sonzai::verify(&keys(sonzai::key), &headers, body, case.now),
            "miibo" => miibo::verify(&keys(miibo::key), &headers, body),
            "standard" => {
                let keys: Vec<_> = case.secrets.iter().map(|s| standard::key(s).unwrap()).collect();
                let (verified, id) = standard::verify(&keys, &headers, body, case.now)?;
                assert_eq!(Some(id), case.id.as_deref(), "{}", case.name);
                Ok(verified)
            }
            unknown => panic!("no scheme is named {unknown}"),
        }
    }

    #[test]
    fn every_published_case_is_judged_as_expected() {
        let vectors = vectors();
        assert_eq!(vectors.tolerance_seconds, TOLERANCE_S);
        assert_eq!(vectors.cases.len(), 24);
        for case in &vectors.cases {
            let verdict = match verify(case) {
                Ok(_) => "ok",
                Err(Error::Missing) => "missing",
                Err(Error::Malformed) => "malformed",
                Err(Error::Mismatch) => "mismatch",
                Err(Error::Expired { .. }) => "expired",
            };
            assert_eq!(verdict, case.expect, "{} {}", case.scheme, case.name);
        }
    }
}
