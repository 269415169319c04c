//! Where the servers are and who we are to them.

use async_nats::ServerAddr;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

/// How to reach NATS. Prints no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `nats://user:password@host:port`, several separated by commas; the port defaults to 4222.
    /// User and password are percent-encoded and the same for every server.
    pub url: SecretString,
    /// The name under which the server lists this connection.
    pub client_name: String,
}

/// Why settings cannot work. Never shows the URL, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("url names no NATS server: give nats://host:port, several separated by commas")]
    NoServer,
    #[error("url: NATS server {0} cannot be parsed: give nats://user:password@host:port")]
    Url(usize),
    #[error("url: NATS server {0} wants {1}://, only nats:// is supported")]
    Scheme(usize, String),
    #[error("url: the user or password of NATS server {0} is not UTF-8 once percent-decoded")]
    NotUtf8(usize),
    #[error("url: NATS server {0} has another user or password than the first")]
    Credentials(usize),
    #[error("url: NATS server {0} has a user without a password")]
    NoPassword(usize),
}

/// The servers' addresses without credentials, which the library would log.
pub(super) struct Servers {
    pub(super) addresses: Vec<ServerAddr>,
    credentials: Option<Credentials>,
}

struct Credentials {
    user: String,
    password: SecretString,
}

impl Servers {
    pub(super) fn parse(settings: &Settings) -> Result<Self, SettingsError> {
        let url = settings.url.expose_secret();
        let mut servers = Servers { addresses: Vec::new(), credentials: None };
        let given = url.split(',').map(str::trim).filter(|server| !server.is_empty());
        for (index, server) in given.enumerate() {
            servers.add(index + 1, server)?;
        }
        if servers.addresses.is_empty() { Err(SettingsError::NoServer) } else { Ok(servers) }
    }

    fn add(&mut self, number: usize, server: &str) -> Result<(), SettingsError> {
        let parsed: ServerAddr = server.parse().map_err(|_| SettingsError::Url(number))?;
        if parsed.scheme() != "nats" {
            return Err(SettingsError::Scheme(number, parsed.scheme().to_owned()));
        }
        let credentials = Credentials::of(&parsed, number)?;
        match (&self.credentials, credentials) {
            (None, found) if number == 1 => self.credentials = found,
            (_, None) => {}
            (Some(known), Some(found)) if known.equals(&found) => {}
            _ => return Err(SettingsError::Credentials(number)),
        }
        let bare = match parsed.host() {
            "" => return Err(SettingsError::Url(number)),
            host if host.contains(':') => format!("nats://[{host}]:{}", parsed.port()),
            host => format!("nats://{host}:{}", parsed.port()),
        };
        self.addresses.push(bare.parse().map_err(|_| SettingsError::Url(number))?);
        Ok(())
    }

    /// User and password in the clear, for the library.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let credentials = self.credentials.as_ref()?;
        Some((credentials.user.clone(), credentials.password.expose_secret().to_owned()))
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
            Ok(text) => Ok(text.into_owned()),
            Err(_) => Err(SettingsError::NotUtf8(number)),
        };
        match (server.username(), server.password()) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => {
                Ok(Some(Self { user: decode(user)?, password: decode(password)?.into() }))
            }
            (Some(_), None) => Err(SettingsError::NoPassword(number)),
            (None, Some(_)) => Err(SettingsError::Url(number)),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        self.user == other.user && self.password.expose_secret() == other.password.expose_secret()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Servers, SettingsError> {
        Servers::parse(&Settings { url: url.into(), client_name: "waypost".into() })
    }

    #[test]
    fn credentials_leave_the_url_and_are_decoded() {
        let servers = parse("nats://zoe:p%40ss%2Cword@a:1, b").unwrap();
        assert_eq!(servers.credentials(), Some(("zoe".into(), "p@ss,word".into())));
        assert_eq!(servers.shown(), "a:1, b:4222");
        let debug = format!("{:?}", servers.addresses);
        assert!(!debug.contains("%40") && !debug.contains("zoe"), "{debug}");
    }

    #[test]
    fn no_error_shows_the_password() {
        let cases = [
            ("", SettingsError::NoServer),
            ("nats://me:hunter2@a:notaport", SettingsError::Url(1)),
            ("tls://me:hunter2@a:1", SettingsError::Scheme(1, "tls".into())),
            ("nats://me:hunter2@a,nats://me:hunter3@b", SettingsError::Credentials(2)),
            ("a,nats://me:hunter2@b", SettingsError::Credentials(2)),
            ("nats://hunter2@a", SettingsError::NoPassword(1)),
            ("nats://me:hunter2%ff@a", SettingsError::NotUtf8(1)),
        ];
        for (url, expected) in cases {
            let error = parse(url).err().unwrap_or_else(|| panic!("{url} parsed"));
            assert!(!error.to_string().contains("hunter"), "{error}");
            assert_eq!(error, expected, "{url}");
        }
        let settings = Settings { url: "nats://me:hunter2@a".into(), client_name: "w".into() };
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn an_ipv6_address_stays_one() {
        assert_eq!(parse("nats://[::1]:4222").unwrap().addresses.len(), 1);
    }
}
