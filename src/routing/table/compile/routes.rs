//! `routes:`, each with its patterns and its targets.

use std::collections::HashMap;

use bytestring::ByteString;

use super::{Compiler, Skipped};
use crate::{
    event::{Format, Headers},
    nearest::{listed, nearest},
    routing::{
        address::Rule,
        condition::Condition,
        diagnostic::Code,
        file::{
            File, Place,
            mirror::{self, Broker, Match, OneOrMany},
        },
        header,
        pattern::Pattern,
        table::{AddressTemplate, Matcher, Route, Target},
        template::Template,
    },
    secret,
};

impl Compiler<'_> {
    pub(super) fn routes(&mut self, file: &File, place: Place) -> Vec<Route> {
        let mut lines: HashMap<&str, usize> = HashMap::new();
        let mut compiled = Vec::new();
        for (index, given) in file.routes.iter().enumerate() {
            let place = place.item(index);
            let at = place.key("name").span();
            let name = &*given.name;
            if name.trim().is_empty() {
                self.report(Code::InvalidName, at, "a route needs a name");
            } else if let Some(line) = lines.get(name) {
                let message = format!("another route is named `{name}`");
                let help = format!("it is on line {line}: dead letters tell routes by their names");
                self.advise(Code::DuplicateName, at, message, help);
            } else {
                lines.insert(name, at.line);
            }
            compiled.extend(self.route(given, file, place));
        }
        compiled
    }

    // Looks at every part before it gives up on one, so that all problems are reported.
    fn route(
        &mut self,
        given: &mirror::Route,
        file: &File,
        place: Place,
    ) -> Result<Route, Skipped> {
        let matches = self.matches(&given.r#match, place.key("match"));
        let retry_for = self.given_time(&given.retry, place.key("retry"));
        let condition = given.when.as_ref().map(|when| self.condition(when, place.key("when")));
        let targets = self.targets(&given.to, file, place.key("to"));
        matches?;
        Ok(Route {
            name: given.name.as_str().into(),
            matcher: Matcher {
                sources: patterns(&given.r#match.source),
                types: patterns(&given.r#match.r#type),
                otherwise: given.r#match.otherwise.unwrap_or(false),
            },
            condition: condition.transpose()?,
            retry_for: retry_for?,
            targets: targets?,
            stats: Default::default(),
        })
    }

    fn condition(&mut self, text: &str, place: Place) -> Result<Condition, Skipped> {
        Condition::compile(text, &mut self.paths).map_err(|error| {
            let span = place.within(self.text, text, error.range.clone());
            self.report(Code::InvalidCondition, span, error)
        })
    }

    fn matches(&mut self, given: &Match, place: Place) -> Result<(), Skipped> {
        let says_nothing =
            given.source.is_none() && given.r#type.is_none() && given.otherwise != Some(true);
        if says_nothing && !place.is_cut() {
            let message = "`match:` needs `source:`, `type:` or `otherwise: true`";
            let help = "`type: \"**\"` takes everything";
            return Err(self.advise(Code::InvalidMatch, place.span(), message, help));
        }
        for (name, given) in [("source", &given.source), ("type", &given.r#type)] {
            let place = place.key(name);
            for (index, text) in given.iter().flat_map(OneOrMany::as_slice).enumerate() {
                if text.is_empty() {
                    let message = format!("an empty `{name}:` matches nothing");
                    self.report(Code::InvalidMatch, place.item(index).span(), message);
                }
            }
            if given.as_ref().is_some_and(|given| given.as_slice().is_empty()) && !place.is_cut() {
                let message = format!("the list `{name}:` is empty: nothing matches");
                let help = "leave it out to take any";
                self.advise(Code::InvalidMatch, place.span(), message, help);
            }
        }
        self.known_sources(given, place.key("source"))
    }

    fn known_sources(&mut self, given: &Match, place: Place) -> Result<(), Skipped> {
        let known = self.names("sources");
        let mut outcome = Ok(());
        for (index, name) in given.source.iter().flat_map(OneOrMany::as_slice).enumerate() {
            if !name.is_empty() && !name.contains('*') && !known.contains(&&**name) {
                let span = place.item(index).span();
                let (message, help) = unknown("source", name, &known);
                outcome = Err(self.advise(Code::UnknownSource, span, message, help));
            }
        }
        outcome
    }

    fn targets(
        &mut self,
        given: &[mirror::Target],
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

    fn target(
        &mut self,
        given: &mirror::Target,
        file: &File,
        place: Place,
    ) -> Result<Target, Skipped> {
        let name = &*given.broker;
        let Some(broker) = file.brokers.get(name) else {
            let known = self.names("brokers");
            // A broken broker is reported where it stands.
            if !known.contains(&name) {
                let (message, help) = unknown("broker", name, &known);
                self.advise(Code::UnknownBroker, place.key("broker").span(), message, help);
            }
            return Err(Skipped);
        };
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

    fn format(
        &mut self,
        given: &mirror::Target,
        broker: &Broker,
        place: Place,
    ) -> Result<Format, Skipped> {
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
        given: &mirror::Target,
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

    fn exposes_no_secret(&mut self, name: &str, text: &str, place: Place) -> Result<(), Skipped> {
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
        let others = ["topic", "key", "exchange", "routing_key", "subject"];
        let mut outcome = Ok(());
        for name in others.into_iter().filter(|name| !parts.contains(name)) {
            let value = place.key(name);
            if value.is_given() {
                let message = format!("a {kind} target takes no `{name}:`");
                let help = format!("it takes {}", listed(parts));
                outcome = Err(self.advise(Code::MisplacedKey, value.at_key(), message, help));
            }
        }
        outcome
    }

    fn address(
        &mut self,
        given: &mirror::Target,
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
                AddressTemplate::Topic { topic, key: None }
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
            let span = place.within(self.text, &plain, error.range.clone());
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

/// What to say of a name that there is not.
fn unknown(what: &str, name: &str, known: &[&str]) -> (String, String) {
    let message = match nearest(name, known.iter().copied()) {
        Some(near) => format!("no {what} is named `{name}`; did you mean `{near}`?"),
        None => format!("no {what} is named `{name}`"),
    };
    let help = match known {
        [] => format!("there is no {what} at all: add it to `{what}s:`"),
        [one] => format!("there is {one}"),
        known => format!("there are {}", listed(known)),
    };
    (message, help)
}

pub(super) fn patterns(names: &Option<OneOrMany>) -> Vec<Pattern> {
    names.iter().flat_map(OneOrMany::as_slice).map(|name| Pattern::new(name)).collect()
}
