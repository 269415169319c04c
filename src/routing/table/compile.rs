//! From the file's mirror to a table; every problem of the file is reported, not only the first.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret, SecretString};

use super::{AddressTemplate, BrokerKind, BrokerSettings, Route, Table, Target, UNROUTED};
use crate::{
    body::Paths,
    routing::{
        address::Rule,
        diagnostic::Diagnostic,
        file::{self, At, File, OneOrMany, at},
        path::Path,
        pattern::Pattern,
        template::Template,
    },
    secret::{self, Env},
    signature::{self, EmptySecret, Key},
    source::{Miibo, Provider, Sonzai, Source},
};

/// Longest name of a source or broker, in bytes: it names files and stands in every message.
const MAX_NAME_BYTES: usize = 64;

/// Compiles a parsed file.
pub fn compile(file: &File, env: Env) -> Result<Table, Vec<Diagnostic>> {
    let mut compiler = Compiler { env, problems: Vec::new(), paths: Paths::default() };
    let sources = compiler.sources(&file.sources);
    let brokers = compiler.brokers(&file.brokers);
    let routes = compiler.routes(&file.routes, file);
    let Compiler { problems, paths, .. } = compiler;
    if problems.is_empty() { Ok(Table { sources, brokers, routes, paths }) } else { Err(problems) }
}

/// A value that could not be compiled; its problem is on the list already.
struct Reported;

struct Compiler<'e> {
    env: Env<'e>,
    problems: Vec<Diagnostic>,
    paths: Paths,
}

