//! From the file's mirror to a table; every problem of the file is reported, not only the first.

use secrecy::SecretString;

use super::Table;
use crate::{
    body::Paths,
    routing::{
        diagnostic::Diagnostic,
        file::{At, File, Given, at},
    },
    secret::{self, Env},
};

mod brokers;
mod routes;
mod security;
mod sources;

/// Longest name of a source or broker, in bytes: it names files and stands in every message.
const MAX_NAME_BYTES: usize = 64;

/// Compiles a parsed file.
pub fn compile(file: &File, env: Env) -> Result<Table, Vec<Diagnostic>> {
    let mut compiler = Compiler { env, problems: Vec::new(), paths: Paths::default() };
    let sources = compiler.sources(&file.sources);
    let brokers = compiler.brokers(&file.brokers);
    let routes = compiler.routes(&file.routes, file);
    let Compiler { problems, paths, .. } = compiler;
    if problems.is_empty() {
        Ok(Table::new(sources, brokers, routes, paths))
    } else {
        Err(problems)
    }
}

/// A value that could not be compiled; its problem is on the list already.
struct Reported;

struct Compiler<'e> {
    env: Env<'e>,
    problems: Vec<Diagnostic>,
    /// The body fields that templates need.
    paths: Paths,
}

impl Compiler<'_> {
    /// Puts a problem on the list.
    fn report<T>(&mut self, place: &At<T>, message: impl ToString) -> Reported {
        self.problems.push(at(place.referenced, message.to_string()));
        Reported
    }

    /// The same where a secret may stand in that place.
    fn report_secret<T>(&mut self, place: &At<T>, message: impl ToString) -> Reported {
        self.problems
            .push(Diagnostic { secret: true, ..at(place.referenced, message.to_string()) });
        Reported
    }

    /// Reports every setting that the type at hand does not take.
    fn only(&mut self, kind: &str, given: Given, taken: &[&str]) -> Result<(), Reported> {
        let mut outcome = Ok(());
        for (name, place) in given {
            if !taken.contains(&name) {
                self.problems.push(at(place, format!("`{name}:` is no setting of type {kind}")));
                outcome = Err(Reported);
            }
        }
        outcome
    }

    fn expand<T>(&mut self, place: &At<T>, text: &str) -> Result<SecretString, Reported> {
        secret::expand(text, self.env).map_err(|error| self.report_secret(place, error))
    }

    fn name<T>(&mut self, what: &str, name: &str, place: &At<T>) -> Result<(), Reported> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let good = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(allowed)
            && !name.starts_with('.');
        if good {
            return Ok(());
        }
        let message = format!(
            "the {what} name `{name}` may hold 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` \
             and `.`, and not begin with a dot"
        );
        Err(self.report(place, message))
    }
}
