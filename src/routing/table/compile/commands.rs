//! `commands:`, each with whose API is called and where it is taken from.

use bytestring::ByteString;

use super::{Compiler, Skipped};
use crate::routing::{
    address::Rule,
    diagnostic::Code,
    file::{
        File, Place,
        mirror::{Broker, Command, CommandFrom, Source},
    },
    table::{CommandSettings, From},
};

/// Longest name of a durable consumer or a consumer group, in bytes: a NATS server names files by it.
const MAX_GROUP_BYTES: usize = 128;

/// A consumer that has no name of its own has this and the command's.
const GROUP_PREFIX: &str = "waypost-";

/// What a command's place may be given by.
const PARTS: [&str; 4] = ["subject", "queue", "topic", "group"];

impl Compiler<'_> {
    pub(super) fn commands(&mut self, file: &File, place: Place) -> Vec<CommandSettings> {
        let mut compiled: Vec<CommandSettings> = Vec::new();
        let root = place;
        for (name, place) in root.key("commands").entries() {
            let given = file.commands.as_ref().and_then(|commands| commands.get(name));
            let Some(given) = given else { continue };
            let Ok(command) = self.command(name, given, file, root) else { continue };
            let apart = compiled
                .iter()
                .try_for_each(|other| self.apart(&command, other, place.key("from")));
            if apart.is_ok() {
                compiled.push(command);
            }
        }
        compiled.sort_by(|one, other| one.name.cmp(&other.name));
        compiled
    }

    // Looks at every part before it gives up on one, so that all problems are reported.
    fn command(
        &mut self,
        name: &str,
        given: &Command,
        file: &File,
        root: Place,
    ) -> Result<CommandSettings, Skipped> {
        let place = root.key("commands").key(name);
        let named = self.name("command", name, place);
        let source = self.called_source(&given.source, file, root, place.key("source"));
        // After the name, unless nothing can be named so.
        let group = named.is_ok().then(|| format!("{GROUP_PREFIX}{name}"));
        let from = self.from(group, &given.from, file, place);
        named?;
        source?;
        Ok(CommandSettings {
            name: name.into(),
            source: given.source.as_str().into(),
            broker: given.from.broker.as_str().into(),
            from: from?,
        })
    }

    /// Whether a source is one whose API can be called.
    fn called_source(
        &mut self,
        name: &str,
        file: &File,
        root: Place,
        place: Place,
    ) -> Result<(), Skipped> {
        let help = "a command calls Sonzai's API: name a `sonzai` source that has `api:`";
        match file.sources.get(name) {
            Some(Source::Sonzai(source)) if source.api.is_some() => Ok(()),
            // What is wrong with its API is reported there.
            Some(Source::Sonzai(_)) if root.key("sources").key(name).is_cut() => Err(Skipped),
            Some(Source::Sonzai(_)) => {
                let message = format!("source `{name}` has no `api:`");
                Err(self.advise(Code::MissingKey, place.span(), message, help))
            }
            Some(_) => {
                let message = format!("source `{name}` is not of type `sonzai`");
                Err(self.advise(Code::InvalidValue, place.span(), message, help))
            }
            None => {
                let known = self.names("sources");
                // A broken source is reported where it stands.
                if known.contains(&name) {
                    return Err(Skipped);
                }
                Err(self.unknown(Code::UnknownSource, place.span(), "source", name, &known))
            }
        }
    }

    fn from(
        &mut self,
        default_group: Option<String>,
        given: &CommandFrom,
        file: &File,
        command: Place,
    ) -> Result<From, Skipped> {
        let place = command.key("from");
        let name = &*given.broker;
        let broker = self.broker_named(name, file, place.key("broker"))?;
        let only = self.only_of(broker, place);
        let from = match broker {
            Broker::Nats(_) => {
                let subject = self.taken("subject", &given.subject, Rule::NatsSubject, place);
                let group = self.group(default_group, &given.group, false, command);
                From::Nats { subject: subject?, group: group? }
            }
            Broker::RabbitMq(_) => {
                let queue = self.taken("queue", &given.queue, Rule::AmqpName, place);
                From::RabbitMq { queue: queue? }
            }
            Broker::Kafka(_) => {
                let topic = self.taken("topic", &given.topic, Rule::KafkaTopic, place);
                let group = self.group(default_group, &given.group, true, command);
                From::Kafka { topic: topic?, group: group? }
            }
            Broker::Log(_) => {
                let message = format!("nothing can be taken from `{name}`, a log broker");
                let help = "it only writes: name a nats, rabbitmq or kafka broker";
                let span = place.key("broker").span();
                return Err(self.advise(Code::InvalidValue, span, message, help));
            }
        };
        only?;
        Ok(from)
    }

    /// Reports every part of a place that the broker at hand has none of.
    fn only_of(&mut self, broker: &Broker, place: Place) -> Result<(), Skipped> {
        let (kind, parts): (_, &[&str]) = match broker {
            Broker::Nats(_) => ("nats", &["subject", "group"]),
            Broker::RabbitMq(_) => ("rabbitmq", &["queue"]),
            Broker::Kafka(_) => ("kafka", &["topic", "group"]),
            // That it is one is reported.
            Broker::Log(_) => return Ok(()),
        };
        self.only_parts(&PARTS, parts, place, |name| {
            format!("a {kind} broker has no `{name}:` to take commands from")
        })
    }

    /// What commands are taken from: fixed, as the broker has it.
    fn taken(
        &mut self,
        name: &str,
        text: &Option<String>,
        rule: Rule,
        from: Place,
    ) -> Result<ByteString, Skipped> {
        let place = from.key(name);
        let Some(text) = text else {
            // What is misspelt is reported as that.
            if from.is_cut() {
                return Err(Skipped);
            }
            let message = format!("this broker needs `{name}:`, from which commands are taken");
            return Err(self.report(Code::MissingKey, from.key("broker").at_key(), message));
        };
        let plain = self.filled_text(name, text, place)?;
        let checked = rule.check(&plain);
        checked.map_err(|why| self.report(Code::InvalidAddress, place.span(), why))?;
        Ok(plain.into())
    }

    fn group(
        &mut self,
        default: Option<String>,
        given: &Option<String>,
        dots: bool,
        command: Place,
    ) -> Result<ByteString, Skipped> {
        let (group, span) = match given {
            Some(text) => {
                let place = command.key("from").key("group");
                (self.filled_text("group", text, place)?, place.span())
            }
            None => (default.ok_or(Skipped)?, command.at_key()),
        };
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || (dots && b == b'.');
        if group.len() <= MAX_GROUP_BYTES && group.bytes().all(allowed) {
            return Ok(group.into());
        }
        let signs = if dots { "`-`, `_` and `.`" } else { "`-` and `_`" };
        let message = format!("a consumer cannot be named `{group}`");
        let help = format!("give `group:`: 1 to {MAX_GROUP_BYTES} letters, digits, {signs}");
        Err(self.advise(Code::InvalidName, span, message, help))
    }

    /// Text that brokers and logs see.
    fn filled_text(&mut self, name: &str, text: &str, place: Place) -> Result<String, Skipped> {
        self.exposes_no_secret(name, text, place)?;
        if text.is_empty() {
            let message = format!("`{name}:` is empty");
            return Err(self.report(Code::InvalidValue, place.span(), message));
        }
        Ok(text.replace("$$", "$"))
    }

    /// What two commands took from would reach either of them by chance.
    fn apart(
        &mut self,
        one: &CommandSettings,
        other: &CommandSettings,
        place: Place,
    ) -> Result<(), Skipped> {
        if one.broker != other.broker {
            return Ok(());
        }
        let shared = match (&one.from, &other.from) {
            (From::Nats { subject, group }, From::Nats { subject: theirs, group: others }) => {
                let part = (subject == theirs).then_some("subject");
                part.or((group == others).then_some("group"))
            }
            (From::RabbitMq { queue }, From::RabbitMq { queue: others }) => {
                (queue == others).then_some("queue")
            }
            (From::Kafka { topic, .. }, From::Kafka { topic: others, .. }) => {
                (topic == others).then_some("topic")
            }
            _ => None,
        };
        let Some(part) = shared else { return Ok(()) };
        let message = format!("command `{}` has this `{part}:` already", other.name);
        let help = "each would get some of the commands, or both all of them: keep one";
        let place = place.key(part);
        let span = if place.is_given() { place.span() } else { place.at_key() };
        Err(self.advise(Code::SharedPlace, span, message, help))
    }
}
