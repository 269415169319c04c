//! `sources:`, each with its path and its keys.

use std::{collections::BTreeMap, sync::Arc};

use secrecy::ExposeSecret;

use super::{Compiler, Reported};
use crate::{
    routing::{
        file::{self, At, OneOrMany},
        path::Path,
    },
    signature::{self, EmptySecret, Key},
    source::{Miibo, Provider, Sonzai, Source},
};

type Sources = BTreeMap<String, At<file::Source>>;

impl Compiler<'_> {
    pub(super) fn sources(&mut self, sources: &Sources) -> Vec<(Path, Arc<Source>)> {
        let mut compiled: Vec<(Path, Arc<Source>)> = Vec::new();
        for (name, source) in sources {
            let Ok((path, provider)) = self.source(name, source) else { continue };
            match compiled.iter().find(|(other, _)| other.overlaps(&path)) {
                Some((_, other)) => {
                    let message = format!("the path overlaps that of source `{}`", other.name);
                    self.report(&source.value.path, message);
                }
                None => {
                    let name = name.as_str().into();
                    compiled.push((path, Arc::new(Source { name, provider })));
                }
            }
        }
        compiled
    }

    fn source(
        &mut self,
        name: &str,
        source: &At<file::Source>,
    ) -> Result<(Path, Provider), Reported> {
        self.name("source", name, source)?;
        let fields = &source.value;
        let path = Path::parse(&fields.path.value).map_err(|why| self.report(&fields.path, why))?;
        let provider = match fields.r#type.value.as_str() {
            "sonzai" => {
                self.only("sonzai", fields.given(), &["secrets", "authorization"])?;
                Provider::Sonzai(self.sonzai(source)?)
            }
            "miibo" => {
                self.only("miibo", fields.given(), &["secret"])?;
                if path.has_type() {
                    return Err(self.report(&fields.path, "a miibo source's path has no {type}"));
                }
                Provider::Miibo(self.miibo(source)?)
            }
            other => {
                let message = format!("unknown source type `{other}`; known are sonzai and miibo");
                return Err(self.report(&fields.r#type, message));
            }
        };
        Ok((path, provider))
    }

    fn sonzai(&mut self, source: &At<file::Source>) -> Result<Sonzai, Reported> {
        let fields = &source.value;
        let mut authorization = None;
        if let Some(value) = &fields.authorization {
            let expected = self.expand(value, &value.value)?;
            if expected.expose_secret().is_empty() {
                return Err(self.report(value, "`authorization:` is empty"));
            }
            authorization = Some(expected);
        }
        let Some(secrets) = fields.secrets.as_ref().filter(|secrets| !secrets.value.is_empty())
        else {
            let message = "a sonzai source needs `secrets:`, one per event type, `\"*\"` for the \
                           rest";
            return Err(self.report(source, message));
        };
        let mut sonzai = Sonzai::new(authorization);
        for (event_type, secret) in &secrets.value {
            sonzai.add_keys(event_type, self.keys(secret, signature::sonzai::key)?);
        }
        Ok(sonzai)
    }

    fn miibo(&mut self, source: &At<file::Source>) -> Result<Miibo, Reported> {
        match &source.value.secret {
            Some(secret) => Ok(Miibo { keys: self.keys(secret, signature::miibo::key)? }),
            None => Err(self.report(source, "a miibo source needs `secret:`")),
        }
    }

    fn keys(
        &mut self,
        secrets: &At<OneOrMany>,
        key: fn(&str) -> Result<Key, EmptySecret>,
    ) -> Result<Vec<Key>, Reported> {
        if secrets.value.as_slice().is_empty() {
            return Err(self.report(secrets, EmptySecret));
        }
        let mut keys = Vec::new();
        for text in secrets.value.as_slice() {
            let secret = self.expand(secrets, text)?;
            keys.push(key(secret.expose_secret()).map_err(|empty| self.report(secrets, empty))?);
        }
        Ok(keys)
    }
}
