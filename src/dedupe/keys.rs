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
        self.looked_up.push(LookUp { key, younger_than_s });
    }

    /// What is stored with the event, each once.
    pub fn registered(&self) -> &[Key] {
        &self.registered
    }

    /// What makes it the same as an event before it.
    pub fn looked_up(&self) -> &[LookUp] {
        &self.looked_up
    }

    pub(super) fn into_registered(self) -> Registered {
        self.registered
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
        assert_eq!(keys.registered(), [[1; 16], [2; 16]]);
        let ages: Vec<u32> = keys.looked_up().iter().map(|up| up.younger_than_s).collect();
        assert_eq!(ages, [u32::MAX; 2]);
    }
}
