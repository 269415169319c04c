//! Known keys: what makes the same event, come twice, one event.
//!
//! A source says by which [`Keys`] its event is known: those that are *registered* with it, stored
//! in the journal beside it, and those that are *looked up*, each with the age from which on it
//! makes no more the same event. The [`Window`] knows what was registered, for so long and so many.
//!
//! An event's keys are *claimed* in one step before it is appended. While the claim lives, whoever
//! looks up one of them waits, holding nothing, and for so long and no longer: a claim whose append's
//! outcome is not known lives until it is. One that is dropped (a failed append) leaves no trace; a
//! committed one is known until it is older than the window by [`Running`] time, or pushed out by newer
//! ones.
//! Some keys say less than that: they are good for *one* other event, which takes them
//! ([`Keys::register_for_one`]); that it did is stored like an event's keys.
//! The window itself is memory only: the journal stores each entry's keys with the entry and
//! returns them, with its time, when it is opened.

mod keys;
mod running;
mod window;

pub use keys::{ForOne, Key, Keys, LookUp, both_of_body, of_body, of_id, of_parts};
pub use running::{Running, of_earlier};
pub use window::{Claim, Limits, Undecided, Window, seconds};
