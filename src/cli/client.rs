//! A request to a daemon over plain HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::Error;

/// How long the daemon may take to answer; a group commit on a busy disk is far below it.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Sends a request to `authority` (host:port).
pub async fn request(
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    let stream = TcpStream::connect(authority).await.map_err(|cause| {
        Error(format!("cannot reach {authority}: {cause}; is `waypost run` running there?"))
    })?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(Error::new)?;
    tokio::spawn(connection);
    match timeout(ANSWER_WITHIN, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(|cause| Error(format!("no answer from {authority}: {cause}"))),
        Err(_) => Err(Error(format!("no answer from {authority} within {ANSWER_WITHIN:?}"))),
    }
}
