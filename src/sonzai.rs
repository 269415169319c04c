//! What Waypost does with Sonzai beside receiving its webhooks.

pub mod client;
pub mod stub;
