//! The other direction.
pub mod delivery;
pub mod envelope;
pub mod message;
pub mod refused;
