//! What an error answer says (RFC 9457, `application/problem+json`).

/// The words of an error answer, escaped and bounded; empty where it had none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem(pub String);
