pub mod broker;
pub mod event;
