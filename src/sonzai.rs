//! What Waypost does with Sonzai beside receiving its webhooks.

pub mod client;
pub mod poller;
pub mod repair;
pub mod service;
pub mod store;
pub mod stub;
pub mod webhooks;
