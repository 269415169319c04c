//! What a command is, and how much of anything it may be.

/// The type of the one command that there is.
pub const KIND: &str = "wakeup.schedule";

/// Longest message that is read as a command, in bytes. A wakeup's texts are sentences; anything near
/// this is something else.
pub const MAX_BODY_BYTES: usize = 256 << 10;

/// Longest id, in bytes; an id is a hash, a number or a name.
pub const MAX_ID_BYTES: usize = 1024;

/// Longest delay: about a hundred years. Beyond it a number is a slip, such as one in milliseconds.
pub const MAX_DELAY_HOURS: u32 = 1_000_000;
