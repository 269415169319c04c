//! `routes:`, each with its patterns and its targets.

use super::{Compiler, Reported, brokers::Type};
use crate::{
    event::{Format, Headers},
    routing::{
        address::Rule,
        condition::Condition,
        file::{self, At, File, OneOrMany},
        header,
        pattern::Pattern,
        table::{AddressTemplate, Matcher, Route, Target},
        template::Template,
    },
    secret,
};

impl Compiler<'_> {
    pub(super) fn routes(&mut self, routes: &[At<file::Route>], file: &File) -> Vec<Route> {
        let mut compiled: Vec<Route> = Vec::new();
        for route in routes {
            let name = &route.value.name;
            if name.value.trim().is_empty() {
                self.report(name, "a route needs a name");
            } else if compiled.iter().any(|other| *other.name == *name.value) {
                self.report(name, "two routes have this name");
            }
            compiled.extend(self.route(&route.value, file));
        }
        compiled
    }

    fn route(&mut self, route: &file::Route, file: &File) -> Result<Route, Reported> {
        let rule = &route.r#match.value;
        if rule.source.is_none() && rule.r#type.is_none() && !rule.otherwise {
            let message = "`match:` needs `source:`, `type:` or `otherwise: true`; `type: \"**\"` \
                           takes everything";
            return Err(self.report(&route.r#match, message));
        }
        let given = [("source", &rule.source), ("type", &rule.r#type)];
        if let Some((name, _)) = given.iter().find(|(_, names)| is_empty_list(names)) {
            return Err(self.report(&route.r#match, format!("`{name}:` is empty: nothing matches")));
        }
        let known = |name: &String| name.contains('*') || file.sources.contains_key(name);
        let sources = rule.source.iter().flat_map(OneOrMany::as_slice);
        if let Some(name) = sources.clone().find(|name| !known(name)) {
            let known: Vec<&str> = file.sources.keys().map(String::as_str).collect();
            let message = format!("no source is named `{name}`; there are {}", known.join(", "));
            return Err(self.report(&route.r#match, message));
        }
        if route.to.value.is_empty() {
            return Err(self.report(&route.to, "`to:` has no target"));
        }
        // All of them, so that every problem is reported.
        let targets: Vec<_> = route.to.value.iter().map(|to| self.target(to, file)).collect();
        let condition = route.when.as_ref().map(|when| {
            let compiled = Condition::compile(&when.value, &mut self.paths);
            compiled.map_err(|error| self.report(when, format!("`when:`: {error}")))
        });
        Ok(Route {
            name: route.name.value.as_str().into(),
            matcher: Matcher {
                sources: patterns(&rule.source),
                types: patterns(&rule.r#type),
                otherwise: rule.otherwise,
            },
            condition: condition.transpose()?,
            targets: targets.into_iter().collect::<Result<_, _>>()?,
            stats: Default::default(),
        })
    }

    fn target(&mut self, target: &At<file::Target>, file: &File) -> Result<Target, Reported> {
        let fields = &target.value;
        let name = &fields.broker.value;
        let Some(broker) = file.brokers.get(name) else {
            let known: Vec<&str> = file.brokers.keys().map(String::as_str).collect();
            let message = format!("no broker is named `{name}`; there are {}", known.join(", "));
            return Err(self.report(&fields.broker, message));
        };
        let type_name = &broker.value.r#type.value;
        // An unknown type is reported where the broker stands.
        let kind = Type::parse(type_name).ok_or(Reported)?;
        let parts: &[&str] = match kind {
            Type::Kafka => &["topic", "key"],
            Type::RabbitMq => &["exchange", "routing_key"],
            Type::Nats => &["subject"],
            Type::Log => &["topic"],
        };
        self.only(type_name, fields.given(), parts)?;
        let address = match kind {
            Type::Kafka => AddressTemplate::Topic {
                topic: self.needed_part(target, "topic", &fields.topic, Rule::KafkaTopic)?,
                key: match &fields.key {
                    Some(key) => Some(self.part("key", key, Rule::Key)?),
                    None => None,
                },
            },
            Type::Log => AddressTemplate::Topic {
                topic: self.needed_part(target, "topic", &fields.topic, Rule::LogTopic)?,
                key: None,
            },
            Type::RabbitMq => {
                let mut part = |name, text| self.needed_part(target, name, text, Rule::AmqpName);
                AddressTemplate::Exchange {
                    exchange: part("exchange", &fields.exchange)?,
                    routing_key: part("routing_key", &fields.routing_key)?,
                }
            }
            Type::Nats => AddressTemplate::Subject(self.needed_part(
                target,
                "subject",
                &fields.subject,
                Rule::NatsSubject,
            )?),
        };
        let format = self.format(kind, &fields.format)?;
        let headers = self.headers(kind, target)?;
        Ok(Target { broker: name.as_str().into(), address, format, headers })
    }

    fn format(&mut self, kind: Type, format: &Option<At<String>>) -> Result<Format, Reported> {
        let Some(format) = format else { return Ok(Format::default()) };
        if kind == Type::Log {
            let message = "a log broker always writes CloudEvents documents; leave `format:` out";
            return Err(self.report(format, message));
        }
        Format::parse(&format.value)
            .ok_or_else(|| self.report(format, "`format:` is `binary`, `structured` or `raw`"))
    }

    fn headers(&mut self, kind: Type, target: &At<file::Target>) -> Result<Headers, Reported> {
        let given = &target.value.headers;
        let rule = match kind {
            Type::Kafka => header::Rule::Kafka,
            Type::RabbitMq => header::Rule::RabbitMq,
            Type::Nats => header::Rule::Nats,
            Type::Log if given.is_empty() => return Ok(Headers::new()),
            Type::Log => {
                let message = "a log broker writes no headers; leave `headers:` out";
                return Err(self.report(target, message));
            }
        };
        if given.len() > header::MAX_HEADERS {
            let message = format!("a target has at most {} headers", header::MAX_HEADERS);
            return Err(self.report(target, message));
        }
        let mut outcome = Ok(Headers::new());
        for (name, value) in given {
            let checked = if secret::has_reference(&value.value) {
                Err("a secret may not stand in `headers:`, which brokers and logs see".to_owned())
            } else {
                rule.check(name, &value.value)
            };
            match (checked, &mut outcome) {
                (Err(why), _) => outcome = Err(self.report(value, why)),
                (Ok(()), Ok(headers)) => {
                    headers.push((name.as_str().into(), value.value.replace("$$", "$").into()));
                }
                (Ok(()), Err(_)) => {}
            }
        }
        outcome
    }

    fn needed_part(
        &mut self,
        target: &At<file::Target>,
        name: &str,
        text: &Option<At<String>>,
        rule: Rule,
    ) -> Result<Template, Reported> {
        match text {
            Some(text) => self.part(name, text, rule),
            None => Err(self.report(target, format!("this target needs `{name}:`"))),
        }
    }

    fn part(&mut self, name: &str, text: &At<String>, rule: Rule) -> Result<Template, Reported> {
        if secret::has_reference(&text.value) {
            let message =
                format!("a secret may not stand in `{name}:`, which brokers and logs see");
            return Err(self.report(text, message));
        }
        let plain = text.value.replace("$$", "$");
        let compiled = Template::compile(&plain, rule, &mut self.paths);
        compiled.map_err(|error| self.report(text, error))
    }
}

fn is_empty_list(names: &Option<OneOrMany>) -> bool {
    names.as_ref().is_some_and(|names| names.as_slice().is_empty())
}

fn patterns(names: &Option<OneOrMany>) -> Vec<Pattern> {
    names.iter().flat_map(OneOrMany::as_slice).map(|name| Pattern::new(name)).collect()
}
