//! What hyper lets pass in a request's head and we do not: ambiguity that two servers in a row could
//! read in two ways, and bodies that are not what was signed.

use http::{HeaderMap, Version, header, request::Parts};

use super::Rejection;

/// Refuses a request without exactly one `Host` (HTTP/1.0 needs none), one whose transfer coding is
/// more than chunks, and one with an encoded body, which is never decompressed.
pub(super) fn check(head: &Parts) -> Result<(), Rejection> {
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let without = hosts == 0 && head.version == Version::HTTP_10;
    let codings = head.headers.get_all(header::TRANSFER_ENCODING).iter().count();
    let chunked = codings <= 1 && all_are(&head.headers, header::TRANSFER_ENCODING, "chunked");
    if hosts != 1 && !without || !chunked {
        return Err(Rejection::Malformed);
    }
    if !all_are(&head.headers, header::CONTENT_ENCODING, "identity") {
        return Err(Rejection::Encoded);
    }
    Ok(())
}

fn all_are(headers: &HeaderMap, name: header::HeaderName, only: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.all(|value| value.as_bytes().eq_ignore_ascii_case(only.as_bytes()))
}
