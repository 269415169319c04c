//! By what an event is known. What that means is its source's to say; here it is hashes.

use sha2::{Digest, Sha256};
use smallvec::SmallVec;

/// A hash of something that an event is known by.
pub type Key = [u8; 16];

/// Enough for a webhook with every identifier that there is, so that none of it is allocated.
const USUAL_REGISTERED: usize = 6;
const USUAL_LOOKED_UP: usize = 10;

/// What stands before the parts of a hash: no length of a name is as long, so that none of them
/// passes for another kind.
const BODY: u64 = u64::MAX;
const PARTS: u64 = u64::MAX - 1;

/// By what an event is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    registered: Registered,
    /// Those of them that make one other event the same, and no more.
    for_one: SmallVec<[Key; 2]>,
    looked_up: SmallVec<[LookUp; USUAL_LOOKED_UP]>,
}

/// The keys that are stored with an event.
pub(super) type Registered = SmallVec<[Key; USUAL_REGISTERED]>;

/// A key that makes an event the same as the one that registered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookUp {
    pub key: Key,
    /// Only if it was registered less than so many seconds ago; the window bounds it besides.
    pub younger_than_s: u32,
    /// Only if no other event was taken for the one that registered it.
    pub for_one: Option<ForOne>,
}

/// Between whom a key is good for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForOne {
    /// What sort of event looks it up: one of each may take it.
    pub taker: u8,
    /// What sort of event registers it: who takes one takes all that are good of that sort, for they
    /// may be the same thing told twice.
    pub giver: u8,
}

impl LookUp {
    /// What says that an event of this sort was taken for the one which registered the key; `None` where
    /// it is good for any number.
    pub(super) fn taken(&self) -> Option<Key> {
        let ForOne { taker, .. } = self.for_one?;
        let mut taken = self.key;
        taken[0] = !taken[0];
        taken[1] ^= taker;
        Some(taken)
    }
}

impl Keys {
    /// Of an event that is known by this key: as long as the window lasts, another with it is the
    /// same.
    pub fn known_by(key: Key) -> Keys {
        let mut keys = Keys::default();
        keys.also_known_by(key);
        keys
    }

    /// Makes another event with this key the same as well.
    pub fn also_known_by(&mut self, key: Key) {
        self.register(key);
        self.look_up(key, u32::MAX);
    }

    /// Registers a key that may have been registered already.
    pub fn register(&mut self, key: Key) {
        if !self.registered.contains(&key) {
            self.registered.push(key);
        }
    }

    /// Looks a key up; the event is another one if that key is so many seconds old, or older.
    pub fn look_up(&mut self, key: Key, younger_than_s: u32) {
        self.looked_up.push(LookUp { key, younger_than_s, for_one: None });
    }

    /// Registers a key that may be registered by several events, and is good for one other event of
    /// each sort. An event that is the same as one before it registers none.
    pub fn register_for_one(&mut self, key: Key) {
        if !self.for_one.contains(&key) {
            self.for_one.push(key);
        }
    }

    /// Looks up what was registered for one. Whoever is made the same by nothing else takes it, and the
    /// next of its sort that looks it up is another event.
    pub fn look_up_for_one(&mut self, key: Key, for_one: ForOne) {
        self.looked_up.push(LookUp { key, younger_than_s: u32::MAX, for_one: Some(for_one) });
    }

    /// What is stored with an event that is none before it, each once.
    pub fn registered(&self) -> impl Iterator<Item = Key> {
        self.registered.iter().chain(&self.for_one).copied()
    }

    /// What makes it the same as an event before it.
    pub fn looked_up(&self) -> &[LookUp] {
        &self.looked_up
    }

    /// What is stored with the event; if it is the same as others before it by what it `takes`, that.
    pub(super) fn stored(&self, takes: &[Key]) -> Registered {
        match takes {
            [] => self.registered().collect(),
            takes => self.registered.iter().chain(takes).copied().collect(),
        }
    }
}

/// Of a source and the id of its event.
pub fn of_id(source: &str, id: &str) -> Key {
    let [key, _] = hash(&[&len(source), source.as_bytes(), id.as_bytes()]);
    key
}

/// Of a source, and the type and body of its event.
pub fn of_body(source: &str, kind: &str, body: &[u8]) -> Key {
    let [key, _] = both_of_body(source, kind, body);
    key
}

/// That, and another hash of the same that has nothing in common with it: a body is long, and this
/// goes over it once.
pub fn both_of_body(source: &str, kind: &str, body: &[u8]) -> [Key; 2] {
    hash(&[&BODY.to_le_bytes(), &len(source), source.as_bytes(), &len(kind), kind.as_bytes(), body])
}

/// Of parts in this order, the first of which says what they are. All of them together are short:
/// put side by side first, they are usually one block to the hash.
pub fn of_parts(parts: &[&[u8]]) -> Key {
    let mut all: SmallVec<[u8; 256]> = SmallVec::from_slice(&PARTS.to_le_bytes());
    for part in parts {
        // No part is as long as 4 GiB: each is of a body, which the ingress bounds.
        all.extend_from_slice(&(part.len() as u32).to_le_bytes());
        all.extend_from_slice(part);
    }
    let [key, _] = hash(&[&all]);
    key
}

/// Keeps two neighbouring parts from passing for one another.
fn len(part: &str) -> [u8; 8] {
    (part.len() as u64).to_le_bytes()
}

/// The two halves of a hash.
fn hash(parts: &[&[u8]]) -> [Key; 2] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let (mut halves, whole) = ([Key::default(); 2], hash.finalize());
    halves.as_flattened_mut().copy_from_slice(&whole);
    halves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_another_event_under_another_source_or_type() {
        let first = of_body("s", "k", b"x");
        for other in [
            of_body("s", "k", b"y"),
            of_body("other", "k", b"x"),
            of_body("s", "other", b"x"),
            // The same bytes, otherwise divided.
            of_body("s", "kx", b""),
            of_body("sk", "", b"x"),
        ] {
            assert_ne!(first, other);
        }
    }

    #[test]
    fn parts_do_not_pass_for_one_another() {
        let first = of_parts(&[b"what", b"a", b"b"]);
        let others: [&[&[u8]]; 4] =
            [&[b"what", b"ab", b""], &[b"whata", b"b"], &[b"what", b"b", b"a"], &[b"what", b"a"]];
        for other in others {
            assert_ne!(first, of_parts(other));
        }
    }

    /// They are in the journals of daemons that ran before this one.
    #[test]
    fn keys_that_are_stored_somewhere_stay_what_they_are() {
        let shown = |key: Key| const_hex::encode(key);
        assert_eq!(shown(of_id("shop", "msg_1")), "27afedd61a170bc7a8ba4530ecce1347");
        assert_eq!(shown(of_body("shop", "order.paid", b"{}")), "246ea236c9423d473c446c02e2872d04");
    }

    #[test]
    fn a_key_is_stored_once_however_often_it_is_registered() {
        let mut keys = Keys::known_by([1; 16]);
        keys.register([2; 16]);
        keys.also_known_by([2; 16]);
        assert_eq!(keys.registered().collect::<Vec<_>>(), [[1; 16], [2; 16]]);
        let ages: Vec<u32> = keys.looked_up().iter().map(|up| up.younger_than_s).collect();
        assert_eq!(ages, [u32::MAX; 2]);
    }
}
