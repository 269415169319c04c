//! Where the servers are and who we are to them.

use async_nats::{ConnectOptions, ServerAddr};
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use super::{
    super::tls,
    login::{Login, LoginError},
};
use crate::secret::same;

/// How to reach NATS. Prints no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nats://user:password@host:port`, several separated by commas; the port defaults to 4222.
    /// User and password are percent-encoded and the same for every server. One `tls://` among
    /// them demands TLS of all.
    pub url: SecretString,
    /// The name under which the server lists this connection.
    pub client_name: String,
    /// Who we are, where the URL does not say it.
    pub login: Option<Login>,
    /// `Some` demands TLS. Without it the server may still ask for it.
    pub tls: Option<tls::Settings>,
    /// Shakes hands before the server has greeted, as its `handshake_first` wants it.
    pub tls_first: bool,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        let Settings { url, client_name, login, tls, tls_first } = self;
        same(url, &other.url)
            && (client_name, login, tls, tls_first)
                == (&other.client_name, &other.login, &other.tls, &other.tls_first)
    }
}

/// Why settings cannot work. Never shows the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("url names no NATS server: give nats://host:port, several separated by commas")]
    NoServer,
    #[error("url: NATS server {0} cannot be parsed: give nats://user:password@host:port")]
    Url(usize),
    #[error("url: NATS server {0} wants {1}://, only nats:// and tls:// are supported")]
    Scheme(usize, String),
    #[error("url: the user or password of NATS server {0} is not UTF-8 once percent-decoded")]
    NotUtf8(usize),
    #[error("url: NATS server {0} has another user or password than the first")]
    Credentials(usize),
    #[error("url: NATS server {0} has a user without a password; a token belongs in `token:`")]
    NoPassword(usize),
    #[error("url: it has user and password, and there is another login beside it: keep one")]
    TwoLogins,
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

impl Settings {
    /// Says what is wrong with the URL, alone or beside the others. Reads no file.
    pub fn check(&self) -> Result<(), SettingsError> {
        Servers::parse(self).map(drop)
    }
}

/// The servers' addresses without credentials, which the library would log; and what makes of them
/// connections.
#[derive(Clone)]
pub(super) struct Servers {
    pub(super) addresses: Vec<ServerAddr>,
    pub(super) login: Option<Login>,
    pub(super) tls: Option<tls::Settings>,
    pub(super) tls_first: bool,
}

/// What a URL may hold of them.
struct Credentials {
    user: SecretString,
    password: SecretString,
}

impl Servers {
    pub(super) fn parse(settings: &Settings) -> Result<Self, SettingsError> {
        let mut servers = Servers {
            addresses: Vec::new(),
            login: settings.login.clone(),
            tls: settings.tls.clone(),
            tls_first: settings.tls_first,
        };
        let mut first: Option<Credentials> = None;
        let url = settings.url.expose_secret();
        let given = url.split(',').map(str::trim).filter(|server| !server.is_empty());
        for (index, server) in given.enumerate() {
            let found = servers.add(index + 1, server)?;
            match (&first, found) {
                (None, found) if index == 0 => first = found,
                (_, None) => {}
                (Some(known), Some(found)) if known.equals(&found) => {}
                _ => return Err(SettingsError::Credentials(index + 1)),
            }
        }
        if servers.addresses.is_empty() {
            return Err(SettingsError::NoServer);
        }
        if let Some(Credentials { user, password }) = first
            && servers.login.replace(Login::Password { user, password }).is_some()
        {
            return Err(SettingsError::TwoLogins);
        }
        Ok(servers)
    }

    /// Takes in one server; what its URL says of us.
    fn add(&mut self, number: usize, server: &str) -> Result<Option<Credentials>, SettingsError> {
        let parsed: ServerAddr = server.parse().map_err(|_| SettingsError::Url(number))?;
        match parsed.scheme() {
            "nats" => {}
            "tls" => drop(self.tls.get_or_insert_default()),
            other => return Err(SettingsError::Scheme(number, other.to_owned())),
        }
        let bare = match parsed.host() {
            "" => return Err(SettingsError::Url(number)),
            host if host.contains(':') => format!("nats://[{host}]:{}", parsed.port()),
            host => format!("nats://{host}:{}", parsed.port()),
        };
        self.addresses.push(bare.parse().map_err(|_| SettingsError::Url(number))?);
        Credentials::of(&parsed, number)
    }

