//! What protects a broker's connection: `tls:`, `sasl:`, and the ways to say who we are.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{Compiler, Skipped};
use crate::{
    broker::{
        kafka,
        material::Material,
        nats,
        tls::{self, Identity},
    },
    certificates::PEM_SIGN,
    routing::{
        diagnostic::Code,
        file::{
            Place,
            mirror::{Nats, Sasl, Tls},
        },
    },
};

impl Compiler<'_> {
    pub(super) fn tls(
        &mut self,
        given: &Option<Tls>,
        broker: Place,
    ) -> Result<Option<tls::Settings>, Skipped> {
        let place = broker.key("tls");
        let files = match given {
            None => return Ok(None),
            Some(Tls::On(true)) => return Ok(Some(tls::Settings::default())),
            Some(Tls::On(false)) => {
                let message = "`tls: false` is not supported";
                let help = "leave it out for no TLS; TLS without verification there is not";
                return Err(self.advise(Code::InvalidValue, place.span(), message, help));
            }
            Some(Tls::With(files)) => files,
        };
        let ca = self.material("ca", &files.ca, place, is_pem);
        let cert = self.material("cert", &files.cert, place, is_pem);
        let key = self.material("key", &files.key, place, is_pem);
        let identity = match (cert?, key?) {
            (Some(cert), Some(key)) => Some(Identity { cert, key }),
            (None, None) => None,
            _ if place.is_cut() => return Err(Skipped),
            (cert, _) => {
                let given = if cert.is_some() { "cert" } else { "key" };
                let message = "`cert:` and `key:` go together: give both";
                return Err(self.report(Code::MissingKey, place.key(given).at_key(), message));
            }
        };
        let settings = tls::Settings { ca: ca?, identity };
        self.load(&settings, place)?;
        Ok(Some(settings))
    }

    /// Reads what the settings name, to say what is wrong with it before a connection would.
    fn load(&mut self, settings: &tls::Settings, place: Place) -> Result<(), Skipped> {
        if self.env.is_none() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for error in settings.faults() {
            let setting = error.setting().map_or(place, |setting| place.key(setting));
            outcome = Err(self.report(Code::InvalidMaterial, setting.span(), error));
        }
        outcome
    }

    pub(super) fn sasl(
        &mut self,
        given: &Option<Sasl>,
        broker: Place,
    ) -> Result<Option<kafka::Sasl>, Skipped> {
        let Some(given) = given else { return Ok(None) };
        let place = broker.key("sasl");
        let user = self.filled("user", place.key("user"), &given.user);
        let password = self.filled("password", place.key("password"), &given.password);
        Ok(Some(kafka::Sasl { mechanism: given.mechanism, user: user?, password: password? }))
    }

    pub(super) fn nats_login(
        &mut self,
        given: &Nats,
        broker: Place,
    ) -> Result<Option<nats::Login>, Skipped> {
        let login = self.user_and_password(&given.user, &given.password, broker);
        let token = given.token.as_ref();
        let token = token.map(|token| self.filled("token", broker.key("token"), token)).transpose();
        let nkey = self.material("nkey", &given.nkey, broker, nats::Login::is_seed);
        let creds = self.material("creds", &given.creds, broker, is_pem);
        let ways = [
            login?.map(|(user, password)| nats::Login::Password { user, password }),
            token?.map(nats::Login::Token),
            nkey?.map(nats::Login::Nkey),
            creds?.map(nats::Login::Creds),
        ];
        let mut ways = ways.into_iter().flatten();
        let login = ways.next();
        if ways.next().is_some() {
            let message = "there is more than one login";
            let help = "`user:` and `password:`, `token:`, `nkey:`, `creds:`: keep one of them";
            return Err(self.advise(Code::MisplacedKey, broker.at_key(), message, help));
        }
        if let (Some(login), Some(_)) = (&login, self.env) {
            login.check_files().map_err(|error| {
                self.report(Code::InvalidMaterial, broker.key(login.setting()).span(), error)
            })?;
        }
        Ok(login)
    }

    pub(super) fn user_and_password(
        &mut self,
        user: &Option<String>,
        password: &Option<String>,
        broker: Place,
    ) -> Result<Option<(SecretString, SecretString)>, Skipped> {
        match (user, password) {
            (Some(user), Some(password)) => {
                let user = self.filled("user", broker.key("user"), user);
                let password = self.filled("password", broker.key("password"), password);
                Ok(Some((user?, password?)))
            }
            (None, None) => Ok(None),
            _ if broker.is_cut() => Err(Skipped),
            (user, _) => {
                let given = if user.is_some() { "user" } else { "password" };
                let message = "`user:` and `password:` go together: give both";
                Err(self.report(Code::MissingKey, broker.key(given).at_key(), message))
            }
        }
    }

    /// A setting that holds text or the path of a file; `is_text` tells which.
    fn material(
        &mut self,
        name: &str,
        value: &Option<String>,
        parent: Place,
        is_text: fn(&str) -> bool,
    ) -> Result<Option<Material>, Skipped> {
        let Some(value) = value else { return Ok(None) };
        let place = parent.key(name);
        let text = self.filled(name, place, value)?;
        if self.is_unseen(value) || is_text(text.expose_secret().trim_start()) {
            return Ok(Some(Material::Text(text)));
        }
        // Never repeated unless it is a path: it may be a secret with a slip in it.
        if !is_path(text.expose_secret()) {
            let message = format!("`{name}:` is neither the path of a file nor what it holds");
            let help = "a path has a `/` or a `.`, as in ./NAME";
            return Err(self.advise(Code::InvalidMaterial, place.span(), message, help));
        }
        let path = PathBuf::from(text.expose_secret());
        Ok(Some(Material::File { path, shown: value.clone() }))
    }
}

/// Whether a value may be a path: no seed of a NATS user is.
fn is_path(value: &str) -> bool {
    value.contains(['/', '.']) && !value.contains('\n')
}

/// Whether a value is PEM, or a `.creds` file's text, which is framed alike.
fn is_pem(value: &str) -> bool {
    value.contains(PEM_SIGN)
}
