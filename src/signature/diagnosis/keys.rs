//! How a secret's text becomes a key, rightly or not.

use secrecy::{ExposeSecret, SecretSlice};

use super::{Encoding, Mistake, Reading};
use crate::signature::{self, standard::Key};

/// Readings of a secret, the right one first. Those that are equal to an earlier one, or are no key,
/// are left out.
pub(super) struct Readings {
    found: Vec<Reading<Key>>,
    seen: Vec<SecretSlice<u8>>,
}

impl Readings {
    /// Begins with the right key.
    pub(super) fn of(right: Key, bytes: &[u8]) -> Readings {
        Readings { found: vec![Reading::right(right)], seen: vec![bytes.to_vec().into()] }
    }

    pub(super) fn or(mut self, bytes: Option<&[u8]>, mistake: Mistake) -> Readings {
        let is_new = |bytes: &&[u8]| self.seen.iter().all(|seen| seen.expose_secret() != *bytes);
        if let Some(bytes) = bytes.filter(is_new)
            && let Ok(key) = signature::Key::new(bytes)
        {
            self.seen.push(bytes.to_vec().into());
            self.found.push(Reading::wrong(Key::Shared(key), mistake));
        }
        self
    }

    /// With what reading `text` carelessly makes of it.
    pub(super) fn or_careless(self, text: &str) -> Vec<Reading<Key>> {
        let with_newline = format!("{text}\n");
        self.or(Some(with_newline.as_bytes()), Mistake::KeyWithNewline)
            .or(Some(text.trim().as_bytes()), Mistake::KeyTrimmed)
            .found
    }

    /// With what decoding `text` makes of it.
    pub(super) fn or_decoded(mut self, text: &str) -> Readings {
        for encoding in Encoding::ALL {
            let bytes = encoding.decode(text);
            self = self.or(bytes.as_deref(), Mistake::KeyDecoded(encoding));
        }
        self
    }
}
