//! `waypost sonzai`: what concerns Sonzai alone.

use std::process::ExitCode;

use super::Error;
use crate::settings::Settings;

mod repair;
mod stub;
mod wakeups;
mod webhooks;

/// Try and run Sonzai's side: a stand-in for its API, webhooks, repair, wakeups.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  waypost sonzai stub                            a stand-in for Sonzai's API, on this machine")]
pub enum Command {
    Stub(stub::Arguments),
    #[command(subcommand)]
    Webhooks(webhooks::Command),
    Repair(repair::Arguments),
    #[command(subcommand)]
    Wakeups(wakeups::Command),
}

pub fn main(command: Command, settings: &Settings) -> Result<ExitCode, Error> {
    match command {
        Command::Stub(arguments) => stub::main(arguments),
        Command::Webhooks(command) => webhooks::main(command, settings),
        Command::Repair(arguments) => repair::main(arguments, settings),
        Command::Wakeups(command) => wakeups::main(command, settings),
    }
}
