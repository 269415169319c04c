//! Asks a daemon's admin listener.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::{
    Error,
    client::{ANSWER_WITHIN, Endpoint},
};
use crate::{admin::Token, daemon::Addresses, printable::escaped, settings::Settings};

/// Where the admin listener is: what was configured, if anything was; else that of the daemon that
/// runs on the data directory; else the default one, unless a data directory was named.
pub fn address(settings: &Settings) -> Result<SocketAddr, Error> {
    if let Some(address) = configured(settings) {
        return Ok(address);
    }
    match Addresses::read(&settings.data_dir) {
        Some(addresses) => Ok(reachable(addresses.admin_listen)),
        None if names_data_dir(settings) => Err(nobody_there(settings, "--admin-listen")),
        None => Ok(reachable(settings.admin_listen)),
    }
}

/// Whether somebody said which data directory is meant: then another daemon, which happens to listen
/// where daemons do, is not the one.
pub fn names_data_dir(settings: &Settings) -> bool {
    settings.data_dir != Settings::default().data_dir
}

/// No daemon runs on the data directory that was named; `flag` says where one listens.
pub fn nobody_there(settings: &Settings, flag: &str) -> Error {
    let dir = settings.data_dir.display();
    Error(format!(
        "no daemon runs on the data directory {dir}: start one with `waypost run --data-dir {dir}`, \
         or say where one listens with {flag}"
    ))
}

/// Whose token is sent.
#[derive(clap::Args)]
pub struct Identity {
    /// The admin.token of a daemon elsewhere, at --admin-listen, which it is sent to
    /// [default: that of the daemon on the data directory]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Identity {
    /// The address of the daemon that is asked, and the token for it.
    pub fn address_and_token(&self, settings: &Settings) -> Result<(SocketAddr, Token), Error> {
        match &self.token_file {
            Some(file) => Ok((named(settings)?, Token::read(file).map_err(Error::new)?)),
            None => address_and_token(settings),
        }
    }
}

/// The address and the token of the daemon that is alive on the data directory. Nobody else is to
/// learn its token: not who listens where a daemon was, nor who was merely named.
fn address_and_token(settings: &Settings) -> Result<(SocketAddr, Token), Error> {
    let dir = &settings.data_dir;
    let hint = "run this as the daemon's user, and name its data directory with --data-dir";
    let with_hint = |error: &dyn std::fmt::Display| Error(format!("{error}; {hint}"));
    let alive = Addresses::of_the_living(dir).map_err(|error| {
        with_hint(&format!("cannot see whether a daemon runs on {}: {error}", dir.display()))
    })?;
    let Some(alive) = alive.map(|addresses| reachable(addresses.admin_listen)) else {
        return Err(Error(format!(
            "no daemon is ready on the data directory {}: start one with `waypost run`, or name \
             another's with --data-dir",
            dir.display()
        )));
    };
    if let Some(named) = configured(settings).filter(|named| *named != alive) {
        return Err(Error(format!(
            "{named} is not the admin listener of the daemon on {} ({alive}), and its token is for \
             nobody else; for another daemon, name the file of that one's token with --token-file",
            dir.display()
        )));
    }
    Ok((alive, Token::read(&Token::file(dir)).map_err(|error| with_hint(&error))?))
}

/// The admin listener that was named, or the default one: never where some daemon was once.
fn named(settings: &Settings) -> Result<SocketAddr, Error> {
    match settings.admin_listen {
        address if address.port() == 0 => Err(Error(
            "--token-file is for the daemon that --admin-listen names: name it with its port"
                .into(),
        )),
        address => Ok(reachable(address)),
    }
}

/// What was configured, if anything was.
fn configured(settings: &Settings) -> Option<SocketAddr> {
    let address = settings.admin_listen;
    let says_nothing = address.port() == 0 || address == Settings::default().admin_listen;
    (!says_nothing).then(|| reachable(address))
}

/// Where a listener is reached from its own machine.
pub fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    address
}

/// Gets a page, with the token if it wants one. The answer is a success.
pub async fn get(
    address: SocketAddr,
    path: &'static str,
    token: Option<&Token>,
) -> Result<Response<Incoming>, Error> {
    ask(address, Method::GET, path, token).await
}

/// Asks for a page, with the token if it wants one. The answer is a success, or says that what was
/// asked for cannot be done as things are.
pub async fn ask(
    address: SocketAddr,
    method: Method,
    path: &'static str,
    token: Option<&Token>,
) -> Result<Response<Incoming>, Error> {
    let request = request(address, method, path, token)?;
    let request = request.body(Full::default()).map_err(Error::new)?;
    let response = send(address, request, ANSWER_WITHIN).await?;
    match response.status() {
        StatusCode::UNPROCESSABLE_ENTITY => Ok(response),
        status => understood(address, path, status).map(|()| response),
    }
}

/// Has something done that may take that long: sends JSON, and gives the answer's. The error is what the
/// daemon says of why it cannot.
pub async fn have_done(
    address: SocketAddr,
    path: &'static str,
    token: &Token,
    json: Vec<u8>,
    within: Duration,
) -> Result<Bytes, Error> {
    let response = begin(address, path, token, json, within).await?;
    Ok(response.into_body().collect().await.map_err(Error::new)?.to_bytes())
}

/// The same, where the answer comes bit by bit; `within` is for its beginning.
pub async fn begin(
    address: SocketAddr,
    path: &'static str,
    token: &Token,
    json: Vec<u8>,
    within: Duration,
) -> Result<Response<Incoming>, Error> {
    let request = request(address, Method::POST, path, Some(token))?;
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Full::from(json)).map_err(Error::new)?;
    let response = send(address, request, within).await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.into_body().collect().await.map_err(Error::new)?.to_bytes();
    #[derive(serde::Deserialize)]
    struct Refused {
        error: String,
    }
    match status {
        StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::BAD_REQUEST => match serde_json::from_slice(&body) {
            Ok(Refused { error }) => Err(Error(escaped(&error))),
            Err(_) => Err(not_understood(address, path, status)),
        },
        status => Err(not_understood(address, path, status)),
    }
}

fn request(
    address: SocketAddr,
    method: Method,
    path: &'static str,
    token: Option<&Token>,
) -> Result<request::Builder, Error> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header(header::HOST, address.to_string());
    let Some(token) = token else { return Ok(request) };
    let mut value = HeaderValue::from_str(token.authorization()).map_err(Error::new)?;
    value.set_sensitive(true);
    Ok(request.header(header::AUTHORIZATION, value))
}

async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
    within: Duration,
) -> Result<Response<Incoming>, Error> {
    let mut endpoint = Endpoint::plain(address.to_string());
    endpoint.within = within;
    endpoint.request(request).await.map_err(|error| {
        let hint = "name its data directory with --data-dir, or its admin listener with \
                    --admin-listen";
        Error(format!("{error} If it is, {hint}."))
    })
}

/// Whether an answer is that of the listener that was meant.
fn understood(address: SocketAddr, path: &str, status: StatusCode) -> Result<(), Error> {
    match status.is_success() {
        true => Ok(()),
        false => Err(not_understood(address, path, status)),
    }
}

fn not_understood(address: SocketAddr, path: &str, status: StatusCode) -> Error {
    match status {
        StatusCode::UNAUTHORIZED => Error(format!(
            "{address} does not take this token: name that daemon's data directory with --data-dir, \
             or the file of its token with --token-file"
        )),
        status => Error(format!(
            "{address} answered {status} to {path}; is it the admin listener of this version of \
             waypost?"
        )),
    }
}
