//! The routing table: from `routes.yaml` to "which messages does this event owe".
//!
//! [`file`] mirrors the YAML and knows places; [`table`] is what it compiles to, a value that cannot
//! be wrong, with a pure [`resolve`](table::Table::resolve). A condition on a route (`when:`) and the
//! reload of a changed file belong here too, each in a module of its own.

pub mod address;
pub mod diagnostic;
mod file;
pub mod path;
mod pattern;
mod secrets;
pub mod table;
mod template;

pub use diagnostic::Invalid;
pub use secrets::{Place, Secrets, secrets};
pub use table::{BrokerKind, BrokerSettings, Table, UNROUTED};

use crate::secret::Env;

/// Compiles the text of a `routes.yaml`; `file` is its name for messages.
pub fn compile(file: &str, text: &str, env: Env) -> Result<Table, Invalid> {
    file::parse(text)
        .and_then(|mirror| table::compile(&mirror, env))
        .map_err(|diagnostics| Invalid::new(file, text, diagnostics))
}
