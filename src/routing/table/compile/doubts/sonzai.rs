//! What of a Sonzai source's `register:` and `poll:` leads nowhere.

use std::{collections::BTreeSet, ops::Range};

use bytes::Bytes;
use bytestring::ByteString;

use super::{Doubts, Rule};
use crate::{
    event::Event,
    routing::{
        condition,
        diagnostic::{Code, Diagnostic},
        file::{
            File, Place,
            mirror::{Poll, SonzaiSource, Source, Target},
        },
        path::Path,
        template,
    },
    source::sonzai::{EXTENSIONS, settings::AGENT_NOTIFICATION},
};

/// All that an agent's notification may have. From the OpenAPI document, ProactiveNotificationEntry.
const NOTIFICATION: &str = r#"{
    "message_id": "message", "agent_id": "agent", "user_id": "user", "check_type": "check",
    "generated_message": "text", "status": "pending", "created_at": "2026-01-01T00:00:00Z",
    "wakeup_id": "wakeup", "intent": "intent", "consumed_at": "2026-01-01T00:00:00Z"
}"#;

/// The same for people.
const HAS: &str = "one of an agent has message_id, agent_id, user_id, check_type, generated_message, status and \
     created_at, and perhaps wakeup_id, intent and consumed_at, directly below `data`, and no headers";

/// Of how many polled sources a route's conditions are asked.
const MAX_ASKED: usize = 4;

/// How many registered types are looked for in all routes.
const MAX_TYPES: usize = 1000;

impl<'f> Doubts<'f> {
    /// What is registered or polled, and no route takes.
    pub(super) fn unrouted_types(&self) -> Vec<Diagnostic> {
        let (mut found, mut looked_for) = (Vec::new(), 0);
        for (name, place) in self.place.key("sources").entries() {
            let Some(Source::Sonzai(source)) = self.file.sources.get(name) else { continue };
            found.extend(shared_url(source, place));
            // Where nothing of it is taken, that is told.
            if !self.wanted.contains(name) {
                continue;
            }
            found.extend(self.unrouted_poll(name, source, place));
            let types = source.register.iter().flat_map(|register| register.types.as_slice());
            for (index, kind) in types.enumerate().take(MAX_TYPES - looked_for) {
                looked_for += 1;
                if !self.takes(name, kind) {
                    let place = place.key("register").key("types").item(index);
                    let message = format!("no route takes `{kind}` of source `{name}`");
                    let help = "add a route for it, or do not register it";
                    let doubt = Diagnostic::warning(Code::UnroutedType, place.span(), message);
                    found.push(doubt.help(help));
                }
            }
        }
        found
    }

    fn unrouted_poll(&self, name: &str, source: &SonzaiSource, place: Place) -> Option<Diagnostic> {
        let kind = source.poll.as_ref().and_then(agents_type)?;
        if self.takes(name, kind) {
            return None;
        }
        let place = place.key("poll");
        let given = place.key("type");
        let span = if given.is_given() { given.span() } else { place.at_key() };
        let message = format!("no route takes `{kind}`, the type of what is polled for agents");
        let help = "add a route for it, or give a type that one takes: `type:` of `poll:`";
        Some(Diagnostic::warning(Code::UnroutedType, span, message).help(help))
    }

    fn takes(&self, source: &str, kind: &str) -> bool {
        self.rules.iter().any(|rule| rule.takes(source, kind))
    }

    /// What a route reads, and a polled notification that it takes does not have.
    pub(super) fn absent_fields(&self, rule: &Rule<'f>, place: Place) -> Vec<Diagnostic> {
        let notifications: Vec<Event> = self.polled(rule).take(MAX_ASKED).collect();
        let mut found = match &rule.route.when {
            Some(when) => self.absent_in_condition(when, &notifications, place.key("when")),
            None => Vec::new(),
        };
        // All of them fill in the same.
        if let Some(notification) = notifications.first() {
            for (index, target) in rule.route.to.iter().enumerate() {
                let place = place.key("to").item(index);
                found.extend(self.unfilled(target, notification, place));
            }
        }
        found
    }

