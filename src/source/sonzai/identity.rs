//! What makes two Sonzai events the same.
//!
//! An event comes on one of three *ways*: as a webhook, as a notification polled for a project, as
//! one polled for an agent. Sonzai stores every proactive message for polling whether or not it was
//! pushed, so the same one comes on several.
//!
//! - **On the same way** it is known by its id: of a webhook its source, type, signed time and body;
//!   of a notification that notification's id. Nobody publishes whether a retried webhook is signed
//!   anew. So where its body carries an id of its own, another of the same type with an equal body
//!   within an hour is the same; without one it is not, for a recurring event may well say the same
//!   thing again. A failed attempt that is repaired has no signed time: an equal body under the same
//!   type is enough.
//! - **Across ways** it is known by the ids it carries: of the notification (*n*), the message (*m*)
//!   and the wakeup (*w*). Two are the same if their types are, they differ in neither n nor m where
//!   both have it, and n is equal, or m is, or w is and neither n nor m stands on both sides. One
//!   wakeup may bring several messages, so a wakeup alone makes *one* event of each other way the same:
//!   the second message that is polled of it is an event. An agent's notification says no type; it is of
//!   its own, and of both that a proactive message is pushed under. So where one was pushed under both,
//!   the first that is polled is the same as both of them, and the second is an event all the same.
//!
//! # As keys
//!
//! A pair is the same if one of the keys that the second looks up was registered by the first. So a
//! registered key says, with an id, what other ids stood beside it, on which way and of what sort;
//! what is looked up are all those that the rule allows. Its last byte says all of that, and the
//! rest is a hash: one a carried id, whatever the number of keys made of it.
//!
//! ```text
//!            registered, of its own way      looked up, of the other ways
//! n          N                               N, and N beside some m
//! n, m       N+M, and N beside some m        N+M, N
//! m          M                               M, M beside some n (unless there is n here)
//! w          W beside n or not, m or not     W beside what does not stand here
//! ```

use std::borrow::Cow;

use bytestring::ByteString;
use smallvec::{SmallVec, smallvec};

use crate::dedupe::{ForOne, Key, Keys, both_of_body, of_body, of_parts};

/// Within so many seconds an equal webhook may be a retry; at that age it is another event.
const RETRIED_WITHIN_S: u32 = 3600;

/// The types under which a proactive message is pushed: by the older guide, and by the newer one.
const PROACTIVE: [(&str, Sort); 2] =
    [("agent.message", Sort::Message), ("on_wakeup_ready", Sort::Wakeup)];

/// How an event came, as its extension `via` says it. It says nothing of what the event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Webhook,
    Poll,
    Repair,
}

impl Via {
    /// The extension's name.
    pub const NAME: &str = "via";

    /// The extension's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Via::Webhook => "webhook",
            Via::Poll => "poll",
            Via::Repair => "repair",
        }
    }
}

/// The identifiers that an event carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids<'a> {
    pub notification: Option<Cow<'a, str>>,
    pub message: Option<Cow<'a, str>>,
    pub wakeup: Option<Cow<'a, str>>,
}

impl Ids<'_> {
    fn any(&self) -> bool {
        self.notification.is_some() || self.message.is_some() || self.wakeup.is_some()
    }
}

/// What an event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Goes out as `ce-id`.
    pub id: ByteString,
    pub known_by: Keys,
}

impl Identity {
    /// Of a webhook that was signed at `timestamp`.
    pub fn of_webhook(
        source: &str,
        kind: &str,
        timestamp: u64,
        body: &[u8],
        ids: &Ids,
    ) -> Identity {
        let [body, other] = both_of_body(source, kind, body);
        let mut identity = Identity::new(at(other, timestamp));
        identity.known_by.register(body);
        if ids.any() {
            identity.known_by.look_up(body, RETRIED_WITHIN_S);
        }
        identity.across(Way::Webhook, source, kind, ids)
    }

    /// Of a failed attempt at a webhook, of which no signed time is kept.
    pub fn of_attempt(source: &str, kind: &str, body: &[u8], ids: &Ids) -> Identity {
        let body = of_body(source, kind, body);
        let mut identity = Identity::new(of_parts(&[b"attempt", &body]));
        identity.known_by.also_known_by(body);
        identity.across(Way::Webhook, source, kind, ids)
    }

    /// Of a project's notification, by its id.
    pub fn of_project(source: &str, notification: &str, kind: &str, ids: &Ids) -> Identity {
        Identity::new(of_parts(&[b"project", source.as_bytes(), notification.as_bytes()])).across(
            Way::Project,
            source,
            kind,
            ids,
        )
    }

    /// Of an agent's notification, by its message's id; `kind` is what it becomes here.
    pub fn of_agent(source: &str, message: &str, kind: &str, ids: &Ids) -> Identity {
        Identity::new(of_parts(&[b"agent", source.as_bytes(), message.as_bytes()])).across(
            Way::Agent,
            source,
            kind,
            ids,
        )
    }

    fn new(id: Key) -> Identity {
        Identity { id: const_hex::encode(id).into(), known_by: Keys::known_by(id) }
    }

    /// Adds what it is known by on other ways.
    fn across(mut self, way: Way, source: &str, kind: &str, ids: &Ids) -> Identity {
        if ids.any() {
            for standing in standings(way, kind) {
                standing.add(&mut self.known_by, source, ids);
            }
        }
        self
    }
}

/// A hash of what was signed at that time. Two times make two of it: nothing is lost where a number is
/// multiplied by an odd one, and it is spread over all digits.
fn at(hash: Key, timestamp: u64) -> Key {
    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let time = u128::from(timestamp).wrapping_mul(SPREAD);
    (u128::from_le_bytes(hash) ^ time).to_le_bytes()
}

