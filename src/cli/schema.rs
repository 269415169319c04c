//! `waypost schema`: the JSON Schema of `routes.yaml`, by which editors complete and check it.

use super::{Error, print};
use crate::routing;

/// Print the JSON Schema of routes.yaml, by which editors complete it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  waypost schema > routes.schema.json

With this as the first line of routes.yaml, editors that know yaml-language-server use it:
  # yaml-language-server: $schema=routes.schema.json")]
pub struct Arguments {}

pub fn main(_: Arguments) -> Result<(), Error> {
    let document = serde_json::to_string_pretty(routing::schema()).map_err(Error::new)?;
    print(&(document + "\n"))?;
    Ok(())
}
