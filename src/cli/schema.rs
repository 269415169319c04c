//! `waypost schema`: the JSON Schema of `routes.yaml`, by which editors complete and check it; and that of
//! the commands that are taken from brokers.

use super::{Error, print};
use crate::{commands, routing};

/// Print the JSON Schema of routes.yaml, by which editors complete it, or of commands.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost schema > routes.schema.json
  waypost schema --commands        what the data of a `wakeup.schedule` message is

With this as the first line of routes.yaml, editors that know yaml-language-server use it:
  # yaml-language-server: $schema=routes.schema.json")]
pub struct Arguments {
    /// Of the data of commands that are taken from brokers (docs/commands.md)
    #[arg(long)]
    commands: bool,
}

pub fn main(arguments: Arguments) -> Result<(), Error> {
    let schema = match arguments.commands {
        false => routing::schema(),
        true => commands::message::schema(),
    };
    let document = serde_json::to_string_pretty(schema).map_err(Error::new)?;
    print(&(document + "\n"))?;
    Ok(())
}