    fn absent_in_condition(
        &self,
        when: &str,
        notifications: &[Event],
        place: Place,
    ) -> Vec<Diagnostic> {
        let mut absent = notifications.iter().map(|event| condition::absent(when, event));
        let absent = absent.find(|absent| !absent.is_empty()).unwrap_or_default();
        let doubt = |(shown, range): (String, Range<usize>)| {
            let message =
                format!("a polled notification has no `{shown}`: this route does not take it");
            let help = match shown.starts_with("data") {
                true => format!("{HAS}. Where that is meant, ask first: `has({shown})`"),
                false => HAS.to_owned(),
            };
            let span = place.within(self.text, when, range);
            Diagnostic::warning(Code::AbsentField, span, message).help(help)
        };
        absent.into_iter().map(doubt).collect()
    }

    fn unfilled(&self, target: &Target, notification: &Event, place: Place) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for (name, text) in templates(target) {
            let plain = text.replace("$$", "$");
            for (shown, range) in template::unfilled(&plain, notification) {
                let message =
                    format!("a polled notification has no `{shown}`: it becomes a dead letter");
                let help = format!("{HAS}. Give a default: `{{{shown}|none}}`");
                let span = place.key(name).within(self.text, &plain, range);
                found.push(Diagnostic::warning(Code::AbsentField, span, message).help(help));
            }
        }
        found
    }

    /// What a route may take of what is polled for agents, an event a source.
    fn polled<'d>(&'d self, rule: &'d Rule<'f>) -> impl Iterator<Item = Event> + 'd {
        let sources = rule.sources_of(self.file).into_iter();
        let polled = sources.filter_map(|(name, source)| Some((name, polled_type(source)?)));
        let taken = polled.filter(|(name, kind)| {
            rule.compiled.matcher.types.take(kind)
                && !(rule.is_otherwise() && self.polls_taken.contains(name))
        });
        taken.map(|(name, kind)| notification(name, kind))
    }
}

/// The sources whose polled notifications are all taken by routes without `otherwise:`.
pub(super) fn polls_taken<'f>(file: &'f File, rules: &[Rule<'f>]) -> BTreeSet<&'f str> {
    let polled = file.sources.iter().filter_map(|(name, source)| {
        let kind = polled_type(source)?;
        let all = |rule: &Rule| {
            !rule.is_otherwise() && rule.route.when.is_none() && rule.takes(name, kind)
        };
        rules.iter().any(all).then_some(&**name)
    });
    polled.collect()
}

fn polled_type(source: &Source) -> Option<&str> {
    match source {
        Source::Sonzai(source) => agents_type(source.poll.as_ref()?),
        _ => None,
    }
}

/// The type of what is polled for agents.
fn agents_type(poll: &Poll) -> Option<&str> {
    poll.agents.is_some().then(|| poll.r#type.as_deref().unwrap_or(AGENT_NOTIFICATION))
}

/// Types whose URLs are one, which then says none of them.
fn shared_url(source: &SonzaiSource, place: Place) -> Option<Diagnostic> {
    let register = source.register.as_ref()?;
    let says_type = Path::parse(&source.common.path).is_ok_and(|path| path.has_type());
    if says_type || register.types.as_slice().len() < 2 {
        return None;
    }
    let message = "these types share one URL, which does not say which of them it is";
    let help =
        "put `{type}` into the source's `path:`: a body that says no type is `unparsed` else";
    let span = place.key("register").key("types").at_key();
    Some(Diagnostic::warning(Code::SharedUrl, span, message).help(help))
}

/// What stands in a target's address, with its keys.
fn templates(target: &Target) -> impl Iterator<Item = (&'static str, &String)> {
    let Target { topic, key, exchange, routing_key, subject, .. } = target;
    let all = [
        ("topic", topic),
        ("key", key),
        ("exchange", exchange),
        ("routing_key", routing_key),
        ("subject", subject),
    ];
    all.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)))
}

/// An event that has all that a polled one may have.
fn notification(source: &str, kind: &str) -> Event {
    let extensions = EXTENSIONS
        .map(|(name, _)| (ByteString::from_static(name), ByteString::from_static("an-id")));
    Event {
        id: ByteString::from_static("an-id"),
        source: source.into(),
        kind: kind.into(),
        subject: Some(ByteString::from_static("an-id")),
        time_ms: 0,
        content_type: Some(ByteString::from_static("application/json")),
        traceparent: None,
        extensions: extensions.into(),
        headers: Vec::new(),
        body: Bytes::from_static(NOTIFICATION.as_bytes()),
    }
}