    /// Adds to a connection's options who we are and what protects it. Blocks while files are read.
    pub(super) fn secure(&self, options: ConnectOptions) -> Result<ConnectOptions, SettingsError> {
        let mut options = match &self.login {
            Some(login) => login.apply(options)?,
            None => options,
        };
        if let Some(tls) = &self.tls {
            options = options.require_tls(true).tls_client_config(tls.client_config()?);
        }
        Ok(if self.tls_first { options.tls_first() } else { options })
    }

    /// The servers as an operator may see them.
    pub(super) fn shown(&self) -> String {
        let shown: Vec<_> =
            self.addresses.iter().map(|a| format!("{}:{}", a.host(), a.port())).collect();
        shown.join(", ")
    }
}

impl Credentials {
    fn of(server: &ServerAddr, number: usize) -> Result<Option<Self>, SettingsError> {
        let decode = |text: &str| match percent_decode_str(text).decode_utf8() {
            Ok(text) => Ok(text.into_owned().into()),
            Err(_) => Err(SettingsError::NotUtf8(number)),
        };
        match (server.username(), server.password()) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => {
                Ok(Some(Self { user: decode(user)?, password: decode(password)? }))
            }
            (Some(_), None) => Err(SettingsError::NoPassword(number)),
            (None, Some(_)) => Err(SettingsError::Url(number)),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        let text = |one: &Self| [&one.user, &one.password].map(|s| s.expose_secret().to_owned());
        text(self) == text(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings {
            url: url.into(),
            client_name: "waypost".into(),
            login: None,
            tls: None,
            tls_first: false,
        }
    }

    fn parse(url: &str) -> Result<Servers, SettingsError> {
        Servers::parse(&settings(url))
    }

    #[test]
    fn credentials_leave_the_url_and_are_decoded() {
        let servers = parse("nats://zoe:p%40ss%2Cword@a:1, b").unwrap();
        let Some(Login::Password { user, password }) = &servers.login else { panic!("no login") };
        assert_eq!((user.expose_secret(), password.expose_secret()), ("zoe", "p@ss,word"));
        assert_eq!(servers.shown(), "a:1, b:4222");
        let debug = format!("{:?}", servers.addresses);
        assert!(!debug.contains("%40") && !debug.contains("zoe"), "{debug}");
    }

    #[test]
    fn no_error_shows_the_password() {
        let cases = [
            ("", "names no NATS server"),
            ("nats://me:hunter2@a:notaport", "server 1 cannot be parsed"),
            ("ws://me:hunter2@a:1", "server 1 wants ws://"),
            ("nats://me:hunter2@a,nats://me:hunter3@b", "server 2 has another user or password"),
            ("a,nats://me:hunter2@b", "server 2 has another user or password"),
            ("nats://hunter2@a", "server 1 has a user without a password"),
            ("nats://me:hunter2%ff@a", "server 1 is not UTF-8"),
        ];
        for (url, expected) in cases {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} parsed")).to_string();
            assert!(!error.contains("hunter"), "{error}");
            assert!(error.contains(expected), "{url}: {error}");
        }
        assert!(!format!("{:?}", settings("nats://me:hunter2@a")).contains("hunter2"));
    }

    #[test]
    fn two_logins_are_refused() {
        let token = Some(Login::Token("hunter2".into()));
        let both = Settings { login: token, ..settings("nats://me:hunter2@a") };
        assert!(matches!(both.check(), Err(SettingsError::TwoLogins)));
    }

    #[test]
    fn one_tls_url_demands_tls_of_all() {
        let servers = parse("nats://a, tls://b").unwrap();
        assert!(servers.tls.is_some());
        assert_eq!(servers.shown(), "a:4222, b:4222");
        assert!(parse("nats://a").unwrap().tls.is_none());
    }

    #[test]
    fn an_ipv6_address_stays_one() {
        assert_eq!(parse("nats://[::1]:4222").unwrap().addresses.len(), 1);
    }
}
