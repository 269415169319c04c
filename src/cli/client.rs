//! A request to a daemon, over plain HTTP or TLS.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::Error;

mod tls;

pub use tls::Trust;

/// How long the daemon may take to answer; a group commit on a busy disk is far below it.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A daemon's listener.
pub struct Endpoint {
    /// Host and port.
    pub authority: String,
    tls: Option<tls::Tls>,
    /// How long it may take to answer.
    pub within: Duration,
}

impl Endpoint {
    pub fn plain(authority: String) -> Endpoint {
        Endpoint { authority, tls: None, within: ANSWER_WITHIN }
    }

    /// One that shows a certificate for `host`, or whatever `trust` wants to see.
    pub fn tls(authority: String, host: &str, trust: Trust) -> Result<Endpoint, Error> {
        let tls = Some(tls::Tls::new(host, trust)?);
        Ok(Endpoint { authority, tls, within: ANSWER_WITHIN })
    }

    /// Sends a request on a connection of its own.
    pub async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error> {
        let (authority, within) = (&self.authority, self.within);
        let answer = timeout(within, async {
            let stream = TcpStream::connect(authority).await.map_err(|cause| {
                Error(format!("cannot reach {authority}: {cause}; is `waypost run` running there?"))
            })?;
            match &self.tls {
                None => self.exchange(stream, request).await,
                Some(tls) => self.exchange(tls.connect(authority, stream).await?, request).await,
            }
        });
        let late = |_| Err(Error(format!("no answer from {authority} within {within:?}")));
        answer.await.unwrap_or_else(late)
    }

    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(Error::new)?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await;
        answer.map_err(|cause| Error(format!("no answer from {}: {cause}", self.authority)))
    }
}
