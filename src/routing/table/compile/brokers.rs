//! `brokers:`, each with what its client needs to connect.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Compiler, Reported};
use crate::{
    broker::{kafka, nats, rabbitmq},
    routing::{
        BrokerKind, BrokerSettings, UNROUTED,
        file::{self, At},
    },
};

/// A broker's type, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Kafka,
    RabbitMq,
    Nats,
    Log,
}

impl Type {
    pub(super) fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "kafka" => Type::Kafka,
            "rabbitmq" => Type::RabbitMq,
            "nats" => Type::Nats,
            "log" => Type::Log,
            _ => return None,
        })
    }

    fn settings(self) -> &'static [&'static str] {
        match self {
            Type::Kafka => &["bootstrap", "tls", "sasl"],
            Type::RabbitMq => &["url", "tls", "user", "password"],
            Type::Nats => {
                &["url", "tls", "tls_first", "user", "password", "token", "nkey", "creds"]
            }
            Type::Log => &["dir", "rotate_bytes", "keep"],
        }
    }
}

type Broker = At<file::Broker>;
type Brokers = BTreeMap<String, Broker>;

impl Compiler<'_> {
    pub(super) fn brokers(&mut self, brokers: &Brokers) -> Vec<BrokerSettings> {
        let mut compiled: Vec<BrokerSettings> = Vec::new();
        for (name, broker) in brokers {
            let policy = self.policy(&broker.value);
            let Ok(kind) = self.broker(name, broker) else { continue };
            let Ok(policy) = policy else { continue };
            match compiled.iter().find(|other| share_files(&other.kind, &kind)) {
                Some(other) => {
                    let message =
                        format!("needs a `dir:` of its own: `{}` has this one", other.name);
                    self.report(broker, message);
                }
                None => {
                    compiled.push(BrokerSettings { name: name.as_str().into(), kind, policy });
                }
            }
        }
        compiled
    }

    fn broker(&mut self, name: &str, broker: &Broker) -> Result<BrokerKind, Reported> {
        self.name("broker", name, broker)?;
        if name == UNROUTED {
            let message = format!("`{UNROUTED}` is the name of a built-in broker");
            return Err(self.report(broker, message));
        }
        let fields = &broker.value;
        let type_name = &fields.r#type.value;
        let Some(kind) = Type::parse(type_name) else {
            let message = format!(
                "unknown broker type `{type_name}`; known are kafka, rabbitmq, nats and log"
            );
            return Err(self.report(&fields.r#type, message));
        };
        self.only(type_name, fields.given(), kind.settings())?;
        Ok(match kind {
            Type::Kafka => BrokerKind::Kafka(self.kafka(name, broker)?),
            Type::RabbitMq => BrokerKind::RabbitMq(self.rabbitmq(broker)?),
            Type::Nats => BrokerKind::Nats(self.nats(name, broker)?),
            Type::Log => {
                let dir =
                    fields.dir.as_ref().map(|dir| self.expand(dir, &dir.value)).transpose()?;
                BrokerKind::Log {
                    dir: dir.map(|dir| PathBuf::from(dir.expose_secret())),
                    rotate_bytes: fields.rotate_bytes.as_ref().map(|bytes| bytes.value),
                    keep: fields.keep.as_ref().map(|keep| keep.value),
                }
            }
        })
    }

    // Each looks at every part before it gives up on one, so that all problems are reported.

    fn kafka(&mut self, name: &str, broker: &Broker) -> Result<kafka::Settings, Reported> {
        let bootstrap = self.needed(broker, "bootstrap", &broker.value.bootstrap);
        let (tls, sasl) = (self.tls(broker), self.sasl(broker));
        let (place, bootstrap) = bootstrap?;
        let settings = kafka::Settings {
            bootstrap: bootstrap.expose_secret().to_owned(),
            client_id: client_name(name),
            tls: tls?,
            sasl: sasl?,
        };
        settings.check().map_err(|error| self.report(place, error))?;
        Ok(settings)
    }

    fn rabbitmq(&mut self, broker: &Broker) -> Result<rabbitmq::Settings, Reported> {
        let url = self.url(broker, ["amqp://", "amqps://"]);
        let (tls, login) = (self.tls(broker), self.rabbitmq_login(broker));
        let (place, url) = url?;
        let settings = rabbitmq::Settings { url, login: login?, tls: tls? };
        settings.check().map_err(|error| self.report(place, error))?;
        Ok(settings)
    }

    fn nats(&mut self, name: &str, broker: &Broker) -> Result<nats::Settings, Reported> {
        let url = self.url(broker, ["nats://", "tls://"]);
        let (tls, login) = (self.tls(broker), self.nats_login(broker));
        let (place, url) = url?;
        let settings = nats::Settings {
            url,
            client_name: client_name(name),
            login: login?,
            tls: tls?,
            tls_first: broker.value.tls_first.as_ref().is_some_and(|first| first.value),
        };
        settings.check().map_err(|error| self.report(place, error))?;
        Ok(settings)
    }

    /// A setting that the type cannot do without, and its place.
    fn needed<'b>(
        &mut self,
        broker: &'b Broker,
        name: &str,
        value: &'b Option<At<String>>,
    ) -> Result<(&'b At<String>, SecretString), Reported> {
        let Some(value) = value else {
            let message = format!("a {} broker needs `{name}:`", broker.value.r#type.value);
            return Err(self.report(broker, message));
        };
        Ok((value, self.filled(name, value)?))
    }

    /// A setting's text, which may not be empty.
    pub(super) fn filled(
        &mut self,
        name: &str,
        value: &At<String>,
    ) -> Result<SecretString, Reported> {
        let text = self.expand(value, &value.value)?;
        if text.expose_secret().is_empty() {
            return Err(self.report(value, format!("`{name}:` is empty")));
        }
        Ok(text)
    }

    fn url<'b>(
        &mut self,
        broker: &'b Broker,
        begins: [&str; 2],
    ) -> Result<(&'b At<String>, SecretString), Reported> {
        let (place, url) = self.needed(broker, "url", &broker.value.url)?;
        if begins.iter().any(|begin| url.expose_secret().starts_with(begin)) {
            return Ok((place, url));
        }
        let [plain, secure] = begins;
        Err(self.report(place, format!("the URL must begin with `{plain}` or `{secure}`")))
    }
}

/// The name under which a broker lists our connection.
fn client_name(broker: &str) -> String {
    format!("waypost-{broker}")
}

fn share_files(one: &BrokerKind, other: &BrokerKind) -> bool {
    match (one, other) {
        (BrokerKind::Log { dir: one, .. }, BrokerKind::Log { dir: other, .. }) => one == other,
        _ => false,
    }
}
