//! Tells HTTP/2 from HTTP/1.1 on a plain connection, by its first bytes.

use std::{io, iter, time::Duration};

use tokio::net::TcpStream;

/// How HTTP/2's connection preface begins (RFC 9113, section 3.4); a method of that name is no
/// HTTP/1.1.
const PREFACE: &[u8] = b"PRI ";

/// When to look again at fewer bytes than it takes to tell. A client sends them at once; the longer
/// one takes, the less often it is looked at, so that who never goes on costs next to nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LOOK_AGAIN_AT_MOST: Duration = Duration::from_secs(1);

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
    let mut pauses = pauses();
    loop {
        let len = stream.peek(&mut first).await?;
        match tell(&first[..len]) {
            Some(version) => return Ok(version),
            None => tokio::time::sleep(pauses.next().unwrap_or(LOOK_AGAIN_AT_MOST)).await,
        }
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    iter::successors(Some(LOOK_AGAIN), |pause| Some((2 * *pause).min(LOOK_AGAIN_AT_MOST)))
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
    fn who_never_goes_on_is_looked_at_ever_less_often() {
        let within = |time: Duration| {
            let looks = pauses().scan(Duration::ZERO, |at, pause| {
                *at += pause;
                Some(*at)
            });
            looks.take_while(|at| *at <= time).count()
        };
        assert_eq!(within(Duration::from_millis(100)), 3);
        assert_eq!(within(Duration::from_secs(11)), 16);
        assert!(pauses().take(100).all(|pause| pause <= LOOK_AGAIN_AT_MOST));
    }

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
