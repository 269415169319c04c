//! `brokers:`, each with what its client needs to connect.

use std::{collections::BTreeMap, path::PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{Compiler, Skipped};
use crate::{
    broker::{kafka, nats, rabbitmq},
    routing::{
        BrokerKind, BrokerSettings, UNROUTED,
        diagnostic::Code,
        file::{
            Place,
            mirror::{Broker as Given, Kafka, Log, Nats, RabbitMq},
        },
    },
};

impl Compiler<'_> {
    pub(super) fn brokers(
        &mut self,
        given: &BTreeMap<String, Given>,
        place: Place,
    ) -> Vec<BrokerSettings> {
        let mut compiled: Vec<BrokerSettings> = Vec::new();
        for (name, place) in place.entries() {
            let Some(given) = given.get(name) else { continue };
            let named = self.broker_name(name, place);
            let kind = self.broker(name, given, place);
            let policy = self.policy(given.common(), place);
            let (Ok(()), Ok(kind), Ok(policy)) = (named, kind, policy) else { continue };
            match compiled.iter().find(|other| share_files(&other.kind, &kind)) {
                Some(other) => {
                    let message =
                        format!("this `log` broker has the directory of `{}`", other.name);
                    let help = "give it a `dir:` of its own: two writers would garble its files";
                    self.advise(Code::SharedDirectory, place.key("dir").span(), message, help);
                }
                None => compiled.push(BrokerSettings { name: name.into(), kind, policy }),
            }
        }
        compiled.sort_by(|one, other| one.name.cmp(&other.name));
        compiled
    }

    fn broker_name(&mut self, name: &str, place: Place) -> Result<(), Skipped> {
        if name == UNROUTED {
            let message = format!("`{UNROUTED}` is the name of a built-in broker");
            return Err(self.advise(
                Code::InvalidName,
                place.at_key(),
                message,
                "it keeps what no route takes: choose another name",
            ));
        }
        self.name("broker", name, place)
    }

    fn broker(&mut self, name: &str, given: &Given, place: Place) -> Result<BrokerKind, Skipped> {
        Ok(match given {
            Given::Kafka(given) => BrokerKind::Kafka(self.kafka(name, given, place)?),
            Given::RabbitMq(given) => BrokerKind::RabbitMq(self.rabbitmq(given, place)?),
            Given::Nats(given) => BrokerKind::Nats(self.nats(name, given, place)?),
            Given::Log(given) => self.log(given, place)?,
        })
    }

    // Each looks at every part before it gives up on one, so that all problems are reported.

    fn kafka(
        &mut self,
        name: &str,
        given: &Kafka,
        place: Place,
    ) -> Result<kafka::Settings, Skipped> {
        let at = place.key("bootstrap");
        let bootstrap = self.filled("bootstrap", at, &given.bootstrap);
        let (tls, sasl) = (self.tls(&given.tls, place), self.sasl(&given.sasl, place));
        let settings = kafka::Settings {
            bootstrap: bootstrap?.expose_secret().to_owned(),
            client_id: client_name(name),
            tls: tls?,
            sasl: sasl?,
        };
        settings.check().map_err(|error| self.report(Code::InvalidValue, at.span(), error))?;
        Ok(settings)
    }

    fn rabbitmq(&mut self, given: &RabbitMq, place: Place) -> Result<rabbitmq::Settings, Skipped> {
        let at = place.key("url");
        let url = self.url(&given.url, at, ["amqp://", "amqps://"]);
        let tls = self.tls(&given.tls, place);
        let login = self.user_and_password(&given.user, &given.password, place);
        let login = login?.map(|(user, password)| rabbitmq::Login { user, password });
        let settings = rabbitmq::Settings { url: url?, login, tls: tls? };
        settings.check().map_err(|error| self.report(Code::InvalidValue, at.span(), error))?;
        Ok(settings)
    }

    fn nats(&mut self, name: &str, given: &Nats, place: Place) -> Result<nats::Settings, Skipped> {
        let at = place.key("url");
        let url = self.url(&given.url, at, ["nats://", "tls://"]);
        let (tls, login) = (self.tls(&given.tls, place), self.nats_login(given, place));
        let settings = nats::Settings {
            url: url?,
            client_name: client_name(name),
            login: login?,
            tls: tls?,
            tls_first: given.tls_first.unwrap_or(false),
        };
        settings.check().map_err(|error| self.report(Code::InvalidValue, at.span(), error))?;
        Ok(settings)
    }

    fn log(&mut self, given: &Log, place: Place) -> Result<BrokerKind, Skipped> {
        let dir = given.dir.as_ref().map(|dir| self.filled("dir", place.key("dir"), dir));
        Ok(BrokerKind::Log {
            dir: dir.transpose()?.map(|dir| PathBuf::from(dir.expose_secret())),
            rotate_bytes: given.rotate_bytes,
            keep: given.keep.map(|keep| keep as usize),
        })
    }

    fn url(
        &mut self,
        text: &str,
        place: Place,
        begins: [&str; 2],
    ) -> Result<SecretString, Skipped> {
        let url = self.filled("url", place, text)?;
        if begins.iter().any(|begin| url.expose_secret().starts_with(begin)) {
            return Ok(url);
        }
        // What is not looked at may begin as it should.
        if self.is_unseen(text) && text.starts_with("${") {
            return Err(Skipped);
        }
        let [plain, secure] = begins;
        let message = format!("the URL must begin with `{plain}` or `{secure}`");
        Err(self.report(Code::InvalidValue, place.span(), message))
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
