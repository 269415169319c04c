//! `waypost sonzai`: what concerns Sonzai alone.

use std::process::ExitCode;

use super::Error;
use crate::settings::Settings;

mod repair;
mod stub;
mod wakeups;
mod webhooks;

/// Work with Sonzai's API: register webhooks, repair, schedule wakeups; or run a stand-in for it.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  waypost sonzai webhooks sync                   what to register, from `register:` in routes.yaml
  waypost sonzai webhooks list                   what is registered, and the last deliveries
  waypost sonzai repair --since 2h               fetch what an outage lost
  waypost sonzai wakeups list --agent Luna       what an agent is to do later
  waypost sonzai stub                            a stand-in for Sonzai's API, on this machine

All but the stub need `api:` of a Sonzai source in routes.yaml; webhooks and repair go through the
running daemon.")]
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
