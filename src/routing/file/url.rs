//! What of a URL must not be shown. What is not plainly the address of a host is not: a slip,
//! like an `@` that was left out, puts a password where a host or a port belongs.

use std::ops::Range;

use crate::secret;

/// Where in a broker's `url`, which may be several separated by commas, secrets stand, in bytes.
pub fn secrets(url: &str) -> Vec<Range<usize>> {
    secrets_between(url, Some(','))
}

/// The same of a URL of HTTP, in which a comma is a sign like others.
pub fn secrets_of_one(url: &str) -> Vec<Range<usize>> {
    secrets_between(url, None)
}

fn secrets_between(url: &str, separator: Option<char>) -> Vec<Range<usize>> {
    let after_scheme = scheme_end(url);
    // A password may hold anything, so that the last `@` is the one.
    let hosts = url.rfind('@').map_or(after_scheme, |at| at + 1);
    let mut found = Vec::new();
    if hosts > after_scheme {
        let info = &url[after_scheme..hosts - 1];
        let password = info.split_once(':').map_or(info, |(_, password)| password);
        if password.is_empty() || !is_references(password) {
            found.push(after_scheme..hosts - 1);
            found.push(hosts - 1 - password.len()..hosts - 1);
        }
    }
    let mut at = hosts;
    for piece in url[hosts..].split(|c| Some(c) == separator) {
        // Behind an `@` or the scheme of the first one none follows.
        let host = if at == hosts { 0 } else { scheme_end(piece) };
        found.extend(
            of_host(&piece[host..]).into_iter().map(|r| at + host + r.start..at + host + r.end),
        );
        at += piece.len() + 1;
    }
    found.retain(|part| !part.is_empty());
    found
}

/// What of `host:port/path?query` is secret, or may be.
fn of_host(address: &str) -> Vec<Range<usize>> {
    let (before, query) = address.split_once('?').unwrap_or((address, ""));
    let mut found = Vec::new();
    if !is_plain(before) {
        found.push(0..before.len());
        found.extend(before.find(':').map(|colon| colon + 1..before.len()));
    }
    if !is_references(query) {
        found.push(before.len() + 1..address.len());
        let mut at = before.len() + 1;
        for pair in query.split('&') {
            found.extend(pair.find('=').map(|sign| at + sign + 1..at + pair.len()));
            at += pair.len() + 1;
        }
    }
    found
}

/// Whether an address is `host`, `host:port` or either with a path, with references anywhere in it.
fn is_plain(address: &str) -> bool {
    let address = secret::without_references(address.trim());
    let (authority, path) = address.split_once('/').unwrap_or((&address, ""));
    if path.starts_with('/') {
        return false;
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, port)) if v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.') => {
            ("", port.strip_prefix(':').unwrap_or(port))
        }
        _ => authority.split_once(':').unwrap_or((authority, "")),
    };
    let of_a_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    host.chars().all(of_a_name)
        && (port.is_empty() || (port.parse::<u16>().is_ok() && !port.starts_with('+')))
        && path.chars().all(|c| of_a_name(c) || matches!(c, '%' | '~' | '/'))
}

/// Behind `scheme://`, or 0 where there is none.
fn scheme_end(url: &str) -> usize {
    let (blank, text) = (url.len() - url.trim_start().len(), url.trim_start());
    match text.split_once("://") {
        Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphabetic()) => {
            blank + scheme.len() + "://".len()
        }
        _ => 0,
    }
}

fn is_references(text: &str) -> bool {
    secret::without_references(text).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plainly_a_host_is_secret() {
        for (url, shown) in [
            ("localhost:9092", "localhost:9092"),
            ("a:9092, b.example:9093", "a:9092, b.example:9093"),
            ("[::1]:9092", "[::1]:9092"),
            ("amqp://host:5672/%2f", "amqp://host:5672/%2f"),
            ("${KAFKA}", "${KAFKA}"),
            ("nats://${HOST}:${PORT}", "nats://${HOST}:${PORT}"),
            ("amqp://u:${P}@host/%2f", "amqp://u:${P}@host/%2f"),
            ("amqp://u:pw@host/%2f", "amqp://•@host/%2f"),
            ("nats://token@host", "nats://•@host"),
            ("nats://s@host", "nats://•@host"),
            ("u:p/w?@host", "•@host"),
            ("nats://u:pw@a,nats://u:pw@b", "nats://•@b"),
            ("nats://a:4222,nats://b:4222", "nats://a:4222,nats://b:4222"),
            ("nats://a:4222,nats://u:pw", "nats://a:4222,nats://•"),
            ("amqp://svc:pw", "amqp://•"),
            ("nats://u:pw:4222", "nats://•"),
            ("nats://u:123456", "nats://•"),
            ("amqp://svc:pw/vhost", "amqp://•"),
            ("amqp://pw!/vhost", "amqp://•"),
            ("amqp:/u:pw", "•"),
            ("amqp://host?password=pw", "amqp://host?•"),
            ("amqp://u:${P}@host/v?a=1&password=pw", "amqp://u:${P}@host/v?•"),
            ("p-w://host", "•"),
        ] {
            assert_eq!(masked(url, secrets(url)), shown, "{url}");
        }
    }

    #[test]
    fn a_comma_ends_no_secret_of_a_single_url() {
        for (url, shown) in [
            ("https://api.example:8443/v1/", "https://api.example:8443/v1/"),
            ("https://${HOST}/v1", "https://${HOST}/v1"),
            ("https://u:p,w@api.example", "https://•@api.example"),
            ("https://api.example?key=p,w", "https://api.example?•"),
            ("https://api.example/#p,w", "https://•"),
            ("https://api.example,p.w", "https://•"),
            ("p,w", "•"),
        ] {
            assert_eq!(masked(url, secrets_of_one(url)), shown, "{url}");
        }
    }

    fn masked(url: &str, mut parts: Vec<Range<usize>>) -> String {
        parts.sort_by_key(|part| (part.start, std::cmp::Reverse(part.end)));
        let mut masked = String::new();
        let mut at = 0;
        for part in parts.into_iter() {
            if part.start >= at {
                masked += &url[at..part.start];
                masked += "•";
                at = part.end;
            }
        }
        masked + &url[at..]
    }
}
