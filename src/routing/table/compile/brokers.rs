//! `brokers:`, each with what its client needs to connect.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Compiler, Reported};
use crate::routing::{
    BrokerKind, BrokerSettings, UNROUTED,
    file::{self, At},
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
            Type::Kafka => &["bootstrap"],
            Type::RabbitMq | Type::Nats => &["url"],
            Type::Log => &["dir", "rotate_bytes", "keep"],
        }
    }
}

type Brokers = BTreeMap<String, At<file::Broker>>;

impl Compiler<'_> {
    pub(super) fn brokers(&mut self, brokers: &Brokers) -> Vec<BrokerSettings> {
        let mut compiled: Vec<BrokerSettings> = Vec::new();
        for (name, broker) in brokers {
            let Ok(kind) = self.broker(name, broker) else { continue };
            match compiled.iter().find(|other| share_files(&other.kind, &kind)) {
                Some(other) => {
                    let message =
                        format!("needs a `dir:` of its own: `{}` has this one", other.name);
                    self.report(broker, message);
                }
                None => compiled.push(BrokerSettings { name: name.as_str().into(), kind }),
            }
        }
        compiled
    }

    fn broker(&mut self, name: &str, broker: &At<file::Broker>) -> Result<BrokerKind, Reported> {
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
            Type::Kafka => {
                let servers = self.needed(broker, "bootstrap", &fields.bootstrap)?;
                BrokerKind::Kafka { bootstrap: servers.expose_secret().to_owned() }
            }
            Type::RabbitMq => BrokerKind::RabbitMq { url: self.url(broker, "amqp://")? },
            Type::Nats => BrokerKind::Nats { url: self.url(broker, "nats://")? },
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

    fn needed(
        &mut self,
        broker: &At<file::Broker>,
        name: &str,
        value: &Option<At<String>>,
    ) -> Result<SecretString, Reported> {
        let Some(value) = value else {
            let message = format!("a {} broker needs `{name}:`", broker.value.r#type.value);
            return Err(self.report(broker, message));
        };
        let text = self.expand(value, &value.value)?;
        if text.expose_secret().is_empty() {
            return Err(self.report(value, format!("`{name}:` is empty")));
        }
        Ok(text)
    }

    fn url(&mut self, broker: &At<file::Broker>, begin: &str) -> Result<SecretString, Reported> {
        let url = self.needed(broker, "url", &broker.value.url)?;
        if url.expose_secret().starts_with(begin) {
            return Ok(url);
        }
        Err(self.report(broker, format!("the URL must begin with `{begin}`")))
    }
}

fn share_files(one: &BrokerKind, other: &BrokerKind) -> bool {
    match (one, other) {
        (BrokerKind::Log { dir: one, .. }, BrokerKind::Log { dir: other, .. }) => one == other,
        _ => false,
    }
}
