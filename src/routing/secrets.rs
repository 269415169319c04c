//! The texts of a source's secrets, for who explains what is wrong with a signature. A [`Table`]
//! holds keys alone, so that the daemon never keeps more than it needs.
//!
//! [`Table`]: super::Table

use std::fmt;

use secrecy::SecretString;

use super::{
    diagnostic::{Diagnostic, Invalid},
    file::{self, At},
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
    /// From 1.
    pub number: usize,
    pub of: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            1 => f.write_str("the secret")?,
            of => write!(f, "secret {} of {of}", self.number)?,
        }
        self.event_type.iter().try_for_each(|event_type| write!(f, " of `{event_type}`"))
    }
}

/// Reads a source's secrets out of the text of a `routes.yaml`; `file` is its name for messages.
/// A source that is not there has none.
pub fn secrets(file: &str, text: &str, source: &str, env: Env) -> Result<Secrets, Invalid> {
    file::parse(text)
        .and_then(|mirror| match mirror.sources.get(source) {
            Some(source) => read(&source.value, env),
            None => Ok(Secrets::default()),
        })
        .map_err(|problems| Invalid::new(file, text, problems))
}

fn read(source: &file::Source, env: Env) -> Result<Secrets, Vec<Diagnostic>> {
    let by_type = source.secrets.iter().flat_map(|secrets| &secrets.value);
    let by_type = by_type.map(|(event_type, list)| (Some(event_type), list));
    let mut signing = Vec::new();
    for (event_type, list) in source.secret.iter().map(|list| (None, list)).chain(by_type) {
        let texts = list.value.as_slice();
        for (index, text) in texts.iter().enumerate() {
            let event_type = event_type.cloned();
            let place = Place { event_type, number: index + 1, of: texts.len() };
            signing.push((place, expand(list, text, env)?));
        }
    }
    let authorization = source.authorization.as_ref();
    let authorization = authorization.map(|value| expand(value, &value.value, env)).transpose()?;
    Ok(Secrets { signing, authorization })
}

fn expand<T>(place: &At<T>, text: &str, env: Env) -> Result<SecretString, Vec<Diagnostic>> {
    let problem = |error: secret::Error| file::at(place.referenced, error.to_string());
    secret::expand(text, env).map_err(|error| vec![Diagnostic { secret: true, ..problem(error) }])
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
brokers: {}
routes: []
"#;

    fn read(source: &str) -> (Vec<(String, String)>, Option<String>) {
        let env = |name: &str| (name == "A").then(|| "alpha".to_owned());
        let read = secrets("routes.yaml", FILE, source, &env).unwrap();
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        let signing = read.signing.iter().map(|(place, secret)| (place.to_string(), text(secret)));
        (signing.collect(), read.authorization.as_ref().map(text))
    }

    #[test]
    fn every_secret_is_named_by_its_place() {
        let list = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(place, text)| (place.to_string(), text.to_string())).collect()
        };
        assert_eq!(read("one"), (list(&[("the secret", "plain")]), None));
        assert_eq!(
            read("two"),
            (list(&[("secret 1 of 2", "alpha"), ("secret 2 of 2", "b")]), None)
        );
        let three = list(&[
            ("the secret of `*`", "rest"),
            ("secret 1 of 2 of `agent.message`", "new"),
            ("secret 2 of 2 of `agent.message`", "alpha"),
        ]);
        assert_eq!(read("three"), (three, Some("Bearer alpha".to_owned())));
        assert_eq!(read("none"), (vec![], None));
        assert!(secrets("routes.yaml", FILE, "two", &|_| None).is_err());
    }
}
