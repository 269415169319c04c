//! The texts of a source's secrets, for who explains what is wrong with a signature. A [`Table`]
//! holds keys alone, so that the daemon never keeps more than it needs.
//!
//! [`Table`]: super::Table

use std::fmt;

use secrecy::SecretString;

use super::file::{
    self,
    mirror::{OneOrMany, Source},
};
use crate::secret::{self, Env};

/// What a source of the file is given that nobody may see.
#[derive(Debug, Default)]
pub struct Secrets {
    pub signing: Vec<(Place, SecretString)>,
    pub authorization: Option<SecretString>,
}

/// Where a secret stands: which of how many, and of which event type, if types have their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `*` for the types that have none of their own.
    pub event_type: Option<String>,
    /// From 1; 0 for one that is not in the file, but kept by the daemon.
    pub number: usize,
    pub of: usize,
}

impl Place {
    /// Of a secret of an event type that the daemon keeps.
    pub fn stored(event_type: &str) -> Place {
        Place { event_type: Some(event_type.to_owned()), number: 0, of: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.of, &self.event_type) {
            (0, _) => f.write_str("a secret that the daemon keeps")?,
            (1, None) => f.write_str("the source's secret")?,
            (1, Some(_)) => f.write_str("the secret")?,
            (of, _) => write!(f, "secret {} of {of}", self.number)?,
        }
        self.event_type.iter().try_for_each(|event_type| write!(f, " of `{event_type}`"))
    }
}

/// Reads a source's secrets out of the text of a `routes.yaml` that compiles; a source that is not
/// there has none.
pub fn secrets(text: &str, source: &str, env: Env) -> Result<Secrets, secret::Error> {
    let content = file::read(text).content;
    let mut secrets = Secrets::default();
    match content.as_ref().and_then(|content| content.file.sources.get(source)) {
        None => {}
        Some(Source::Miibo(source) | Source::Standard(source)) => {
            secrets.add(None, &source.secret, env)?;
        }
        Some(Source::Sonzai(source)) => {
            for (event_type, list) in source.secrets.iter().flatten() {
                secrets.add(Some(event_type), list, env)?;
            }
            let authorization = source.authorization.as_ref();
            secrets.authorization =
                authorization.map(|text| secret::expand(text, env)).transpose()?;
        }
    }
    Ok(secrets)
}

impl Secrets {
    fn add(
        &mut self,
        event_type: Option<&String>,
        list: &OneOrMany,
        env: Env,
    ) -> Result<(), secret::Error> {
        let texts = list.as_slice();
        for (index, text) in texts.iter().enumerate() {
            let event_type = event_type.cloned();
            let place = Place { event_type, number: index + 1, of: texts.len() };
            self.signing.push((place, secret::expand(text, env)?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const FILE: &str = r#"
sources:
  one: { type: miibo, path: /one, secret: plain }
  two: { type: standard, path: /two, secret: ["${A}", "b"] }
  three:
    type: sonzai
    path: /three
    secrets: { agent.message: ["new", "${A}"], "*": rest }
    authorization: Bearer ${A}
  four:
    type: sonzai
    path: /four
    api: { key: "${A}" }
    register: { public_url: "https://hooks.example.com", types: [on_wakeup_ready] }
brokers: {}
routes: []
"#;

    fn read(source: &str) -> (Vec<(String, String)>, Option<String>) {
        let env = |name: &str| (name == "A").then(|| "alpha".to_owned());
        let read = secrets(FILE, source, &env).unwrap();
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        let signing = read.signing.iter().map(|(place, secret)| (place.to_string(), text(secret)));
        (signing.collect(), read.authorization.as_ref().map(text))
    }

    #[test]
    fn every_secret_is_named_by_its_place() {
        let list = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(place, text)| (place.to_string(), text.to_string())).collect()
        };
        assert_eq!(read("one"), (list(&[("the source's secret", "plain")]), None));
        let two = list(&[("secret 1 of 2", "alpha"), ("secret 2 of 2", "b")]);
        assert_eq!(read("two"), (two, None));
        let three = list(&[
            ("the secret of `*`", "rest"),
            ("secret 1 of 2 of `agent.message`", "new"),
            ("secret 2 of 2 of `agent.message`", "alpha"),
        ]);
        assert_eq!(read("three"), (three, Some("Bearer alpha".to_owned())));
        // What registration brings does not stand in the file.
        assert_eq!(read("four"), (vec![], None));
        assert_eq!(read("none"), (vec![], None));
        assert!(secrets(FILE, "two", &|_| None).is_err());
    }
}
