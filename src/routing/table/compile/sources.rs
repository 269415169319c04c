//! `sources:`, each with its path and its keys.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use secrecy::ExposeSecret;

use super::{Compiler, Reported};
use crate::{
    routing::{
        file::{self, At, OneOrMany},
        path::Path,
    },
    signature::{self, EmptySecret},
    source::{Dedupe, MAX_SECRETS, Miibo, Provider, Sonzai, Source, Standard, Unrouted},
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
                    let mut compiled_source = Source::new(name.as_str().into(), provider);
                    let outcome = self.policies(&mut compiled_source, &source.value);
                    compiled.extend(outcome.map(|()| (path, Arc::new(compiled_source))));
                }
            }
        }
        compiled
    }

    /// `dedupe:` and `unrouted:`
    fn policies(&mut self, source: &mut Source, fields: &file::Source) -> Result<(), Reported> {
        if let Some(dedupe) = &fields.dedupe {
            source.dedupe = match dedupe.value.as_str() {
                "id" => Dedupe::Id,
                "body" => Dedupe::Body,
                _ => return Err(self.report(dedupe, "`dedupe:` is `id` or `body`")),
            };
        }
        if let Some(unrouted) = &fields.unrouted {
            source.unrouted = match unrouted.value.as_str() {
                "dead_letter" => Unrouted::DeadLetter,
                "drop" => Unrouted::Drop,
                _ => return Err(self.report(unrouted, "`unrouted:` is `dead_letter` or `drop`")),
            };
        }
        Ok(())
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
                let keys = self.secret_keys(source, signature::miibo::key)?;
                Provider::Miibo(Miibo { keys })
            }
            "standard" => {
                self.only("standard", fields.given(), &["secret"])?;
                let keys = self.secret_keys(source, signature::standard::key)?;
                Provider::Standard(Standard { keys })
            }
            other => {
                let message =
                    format!("unknown source type `{other}`; known are sonzai, miibo and standard");
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

    fn secret_keys<K, E: Display>(
        &mut self,
        source: &At<file::Source>,
        key: fn(&str) -> Result<K, E>,
    ) -> Result<Vec<K>, Reported> {
        let Some(secret) = &source.value.secret else {
            let message = format!("a {} source needs `secret:`", source.value.r#type.value);
            return Err(self.report(source, message));
        };
        self.keys(secret, key)
    }

    fn keys<K, E: Display>(
        &mut self,
        secrets: &At<OneOrMany>,
        key: fn(&str) -> Result<K, E>,
    ) -> Result<Vec<K>, Reported> {
        let texts = secrets.value.as_slice();
        if texts.is_empty() {
            return Err(self.report(secrets, EmptySecret));
        }
        if texts.len() > MAX_SECRETS {
            let message = format!("at most {MAX_SECRETS} secrets can be valid at once");
            return Err(self.report(secrets, message));
        }
        let mut keys = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let secret = self.expand(secrets, text)?;
            keys.push(key(secret.expose_secret()).map_err(|why| match texts {
                [_] => self.report_secret(secrets, why),
                _ => self.report_secret(secrets, format!("secret {}: {why}", index + 1)),
            })?);
        }
        Ok(keys)
    }
}
