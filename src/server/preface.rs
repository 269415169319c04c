//! Tells HTTP/2 from HTTP/1.1 on a plain connection, by its first bytes.

use std::{io, time::Duration};

use tokio::net::TcpStream;

/// How HTTP/2's connection preface begins (RFC 9113, section 3.4); a method of that name is no
/// HTTP/1.1.
const PREFACE: &[u8] = b"PRI ";

/// When to look again at fewer bytes than it takes to tell. A client sends them at once.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

/// Waits for the first bytes and leaves them where they are. The caller bounds the time.
pub async fn version(stream: &TcpStream, http2: bool) -> io::Result<Version> {
    if !http2 {
        stream.readable().await?;
        return Ok(Version::Http1);
    }
    let mut first = [0; PREFACE.len()];
    loop {
        let len = stream.peek(&mut first).await?;
        match tell(&first[..len]) {
            Some(version) => return Ok(version),
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// `None` for fewer bytes than it takes. At the end of the stream, HTTP/1.1 says the right thing.
fn tell(first: &[u8]) -> Option<Version> {
    match first {
        PREFACE => Some(Version::Http2),
        [_, ..] if PREFACE.starts_with(first) => None,
        _ => Some(Version::Http1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bytes_tell_the_versions_apart() {
        for (first, expected) in [
            ("", Some(Version::Http1)),
            ("G", Some(Version::Http1)),
            ("P", None),
            ("PR", None),
            ("PRI", None),
            ("PO", Some(Version::Http1)),
            ("PROP", Some(Version::Http1)),
            ("PRI/", Some(Version::Http1)),
            ("PRI ", Some(Version::Http2)),
        ] {
            assert_eq!(tell(first.as_bytes()), expected, "{first}");
        }
    }
}
