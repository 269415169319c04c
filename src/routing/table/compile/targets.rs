//! A route's `to:`, each target with its address, its format and its headers.

use bytestring::ByteString;

use super::{Compiler, Skipped};
use crate::{
    event::{Format, Headers},
    nearest::listed,
    routing::{
        address::Rule,
        diagnostic::Code,
        file::{
            File, Place,
            mirror::{Broker, Target as Given},
        },
        header,
        table::{AddressTemplate, Target},
        template::Template,
    },
    secret,
};

impl Compiler<'_> {
    pub(super) fn targets(
        &mut self,
        given: &[Given],
        file: &File,
        place: Place,
    ) -> Result<Vec<Target>, Skipped> {
        if given.is_empty() && !place.is_cut() {
            let message = "`to:` has no target";
            let help = "give at least one: `- { broker: NAME, … }`";
            return Err(self.advise(Code::NoTarget, place.span(), message, help));
        }
        let each = given.iter().enumerate();
        let targets = each.map(|(index, given)| self.target(given, file, place.item(index)));
        let targets: Vec<Result<_, _>> = targets.collect();
        targets.into_iter().collect()
    }

    /// The broker of this name, which stands at `place`.
    pub(super) fn broker_named<'f>(
        &mut self,
        name: &str,
        file: &'f File,
        place: Place,
    ) -> Result<&'f Broker, Skipped> {
        file.brokers.get(name).ok_or_else(|| {
            let known = self.names("brokers");
            // A broken broker is reported where it stands.
            match known.contains(&name) {
                true => Skipped,
                false => self.unknown(Code::UnknownBroker, place.span(), "broker", name, &known),
            }
        })
    }

    fn target(&mut self, given: &Given, file: &File, place: Place) -> Result<Target, Skipped> {
        let name = &*given.broker;
        let broker = self.broker_named(name, file, place.key("broker"))?;
        let only = self.only(broker, place);
        let headers = self.headers(given, broker, place.key("headers"));
        let format = self.format(given, broker, place.key("format"));
        only?;
        Ok(Target {
            broker: name.into(),
            address: self.address(given, broker, place)?,
            format: format?,
            headers: headers?,
        })
    }

    fn format(&mut self, given: &Given, broker: &Broker, place: Place) -> Result<Format, Skipped> {
        match (broker, given.format) {
            (Broker::Log(_), Some(_)) => {
                let message = "a log target takes no `format:`";
                let help = "a log broker always writes CloudEvents documents: leave it out";
                Err(self.advise(Code::MisplacedKey, place.at_key(), message, help))
            }
            (_, format) => Ok(format.unwrap_or_default()),
        }
    }

    fn headers(
        &mut self,
        given: &Given,
        broker: &Broker,
        place: Place,
    ) -> Result<Headers, Skipped> {
        let rule = match broker {
            Broker::Kafka(_) => header::Rule::Kafka,
            Broker::RabbitMq(_) => header::Rule::RabbitMq,
            Broker::Nats(_) => header::Rule::Nats,
            Broker::Log(_) if !place.is_given() => return Ok(Headers::new()),
            Broker::Log(_) => {
                let message = "a log target takes no `headers:`";
                let help = "a log broker writes none: leave it out";
                return Err(self.advise(Code::MisplacedKey, place.at_key(), message, help));
            }
        };
        let given = given.headers.iter().flatten();
        if given.clone().count() > header::MAX_HEADERS {
            let message = format!("a target has at most {} headers", header::MAX_HEADERS);
            return Err(self.report(Code::InvalidValue, place.span(), message));
        }
        let headers: Vec<Result<_, Skipped>> =
            given.map(|(name, value)| self.header(rule, name, value, place.key(name))).collect();
        headers.into_iter().collect()
    }

    fn header(
        &mut self,
        rule: header::Rule,
        name: &str,
        value: &str,
        place: Place,
    ) -> Result<(ByteString, ByteString), Skipped> {
        self.exposes_no_secret("headers", value, place)?;
        rule.check(name, "").map_err(|why| self.report(Code::InvalidName, place.at_key(), why))?;
        rule.check(name, value)
            .map_err(|why| self.report(Code::InvalidValue, place.span(), why))?;
        Ok((name.into(), value.replace("$$", "$").into()))
    }

    pub(super) fn exposes_no_secret(
        &mut self,
        name: &str,
        text: &str,
        place: Place,
    ) -> Result<(), Skipped> {
        if !secret::has_reference(text) {
            return Ok(());
        }
        let message = format!("a secret may not stand in `{name}:`");
        let help = "brokers and logs see it; `$$` is a plain `$`";
        Err(self.advise(Code::ExposedSecret, place.span(), message, help))
    }

    /// Reports every part of an address that the broker at hand has none of.
    fn only(&mut self, broker: &Broker, place: Place) -> Result<(), Skipped> {
        let (kind, parts) = parts(broker);
        let all = ["topic", "key", "exchange", "routing_key", "subject"];
        self.only_parts(&all, parts, place, |name| format!("a {kind} target takes no `{name}:`"))
    }

    /// Reports what is given of all parts that there are and is none of those that are taken here.
    pub(super) fn only_parts(
        &mut self,
        all: &[&str],
        taken: &[&str],
        place: Place,
        message: impl Fn(&str) -> String,
    ) -> Result<(), Skipped> {
        let mut outcome = Ok(());
        for name in all.iter().filter(|name| !taken.contains(name)) {
            let value = place.key(name);
            if value.is_given() {
                let help = format!("it takes {}", listed(taken));
                let misplaced = Code::MisplacedKey;
                outcome = Err(self.advise(misplaced, value.at_key(), message(name), help));
            }
        }
        outcome
    }

    fn address(
        &mut self,
        given: &Given,
        broker: &Broker,
        place: Place,
    ) -> Result<AddressTemplate, Skipped> {
        Ok(match broker {
            Broker::Kafka(_) => {
                let topic = self.part(broker, place, "topic", &given.topic, Rule::KafkaTopic);
                let key = given.key.as_ref();
                let key = key.map(|key| self.template("key", key, place.key("key"), Rule::Key));
                AddressTemplate::Topic { topic: topic?, key: key.transpose()? }
            }
            Broker::Log(_) => {
                let topic = self.part(broker, place, "topic", &given.topic, Rule::LogTopic)?;
                AddressTemplate::LogTopic(topic)
            }
            Broker::RabbitMq(_) => {
                let mut part = |name, text| self.part(broker, place, name, text, Rule::AmqpName);
                let exchange = part("exchange", &given.exchange);
                let routing_key = part("routing_key", &given.routing_key);
                AddressTemplate::Exchange { exchange: exchange?, routing_key: routing_key? }
            }
            Broker::Nats(_) => {
                let subject =
                    self.part(broker, place, "subject", &given.subject, Rule::NatsSubject);
                AddressTemplate::Subject(subject?)
            }
        })
    }

    /// A part of the address that the broker cannot do without.
    fn part(
        &mut self,
        broker: &Broker,
        place: Place,
        name: &str,
        text: &Option<String>,
        rule: Rule,
    ) -> Result<Template, Skipped> {
        if let Some(text) = text {
            return self.template(name, text, place.key(name), rule);
        }
        // What is misspelt is reported as that.
        if place.is_cut() {
            return Err(Skipped);
        }
        let (kind, parts) = parts(broker);
        let message = format!("a {kind} target needs `{name}:`");
        let help = format!("it takes {}", listed(parts));
        Err(self.advise(Code::MissingKey, place.key("broker").at_key(), message, help))
    }

    fn template(
        &mut self,
        name: &str,
        text: &str,
        place: Place,
        rule: Rule,
    ) -> Result<Template, Skipped> {
        self.exposes_no_secret(name, text, place)?;
        let plain = text.replace("$$", "$");
        Template::compile(&plain, rule, &mut self.paths).map_err(|error| {
            let span = self.within(place, &plain, error.range.clone());
            self.report(Code::InvalidTemplate, span, error)
        })
    }
}

/// What a broker's targets are called, and the parts of their addresses.
fn parts(broker: &Broker) -> (&'static str, &'static [&'static str]) {
    match broker {
        Broker::Kafka(_) => ("kafka", &["topic", "key"]),
        Broker::RabbitMq(_) => ("rabbitmq", &["exchange", "routing_key"]),
        Broker::Nats(_) => ("nats", &["subject"]),
        Broker::Log(_) => ("log", &["topic"]),
    }
}
