//! Webhooks: what is registered, its secrets, and their rotation.
//!
//! [`plan`] says what there is to do so that what is registered is what `routes.yaml` says; [`desk`] is
//! asked to show it or to do it, by the admin API; [`change`] makes one change of a secret; [`recover`]
//! goes on with those whose answer was lost, across restarts. One thing at a time is changed of a source,
//! and whatever was begun goes on to its end, whether or not anybody still waits for it.

mod apply;
pub mod change;
pub mod desk;
pub mod document;
pub mod plan;
pub mod recover;