/// How an event comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Webhook = 0,
    Project = 1,
    Agent = 2,
}

/// Which of the types of a [`Class`] an event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// The class is that type.
    Only,
    /// The first and the second of [`PROACTIVE`].
    Message,
    Wakeup,
    /// Any of them: an agent's notification.
    Any,
}

/// Types that an agent's notification counts as together, so that an id is hashed once for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class<'k> {
    Proactive,
    Type(&'k str),
}

/// Half of a key's last byte: on which way, of which sort.
#[derive(Clone, Copy, Debug)]
struct Seat(Way, Sort);

/// The other half: which ids stand beside the one that is hashed.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A notification's, with no message's.
    Notification,
    /// A notification's, with some message's.
    NotificationBesideMessage,
    /// A notification's and this message's: both are hashed.
    NotificationAndMessage,
    Message {
        notification: bool,
    },
    Wakeup {
        notification: bool,
        message: bool,
    },
}

/// In which class an event is known, where it sits there, and whom it looks for.
struct Standing<'k> {
    class: Class<'k>,
    own: Seat,
    others: SmallVec<[Seat; 4]>,
}

fn standings(way: Way, kind: &str) -> SmallVec<[Standing<'_>; 2]> {
    let proactive = PROACTIVE.iter().find(|(name, _)| *name == kind);
    let (class, sort) = match proactive {
        Some((_, sort)) => (Class::Proactive, *sort),
        None => (Class::Type(kind), Sort::Only),
    };
    let other = match way {
        Way::Webhook => Way::Project,
        Way::Project => Way::Webhook,
        Way::Agent => return standings_of_agent(class),
    };
    let others = smallvec![Seat(other, sort), Seat(Way::Agent, Sort::Any)];
    smallvec![Standing { class, own: Seat(way, sort), others }]
}

fn standings_of_agent(class: Class) -> SmallVec<[Standing; 2]> {
    let standing = |class, sorts: &[Sort]| {
        let others =
            sorts.iter().flat_map(|sort| [Way::Webhook, Way::Project].map(|way| Seat(way, *sort)));
        Standing { class, own: Seat(Way::Agent, Sort::Any), others: others.collect() }
    };
    let mut standings = smallvec![standing(Class::Proactive, &PROACTIVE.map(|(_, sort)| sort))];
    if class != Class::Proactive {
        standings.push(standing(class, &[Sort::Only]));
    }
    standings
}

impl Standing<'_> {
    fn add(&self, keys: &mut Keys, source: &str, ids: &Ids) {
        let hash = |what, id: &Option<Cow<str>>| Some(self.hash(what, source, id.as_deref()?));
        let notification = hash(b"n", &ids.notification);
        let message = hash(b"m", &ids.message);
        let wakeup = hash(b"w", &ids.wakeup);
        let (has_n, has_m) = (notification.is_some(), message.is_some());
        let mut known = |hash, form| keys.register(self.own.key(hash, form));
        let both = notification.zip(message).map(|(n, m)| of_parts(&[b"nm", &n, &m]));
        if let Some(n) = notification {
            match both {
                Some(both) => {
                    known(both, Form::NotificationAndMessage);
                    known(n, Form::NotificationBesideMessage);
                }
                None => known(n, Form::Notification),
            }
        }
        if let Some(m) = message {
            known(m, Form::Message { notification: has_n });
        }
        if let Some(w) = wakeup {
            let form = Form::Wakeup { notification: has_n, message: has_m };
            keys.register_for_one(self.own.key(w, form));
        }
        let mut look_up = |hash, form| {
            self.others.iter().for_each(|seat| keys.look_up(seat.key(hash, form), u32::MAX));
        };
        if let Some(n) = notification {
            look_up(n, Form::Notification);
            match both {
                Some(both) => look_up(both, Form::NotificationAndMessage),
                None => look_up(n, Form::NotificationBesideMessage),
            }
        }
        // What stands here may not stand there: then they differ in it, or it is enough by itself.
        let allowed = |here: bool| [false, true].into_iter().filter(move |there| !(here && *there));
        if let Some(m) = message {
            allowed(has_n).for_each(|notification| look_up(m, Form::Message { notification }));
        }
        if let Some(w) = wakeup {
            for notification in allowed(has_n) {
                for message in allowed(has_m) {
                    let form = Form::Wakeup { notification, message };
                    for seat in &self.others {
                        let for_one = ForOne { taker: self.own.0 as u8, giver: seat.0 as u8 };
                        keys.look_up_for_one(seat.key(w, form), for_one);
                    }
                }
            }
        }
    }

    fn hash(&self, what: &[u8], source: &str, id: &str) -> Key {
        let source = source.as_bytes();
        match self.class {
            Class::Proactive => of_parts(&[what, source, id.as_bytes()]),
            Class::Type(kind) => of_parts(&[what, source, id.as_bytes(), kind.as_bytes()]),
        }
    }
}

impl Seat {
    fn key(self, mut hash: Key, form: Form) -> Key {
        let Seat(way, sort) = self;
        let sort = match sort {
            Sort::Only => 0,
            Sort::Message => 1,
            Sort::Wakeup => 2,
            Sort::Any => 3,
        };
        let form = match form {
            Form::Notification => 0,
            Form::NotificationBesideMessage => 1,
            Form::NotificationAndMessage => 2,
            Form::Message { notification } => 4 + u8::from(notification),
            Form::Wakeup { notification, message } => {
                8 + 2 * u8::from(notification) + u8::from(message)
            }
        };
        hash[15] = (way as u8) << 6 | sort << 4 | form;
        hash
    }
}

#[cfg(test)]
mod tests;
