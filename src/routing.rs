//! The routing table: from `routes.yaml` to "which messages does this event owe".
//!
//! [`file`] mirrors the YAML and knows places; [`table`] is what it compiles to, a value that cannot
//! be wrong, with a pure [`resolve`](table::Table::resolve) and a [`trace`](table::Table::trace) that
//! says why. `condition` is a route's `when:`, `template` what stands in an address, and both see an
//! event through an `input`, which reads its body once. The reload of a changed file belongs here too.

pub mod address;
mod condition;
pub mod diagnostic;
mod file;
mod header;
mod input;
pub mod path;
mod pattern;
mod secrets;
pub mod table;
mod template;

pub use condition::Why;
pub use diagnostic::Invalid;
pub use secrets::{Place, Secrets, secrets};
pub use table::{
    BrokerKind, BrokerSettings, Mismatch, RouteStats, Table, Trace, TracedMessage, TracedRoute,
    UNROUTED,
};

use crate::secret::Env;

/// Compiles the text of a `routes.yaml`; `file` is its name for messages.
pub fn compile(file: &str, text: &str, env: Env) -> Result<Table, Invalid> {
    file::parse(text)
        .and_then(|mirror| table::compile(&mirror, env))
        .map_err(|diagnostics| Invalid::new(file, text, diagnostics))
}
