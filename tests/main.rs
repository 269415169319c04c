//! Waypost's promises, one file each, in one program: they share real brokers, which are started
//! once, when the first test needs them.

mod common;

mod admin;
mod broker_restarts;
mod broker_tls;
mod check;
mod commands;
mod dead_letters;
mod delivery;
mod deploy;
mod disk_faults;
mod duplicates;
mod explain;
mod formats;
mod harness;
mod ingress;
mod journal_crash;
mod journal_damage;
mod journal_use;
mod kill_nine;
mod metrics;
mod policies;
mod rabbitmq_returns;
mod reload;
mod service;
mod sick_alarm;
mod sick_connection;
mod sick_hung;
mod sick_kafka_fatal;
mod sick_memory;
mod sick_nats_leader;
mod sonzai_client;
mod sonzai_outage;
mod sonzai_poll;
mod sonzai_poll_kill;
mod sonzai_poll_many;
mod sonzai_poll_trouble;
mod sonzai_prism;
mod sonzai_repair;
mod sonzai_sdk;
mod sonzai_stub;
mod sonzai_webhooks;
mod standard_webhooks;
mod status;
mod wakeup_commands;
