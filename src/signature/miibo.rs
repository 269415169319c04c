//! miibo: `X-HMAC: <hex HMAC-SHA256>` over the raw body, keyed with the webhook's secret as plain
//! text bytes. No timestamp and no id, so a request can be sent again by anyone who saw it.
//!
//! From miibo's developer pages.

use http::HeaderMap;

use super::{EmptySecret, Error, Key, Verified};

/// The header that carries the signature.
pub const HEADER: &str = "x-hmac";

/// The key of a webhook's secret; an empty one is refused.
pub fn key(secret: &str) -> Result<Key, EmptySecret> {
    Key::new(secret.as_bytes())
}

/// Verifies `body` against every key.
pub fn verify(keys: &[Key], headers: &HeaderMap, body: &[u8]) -> Result<Verified, Error> {
    let value = super::single(headers, HEADER)?;
    if value.is_empty() {
        return Err(Error::Missing);
    }
    let candidate = super::unhex(value).ok_or(Error::Mismatch)?;
    let key = super::matching_key(keys, &[candidate], &[body])?;
    Ok(Verified { key, timestamp: None })
}

/// The header for `body` as miibo would send it.
pub fn sign(key: &Key, body: &[u8]) -> String {
    const_hex::encode(key.mac(&[body]))
}
