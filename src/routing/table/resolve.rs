//! From an event to the messages it owes, and to the reasons why. Both come from the same verdicts,
//! so that an explanation cannot differ from what is done.

use bytestring::ByteString;

use super::{AddressTemplate, Matcher, Route, Table, Target, UNROUTED};
use crate::{
    event::{Address, Event, Format, Headers, Message},
    routing::{condition, input::Input},
    source::Unrouted,
};

/// Why a route does not take an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The sources that it takes.
    #[error("its `source:` takes {0}")]
    Source(ByteString),
    /// The types that it takes.
    #[error("its `type:` takes {0}")]
    Type(ByteString),
    #[error("its condition is false")]
    Condition,
    /// The condition cannot be applied to this event.
    #[error("its condition gives no verdict: {0}")]
    ConditionError(condition::Why),
    #[error("it takes what no other route took, and another took it")]
    OthersTook,
}

/// How a table resolves an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Every route, in the order of the file.
    pub routes: Vec<TracedRoute>,
    /// What [`Table::resolve`] gives: the messages of the routes but for those that merge; or the one
    /// for [`UNROUTED`]; or none, where the source says that what is unrouted is dropped.
    pub messages: Vec<Message>,
}

/// What a route made of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedRoute {
    pub name: ByteString,
    /// Its `when:`, as it stands in the file.
    pub condition: Option<String>,
    /// One message a target, or why there is none.
    pub outcome: Result<Vec<TracedMessage>, Mismatch>,
}

/// A message of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedMessage {
    pub message: Message,
    /// The route whose message is the same to the broker, and is sent in its place.
    pub merged_into: Option<ByteString>,
}

type Verdict = Result<(), Mismatch>;

impl Table {
    /// The messages that an event owes: every matching route's targets, or one for [`UNROUTED`], or
    /// none where its source drops what is unrouted. Messages that would be the same to their broker
    /// are one. Counts the conditions that could not be applied.
    pub fn resolve(&self, event: &Event) -> Vec<Message> {
        let input = Input::new(event, &self.paths);
        let mut messages = Vec::new();
        for (place, verdict) in self.verdicts(&input, self.index.candidates(event)) {
            let route = &self.routes[place];
            match verdict {
                Ok(()) => route.targets.iter().for_each(|target| {
                    owe(&mut messages, route.message(target, &input));
                }),
                Err(Mismatch::ConditionError(_)) => route.stats.condition_errors.inc(),
                Err(_) => {}
            }
        }
        if messages.is_empty() {
            messages.extend(self.unrouted(event));
        }
        messages
    }

    /// How the event is resolved, and why so. Counts nothing.
    pub fn trace(&self, event: &Event) -> Trace {
        let input = Input::new(event, &self.paths);
        let mut messages = Vec::new();
        let mut routes = Vec::new();
        for (place, verdict) in self.verdicts(&input, (0..self.routes.len()).collect()) {
            let route = &self.routes[place];
            let mut traced = |target| {
                let message = route.message(target, &input);
                let merged_into = owe(&mut messages, message.clone());
                TracedMessage { message, merged_into }
            };
            let outcome = verdict.map(|()| route.targets.iter().map(&mut traced).collect());
            let condition = route.condition.as_ref().map(|when| when.text().to_owned());
            routes.push(TracedRoute { name: route.name.clone(), condition, outcome });
        }
        if messages.is_empty() {
            messages.extend(self.unrouted(event));
        }
        Trace { routes, messages }
    }

    /// What the routes at these places say to an event; a route that is not among them must not
    /// match it.
    fn verdicts(&self, input: &Input, places: Vec<usize>) -> Vec<(usize, Verdict)> {
        let judge = |otherwise: bool, place: usize| {
            let route = &self.routes[place];
            route.matcher.matches(input.event)?;
            if route.matcher.otherwise && !otherwise {
                return Err(Mismatch::OthersTook);
            }
            route.fulfilled(input)
        };
        let mut verdicts: Vec<(usize, Verdict)> =
            places.into_iter().map(|place| (place, judge(false, place))).collect();
        if verdicts.iter().all(|(_, verdict)| verdict.is_err()) {
            for (place, verdict) in &mut verdicts {
                if *verdict == Err(Mismatch::OthersTook) {
                    *verdict = judge(true, *place);
                }
            }
        }
        verdicts
    }

    /// What becomes of an event that no route takes.
    fn unrouted(&self, event: &Event) -> Option<Message> {
        let source = self.sources().find(|(_, source)| source.name == event.source);
        if source.is_some_and(|(_, source)| source.unrouted == Unrouted::Drop) {
            return None;
        }
        let reason = format!("no route takes type {:?} from source {:?}", event.kind, event.source);
        Some(Message {
            route: ByteString::new(),
            broker: ByteString::from_static(UNROUTED),
            address: Err(reason.into()),
            format: Format::default(),
            headers: Headers::new(),
        })
    }
}

/// Adds a message unless one is there that is the same to its broker; then returns that one's route.
fn owe(messages: &mut Vec<Message>, message: Message) -> Option<ByteString> {
    let same = |other: &&Message| {
        message.address.is_ok()
            && (&other.broker, &other.address) == (&message.broker, &message.address)
            && (other.format, &other.headers) == (message.format, &message.headers)
    };
    match messages.iter().find(same) {
        Some(other) => Some(other.route.clone()),
        None => {
            messages.push(message);
            None
        }
    }
}

impl Matcher {
    pub(super) fn matches(&self, event: &Event) -> Verdict {
        if !self.sources.take(&event.source) {
            return Err(Mismatch::Source(self.sources.shown.clone()));
        }
        if !self.types.take(&event.kind) {
            return Err(Mismatch::Type(self.types.shown.clone()));
        }
        Ok(())
    }
}

impl Route {
    fn fulfilled(&self, input: &Input) -> Verdict {
        match self.condition.as_ref().map(|condition| condition.holds(input)) {
            None | Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => Err(Mismatch::Condition),
            Some(Err(why)) => Err(Mismatch::ConditionError(why)),
        }
    }

    fn message(&self, target: &Target, input: &Input) -> Message {
        Message {
            route: self.name.clone(),
            broker: target.broker.clone(),
            address: target.address.render(input).map_err(Into::into),
            format: target.format,
            headers: target.headers.clone(),
        }
    }
}

impl AddressTemplate {
    fn render(&self, input: &Input) -> Result<Address, String> {
        Ok(match self {
            AddressTemplate::Topic { topic, key } => Address::Topic {
                topic: topic.render(input)?,
                key: key.as_ref().map(|key| key.render(input)).transpose()?,
            },
            AddressTemplate::LogTopic(topic) => Address::LogTopic(topic.render(input)?),
            AddressTemplate::Exchange { exchange, routing_key } => Address::Exchange {
                exchange: exchange.render(input)?,
                routing_key: routing_key.render(input)?,
            },
            AddressTemplate::Subject(subject) => Address::Subject(subject.render(input)?),
        })
    }
}
