//! `waypost journal`: what a broken disk did, and what to do about it.

use std::process::ExitCode;

use super::Error;
use crate::settings::Settings;

mod salvage;
mod skip;
mod verify;

/// See what is damaged on disk, give up on what cannot be read, send on what can.
#[derive(clap::Subcommand)]
#[command(after_help = "\
Examples:
  waypost journal verify                         read everything, and say what is wrong
  waypost journal skip                           give up on what the disk cannot read
  waypost journal salvage data/journal/quarantine/FILE.seg
                                                 send on what can be read after all

docs/journal.md says what each is for.")]
pub enum Command {
    Verify(verify::Arguments),
    Skip(skip::Arguments),
    Salvage(salvage::Arguments),
}

pub fn main(command: Command, settings: &Settings) -> Result<ExitCode, Error> {
    match command {
        Command::Verify(arguments) => verify::main(arguments, settings),
        Command::Skip(arguments) => skip::main(arguments, settings),
        Command::Salvage(arguments) => salvage::main(arguments, settings),
    }
}
