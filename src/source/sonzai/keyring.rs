//! The keys of a Sonzai source that are not in its file: the secrets that the API gave, by event type,
//! and which of them are being changed.
//!
//! Held apart from the table, so that they outlive it: every table with the source of that name holds
//! the same keyring. Whoever keeps the secrets sets what is valid; a request only reads, and waits for
//! nobody.
//!
//! Sonzai invalidates a secret the moment it makes another, and never comes again after a 401. So while
//! a change is under way a signature that fits no key says nothing about its sender: it may be that of
//! the secret which is on its way here ([`Keyring::is_changing`]).

use std::{collections::HashMap, sync::Arc};

use arc_swap::{ArcSwap, Guard};
use sha2::{Digest, Sha256};

use crate::signature::Key;

/// See the module.
#[derive(Debug, Default)]
pub struct Keyring(ArcSwap<Held>);

/// What a keyring holds at a time.
#[derive(Debug, Default)]
pub struct Held {
    by_type: HashMap<String, OfType>,
    /// Every key: what a request on a path without a type is tried against.
    all: Vec<Stored>,
}

/// What is held for an event type.
#[derive(Debug, Default)]
pub struct OfType {
    /// What signs now comes first.
    pub keys: Vec<Stored>,
    /// The `Authorization` headers that its webhooks were registered with.
    pub authorizations: Vec<Registered>,
    pub changing: Option<Changing>,
}

/// An `Authorization` header that deliveries come with, whatever the file says by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its [`digest`].
    pub sha256: String,
    /// Until when deliveries may come with one that was replaced, in milliseconds since the Unix epoch;
    /// `None` for what is registered now.
    pub until_ms: Option<u64>,
}

/// What stands for an `Authorization` header where it may be read: SHA-256, in hex. No header is an empty
/// one.
pub fn digest(authorization: &[u8]) -> String {
    const_hex::encode(Sha256::digest(authorization))
}

/// A key that is not in the file.
#[derive(Clone, Debug)]
pub struct Stored {
    pub key: Key,
    /// Until when one that was replaced is valid, in milliseconds since the Unix epoch; `None` for what
    /// signs now.
    pub until_ms: Option<u64>,
}

/// A secret that is being changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changing {
    /// Until when a mismatch is put down to it, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// Whether a call that changes it is under way: then it is, whatever the time.
    pub is_called: bool,
}

/// Whether something is valid that is so until then, or without an end.
fn is_valid(until_ms: Option<u64>, now_ms: u64) -> bool {
    until_ms.is_none_or(|until_ms| now_ms < until_ms)
}

impl Changing {
    fn is_on(&self, now_ms: u64) -> bool {
        self.is_called || now_ms < self.until_ms
    }
}

impl Keyring {
    /// What is valid now.
    pub fn load(&self) -> Guard<Arc<Held>> {
        self.0.load()
    }

    /// From now on this is valid, and nothing else.
    pub fn set(&self, held: Held) {
        self.0.store(Arc::new(held));
    }
}

impl Held {
    pub fn new(by_type: HashMap<String, OfType>) -> Held {
        let all = by_type.values().flat_map(|of| of.keys.iter().cloned()).collect();
        Held { by_type, all }
    }

    /// Whether there is no key at all, valid or not.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The keys that are valid for a path's type; on a path without one, all.
    pub fn valid(&self, path_type: Option<&str>, now_ms: u64) -> impl Iterator<Item = &Stored> {
        let keys = match path_type {
            None => &*self.all,
            Some(event_type) => self.by_type.get(event_type).map_or(&[][..], |of| &of.keys),
        };
        keys.iter().filter(move |stored| is_valid(stored.until_ms, now_ms))
    }

    /// What signs events of this type now.
    pub fn signs(&self, event_type: &str) -> Option<&Key> {
        let of = self.by_type.get(event_type)?;
        of.keys.iter().find(|stored| stored.until_ms.is_none()).map(|stored| &stored.key)
    }

    /// What signs events of some type now.
    pub fn signs_any(&self) -> Option<&Key> {
        self.all.iter().find(|stored| stored.until_ms.is_none()).map(|stored| &stored.key)
    }

