//! Sonzai: `Sonzai-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256>` over `"{t}." + raw body`.
//!
//! From Sonzai's webhook guide and SDKs: the key is the secret without its `whsec_` prefix, as plain
//! text bytes (not base64-decoded); during a rotation several `v1=` stand in the one header; spaces
//! around commas are allowed and unknown parts are ignored; a header without `t` or without a
//! non-empty `v1` counts as missing.

use http::HeaderMap;

use super::{EmptySecret, Error, Key, MAX_CANDIDATES, Verified};

/// The header that carries the signature.
pub const HEADER: &str = "sonzai-signature";

/// The key of a signing secret; an empty one, or a bare `whsec_`, is refused.
pub fn key(secret: &str) -> Result<Key, EmptySecret> {
    Key::new(secret.strip_prefix("whsec_").unwrap_or(secret).as_bytes())
}

/// Verifies `body` against every key; `now_s` is Unix seconds.
pub fn verify<'k>(
    keys: impl IntoIterator<Item = &'k Key>,
    headers: &HeaderMap,
    body: &[u8],
    now_s: u64,
) -> Result<Verified, Error> {
    let header = Header::parse(super::single(headers, HEADER)?)?;
    let signed = [header.timestamp_text.as_bytes(), b".", body];
    let key = super::matching(keys, |key| key.matches(&header.candidates, &signed))?;
    super::check_time(header.timestamp, now_s)?;
    Ok(Verified { key, timestamp: Some(header.timestamp) })
}

/// The header for `body` as Sonzai would send it.
pub fn sign(key: &Key, body: &[u8], timestamp_s: u64) -> String {
    let t = timestamp_s.to_string();
    format!("t={t},v1={}", const_hex::encode(key.mac(&[t.as_bytes(), b".", body])))
}

struct Header<'h> {
    timestamp: u64,
    /// As it stands in the header: what is signed is its text, not its value.
    timestamp_text: &'h str,
    candidates: Vec<[u8; 32]>,
}

impl<'h> Header<'h> {
    fn parse(value: &'h [u8]) -> Result<Header<'h>, Error> {
        let value = std::str::from_utf8(value).map_err(|_| Error::Malformed)?;
        let mut timestamp = None;
        let mut signatures = 0;
        let mut candidates = Vec::new();
        for part in value.split(',') {
            match part.trim().split_once('=') {
                Some(("t", _)) if timestamp.is_some() => return Err(Error::Malformed),
                Some(("t", text)) => timestamp = Some(text),
                Some(("v1", "")) | None => {}
                Some(("v1", _)) if signatures == MAX_CANDIDATES => return Err(Error::Malformed),
                Some(("v1", text)) => {
                    signatures += 1;
                    candidates.extend(super::unhex(text.as_bytes()));
                }
                Some(_) => {}
            }
        }
        let timestamp_text = timestamp.filter(|t| !t.is_empty()).ok_or(Error::Missing)?;
        if signatures == 0 {
            return Err(Error::Missing);
        }
        let timestamp = super::unix_seconds(timestamp_text)?;
        Ok(Header { timestamp, timestamp_text, candidates })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_767_225_600;

    fn judge(header: &str, body: &[u8]) -> Result<Verified, Error> {
        let keys = [key("whsec_first").unwrap(), key("second").unwrap()];
        let mut headers = HeaderMap::new();
        headers.append(HEADER, HeaderValue::from_str(header).unwrap());
        verify(&keys, &headers, body, NOW)
    }

    fn signed(secret: &str, body: &[u8], t: u64) -> String {
        sign(&key(secret).unwrap(), body, t)
    }

    #[test]
    fn headers_that_are_not_one_signature_are_refused() {
        let good = signed("first", b"x", NOW);
        let v1 = good.split_once(",").unwrap().1;
        for (header, expected) in [
            ("".to_owned(), Error::Missing),
            ("t=".to_owned(), Error::Missing),
            (format!("t=,{v1}"), Error::Missing),
            (format!("t={NOW},v1="), Error::Missing),
            (format!("t={NOW},v1=zz"), Error::Mismatch),
            (format!("t={NOW},v1=abcd"), Error::Mismatch),
            (good.replace("v1=", "v1=0x"), Error::Mismatch),
            (format!("t={NOW},t={NOW},{v1}"), Error::Malformed),
            (format!("t=+{NOW},{v1}"), Error::Malformed),
            (format!("t=99999999999999999999999,{v1}"), Error::Malformed),
            (format!("t=0{NOW},{v1}"), Error::Mismatch),
            (format!("t={NOW}{}", format!(",{v1}").repeat(33)), Error::Malformed),
        ] {
            assert_eq!(judge(&header, b"x"), Err(expected), "{header}");
        }
        assert!(judge(&format!("t={NOW}{}", format!(",{v1}").repeat(32)), b"x").is_ok());
    }

    #[test]
    fn spaces_and_unknown_parts_are_allowed() {
        let good = signed("first", b"x", NOW);
        let (t, v1) = good.split_once(",").unwrap();
        let header = format!("v0=1 , {t} ,  nonsense, {v1} ");
        assert_eq!(judge(&header, b"x"), Ok(Verified { key: 0, timestamp: Some(NOW) }));
    }

    #[test]
    fn two_headers_are_refused_even_if_both_are_right() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(HEADER, HeaderValue::from_str(&signed("k", b"x", NOW)).unwrap());
        }
        let verdict = verify(&[key("k").unwrap()], &headers, b"x", NOW);
        assert_eq!(verdict, Err(Error::Malformed));
    }

    #[test]
    fn an_empty_secret_is_no_key() {
        assert_eq!(key("").unwrap_err(), EmptySecret);
        assert_eq!(key("whsec_").unwrap_err(), EmptySecret);
    }

    proptest! {
        #[test]
        fn what_is_signed_is_accepted_and_any_other_body_is_not(
            body: Vec<u8>, other: Vec<u8>, skew in -300i64..=300, second: bool,
        ) {
            let t = NOW.wrapping_add_signed(skew);
            let header = signed(if second { "second" } else { "first" }, &body, t);
            let expected = Verified { key: second.into(), timestamp: Some(t) };
            prop_assert_eq!(judge(&header, &body), Ok(expected));
            if body != other {
                prop_assert_eq!(judge(&header, &other), Err(Error::Mismatch));
            }
        }

        #[test]
        fn no_header_crashes_or_passes(header in "[ -~]{0,200}", body: Vec<u8>) {
            prop_assert!(judge(&header, &body).is_err());
        }
    }
}
