//! From the file's mirror to a table; every problem of the file is reported, not only the first.
//!
//! The mirror is walked beside the tree that it was read from: a [`Place`] follows each value, so that
//! whatever is wrong with it can be pointed at.

use std::ops::Range;

use secrecy::{ExposeSecret, SecretString};

use super::Table;
use crate::{
    body::Paths,
    nearest::{listed, nearest},
    routing::{
        MAX_PROBLEMS,
        diagnostic::{Code, Diagnostic, Severity},
        file::{Content, Node, Place, Span},
    },
    secret::{self, Env},
};

mod brokers;
mod commands;
mod doubts;
mod policy;
mod routes;
mod security;
mod sonzai;
mod sources;
mod targets;
mod web_url;

/// Longest name of a source or broker, in bytes: it names files and stands in every message.
const MAX_NAME_BYTES: usize = 64;

/// Shortest secret, in bytes, that nobody will guess.
const MIN_SECRET_BYTES: usize = 16;

/// What a file compiles to.
pub struct Compiled {
    /// `None` if there are errors. Where no secret was looked at, it verifies nothing and lacks
    /// brokers: it can only be asked what it would owe.
    pub table: Option<Table>,
    pub problems: Vec<Diagnostic>,
}

/// Compiles what could be read of a file; `sound` says whether that was all of it. Without an
/// environment no secret is looked at, and no file is read.
pub fn compile(text: &str, content: &Content, sound: bool, env: Option<Env>) -> Compiled {
    let (file, place) = (&content.file, Place::root(&content.fitting));
    let (whole, paths) = (&content.whole, Paths::default());
    let mut compiler = Compiler { text, whole, env, problems: Vec::new(), paths };
    let sources = compiler.sources(&file.sources, place.key("sources"));
    let brokers = compiler.brokers(&file.brokers, place.key("brokers"));
    let routes = compiler.routes(file, place.key("routes"));
    let commands = compiler.commands(file, place);
    let Compiler { mut problems, paths, .. } = compiler;
    let sound = sound && problems.iter().all(|p| p.severity == Severity::Warning);
    // What is doubtful about a table can only be said of all of it.
    if sound {
        problems.extend(doubts::of(text, file, &routes, place));
    }
    let table = sound.then(|| Table::new(sources, brokers, routes, commands, paths));
    Compiled { table, problems }
}

/// A value that could not be compiled: its problem is on the list already, or it is one of those that
/// are not looked at in this run.
struct Skipped;

struct Compiler<'c> {
    text: &'c str,
    /// The whole file, with the names of what could not be read.
    whole: &'c Node,
    /// `None`: no secret is looked at.
    env: Option<Env<'c>>,
    problems: Vec<Diagnostic>,
    /// The body fields that templates need.
    paths: Paths,
}

impl<'c> Compiler<'c> {
    /// Puts an error on the list.
    fn report(&mut self, code: Code, span: Span, message: impl ToString) -> Skipped {
        self.problems.push(Diagnostic::error(code, span, message));
        Skipped
    }

    /// The same with what to do about it.
    fn advise(
        &mut self,
        code: Code,
        span: Span,
        message: impl ToString,
        help: impl ToString,
    ) -> Skipped {
        self.problems.push(Diagnostic::error(code, span, message).help(help));
        Skipped
    }

    /// Where a part of a setting's text stands, `value`; see [`Place::within`].
    fn within(&self, place: Place, value: &str, part: Range<usize>) -> Span {
        match self.problems.len() < MAX_PROBLEMS {
            true => place.within(self.text, value, part),
            // Nobody is shown more, and each would be looked for in all of the file.
            false => place.span(),
        }
    }

    /// The names that a part of the file gives, those of what is broken too.
    fn names(&self, part: &str) -> Vec<&'c str> {
        let entries = self.whole.get(part).map(Node::entries).unwrap_or_default();
        entries.iter().map(|(key, _)| &*key.name).collect()
    }

    /// A setting's text with its references replaced; where no secret is looked at, by something that
    /// is not empty.
    fn expand(&mut self, place: Place, text: &str) -> Result<SecretString, Skipped> {
        let expanded = match self.env {
            Some(env) => secret::expand(text, env),
            None => secret::stand_in(text),
        };
        expanded.map_err(|error| self.report(Code::UnresolvedSecret, place.span(), error))
    }

    /// Whether the text of a setting depends on what is not looked at.
    fn is_unseen(&self, text: &str) -> bool {
        self.env.is_none() && secret::has_reference(text)
    }

    /// A setting's text, which may not be empty.
    fn filled(&mut self, name: &str, place: Place, text: &str) -> Result<SecretString, Skipped> {
        let text = self.expand(place, text)?;
        if text.expose_secret().is_empty() {
            return Err(self.report(
                Code::InvalidValue,
                place.span(),
                format!("`{name}:` is empty"),
            ));
        }
        Ok(text)
    }

    fn name(&mut self, what: &str, name: &str, place: Place) -> Result<(), Skipped> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let good = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(allowed)
            && !name.starts_with('.');
        if good {
            return Ok(());
        }
        let message = format!("`{name}` cannot be the name of a {what}");
        let help = format!(
            "a name has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`, and does not begin \
             with a dot"
        );
        Err(self.advise(Code::InvalidName, place.at_key(), message, help))
    }

    /// Reports a name that there is not.
    fn unknown(
        &mut self,
        code: Code,
        span: Span,
        what: &str,
        name: &str,
        known: &[&str],
    ) -> Skipped {
        let message = format!("no {what} is named `{name}`");
        // Nobody is shown more, and each would be compared with every known name.
        if self.problems.len() >= MAX_PROBLEMS {
            return self.report(code, span, message);
        }
        let message = match nearest(name, known.iter().copied()) {
            Some(near) => format!("{message}; did you mean `{near}`?"),
            None => message,
        };
        let help = match known {
            [] => format!("there is no {what} at all: add it to `{what}s:`"),
            [one] => format!("there is {one}"),
            known => format!("there are {}", listed(known)),
        };
        self.advise(code, span, message, help)
    }
}

#[cfg(test)]
mod tests;
