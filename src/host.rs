//! Hosts as URLs and requests name them, and whether they are this machine.

use std::net::IpAddr;

use http::{HeaderMap, header, uri::Authority};

/// Whether a URL's host can be nobody but this machine.
pub fn is_loopback(host: &str) -> bool {
    is_localhost(host) || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether a request names this machine as nobody else's name can: by address, or as `localhost`. A
/// page in somebody's browser, whose own name was made to lead here, does not. One without a name is
/// no browser's.
pub fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    is_localhost(authority.host()) || address(authority.host()).is_some()
}

fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

/// Without the brackets of one of IPv6.
fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_to_this_machine_alone_is_loopback() {
        for (host, expected) in [
            ("127.0.0.1", true),
            ("127.8.8.8", true),
            ("[::1]", true),
            ("LocalHost", true),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("localhost.example.com", false),
            ("127.0.0.1.example.com", false),
            ("", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }

    #[test]
    fn only_a_name_that_nobody_else_can_have_names_this_machine() {
        for (host, expected) in [
            (None, true),
            (Some("127.0.0.1:9090"), true),
            (Some("localhost"), true),
            (Some("LOCALHOST:1"), true),
            (Some("[::1]:9090"), true),
            (Some("10.1.2.3"), true),
            (Some("evil.example"), false),
            (Some("localhost.evil.example:9090"), false),
            (Some("127.0.0.1.evil.example"), false),
            (Some("not a host"), false),
            (Some(""), false),
        ] {
            let value = host.map(|host| (header::HOST, host.parse().unwrap()));
            assert_eq!(names_this_machine(&value.into_iter().collect()), expected, "{host:?}");
        }
    }
}
