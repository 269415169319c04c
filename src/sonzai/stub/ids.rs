//! Ids of what a stand-in makes.

use uuid::Uuid;

/// An id that no other run of a stand-in has given either.
pub fn new_id(kind: &str) -> String {
    format!("{kind}-{}", Uuid::now_v7())
}
