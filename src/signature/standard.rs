//! Standard Webhooks 1.0, also under Svix's header names: an id, a timestamp and a list of
//! signatures in a header each, over `"{id}.{timestamp}." + raw body`.
//!
//! From <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>:
//! the list is separated by spaces, each entry a version, a comma and base64. `v1` is HMAC-SHA256,
//! keyed with the bytes behind the secret's `whsec_`; `v1a` is Ed25519, its public key behind `whpk_`.
//! Any one entry that matches is enough; entries of unknown versions are passed over.
//!
//! Where the specification is silent, we are strict. The three headers are of one family: a mixture
//! counts as incomplete, and a request that has both families whole must say the same in both. And
//! an id is refused that could have been cut out of the signed text otherwise than its sender did.

use std::cell::LazyCell;

use base64::{
    Engine, alphabet,
    engine::DecodePaddingMode,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
};
use http::HeaderMap;
use ring::signature::{ED25519, ED25519_PUBLIC_KEY_LEN, UnparsedPublicKey};
use secrecy::{ExposeSecret, SecretSlice};

use super::{Error, MAX_CANDIDATES, Verified};

/// The headers of each family: id, timestamp, signatures.
pub(super) const FAMILIES: [[&str; 3]; 2] = [
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
    ["svix-id", "svix-timestamp", "svix-signature"],
];

/// Longest id, in bytes: what AMQP's `message_id` holds.
const MAX_ID_BYTES: usize = 255;

/// Most `v1a` signatures that are tried. Each costs a pass over the whole body for each key, so a
/// stranger must not choose how many; a sender that rotates its key sends two.
const MAX_ASYMMETRIC: usize = 4;

/// Secrets are copied by hand, and often without their padding.
const SECRET_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a signature is checked with.
#[derive(Clone, Debug)]
pub enum Key {
    /// `whsec_`: shared with the sender; checks `v1`.
    Shared(super::Key),
    /// `whpk_`: the sender's public key; checks `v1a`.
    Public(UnparsedPublicKey<[u8; ED25519_PUBLIC_KEY_LEN]>),
}

/// A secret that cannot be a key. Never holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the secret is empty")]
    Empty,
    #[error("the secret must begin with `whsec_` (shared) or `whpk_` (the sender's public key)")]
    Prefix,
    #[error("`whsk_` is the sender's private key; give its public one, which begins with `whpk_`")]
    Private,
    #[error("what follows `whsec_` or `whpk_` is not base64")]
    NotBase64,
    #[error("the public key has {0} bytes; an Ed25519 key has {ED25519_PUBLIC_KEY_LEN}")]
    PublicKeyLength(usize),
}

/// The key of a secret as its sender shows it.
pub fn key(secret: &str) -> Result<Key, KeyError> {
    if let Some(text) = secret.strip_prefix("whsec_") {
        let key = super::Key::new(unbase64_secret(text)?.expose_secret());
        return key.map(Key::Shared).map_err(|_| KeyError::Empty);
    }
    if let Some(text) = secret.strip_prefix("whpk_") {
        let bytes = unbase64_secret(text)?;
        return match bytes.expose_secret().try_into() {
            Ok(bytes) => Ok(Key::Public(UnparsedPublicKey::new(&ED25519, bytes))),
            Err(_) if bytes.expose_secret().is_empty() => Err(KeyError::Empty),
            Err(_) => Err(KeyError::PublicKeyLength(bytes.expose_secret().len())),
        };
    }
    Err(match secret {
        "" => KeyError::Empty,
        _ if secret.starts_with("whsk_") => KeyError::Private,
        _ => KeyError::Prefix,
    })
}

fn unbase64_secret(text: &str) -> Result<SecretSlice<u8>, KeyError> {
    SECRET_BASE64.decode(text).map(Into::into).map_err(|_| KeyError::NotBase64)
}

