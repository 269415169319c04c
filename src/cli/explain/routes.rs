//! What the table makes of an event, as the document says it.

use super::document::{MessageShown, Reason, Route};
use crate::{
    event::{Event, Message},
    routing::{Mismatch, Table, Trace, TracedMessage, TracedRoute, UNROUTED},
};

/// How a table resolves an event.
pub struct Resolved {
    pub routes: Vec<Route>,
    /// What becomes of the event, if no route takes it.
    pub unrouted: Option<&'static str>,
    /// The messages that are owed.
    pub owed: Vec<MessageShown>,
}

impl Resolved {
    pub fn of(table: &Table, event: &Event) -> Resolved {
        let Trace { routes, messages } = table.trace(event);
        Resolved {
            routes: routes.into_iter().map(Route::from).collect(),
            unrouted: unrouted(&messages),
            owed: messages.iter().map(MessageShown::from).collect(),
        }
    }
}

/// In the words of `unrouted:`.
fn unrouted(messages: &[Message]) -> Option<&'static str> {
    match messages {
        [] => Some("drop"),
        [only] if only.broker == UNROUTED => Some("dead_letter"),
        _ => None,
    }
}

impl From<TracedRoute> for Route {
    fn from(route: TracedRoute) -> Route {
        let (name, condition) = (route.name.to_string(), route.condition);
        match route.outcome {
            Ok(messages) => {
                let messages = messages.into_iter().map(MessageShown::from).collect();
                Route { name, condition, matched: true, why: None, messages }
            }
            Err(why) => {
                let why = Some(Reason::new(code(&why), why));
                Route { name, condition, matched: false, why, messages: Vec::new() }
            }
        }
    }
}

impl From<TracedMessage> for MessageShown {
    fn from(traced: TracedMessage) -> MessageShown {
        let merged_into = traced.merged_into.map(|route| route.to_string());
        MessageShown { merged_into, ..MessageShown::from(&traced.message) }
    }
}

fn code(why: &Mismatch) -> &'static str {
    match why {
        Mismatch::Source(_) => "source",
        Mismatch::Type(_) => "type",
        Mismatch::Condition => "condition-false",
        Mismatch::ConditionError(_) => "condition-error",
        Mismatch::OthersTook => "others-took",
    }
}
