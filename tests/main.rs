//! Waypost's promises, one file each, in one program: they share real brokers, which are started
//! once, when the first test needs them.

mod common;

mod broker_restarts;
mod commands;
mod dead_letters;
mod delivery;
mod disk_faults;
mod duplicates;
mod harness;
mod ingress;
mod journal_crash;
mod journal_damage;
mod journal_use;
mod kill_nine;
mod rabbitmq_returns;
mod sick_alarm;
mod sick_connection;
mod sick_hung;
mod sick_kafka_fatal;
mod sick_memory;
mod sick_nats_leader;