impl Compiler<'_> {
    fn report<T, V>(&mut self, place: &At<T>, message: impl ToString) -> Result<V, Reported> {
        self.problems.push(at(place.referenced, message.to_string()));
        Err(Reported)
    }

    fn sources(
        &mut self,
        sources: &BTreeMap<String, At<file::Source>>,
    ) -> Vec<(Path, Arc<Source>)> {
        let mut compiled: Vec<(Path, Arc<Source>)> = Vec::new();
        for (name, source) in sources {
            let Ok((path, provider)) = self.source(name, source) else { continue };
            if let Some((_, other)) = compiled.iter().find(|(other, _)| other.overlaps(&path)) {
                let message = format!("the path overlaps that of source `{}`", other.name);
                let _: Result<(), _> = self.report(&source.value.path, message);
                continue;
            }
            compiled.push((path, Arc::new(Source { name: name.as_str().into(), provider })));
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
        let path = match Path::parse(&fields.path.value) {
            Ok(path) => path,
            Err(why) => return self.report(&fields.path, why),
        };
        let provider = match fields.r#type.value.as_str() {
            "sonzai" => {
                self.only_for("sonzai", "secret", &fields.secret)?;
                Provider::Sonzai(self.sonzai(source)?)
            }
            "miibo" => {
                self.only_for("miibo", "secrets", &fields.secrets)?;
                self.only_for("miibo", "authorization", &fields.authorization)?;
                if path.has_type() {
                    return self.report(&fields.path, "a miibo source's path has no {type}");
                }
                Provider::Miibo(self.miibo(source)?)
            }
            other => {
                let message = format!("unknown source type `{other}`; known are sonzai and miibo");
                return self.report(&fields.r#type, message);
            }
        };
        Ok((path, provider))
    }

    fn sonzai(&mut self, source: &At<file::Source>) -> Result<Sonzai, Reported> {
        let fields = &source.value;
        let authorization = match &fields.authorization {
            Some(value) => Some(self.expand(value, &value.value)?),
            None => None,
        };
        if authorization.as_ref().is_some_and(|value| value.expose_secret().is_empty()) {
            return self.report(source, "`authorization:` is empty");
        }
        let Some(secrets) = fields.secrets.as_ref().filter(|secrets| !secrets.value.is_empty())
        else {
            let message = "a sonzai source needs `secrets:`, one per event type, `\"*\"` for the \
                           rest";
            return self.report(source, message);
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
            None => self.report(source, "a miibo source needs `secret:`"),
        }
    }

    fn keys(
        &mut self,
        secrets: &At<OneOrMany>,
        key: fn(&str) -> Result<Key, EmptySecret>,
    ) -> Result<Vec<Key>, Reported> {
        if secrets.value.as_slice().is_empty() {
            return self.report(secrets, EmptySecret);
        }
        let mut keys = Vec::new();
        for text in secrets.value.as_slice() {
            let secret = self.expand(secrets, text)?;
            match key(secret.expose_secret()) {
                Ok(key) => keys.push(key),
                Err(empty) => return self.report(secrets, empty),
            }
        }
        Ok(keys)
    }

    fn expand<T>(&mut self, place: &At<T>, text: &str) -> Result<SecretString, Reported> {
        secret::expand(text, self.env).or_else(|error| self.report(place, error))
    }

    fn brokers(&mut self, brokers: &BTreeMap<String, At<file::Broker>>) -> Vec<BrokerSettings> {
        let mut compiled: Vec<BrokerSettings> = Vec::new();
        for (name, broker) in brokers {
            let Ok(kind) = self.broker(name, broker) else { continue };
            let shares_files = |other: &BrokerSettings| match (&other.kind, &kind) {
                (BrokerKind::Log { dir: other, .. }, BrokerKind::Log { dir, .. }) => other == dir,
                _ => false,
            };
            if let Some(other) = compiled.iter().find(|other| shares_files(other)) {
                let message = format!("needs a `dir:` of its own: `{}` has this one", other.name);
                let _: Result<(), _> = self.report(broker, message);
                continue;
            }
            compiled.push(BrokerSettings { name: name.as_str().into(), kind });
        }
        compiled
    }

    fn broker(&mut self, name: &str, broker: &At<file::Broker>) -> Result<BrokerKind, Reported> {
        self.name("broker", name, broker)?;
        if name == UNROUTED {
            return self.report(broker, format!("`{UNROUTED}` is the name of a built-in broker"));
        }
        let fields = &broker.value;
        let kind = fields.r#type.value.as_str();
        let (bootstrap, url, dir) = (&fields.bootstrap, &fields.url, &fields.dir);
        if kind != "kafka" {
            self.only_for(kind, "bootstrap", bootstrap)?;
        }
        if kind != "rabbitmq" && kind != "nats" {
            self.only_for(kind, "url", url)?;
        }
        if kind != "log" {
            self.only_for(kind, "dir", dir)?;
            self.only_for(kind, "rotate_bytes", &fields.rotate_bytes)?;
            self.only_for(kind, "keep", &fields.keep)?;
        }
        match kind {
            "kafka" => {
                let servers = self.setting(broker, "bootstrap", bootstrap)?;
                Ok(BrokerKind::Kafka { bootstrap: servers.expose_secret().to_owned() })
            }
            "rabbitmq" => Ok(BrokerKind::RabbitMq { url: self.url(broker, url, &["amqp"])? }),
            "nats" => Ok(BrokerKind::Nats { url: self.url(broker, url, &["nats"])? }),
            "log" => {
                let dir = match dir {
                    Some(dir) => Some(self.expand(dir, &dir.value)?),
                    None => None,
                };
                Ok(BrokerKind::Log {
                    dir: dir.map(|dir| PathBuf::from(dir.expose_secret())),
                    rotate_bytes: fields.rotate_bytes.as_ref().map(|bytes| bytes.value),
                    keep: fields.keep.as_ref().map(|keep| keep.value),
                })
            }
            other => {
                let message = format!(
                    "unknown broker type `{other}`; known are kafka, rabbitmq, nats and log"
                );
                self.report(&fields.r#type, message)
            }
        }
    }

    fn setting(
        &mut self,
        broker: &At<file::Broker>,
        name: &str,
        value: &Option<At<String>>,
    ) -> Result<SecretString, Reported> {
        let kind = &broker.value.r#type.value;
        match value {
            None => self.report(broker, format!("a {kind} broker needs `{name}:`")),
            Some(value) => {
                let text = self.expand(value, &value.value)?;
                if text.expose_secret().is_empty() {
                    return self.report(value, format!("`{name}:` is empty"));
                }
                Ok(text)
            }
        }
    }

    fn url(
        &mut self,
        broker: &At<file::Broker>,
        url: &Option<At<String>>,
        schemes: &[&str],
    ) -> Result<SecretString, Reported> {
        let text = self.setting(broker, "url", url)?;
        let scheme = text.expose_secret().split_once("://").map(|(scheme, _)| scheme);
        if !scheme.is_some_and(|scheme| schemes.contains(&scheme)) {
            let message = format!("the URL must begin with `{}://`", schemes.join("://` or `"));
            return self.report(broker, message);
        }
        Ok(text)
    }

    fn routes(&mut self, routes: &[At<file::Route>], file: &File) -> Vec<Route> {
        let mut compiled: Vec<Route> = Vec::new();
        for route in routes {
            let name = &route.value.name;
            if compiled.iter().any(|other| *other.name == *name.value) {
                let _: Result<(), _> = self.report(name, "two routes have this name");
            }
            if let Ok(route) = self.route(&route.value, file) {
                compiled.push(route);
            }
        }
        compiled
    }

    fn route(&mut self, route: &file::Route, file: &File) -> Result<Route, Reported> {
        let rule = &route.r#match.value;
        if rule.source.is_none() && rule.r#type.is_none() && !rule.otherwise {
            let message = "`match:` needs `source:`, `type:` or `otherwise: true`; `type: \"**\"` \
                           takes everything";
            return self.report(&route.r#match, message);
        }
        if route.to.value.is_empty() {
            return self.report(&route.to, "`to:` has no target");
        }
        let targets = route.to.value.iter().map(|target| self.target(target, file)).collect();
        let targets: Vec<Result<Target, Reported>> = targets;
        Ok(Route {
            name: route.name.value.as_str().into(),
            sources: patterns(&rule.source),
            types: patterns(&rule.r#type),
            otherwise: rule.otherwise,
            targets: targets.into_iter().collect::<Result<_, _>>()?,
        })
    }

    fn target(&mut self, target: &At<file::Target>, file: &File) -> Result<Target, Reported> {
        let fields = &target.value;
        let name = &fields.broker.value;
        let Some(broker) = file.brokers.get(name) else {
            let known: Vec<&str> = file.brokers.keys().map(String::as_str).collect();
            let message = format!("no broker is named `{name}`; there are {}", known.join(", "));
            return self.report(&fields.broker, message);
        };
        let kind = broker.value.r#type.value.as_str();
        if !matches!(kind, "kafka" | "log") {
            self.only_for(kind, "topic", &fields.topic)?;
        }
        if kind != "kafka" {
            self.only_for(kind, "key", &fields.key)?;
        }
        if kind != "rabbitmq" {
            self.only_for(kind, "exchange", &fields.exchange)?;
            self.only_for(kind, "routing_key", &fields.routing_key)?;
        }
        if kind != "nats" {
            self.only_for(kind, "subject", &fields.subject)?;
        }
        let address = match kind {
            "rabbitmq" => AddressTemplate::Exchange {
                exchange: self.template(target, "exchange", &fields.exchange, Rule::AmqpName)?,
                routing_key: self.template(
                    target,
                    "routing_key",
                    &fields.routing_key,
                    Rule::AmqpName,
                )?,
            },
            "nats" => AddressTemplate::Subject(self.template(
                target,
                "subject",
                &fields.subject,
                Rule::NatsSubject,
            )?),
            _ => {
                let rule = if kind == "log" { Rule::LogTopic } else { Rule::KafkaTopic };
                let topic = self.template(target, "topic", &fields.topic, rule)?;
                let key = match fields.key {
                    Some(_) => Some(self.template(target, "key", &fields.key, Rule::Key)?),
                    None => None,
                };
                AddressTemplate::Topic { topic, key }
            }
        };
        Ok(Target { broker: name.as_str().into(), address })
    }

    fn template(
        &mut self,
        target: &At<file::Target>,
        name: &str,
        text: &Option<At<String>>,
        rule: Rule,
    ) -> Result<Template, Reported> {
        let Some(text) = text else {
            return self.report(target, format!("this target needs `{name}:`"));
        };
        if secret::has_reference(&text.value) {
            let message =
                format!("a secret may not stand in `{name}:`, which brokers and logs see");
            return self.report(text, message);
        }
        let plain = text.value.replace("$$", "$");
        Template::compile(&plain, rule, &mut self.paths).or_else(|error| self.report(text, error))
    }

    /// Reports a setting that the type at hand does not have.
    fn only_for<T>(
        &mut self,
        kind: &str,
        name: &str,
        value: &Option<At<T>>,
    ) -> Result<(), Reported> {
        match value {
            None => Ok(()),
            Some(value) => self.report(value, format!("`{name}:` is no setting of type {kind}")),
        }
    }

    fn name<T>(&mut self, what: &str, name: &str, place: &At<T>) -> Result<(), Reported> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let good = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(allowed)
            && !name.starts_with('.');
        if good {
            return Ok(());
        }
        let message = format!(
            "the {what} name `{name}` may hold 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` \
             and `.`, and not begin with a dot"
        );
        self.report(place, message)
    }
}

fn patterns(names: &Option<OneOrMany>) -> Vec<Pattern> {
    names.iter().flat_map(OneOrMany::as_slice).map(|name| Pattern::new(name)).collect()
}
