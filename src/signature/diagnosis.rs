//! Why a signature is not right: the usual mistakes, each tried until one makes it fit.
//!
//! For `waypost explain` alone. The ingress knows only right and wrong, and tells nobody more. What is
//! found here names a mistake and a secret's place in its list; nothing holds a secret, a signature
//! or any part of one.
//!
//! A scheme says what its headers claim, however wrongly they are written, and how its key and its
//! signed text are misread ([`sonzai`], [`miibo`], [`standard`]); what may have happened to a body is
//! the same for all ([`body`]). Signatures are compared as the schemes do it, in constant time.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose};
use http::HeaderMap;

use super::standard::Key;

mod body;
mod keys;
pub mod miibo;
mod mistake;
pub mod sonzai;
pub mod standard;

pub use mistake::{Encoding, Mistake};

/// Most mistakes at a time in what is tried. Two happen together (a body that a proxy wrote anew,
/// and a key taken with its prefix); three are no explanation any more.
const MAX_MISTAKES: usize = 2;

/// Most bytes that are hashed to find a mistake; the likeliest are tried first.
const MAX_TRIED_BYTES: usize = 1 << 30;

/// Most headers that are named where none is the one that was looked for.
const MAX_NAMED_HEADERS: usize = 5;

/// Timestamps from here on, in the year 5138, are not seconds.
const FIRST_MILLISECONDS: u64 = 100_000_000_000;

/// What is known about a request's signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    pub claim: Claim,
    /// What is wrong with the headers as they stand.
    pub faults: Vec<Mistake>,
    /// What makes the signature fit, if anything that was tried does.
    pub fit: Option<Fit>,
}

/// What a request says of itself, as far as it can be read. Nothing has verified it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    pub id: Option<String>,
    /// Unix seconds, whatever the unit it was written in.
    pub timestamp_s: Option<u64>,
}

/// A signature that was made with a known secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fit {
    /// The secret's index in the list that was given.
    pub secret: usize,
    /// What its sender did otherwise; nothing, if the signature is right.
    pub mistakes: Vec<Mistake>,
}

/// One way to read something: the right one, or one with its mistakes.
#[derive(Clone)]
struct Reading<T> {
    value: T,
    mistakes: Vec<Mistake>,
}

impl<T> Reading<T> {
    fn right(value: T) -> Reading<T> {
        Reading { value, mistakes: Vec::new() }
    }

    fn wrong(value: T, mistake: Mistake) -> Reading<T> {
        Reading { value, mistakes: vec![mistake] }
    }
}

/// A signature as it came.
#[derive(Clone)]
enum Signature {
    Mac([u8; 32]),
    Ed25519([u8; 64]),
}

/// What is tried against each other.
struct Trial<'t> {
    /// The readings of each secret.
    keys: Vec<Vec<Reading<Key>>>,
    /// What is signed in front of the body.
    prefixes: Vec<Reading<Vec<u8>>>,
    body: &'t [u8],
    signatures: Vec<Reading<Signature>>,
}

impl Trial<'_> {
    /// The fit with the fewest mistakes.
    fn fit(&self) -> Option<Fit> {
        if self.signatures.is_empty() {
            return None;
        }
        let bodies = body::readings(self.body);
        let mut tried_bytes = 0;
        for allowed in 0..=MAX_MISTAKES {
            for (secret, keys) in self.keys.iter().enumerate() {
                for (key, prefix, body) in combinations(keys, &self.prefixes, &bodies, allowed) {
                    tried_bytes += prefix.value.len() + body.value.len();
                    if tried_bytes > MAX_TRIED_BYTES {
                        return None;
                    }
                    let Some(signature) = self.matching(&key.value, &prefix.value, &body.value)
                    else {
                        continue;
                    };
                    let mistakes = [&signature.mistakes, &key.mistakes, &prefix.mistakes];
                    let mistakes = mistakes.into_iter().chain([&body.mistakes]).flatten();
                    return Some(Fit { secret, mistakes: mistakes.cloned().collect() });
                }
            }
        }
        None
    }

    fn matching(&self, key: &Key, prefix: &[u8], body: &[u8]) -> Option<&Reading<Signature>> {
        match key {
            Key::Shared(key) => self.signatures.iter().find(|signature| match signature.value {
                Signature::Mac(mac) => key.matches(&[mac], &[prefix, body]),
                Signature::Ed25519(_) => false,
            }),
            Key::Public(key) => self.signatures.iter().find(|signature| match &signature.value {
                Signature::Mac(_) => false,
                Signature::Ed25519(bytes) => key.verify(&[prefix, body].concat(), bytes).is_ok(),
            }),
        }
    }
}

