//! What the promises are tested with.

pub mod brokers;
pub mod consume;
pub mod daemon;
pub mod journal_disk;
pub mod sender;
pub mod shared;
pub mod sim_disk;
pub mod sinks;
