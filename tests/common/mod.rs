//! What the promises are tested with.

pub mod brokers;
pub mod burst;
pub mod certificates;
pub mod command;
pub mod consume;
pub mod daemon;
pub mod faults;
pub mod frames;
pub mod ids;
pub mod journal_disk;
pub mod kept;
pub mod log_files;
pub mod openapi;
pub mod operator;
pub mod prism;
pub mod proxy;
pub mod raw;
pub mod receiver;
pub mod scene;
pub mod sender;
pub mod shared;
pub mod sim_disk;
pub mod sinks;
pub mod sonzai_stub;
pub mod variable;
pub mod ward;
