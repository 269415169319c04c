//! Asks a daemon's admin listener.

use std::net::SocketAddr;

use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{Error, client::Endpoint};
use crate::{admin::Token, daemon::Addresses, settings::Settings};

/// Where the admin listener is: what was configured, if anything was; else that of the daemon that
/// runs on the data directory.
pub fn address(settings: &Settings) -> SocketAddr {
    let configured = settings.admin_listen;
    let says_nothing = configured.port() == 0 || configured == Settings::default().admin_listen;
    let running = says_nothing.then(|| Addresses::read(&settings.data_dir)).flatten();
    let mut address = running.map_or(configured, |addresses| addresses.admin_listen);
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    address
}

/// The token of the daemon that runs on the data directory.
pub fn token(settings: &Settings) -> Result<Token, Error> {
    Token::read(&settings.data_dir).map_err(|error| {
        let hint = "run this as the daemon's user, and name its data directory with --data-dir";
        Error(format!("{error}; {hint}"))
    })
}

/// Gets a page, with the token if it wants one. The answer is a success.
pub async fn get(
    address: SocketAddr,
    path: &'static str,
    token: Option<&Token>,
) -> Result<Response<Incoming>, Error> {
    let mut request = Request::get(path).header(header::HOST, address.to_string());
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, token.authorization());
    }
    let request = request.body(Full::default()).map_err(Error::new)?;
    let endpoint = Endpoint::plain(address.to_string());
    let response = endpoint.request(request).await.map_err(|error| {
        let hint = "name its data directory with --data-dir, or its admin listener with \
                    --admin-listen";
        Error(format!("{error} If it is, {hint}."))
    })?;
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::UNAUTHORIZED => Err(Error(format!(
            "{address} does not take this token: name that daemon's data directory with --data-dir"
        ))),
        status => Err(Error(format!(
            "{address} answered {status} to {path}; is it the admin listener of this version of \
             waypost?"
        ))),
    }
}
