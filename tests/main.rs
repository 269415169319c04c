//! Waypost's promises, one file each, in one program: they share real brokers, which are started
//! once, when the first test needs them.

mod common;

mod broker_restarts;
mod delivery;
mod harness;
mod journal_crash;
mod journal_damage;
mod journal_use;
mod kill_nine;
