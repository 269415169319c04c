//! Where the broker is and who we are to it.

use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use secrecy::{ExposeSecret, SecretString};

use super::super::tls;
use crate::{certificates, secret::same};

/// How to reach the broker. Prints no secret.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS; `%2f` is the virtual host
    /// `/`. `?heartbeat=SECONDS` is understood (default 10), and `?auth_mechanism=external`, by which
    /// the client certificate says who we are.
    pub url: SecretString,
    /// Who we are, where the URL does not say it.
    pub login: Option<Login>,
    /// With `amqps://` only, which without it trusts the system's CAs.
    pub tls: Option<tls::Settings>,
}

#[derive(Clone, Debug)]
pub struct Login {
    pub user: SecretString,
    pub password: SecretString,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        let Settings { url, login, tls } = self;
        same(url, &other.url) && *login == other.login && *tls == other.tls
    }
}

impl PartialEq for Login {
    fn eq(&self, other: &Login) -> bool {
        let Login { user, password } = self;
        same(user, &other.user) && same(password, &other.password)
    }
}

/// Why settings cannot work. Never shows the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(
        "the url is not of the form amqp://user:password@host:port/vhost, or amqps:// for TLS \
         (characters like / and @ in a name or password are percent-encoded)"
    )]
    Url,
    #[error("the url has an IPv6 address, which the client does not support: give a host name")]
    Ipv6,
    #[error("`tls:` needs a url that begins with amqps://")]
    Plain,
    #[error("the url has a user, and there is `user:` beside it: keep one")]
    TwoLogins,
    #[error(
        "auth_mechanism=external goes by the client certificate: give `tls.cert` and `tls.key`"
    )]
    NoCertificate,
    #[error("auth_mechanism=external goes by the client certificate: leave user and password out")]
    ExternalLogin,
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

impl Settings {
    /// Says what is wrong with the URL, alone or beside the others. Reads no file.
    pub fn check(&self) -> Result<(), SettingsError> {
        Endpoint::parse(self).map(drop)
    }
}

/// The broker's address with everything that a connection to it takes. Does not print: the URI would
/// show the password.
pub(super) struct Endpoint {
    pub(super) uri: AMQPUri,
    pub(super) tls: Option<tls::Settings>,
}

impl Endpoint {
    pub(super) fn parse(settings: &Settings) -> Result<Endpoint, SettingsError> {
        let url = settings.url.expose_secret();
        // The parser's own error may quote the URL, password and all.
        let mut uri: AMQPUri = url.parse().map_err(|_| SettingsError::Url)?;
        let authority = authority(url);
        let (in_url, host) = match authority.rsplit_once('@') {
            Some((_, host)) => (true, host),
            None => (false, authority),
        };
        // The parser would take it for `localhost`.
        if host.starts_with('[') {
            return Err(SettingsError::Ipv6);
        }
        let tls = match (&uri.scheme, &settings.tls) {
            (AMQPScheme::AMQPS, tls) => Some(tls.clone().unwrap_or_default()),
            (AMQPScheme::AMQP, None) => None,
            (AMQPScheme::AMQP, Some(_)) => return Err(SettingsError::Plain),
        };
        if uri.query.auth_mechanism == Some(SASLMechanism::External) {
            if tls.as_ref().is_none_or(|tls| tls.identity.is_none()) {
                return Err(SettingsError::NoCertificate);
            }
            if in_url || settings.login.is_some() {
                return Err(SettingsError::ExternalLogin);
            }
        }
        if let Some(Login { user, password }) = &settings.login {
            if in_url {
                return Err(SettingsError::TwoLogins);
            }
            uri.authority.userinfo.username = user.expose_secret().to_owned();
            uri.authority.userinfo.password = password.expose_secret().to_owned();
        }
        Ok(Endpoint { uri, tls })
    }

    /// `host:port`, as an operator may see it.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Why connecting failed and what to check.
    pub(super) fn why(&self, error: &lapin::Error) -> String {
        if let (Some(tls), Some(cause)) = (&self.tls, certificates::tls_cause(error)) {
            return tls.why(cause);
        }
        let words = super::words(error);
        let check = match (error.is_io_error(), &self.tls, self.uri.query.auth_mechanism) {
            (true, None, _) => "check that RabbitMQ runs there and that the port is its AMQP port",
            (true, Some(_), _) => {
                "check that RabbitMQ runs there, that the port is its TLS port, and whether it \
                 demands a client certificate (`tls.cert`, `tls.key`)"
            }
            (false, _, Some(SASLMechanism::External)) => {
                "check that RabbitMQ takes EXTERNAL, knows the user that the client certificate \
                 names, and has the virtual host of the broker's url"
            }
            (false, _, _) => "check the user, password and virtual host of the broker",
        };
        format!("{words}; {check}")
    }
}

/// What stands between the scheme and the path: `user:password@host:port`.
fn authority(url: &str) -> &str {
    let after = url.split_once("://").map_or(url, |(_, after)| after);
    after.split(['/', '?', '#']).next().unwrap_or(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::material::Material;

    fn settings(url: &str) -> Settings {
        Settings { url: url.into(), login: None, tls: None }
    }

    fn login() -> Option<Login> {
        Some(Login { user: "me".into(), password: "hunter/2@".into() })
    }

    fn tls(identity: bool) -> Option<tls::Settings> {
        let text = || Material::Text("-----BEGIN".into());
        let identity = identity.then(|| tls::Identity { cert: text(), key: text() });
        Some(tls::Settings { ca: None, identity })
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let settings = Settings { login: login(), ..settings("amqp://me:hunter2@localhost/%2f") };
        let printed = format!("{settings:?} {}", settings.check().unwrap_err());
        assert!(!printed.contains("hunter"), "{printed}");
    }

    #[test]
    fn what_cannot_work_is_refused_without_being_repeated() {
        let external = "amqps://hunter2/%2f?auth_mechanism=external";
        let cases = [
            (settings("amqp://me:hunter2@localhost:port"), "not of the form"),
            (settings("http://me:hunter2@localhost"), "not of the form"),
            (settings("hunter2"), "not of the form"),
            (settings("amqp://me:hunter2@[::1]:5672/%2f"), "IPv6"),
            (Settings { tls: tls(false), ..settings("amqp://hunter2/%2f") }, "amqps://"),
            (Settings { login: login(), ..settings("amqp://a:hunter2@b/%2f") }, "keep one"),
            (settings(external), "tls.cert"),
            (Settings { tls: tls(false), ..settings(external) }, "tls.cert"),
            (
                Settings { login: login(), tls: tls(true), ..settings(external) },
                "leave user and password out",
            ),
        ];
        for (settings, expected) in cases {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
            assert!(!error.contains("hunter"), "{error}");
        }
    }

    #[test]
    fn a_login_beside_the_url_needs_no_percent_encoding() {
        let beside = Settings { login: login(), ..settings("amqp://localhost/%2f") };
        let userinfo = Endpoint::parse(&beside).unwrap().uri.authority.userinfo;
        assert_eq!((&*userinfo.username, &*userinfo.password), ("me", "hunter/2@"));
    }

    #[test]
    fn amqps_is_tls_with_the_systems_authorities_unless_told_otherwise() {
        let plain = Endpoint::parse(&settings("amqp://localhost/%2f")).unwrap();
        assert!(plain.tls.is_none());
        let secure = Endpoint::parse(&settings("amqps://localhost/%2f")).unwrap();
        assert!(secure.tls.is_some_and(|tls| tls.ca.is_none()));
        assert_eq!(secure.uri.authority.port, 5671);
    }
}