    /// Whether a webhook on a path with this type was registered with this `Authorization` header, or on
    /// a path without a type any.
    pub fn is_registered(&self, path_type: Option<&str>, header: &[u8], now_ms: u64) -> bool {
        let sha256 = digest(header);
        let is_it = |of: &OfType| {
            let mut all = of.authorizations.iter();
            all.any(|each| is_valid(each.until_ms, now_ms) && each.sha256 == sha256)
        };
        match path_type {
            None => self.by_type.values().any(is_it),
            Some(event_type) => self.by_type.get(event_type).is_some_and(is_it),
        }
    }

    /// Whether a secret is being changed that would verify a request on a path with this type, or on
    /// one without a type any.
    pub fn is_changing(&self, path_type: Option<&str>, now_ms: u64) -> bool {
        let is_on = |of: &OfType| of.changing.is_some_and(|changing| changing.is_on(now_ms));
        match path_type {
            None => self.by_type.values().any(is_on),
            Some(event_type) => self.by_type.get(event_type).is_some_and(is_on),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature;

    const NOW_MS: u64 = 1_767_225_600_000;

    fn stored(secret: &str, until_ms: Option<u64>) -> Stored {
        Stored { key: signature::sonzai::key(secret).unwrap(), until_ms }
    }

    fn held(keys: Vec<Stored>, changing: Option<Changing>) -> Held {
        let of = OfType { keys, changing, ..OfType::default() };
        Held::new([("a".to_owned(), of)].into())
    }

    #[test]
    fn a_header_is_that_of_its_type_until_its_time_is_over() {
        let registered =
            |header: &str, until_ms| Registered { sha256: digest(header.as_bytes()), until_ms };
        let authorizations = vec![registered("Bearer new", None), registered("", Some(NOW_MS))];
        let of = OfType { authorizations, ..OfType::default() };
        let held = Held::new([("a".to_owned(), of)].into());
        for (path_type, header, now_ms, expected) in [
            (Some("a"), "Bearer new", NOW_MS, true),
            (Some("b"), "Bearer new", NOW_MS, false),
            (None, "Bearer new", NOW_MS, true),
            (Some("a"), "", NOW_MS - 1, true),
            (Some("a"), "", NOW_MS, false),
            (Some("a"), "Bearer other", NOW_MS - 1, false),
        ] {
            let found = held.is_registered(path_type, header.as_bytes(), now_ms);
            assert_eq!(found, expected, "{path_type:?} {header} {now_ms}");
        }
    }

    #[test]
    fn a_replaced_key_is_valid_until_its_time_is_over() {
        let held = held(vec![stored("new", None), stored("old", Some(NOW_MS))], None);
        for (path_type, now_ms, count) in [
            (Some("a"), NOW_MS - 1, 2),
            (Some("a"), NOW_MS, 1),
            (Some("b"), NOW_MS - 1, 0),
            (None, NOW_MS - 1, 2),
            (None, NOW_MS, 1),
        ] {
            assert_eq!(held.valid(path_type, now_ms).count(), count, "{path_type:?} {now_ms}");
        }
        assert!(held.signs("a").is_some() && held.signs("b").is_none());
    }

    #[test]
    fn a_change_holds_its_type_and_paths_without_one_until_its_time_is_over() {
        let waiting = Changing { until_ms: NOW_MS, is_called: false };
        let called = Changing { is_called: true, ..waiting };
        for (changing, path_type, now_ms, expected) in [
            (Some(waiting), Some("a"), NOW_MS - 1, true),
            (Some(waiting), Some("a"), NOW_MS, false),
            (Some(waiting), Some("b"), NOW_MS - 1, false),
            (Some(waiting), None, NOW_MS - 1, true),
            (Some(called), Some("a"), NOW_MS, true),
            (None, Some("a"), NOW_MS - 1, false),
        ] {
            let held = held(vec![stored("key", None)], changing);
            let found = held.is_changing(path_type, now_ms);
            assert_eq!(found, expected, "{changing:?} {path_type:?} {now_ms}");
        }
    }
}
