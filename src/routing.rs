//! The routing table: from `routes.yaml` to "which messages does this event owe".
//!
//! [`file`] reads the YAML and knows places; [`table`] is what it compiles to, a value that cannot be
//! wrong, with a pure [`resolve`](table::Table::resolve) and a [`trace`](table::Table::trace) that
//! says why. [`diagnostic`] says what is wrong with a file, all of it at once. `condition` is a route's
//! `when:`, `template` what stands in an address, and both see an event through an `input`, which reads
//! its body once. `secrets` gives the texts of a source's secrets to who explains a signature.

pub mod address;
pub mod condition;
pub mod diagnostic;
mod file;
mod header;
pub mod input;
pub mod path;
mod pattern;
pub mod reload;
mod secrets;
pub mod table;
mod template;

pub use condition::Why;
pub use diagnostic::{Invalid, Problem, Severity, Tally};
pub use file::schema;
pub use secrets::{Place, Secrets, secrets};
pub use table::{
    BrokerKind, BrokerPolicy, BrokerSettings, CommandSettings, Mismatch, RouteStats, Table, Trace,
    TracedMessage, TracedRoute, UNROUTED, WhenFull,
};

use crate::secret::Env;

/// Most problems that are shown of a file: who has more mends some first.
const MAX_PROBLEMS: usize = 200;

/// Compiles the text of a `routes.yaml`; `file` is its name for messages. Reads the files that it
/// names.
pub fn compile(file: &str, text: &str, env: Env) -> Result<Table, Invalid> {
    examine(file, text, Some(env)).into_table(file)
}

/// The same without a look at a secret or a file: the table verifies nothing and lacks brokers, and
/// can only be asked what it would owe.
pub fn compile_unseen(file: &str, text: &str) -> Result<Table, Invalid> {
    examine(file, text, None).into_table(file)
}

/// The text of a `routes.yaml`, or where it is none.
pub fn text(file: &str, bytes: Vec<u8>) -> Result<String, Invalid> {
    String::from_utf8(bytes).map_err(|error| {
        let Examined { problems, tally, .. } = examine_bytes(file, error.as_bytes(), None);
        Invalid::new(file, problems, tally)
    })
}

/// What there is to say about a file.
pub struct Examined {
    /// `None` if there are errors.
    pub table: Option<Table>,
    /// In the file's order; of very many, the worst.
    pub problems: Vec<Problem>,
    /// How many there are.
    pub tally: Tally,
    /// How many sources, brokers and routes could be read.
    pub parts: [usize; 3],
}

impl Examined {
    fn into_table(self, file: &str) -> Result<Table, Invalid> {
        match self.table {
            Some(table) => Ok(table.with_warnings(self.problems)),
            None => Err(Invalid::new(file, self.problems, self.tally)),
        }
    }
}

/// Says everything that is wrong with, or doubtful about, the text of a `routes.yaml`. Without an
/// environment no secret is looked at, and no file is read.
pub fn examine(file: &str, text: &str, env: Option<Env>) -> Examined {
    examined(file, text, file::read(text), env)
}

/// The same for what may be no text.
pub fn examine_bytes(file: &str, bytes: &[u8], env: Option<Env>) -> Examined {
    match bytes.utf8_chunks().next() {
        Some(chunk) if !chunk.invalid().is_empty() => {
            let text = chunk.valid();
            examined(file, text, file::read_to_bad_byte(text), env)
        }
        chunk => examine(file, chunk.map_or("", |chunk| chunk.valid()), env),
    }
}

fn examined(file: &str, text: &str, read: file::Read, env: Option<Env>) -> Examined {
    let file::Read { content, problems: mut found, masks } = read;
    let mut parts = [0; 3];
    let mut table = None;
    if let Some(content) = &content {
        let file = &content.file;
        parts = [file.sources.len(), file.brokers.len(), file.routes.len()];
        let compiled = table::compile(text, content, found.is_empty(), env);
        found.extend(compiled.problems);
        table = compiled.table;
    }
    let tally = diagnostic::sort(&mut found, MAX_PROBLEMS);
    let problems = found.into_iter().map(|found| Problem::new(file, &masks, found)).collect();
    Examined { table, problems, tally, parts }
}
