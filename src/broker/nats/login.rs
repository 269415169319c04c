//! Who we are to a NATS server.

use async_nats::ConnectOptions;
use nkeys::{KeyPair, KeyPairType};
use secrecy::{ExposeSecret, SecretString};

use super::super::material::{self, Material};
use crate::secret::same;

/// One of the ways in which a client says who it is.
#[derive(Clone, Debug)]
pub enum Login {
    Password {
        user: SecretString,
        password: SecretString,
    },
    Token(SecretString),
    /// The seed of a user's nkey.
    Nkey(Material),
    /// A user's JWT and the seed of its nkey, as in a `.creds` file.
    Creds(Material),
}

impl PartialEq for Login {
    fn eq(&self, other: &Login) -> bool {
        match (self, other) {
            (
                Login::Password { user, password },
                Login::Password { user: other_user, password: other_password },
            ) => same(user, other_user) && same(password, other_password),
            (Login::Token(one), Login::Token(other)) => same(one, other),
            (Login::Nkey(one), Login::Nkey(other)) | (Login::Creds(one), Login::Creds(other)) => {
                one == other
            }
            _ => false,
        }
    }
}

/// Why a login cannot be used. Never shows what is secret.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("{setting}: {cause}")]
    Material { setting: &'static str, cause: material::Error },
    #[error("nkey: {0} holds no seed of a NATS user (58 characters, the first two are SU)")]
    Nkey(String),
    #[error(
        "creds: {0} does not hold a user's JWT and its nkey seed (-----BEGIN NATS USER JWT-----, \
         -----BEGIN USER NKEY SEED-----)"
    )]
    Creds(String),
}

impl Login {
    /// Whether a setting's value is the seed itself, not the path of a file.
    pub fn is_seed(value: &str) -> bool {
        value.starts_with("SU") && value.bytes().all(|b| b.is_ascii_alphanumeric())
    }

    /// Adds the login to a connection's options. Blocks while files are read.
    pub(super) fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions, LoginError> {
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        Ok(match self {
            Login::Password { user, password } => {
                options.user_and_password(text(user), text(password))
            }
            Login::Token(token) => options.token(text(token)),
            Login::Nkey(material) => {
                let read = read("nkey", material)?;
                let seed = seed(read.expose_secret());
                options.nkey(seed.ok_or_else(|| LoginError::Nkey(material.to_string()))?)
            }
            Login::Creds(material) => {
                let creds = read("creds", material)?;
                // The library's own words may change; these say as much.
                let applied = options.credentials(creds.expose_secret());
                applied.map_err(|_| LoginError::Creds(material.to_string()))?
            }
        })
    }

    /// Says what is wrong with what the login names, before a server would. Blocks while files are
    /// read.
    pub fn check_files(&self) -> Result<(), LoginError> {
        self.apply(ConnectOptions::new()).map(drop)
    }

    /// The setting that gives it, or the first of two.
    pub fn setting(&self) -> &'static str {
        match self {
            Login::Password { .. } => "user",
            Login::Token(_) => "token",
            Login::Nkey(_) => "nkey",
            Login::Creds(_) => "creds",
        }
    }

    /// What to check when the server does not let us in.
    pub(super) fn check(login: Option<&Login>) -> &'static str {
        match login {
            None => {
                "the server wants a login: give `user` and `password`, `token`, `nkey` or `creds`"
            }
            Some(Login::Password { .. }) => "check user and password",
            Some(Login::Token(_)) => "check `token`",
            Some(Login::Nkey(_)) => "check that the server knows the public key of `nkey`",
            Some(Login::Creds(_)) => {
                "check that the user in `creds` is one of an account that the server knows, and has \
                 neither expired nor been revoked"
            }
        }
    }
}

fn read(setting: &'static str, material: &Material) -> Result<SecretString, LoginError> {
    material.read().map_err(|cause| LoginError::Material { setting, cause })
}

/// The user's seed in a file that holds it on a line of its own, with comments or frames around.
fn seed(text: &str) -> Option<String> {
    let mut lines = text.lines().map(str::trim);
    let seed = lines.find(|line| Login::is_seed(line))?;
    let pair = KeyPair::from_seed(seed).ok()?;
    (pair.key_pair_type() == KeyPairType::User).then(|| seed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(login: Login) -> Result<(), String> {
        login.apply(ConnectOptions::new()).map(drop).map_err(|error| error.to_string())
    }

    fn text(text: &str) -> Material {
        Material::Text(text.into())
    }

    #[test]
    fn a_seed_is_found_bare_or_framed_and_only_a_users() {
        let user = KeyPair::new_user().seed().unwrap();
        let framed =
            format!("-----BEGIN USER NKEY SEED-----\n{user}\n------END USER NKEY SEED------\n");
        for text in [user.clone(), format!("{user}\r\n"), framed] {
            assert_eq!(seed(&text).as_ref(), Some(&user));
        }
        let mut mistyped = user.clone();
        mistyped.replace_range(10..11, if &user[10..11] == "A" { "B" } else { "A" });
        let account = KeyPair::new_account().seed().unwrap();
        for wrong in [mistyped, account, "SU".to_owned(), String::new()] {
            let error = applied(Login::Nkey(text(&wrong))).unwrap_err();
            assert!(error.starts_with("nkey: the given text holds no seed"), "{error}");
        }
    }

    #[test]
    fn creds_without_their_parts_are_refused_without_being_shown() {
        let seed = KeyPair::new_user().seed().unwrap();
        for wrong in ["", "hunter2", &seed] {
            let error = applied(Login::Creds(text(wrong))).unwrap_err();
            assert!(error.starts_with("creds: the given text does not hold"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains(&seed), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_its_setting() {
        let missing = Material::File { path: "/nowhere".into(), shown: "/nowhere".into() };
        for (login, setting) in
            [(Login::Nkey(missing.clone()), "nkey"), (Login::Creds(missing.clone()), "creds")]
        {
            let error = applied(login).unwrap_err();
            assert!(error.starts_with(&format!("{setting}: cannot read /nowhere")), "{error}");
        }
    }

    #[test]
    fn a_path_is_told_from_a_seed() {
        let seed = KeyPair::new_user().seed().unwrap();
        assert!(Login::is_seed(&seed));
        for path in ["/run/secrets/nkey", "SU.nk", "keys/SUA", ""] {
            assert!(!Login::is_seed(path), "{path}");
        }
    }
}