type Combination<'c> = (&'c Reading<Key>, &'c Reading<Vec<u8>>, &'c Reading<Cow<'c, [u8]>>);

/// Every combination with exactly so many mistakes.
fn combinations<'c>(
    keys: &'c [Reading<Key>],
    prefixes: &'c [Reading<Vec<u8>>],
    bodies: &'c [Reading<Cow<'c, [u8]>>],
    mistakes: usize,
) -> impl Iterator<Item = Combination<'c>> {
    keys.iter()
        .flat_map(move |key| prefixes.iter().map(move |prefix| (key, prefix)))
        .flat_map(move |(key, prefix)| bodies.iter().map(move |body| (key, prefix, body)))
        .filter(move |(key, prefix, body)| {
            key.mistakes.len() + prefix.mistakes.len() + body.mistakes.len() == mistakes
        })
}

/// A MAC, in the encoding that the scheme asks for or in another.
fn mac(text: &str, right: Encoding) -> Option<Reading<Signature>> {
    let Reading { value, mistakes } = decode(text, right)?;
    Some(Reading { value: Signature::Mac(value), mistakes })
}

/// The same for what Ed25519 signs.
fn ed25519(text: &str, right: Encoding) -> Option<Reading<Signature>> {
    let Reading { value, mistakes } = decode(text, right)?;
    Some(Reading { value: Signature::Ed25519(value), mistakes })
}

fn decode<const LEN: usize>(text: &str, right: Encoding) -> Option<Reading<[u8; LEN]>> {
    let decoded = |text: &str| {
        let decoded =
            |encoding: &Encoding| Some((encoding.decode(text)?.try_into().ok()?, *encoding));
        Encoding::ALL.iter().find_map(decoded)
    };
    let labelled = |label: &'static str| Some((Some(label), decoded(text.strip_prefix(label)?)?));
    // As it is first: base64 may begin with `0x`.
    let (label, (value, found)) = decoded(text)
        .map(|found| (None, found))
        .or_else(|| ["sha256=", "hmac-sha256=", "0x"].into_iter().find_map(labelled))?;
    let encoded = (found != right).then_some(Mistake::Encoded { found, right });
    Some(Reading {
        value,
        mistakes: label.map(Mistake::Labelled).into_iter().chain(encoded).collect(),
    })
}

impl Encoding {
    /// Hex first: its digits are base64, too.
    const ALL: [Encoding; 4] =
        [Encoding::Hex, Encoding::Base64, Encoding::Base64Unpadded, Encoding::Base64Url];

    fn decode(self, text: &str) -> Option<Vec<u8>> {
        match self {
            // The library takes the label as part of it.
            Encoding::Hex if text.starts_with("0x") => None,
            Encoding::Hex => const_hex::decode(text).ok(),
            Encoding::Base64 => general_purpose::STANDARD.decode(text).ok(),
            Encoding::Base64Unpadded => general_purpose::STANDARD_NO_PAD.decode(text).ok(),
            Encoding::Base64Url => {
                general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
            }
        }
    }
}

/// A timestamp that may be in another unit or form than seconds: what it says, and what is wrong.
fn timestamp(text: &str) -> (Option<u64>, Option<Mistake>) {
    match super::unix_seconds(text) {
        Ok(seconds) if seconds < FIRST_MILLISECONDS => (Some(seconds), None),
        Ok(finer) => {
            let mut seconds = finer;
            while seconds >= FIRST_MILLISECONDS {
                seconds /= 1000;
            }
            (Some(seconds), Some(Mistake::TimestampUnit))
        }
        Err(_) => {
            let parsed = humantime::parse_rfc3339_weak(text).ok();
            let since = parsed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            (since.map(|since| since.as_secs()), Some(Mistake::TimestampForm))
        }
    }
}

/// The text of a header, and what is wrong with it as a header that may stand only once.
fn header<'h>(
    headers: &'h HeaderMap,
    name: &'static str,
    faults: &mut Vec<Mistake>,
) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        faults.push(Mistake::Repeated(name));
    }
    if value.len() > super::MAX_HEADER_BYTES {
        faults.push(Mistake::TooLong(name));
        return None;
    }
    let text = std::str::from_utf8(value).ok();
    if text.is_none() {
        faults.push(Mistake::NotText(name));
    }
    text
}

/// The header is missing; others that look like signatures are named.
fn missing(headers: &HeaderMap, name: &'static str) -> Mistake {
    let alike = headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|other| *other != name && (other.contains("signature") || other.contains("hmac")));
    Mistake::Missing { name, instead: alike.take(MAX_NAMED_HEADERS).map(str::to_owned).collect() }
}

#[cfg(test)]
mod tests;
