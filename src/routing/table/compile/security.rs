//! What protects a broker's connection: `tls:`, `sasl:`, and the ways to say who we are.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{Compiler, Reported};
use crate::{
    broker::{
        kafka::{Mechanism, Sasl},
        material::Material,
        nats, rabbitmq, tls,
    },
    routing::file::{self, At, Tls},
};

type Broker = At<file::Broker>;

impl Compiler<'_> {
    pub(super) fn tls(&mut self, broker: &Broker) -> Result<Option<tls::Settings>, Reported> {
        let Some(given) = &broker.value.tls else { return Ok(None) };
        let files = match &given.value {
            Tls::On(true) => return Ok(Some(tls::Settings::default())),
            Tls::On(false) => {
                let message = "write `tls: true`, or leave it out; TLS without verification is not \
                               supported";
                return Err(self.report(given, message));
            }
            Tls::With(files) => files,
        };
        let ca = self.material("ca", &files.ca, is_pem);
        let cert = self.material("cert", &files.cert, is_pem);
        let key = self.material("key", &files.key, is_pem);
        let identity = match (cert?, key?) {
            (Some(cert), Some(key)) => Some(tls::Identity { cert, key }),
            (None, None) => None,
            _ => return Err(self.report(given, "`cert:` and `key:` go together: give both")),
        };
        Ok(Some(tls::Settings { ca: ca?, identity }))
    }

    pub(super) fn sasl(&mut self, broker: &Broker) -> Result<Option<Sasl>, Reported> {
        let Some(given) = &broker.value.sasl else { return Ok(None) };
        let fields = &given.value;
        let name = &fields.mechanism;
        let mechanism = Mechanism::ALL.into_iter().find(|m| name.value == m.name());
        let mechanism = mechanism.ok_or_else(|| {
            let known = Mechanism::ALL.map(Mechanism::name).join(", ");
            self.report(name, format!("unknown SASL mechanism; known are {known}"))
        });
        let user = self.filled("user", &fields.user);
        let password = self.filled("password", &fields.password);
        Ok(Some(Sasl { mechanism: mechanism?, user: user?, password: password? }))
    }

    pub(super) fn rabbitmq_login(
        &mut self,
        broker: &Broker,
    ) -> Result<Option<rabbitmq::Login>, Reported> {
        let login = self.user_and_password(broker)?;
        Ok(login.map(|(user, password)| rabbitmq::Login { user, password }))
    }

    pub(super) fn nats_login(&mut self, broker: &Broker) -> Result<Option<nats::Login>, Reported> {
        let fields = &broker.value;
        let login = self.user_and_password(broker);
        let token = fields.token.as_ref().map(|token| self.filled("token", token)).transpose();
        let nkey = self.material("nkey", &fields.nkey, nats::Login::is_seed);
        let creds = self.material("creds", &fields.creds, is_pem);
        let ways = [
            login?.map(|(user, password)| nats::Login::Password { user, password }),
            token?.map(nats::Login::Token),
            nkey?.map(nats::Login::Nkey),
            creds?.map(nats::Login::Creds),
        ];
        let mut ways = ways.into_iter().flatten();
        let login = ways.next();
        if ways.next().is_some() {
            let message = "`user:` and `password:`, `token:`, `nkey:`, `creds:`: give one of them";
            return Err(self.report(broker, message));
        }
        Ok(login)
    }

    fn user_and_password(
        &mut self,
        broker: &Broker,
    ) -> Result<Option<(SecretString, SecretString)>, Reported> {
        match (&broker.value.user, &broker.value.password) {
            (Some(user), Some(password)) => {
                let user = self.filled("user", user);
                Ok(Some((user?, self.filled("password", password)?)))
            }
            (None, None) => Ok(None),
            (Some(one), None) | (None, Some(one)) => {
                Err(self.report(one, "`user:` and `password:` go together: give both"))
            }
        }
    }

    /// A setting that holds text or the path of a file; `is_text` tells which.
    fn material(
        &mut self,
        name: &str,
        value: &Option<At<String>>,
        is_text: fn(&str) -> bool,
    ) -> Result<Option<Material>, Reported> {
        let Some(value) = value else { return Ok(None) };
        let text = self.filled(name, value)?;
        if is_text(text.expose_secret().trim_start()) {
            return Ok(Some(Material::Text(text)));
        }
        // Never repeated unless it is a path: it may be a secret with a slip in it.
        if !is_path(text.expose_secret()) {
            let message = format!(
                "`{name}:` is neither the path of a file nor what it holds; a path has a `/` or a \
                 `.`, as in ./NAME"
            );
            return Err(self.report_secret(value, message));
        }
        let path = PathBuf::from(text.expose_secret());
        Ok(Some(Material::File { path, shown: value.value.clone() }))
    }
}

/// Whether a value may be a path: no seed of a NATS user is.
fn is_path(value: &str) -> bool {
    value.contains(['/', '.']) && !value.contains('\n')
}

/// Whether a value is PEM, or a `.creds` file's text, which is framed alike.
fn is_pem(value: &str) -> bool {
    value.contains("-----BEGIN")
}
