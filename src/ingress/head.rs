//! What hyper lets pass in a request's head and we do not: ambiguity that two servers in a row could
//! read in two ways, and bodies that are not what was signed.

use http::{HeaderMap, Version, header, request::Parts};

use super::Rejection;

/// Refuses a request with too many headers, one that does
/// not name exactly one host (HTTP/1.0 need not), one whose transfer coding is more than chunks, and
/// one with an encoded body, which is never decompressed.
pub fn check(head: &Parts, max_headers: usize) -> Result<(), Rejection> {
    if head.headers.len() > max_headers {
        return Err(Rejection::TooManyHeaders);
    }
    let codings = head.headers.get_all(header::TRANSFER_ENCODING).iter().count();
    let chunked = codings <= 1 && all_are(&head.headers, header::TRANSFER_ENCODING, "chunked");
    if !names_one_host(head) || !chunked {
        return Err(Rejection::Malformed);
    }
    if !all_are(&head.headers, header::CONTENT_ENCODING, "identity") {
        return Err(Rejection::Encoded);
    }
    Ok(())
}

/// A host is named by `Host`, by HTTP/2's `:authority` or an absolute target, or by both alike.
fn names_one_host(head: &Parts) -> bool {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), head.uri.authority()) {
        (_, _) if hosts.next().is_some() => false,
        (None, None) => head.version == Version::HTTP_10,
        (Some(host), Some(authority)) => {
            host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        }
        _ => true,
    }
}

fn all_are(headers: &HeaderMap, name: header::HeaderName, only: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.all(|value| value.as_bytes().eq_ignore_ascii_case(only.as_bytes()))
}
