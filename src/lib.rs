pub mod broker;
pub mod event;
pub mod journal;
