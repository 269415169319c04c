//! Answers written without reading a request: to a connection over the limit, and to one that does
//! not speak TLS where nothing else is spoken.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a peer may take to hear it.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection gets no further.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    Busy,
    PlainHttp,
}

impl Refusal {
    fn answer(self) -> &'static [u8] {
        match self {
            Refusal::Busy => {
                b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
                  content-type: application/json\r\ncontent-length: 32\r\n\r\n\
                  {\"error\":\"too many connections\"}"
            }
            Refusal::PlainHttp => {
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
                  content-type: application/json\r\ncontent-length: 43\r\n\r\n\
                  {\"error\":\"this port speaks TLS; use https\"}"
            }
        }
    }
}

/// Says why, and hears the other side out: closing on words not yet read would reset the connection
/// and take the answer back. A peer that is gone, or goes on for ever, is an error.
pub async fn send(mut stream: TcpStream, refusal: Refusal) -> io::Result<()> {
    timeout(TIMEOUT, async {
        stream.write_all(refusal.answer()).await?;
        stream.shutdown().await?;
        let mut unheard = [0; 4096];
        while stream.read(&mut unheard).await? > 0 {}
        Ok(())
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_as_long_as_it_says() {
        for refusal in [Refusal::Busy, Refusal::PlainHttp] {
            let text = str::from_utf8(refusal.answer()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{text}");
        }
    }
}
