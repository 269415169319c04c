pub mod body;
pub mod broker;
pub mod event;
pub mod routing;
pub mod secret;
pub mod signature;
pub mod source;
