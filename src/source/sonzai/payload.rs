//! What is read of a payload, in one pass: a webhook's body, or a notification as it stands in a
//! list. What is not JSON says nothing.
//!
//! Identifiers are looked for at the top level, under `data` and under `wakeup`, in that order.

use std::{borrow::Cow, sync::LazyLock};

use bytestring::ByteString;

use super::identity::Ids;
use crate::{
    body::{Fields, Paths},
    source::{attribute, is_attribute},
};

/// CloudEvents extensions of a Sonzai event, each with its name in the body.
pub const EXTENSIONS: [(&str, &str); 3] =
    [("agentid", "agent_id"), ("userid", "user_id"), ("projectid", "project_id")];

/// Where an identifier may stand in the body, the first one first.
const PARENTS: [Option<&str>; 3] = [None, Some("data"), Some("wakeup")];

/// A slot for each of [`PARENTS`].
type Slots = [usize; PARENTS.len()];

struct Wanted {
    paths: Paths,
    event_type: usize,
    /// For each of [`EXTENSIONS`].
    extensions: [Slots; EXTENSIONS.len()],
    notification: Slots,
    message: Slots,
    wakeup: Slots,
}

static WANTED: LazyLock<Wanted> = LazyLock::new(|| {
    let mut paths = Paths::default();
    let event_type = paths.add(&["event_type"]);
    let mut slots = |field| {
        PARENTS.map(|parent| {
            let path: Vec<&str> = parent.into_iter().chain([field]).collect();
            paths.add(&path)
        })
    };
    let extensions = EXTENSIONS.map(|(_, field)| slots(field));
    let (notification, message, wakeup) =
        (slots("notification_id"), slots("message_id"), slots("wakeup_id"));
    Wanted { paths, event_type, extensions, notification, message, wakeup }
});

/// See the module.
pub struct Payload<'b>(Option<Fields<'b>>);

impl<'b> Payload<'b> {
    pub fn read(body: &'b [u8]) -> Payload<'b> {
        Payload(WANTED.paths.read(body).ok())
    }

    /// The event's type, if it says one.
    pub fn event_type(&self) -> Option<ByteString> {
        attribute(&self.0.as_ref()?.string(WANTED.event_type)?)
    }

    /// The value for each of [`EXTENSIONS`].
    pub fn extensions(&self) -> [Option<ByteString>; EXTENSIONS.len()] {
        WANTED.extensions.map(|slots| self.first(slots).map(|text| text.as_ref().into()))
    }

    /// The identifiers by which it is known on whatever way it comes.
    pub fn ids(&self) -> Ids<'_> {
        Ids {
            notification: self.first(WANTED.notification),
            message: self.first(WANTED.message),
            wakeup: self.first(WANTED.wakeup),
        }
    }

    /// The first text that can be an identifier; that of a number is as it is written.
    fn first(&self, slots: Slots) -> Option<Cow<'_, str>> {
        let fields = self.0.as_ref()?;
        slots.iter().find_map(|slot| fields.text(*slot).ok().filter(|text| is_attribute(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_at_the_top_in_data_and_in_wakeup() {
        for (body, notification, message, wakeup) in [
            (
                r#"{"notification_id":"n","message_id":"m","wakeup_id":"w"}"#,
                Some("n"),
                Some("m"),
                Some("w"),
            ),
            (r#"{"message_id":"m","data":{"message_id":"x"}}"#, None, Some("m"), None),
            (r#"{"message_id":"","data":{"message_id":7}}"#, None, Some("7"), None),
            (
                r#"{"wakeup":{"wakeup_id":"w","message_id":"m"},"data":{"notification_id":"n"}}"#,
                Some("n"),
                Some("m"),
                Some("w"),
            ),
            (r#"{"message_id":["m"],"wakeup_id":null}"#, None, None, None),
            (r#"{"message_id":"a\u0000b"}"#, None, None, None),
            ("not json", None, None, None),
        ] {
            let payload = Payload::read(body.as_bytes());
            let ids = payload.ids();
            let found =
                (ids.notification.as_deref(), ids.message.as_deref(), ids.wakeup.as_deref());
            assert_eq!(found, (notification, message, wakeup), "{body}");
        }
    }
}
