//! `sources:`, each with its path and its keys.

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use secrecy::ExposeSecret;

use super::{Compiler, MIN_SECRET_BYTES, Skipped};
use crate::{
    routing::{
        diagnostic::{Code, Diagnostic},
        file::{
            Place,
            mirror::{OneOrMany, SonzaiSource, Source as Given},
        },
        path::Path,
    },
    signature,
    source::{MAX_SECRETS, Miibo, Provider, Sonzai, Source, Standard},
};

type Sources = Vec<(Path, Arc<Source>)>;

impl Compiler<'_> {
    pub(super) fn sources(&mut self, given: &BTreeMap<String, Given>, place: Place) -> Sources {
        let mut paths: Vec<(Path, &str)> = Vec::new();
        let mut compiled = Vec::new();
        for (name, place) in place.entries() {
            let Some(given) = given.get(name) else { continue };
            let named = self.name("source", name, place);
            let path = self.path(given, place.key("path"), &paths);
            let provider = self.provider(given, place);
            if let Ok(path) = &path {
                paths.push((path.clone(), name));
            }
            if let (Ok(()), Ok(path), Ok(provider)) = (named, path, provider) {
                let mut source = Source::new(name.into(), provider);
                source.dedupe = given.common().dedupe.unwrap_or_default();
                source.unrouted = given.common().unrouted.unwrap_or_default();
                compiled.push((path, Arc::new(source)));
            }
        }
        compiled.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        compiled
    }

    fn path(
        &mut self,
        given: &Given,
        place: Place,
        others: &[(Path, &str)],
    ) -> Result<Path, Skipped> {
        let path = Path::parse(&given.common().path);
        let path = path.map_err(|why| self.report(Code::InvalidPath, place.span(), why))?;
        if matches!(given, Given::Miibo(_)) && path.has_type() {
            let message = "a miibo source's path has no {type}";
            let help = "the body says the type: leave the segment out";
            return Err(self.advise(Code::InvalidPath, place.span(), message, help));
        }
        if let Some((_, other)) = others.iter().find(|(other, _)| other.overlaps(&path)) {
            let message = format!("this path overlaps that of source `{other}`");
            let help = "a request would belong to both: give each source a path of its own";
            self.advise(Code::OverlappingPaths, place.span(), message, help);
        }
        Ok(path)
    }

    fn provider(&mut self, given: &Given, place: Place) -> Result<Provider, Skipped> {
        Ok(match given {
            Given::Sonzai(given) => Provider::Sonzai(self.sonzai(given, place)?),
            Given::Miibo(given) => {
                let keys = self.keys(&given.secret, place.key("secret"), signature::miibo::key)?;
                Provider::Miibo(Miibo { keys })
            }
            Given::Standard(given) => {
                let place = place.key("secret");
                let keys = self.keys(&given.secret, place, signature::standard::key)?;
                Provider::Standard(Standard { keys })
            }
        })
    }

    fn sonzai(&mut self, given: &SonzaiSource, place: Place) -> Result<Sonzai, Skipped> {
        let authorization = given.authorization.as_ref().map(|text| {
            let place = place.key("authorization");
            self.filled("authorization", place, text)
        });
        let settings = self.sonzai_settings(given, place);
        self.needs_secrets(given, place)?;
        let place = place.key("secrets");
        // All of them, so that every problem is reported.
        let keys = given.secrets.iter().flatten().map(|(event_type, secrets)| {
            let keys = self.keys(secrets, place.key(event_type), signature::sonzai::key);
            Ok((event_type, keys?))
        });
        let keys: Vec<Result<_, Skipped>> = keys.collect();
        let mut sonzai = Sonzai::new(authorization.transpose()?);
        sonzai.settings = settings?;
        for each in keys {
            let (event_type, keys) = each?;
            sonzai.add_keys(event_type, keys);
        }
        Ok(sonzai)
    }

    /// Whoever has none cannot verify, unless registration brings them; and need not, who polls.
    fn needs_secrets(&mut self, given: &SonzaiSource, source: Place) -> Result<(), Skipped> {
        let place = source.key("secrets");
        match &given.secrets {
            Some(secrets) if !secrets.is_empty() || place.is_cut() => Ok(()),
            _ if given.register.is_some() => Ok(()),
            None if given.poll.is_some() => Ok(()),
            // What is misspelt, or wrong beside it, is reported as that.
            None if source.is_cut() => Err(Skipped),
            None => {
                let message = "a sonzai source needs `secrets:`";
                let help = "the signing secret of each event type, `\"*\"` for all that have none of \
                            their own; or `register:`, which brings them; or `poll:`, where no \
                            webhooks come";
                Err(self.advise(Code::MissingKey, source.at_key(), message, help))
            }
            Some(_) => {
                let message = "`secrets:` is empty: no request could be verified";
                let help =
                    "give one secret per event type, or `\"*\"` for all: `\"*\": ${SONZAI_SECRET}`";
                Err(self.advise(Code::InvalidSecret, place.span(), message, help))
            }
        }
    }

    fn keys<K, E: Display>(
        &mut self,
        given: &OneOrMany,
        place: Place,
        key: fn(&str) -> Result<K, E>,
    ) -> Result<Vec<K>, Skipped> {
        let texts = given.as_slice();
        if texts.is_empty() && !place.is_cut() {
            let message = "the list of secrets is empty: no request could be verified";
            return Err(self.report(Code::InvalidSecret, place.span(), message));
        }
        if texts.len() > MAX_SECRETS {
            let message = format!("at most {MAX_SECRETS} secrets can be valid at once");
            return Err(self.report(Code::InvalidSecret, place.span(), message));
        }
        let keys = texts.iter().enumerate().map(|(index, text)| {
            let place = place.item(index);
            let secret = self.expand(place, text)?;
            if self.is_unseen(text) {
                return Ok(None);
            }
            let key = key(secret.expose_secret())
                .map_err(|why| self.report(Code::InvalidSecret, place.span(), why))?;
            self.doubt_short(secret.expose_secret(), place);
            Ok(Some(key))
        });
        let keys: Vec<Result<Option<K>, Skipped>> = keys.collect();
        keys.into_iter().filter_map(Result::transpose).collect()
    }

    /// Warns of a secret that could be guessed.
    fn doubt_short(&mut self, secret: &str, place: Place) {
        let secret = secret.strip_prefix("whsec_").unwrap_or(secret);
        if self.env.is_none() || secret.starts_with("whpk_") || secret.len() >= MIN_SECRET_BYTES {
            return;
        }
        let message = format!("this secret is shorter than {MIN_SECRET_BYTES} bytes");
        let help = "who guesses it can send events: use a long random one";
        self.problems
            .push(Diagnostic::warning(Code::ShortSecret, place.span(), message).help(help));
    }
}