/// Verifies `body` against every key; `now_s` is Unix seconds. Returns the id that was signed, too.
pub fn verify<'h>(
    keys: &[Key],
    headers: &'h HeaderMap,
    body: &[u8],
    now_s: u64,
) -> Result<(Verified, &'h str), Error> {
    let Parts { id, timestamp: timestamp_text, signatures } = Parts::of(headers)?;
    let timestamp = super::unix_seconds(timestamp_text)?;
    let candidates = Candidates::parse(signatures)?;
    let signed = [id.as_bytes(), b".", timestamp_text.as_bytes(), b".", body];
    // Ed25519 wants it in one piece, which is made only if there is something to check.
    let whole = LazyCell::new(|| signed.concat());
    let key = super::matching(keys, |key| match key {
        Key::Shared(key) => key.matches(&candidates.shared, &signed),
        Key::Public(key) => candidates
            .asymmetric
            .iter()
            .fold(false, |found, candidate| key.verify(&whole, candidate).is_ok() | found),
    })?;
    super::check_time(timestamp, now_s)?;
    Ok((Verified { key, timestamp: Some(timestamp) }, id))
}

/// The headers for `body` as a sender with this secret would send it; `None` for a public key,
/// which signs nothing.
pub fn sign(
    key: &Key,
    id: &str,
    body: &[u8],
    timestamp_s: u64,
) -> Option<[(&'static str, String); 3]> {
    let Key::Shared(key) = key else { return None };
    let timestamp = timestamp_s.to_string();
    let mac = key.mac(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    let [id_name, timestamp_name, signatures_name] = FAMILIES[0];
    let signature = format!("v1,{}", STANDARD.encode(mac));
    Some([(id_name, id.to_owned()), (timestamp_name, timestamp), (signatures_name, signature)])
}

/// The texts of one family's headers.
#[derive(PartialEq, Eq)]
struct Parts<'h> {
    id: &'h str,
    /// As it stands in the header: what is signed is its text, not its value.
    timestamp: &'h str,
    signatures: &'h str,
}

impl<'h> Parts<'h> {
    fn of(headers: &'h HeaderMap) -> Result<Parts<'h>, Error> {
        let [webhook, svix] = FAMILIES.map(|family| Parts::of_family(headers, family));
        let parts = match (webhook?, svix?) {
            (Some(parts), None) | (None, Some(parts)) => parts,
            (Some(parts), Some(same)) if parts == same => parts,
            (Some(_), Some(_)) => return Err(Error::Malformed),
            (None, None) => return Err(Error::Missing),
        };
        if is_usable_id(parts.id) { Ok(parts) } else { Err(Error::Malformed) }
    }

    /// `None` if none of the family's headers is there; an error if only some are.
    fn of_family(headers: &'h HeaderMap, family: [&str; 3]) -> Result<Option<Parts<'h>>, Error> {
        let values = family.map(|name| super::single(headers, name));
        if values.iter().all(|value| *value == Err(Error::Missing)) {
            return Ok(None);
        }
        let [id, timestamp, signatures] = values.map(|value| text(value?));
        Ok(Some(Parts { id: id?, timestamp: timestamp?, signatures: signatures? }))
    }
}

fn text(value: &[u8]) -> Result<&str, Error> {
    match std::str::from_utf8(value) {
        Ok("") => Err(Error::Missing),
        Ok(text) => Ok(text),
        Err(_) => Err(Error::Malformed),
    }
}

/// Whether a message may have this id.
pub(super) fn is_usable_id(id: &str) -> bool {
    let plain = id.bytes().all(|b| b.is_ascii_graphic());
    plain && (1..=MAX_ID_BYTES).contains(&id.len()) && !is_ambiguous(id)
}

/// Whether this id may be a shorter one with its timestamp: of a signed `m.1.2.x`, somebody could
/// claim that the id is `m.1`, the timestamp 2 and the body `x`.
fn is_ambiguous(id: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    id.split('.').skip(1).any(is_number)
}

/// The signatures in a header that may be right, by what checks them.
#[derive(Default)]
struct Candidates {
    shared: Vec<[u8; 32]>,
    asymmetric: Vec<[u8; 64]>,
}

impl Candidates {
    fn parse(list: &str) -> Result<Candidates, Error> {
        let (mut shared, mut asymmetric) = (0, 0);
        let mut candidates = Candidates::default();
        for entry in list.split(' ') {
            match entry.split_once(',') {
                Some((_, "")) | None => {}
                Some(("v1", text)) => {
                    shared += 1;
                    candidates.shared.extend(unbase64(text));
                }
                Some(("v1a", text)) => {
                    asymmetric += 1;
                    candidates.asymmetric.extend(unbase64(text));
                }
                Some(_) => {}
            }
        }
        match (shared, asymmetric) {
            (0, 0) => Err(Error::Missing),
            _ if asymmetric > MAX_ASYMMETRIC || shared + asymmetric > MAX_CANDIDATES => {
                Err(Error::Malformed)
            }
            _ => Ok(candidates),
        }
    }
}

/// A signature of this length; `None` for anything else.
fn unbase64<const LEN: usize>(text: &str) -> Option<[u8; LEN]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const NOW: u64 = 1_767_225_600;
    const FIRST: &str = "whsec_Zmlyc3Qgc2VjcmV0";
    const SECOND: &str = "whsec_c2Vjb25kIHNlY3JldA==";

    fn sender() -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
    }

    fn public_key() -> String {
        format!("whpk_{}", STANDARD.encode(sender().public_key()))
    }

    /// The keys that requests are judged by: two shared ones and a public one.
    fn keys() -> Vec<Key> {
        [FIRST, SECOND, &public_key()].map(|secret| key(secret).unwrap()).into()
    }

    fn v1(secret: &str, id: &str, body: &[u8], t: u64) -> String {
        let [.., (_, signature)] = sign(&key(secret).unwrap(), id, body, t).unwrap();
        signature
    }

    fn v1a(id: &str, body: &[u8], t: u64) -> String {
        let signed = [format!("{id}.{t}.").as_bytes(), body].concat();
        format!("v1a,{}", STANDARD.encode(sender().sign(&signed)))
    }

    fn headers(given: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn family<'v>(prefix: &str, values: [&'v str; 3]) -> Vec<(String, &'v str)> {
        let names = ["id", "timestamp", "signature"].map(|part| format!("{prefix}-{part}"));
        names.into_iter().zip(values).collect()
    }

    fn judge_headers(given: &[(String, &str)], body: &[u8]) -> Result<(Verified, String), Error> {
        let given: Vec<_> = given.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let headers = headers(&given);
        verify(&keys(), &headers, body, NOW).map(|(verified, id)| (verified, id.to_owned()))
    }

    fn judge(id: &str, t: &str, signatures: &str, body: &[u8]) -> Result<Verified, Error> {
        let given = family("webhook", [id, t, signatures]);
        judge_headers(&given, body).map(|(verified, signed_id)| {
            assert_eq!(signed_id, id);
            verified
        })
    }

    #[test]
    fn headers_that_are_not_one_signature_are_refused() {
        let now = NOW.to_string();
        let good = v1(FIRST, "m", b"x", NOW);
        let many = |n| format!("{good} ").repeat(n);
        let long = "m".repeat(MAX_ID_BYTES + 1);
        for (id, t, signatures, expected) in [
            ("", &*now, &*good, Error::Missing),
            ("m", "", &good, Error::Missing),
            ("m", &now, "", Error::Missing),
            ("m", &now, "v1,", Error::Missing),
            ("m", &now, "v1", Error::Missing),
            ("m", &now, "v2,AAAA v0,BBBB", Error::Missing),
            ("m", &now, "v1,AAAA", Error::Mismatch),
            ("m", &now, "v1,****", Error::Mismatch),
            ("m", &now, &good.replace("v1,", "v1a,"), Error::Mismatch),
            ("m", &now, &good.replace('=', ""), Error::Mismatch),
            ("m", &format!("+{now}"), &good, Error::Malformed),
            ("m", &format!("{now}.0"), &good, Error::Malformed),
            ("m", "99999999999999999999999", &good, Error::Malformed),
            ("m", &format!("0{now}"), &good, Error::Mismatch),
            ("n", &now, &good, Error::Mismatch),
            ("m m", &now, &good, Error::Malformed),
            ("é", &now, &good, Error::Malformed),
            (&long, &now, &v1(FIRST, &long, b"x", NOW), Error::Malformed),
            ("m", &now, &many(MAX_CANDIDATES + 1), Error::Malformed),
            ("m", &now, &"x".repeat(super::super::MAX_HEADER_BYTES + 1), Error::Malformed),
        ] {
            assert_eq!(judge(id, t, signatures, b"x"), Err(expected), "{id} {t} {signatures}");
        }
        assert!(judge("m", &now, &many(MAX_CANDIDATES), b"x").is_ok());
        let longest = "m".repeat(MAX_ID_BYTES);
        assert!(judge(&longest, &now, &v1(FIRST, &longest, b"x", NOW), b"x").is_ok());
    }

    #[test]
    fn few_asymmetric_signatures_are_tried() {
        let good = v1a("m", b"x", NOW);
        for (count, expected) in [
            (MAX_ASYMMETRIC, Ok(Verified { key: 2, timestamp: Some(NOW) })),
            (MAX_ASYMMETRIC + 1, Err(Error::Malformed)),
        ] {
            let wrong = format!("v1a,{} ", STANDARD.encode([0; 64]));
            let list = wrong.repeat(count - 1) + &good;
            assert_eq!(judge("m", &NOW.to_string(), &list, b"x"), expected);
        }
    }

    #[test]
    fn a_header_that_stands_twice_is_refused_even_if_both_are_right() {
        let (now, good) = (NOW.to_string(), v1(FIRST, "m", b"x", NOW));
        let once = family("webhook", ["m", &now, &good]);
        for twice in 0..once.len() {
            let mut given = once.clone();
            given.push(once[twice].clone());
            assert_eq!(judge_headers(&given, b"x"), Err(Error::Malformed), "{}", once[twice].0);
        }
    }

    #[test]
    fn the_headers_are_of_one_family_and_two_must_agree() {
        let (now, good) = (NOW.to_string(), v1(FIRST, "m", b"x", NOW));
        let other = v1(FIRST, "n", b"x", NOW);
        let (webhook, svix) =
            (family("webhook", ["m", &now, &good]), family("svix", ["m", &now, &good]));
        assert!(judge_headers(&svix, b"x").is_ok());
        assert!(judge_headers(&[&webhook[..], &svix].concat(), b"x").is_ok());
        for (given, expected) in [
            ([&webhook[..1], &svix[1..]].concat(), Error::Missing),
            ([&webhook[..2], &svix[2..]].concat(), Error::Missing),
            ([&webhook[..], &svix[..1]].concat(), Error::Missing),
            ([&webhook[..], &family("svix", ["n", &now, &other])].concat(), Error::Malformed),
            (Vec::new(), Error::Missing),
        ] {
            assert_eq!(judge_headers(&given, b"x"), Err(expected), "{given:?}");
        }
    }

    #[test]
    fn an_id_that_may_hide_a_timestamp_is_refused() {
        let now = NOW.to_string();
        // Signed: id `m`, body `<now>.x`. Claimed: id `m.<now>`, body `x`.
        let signed = v1(FIRST, "m", format!("{now}.x").as_bytes(), NOW);
        assert_eq!(judge(&format!("m.{now}"), &now, &signed, b"x"), Err(Error::Malformed));
        for (id, ambiguous) in [
            ("m", false),
            ("1.x", false),
            ("evt.a1.b", false),
            ("m.", false),
            ("m.1", true),
            ("m.1.x", true),
        ] {
            assert_eq!(is_ambiguous(id), ambiguous, "{id}");
            assert_eq!(judge(id, &now, &v1(FIRST, id, b"", NOW), b"").is_err(), ambiguous, "{id}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_a_key_says_why() {
        for (secret, expected) in [
            ("", KeyError::Empty),
            ("whsec_", KeyError::Empty),
            ("whpk_", KeyError::Empty),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", KeyError::Prefix),
            ("whsk_AAAA", KeyError::Private),
            ("whsec_****", KeyError::NotBase64),
            ("whsec_A", KeyError::NotBase64),
            ("whpk_AAAA ", KeyError::NotBase64),
            ("whpk_AAAA", KeyError::PublicKeyLength(3)),
            (&format!("whpk_{}", STANDARD.encode([0; 33])), KeyError::PublicKeyLength(33)),
        ] {
            assert_eq!(key(secret).unwrap_err(), expected, "{secret}");
        }
    }

    #[test]
    fn a_secret_without_its_padding_is_the_same_key() {
        let signature = v1(SECOND, "m", b"x", NOW);
        assert!(SECOND.ends_with('='));
        assert_eq!(v1(SECOND.trim_end_matches('='), "m", b"x", NOW), signature);
    }

    #[test]
    fn a_key_does_not_print_its_secret() {
        let printed = format!("{:?}", key(FIRST).unwrap());
        assert_eq!(printed, "Shared(Key([redacted]))");
    }

    #[derive(Clone, Copy, Debug)]
    enum Signer {
        First,
        Second,
        Asymmetric,
    }

    fn signer() -> impl Strategy<Value = Signer> {
        prop_oneof![Just(Signer::First), Just(Signer::Second), Just(Signer::Asymmetric)]
    }

    proptest! {
        #[test]
        fn what_is_signed_is_accepted_and_nothing_else_is(
            id in "[!-~]{1,40}",
            other_id in "[!-~]{1,40}",
            body: Vec<u8>,
            other: Vec<u8>,
            skew in -300i64..=300,
            signer in signer(),
        ) {
            prop_assume!(!is_ambiguous(&id) && !is_ambiguous(&other_id));
            let t = NOW.wrapping_add_signed(skew);
            let (signature, key) = match signer {
                Signer::First => (v1(FIRST, &id, &body, t), 0),
                Signer::Second => (v1(SECOND, &id, &body, t), 1),
                Signer::Asymmetric => (v1a(&id, &body, t), 2),
            };
            let text = t.to_string();
            let expected = Verified { key, timestamp: Some(t) };
            prop_assert_eq!(judge(&id, &text, &signature, &body), Ok(expected));
            if id != other_id {
                let verdict = judge(&other_id, &text, &signature, &body);
                prop_assert_eq!(verdict, Err(Error::Mismatch));
            }
            if body != other {
                prop_assert_eq!(judge(&id, &text, &signature, &other), Err(Error::Mismatch));
            }
            let later = (t + 1).to_string();
            prop_assert_eq!(judge(&id, &later, &signature, &body), Err(Error::Mismatch));
        }

        #[test]
        fn a_right_signature_with_a_wrong_time_is_told_apart(
            skew in prop_oneof![-10_000i64..-300, 301i64..10_000], asymmetric: bool,
        ) {
            let t = NOW.wrapping_add_signed(skew);
            let signature =
                if asymmetric { v1a("m", b"x", t) } else { v1(FIRST, "m", b"x", t) };
            let verdict = judge("m", &t.to_string(), &signature, b"x");
            prop_assert_eq!(verdict, Err(Error::Expired { timestamp: t }));
        }

        #[test]
        fn no_headers_crash_or_pass(
            id in "[ -~]{0,60}", t in "[ -~]{0,20}", signatures in "(v1a?,)?[ -~]{0,200}",
            body: Vec<u8>,
        ) {
            let given = family("webhook", [id.trim(), t.trim(), signatures.trim()]);
            prop_assert!(judge_headers(&given, &body).is_err());
        }
    }
}
