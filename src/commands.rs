//! The other direction: commands that are taken from a broker and carried out through Sonzai's API.
//!
//! # The cast, in the order in which a message meets it
//!
//! A [`consumer`] of NATS, RabbitMQ or Kafka takes one message and keeps it in hand. Its [`message`]
//! is read, envelope first, and is a command or [`refused`]. The [`ledger`] knows whether it was done
//! or begun before. [`hands`] carry it out; what the API says has its consequence by [`verdict`], and
//! where the outcome of a call is not known they [`look`]. The [`runner`] is the loop around them, and
//! the [`service`] has one runner for each place of `commands:` in the routing table.
//!
//! # What is promised
//!
//! A message is acknowledged only when its wakeup is scheduled, or it is durably a dead letter; and the
//! same command, by its sender and id, schedules once within the window (`dedupe.window`). What makes
//! that so stands in [`hands`]. One message is in hand at a time, so the order of a queue, a stream or
//! a partition is kept.

pub mod bounds;
pub mod consumer;
pub mod delivery;
pub mod envelope;
pub mod hands;
pub mod ledger;
pub mod look;
pub mod message;
pub mod refused;
pub mod runner;
pub mod service;
pub mod stats;
pub mod verdict;

pub use ledger::MAX_BYTES as LEDGER_MAX_BYTES;
pub use service::{Commands, Error, Parts, Service};
