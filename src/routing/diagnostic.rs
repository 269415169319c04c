//! What is wrong with a `routes.yaml`, where, and what to do about it.

use std::{cmp::Reverse, fmt};

use serde::Serialize;

use super::file::Span;
use crate::printable::escaped;

mod excerpt;
mod suspects;

pub use excerpt::Masks;

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file compiles, and probably does not do what was meant.
    Warning,
    /// The file does not compile.
    Error,
}

/// What kind of problem it is, in a word that stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The text is not YAML, or too much of it.
    Syntax,
    DuplicateKey,
    UnknownKey,
    MissingKey,
    WrongType,
    UnknownValue,
    /// A value that its setting does not take.
    InvalidValue,
    /// A setting that its type, or what stands beside it, does not allow.
    MisplacedKey,
    InvalidName,
    DuplicateName,
    InvalidPath,
    OverlappingPaths,
    /// A reference that cannot be resolved.
    UnresolvedSecret,
    InvalidSecret,
    /// A secret where everybody would see it.
    ExposedSecret,
    /// A certificate, key or credentials that cannot be used.
    InvalidMaterial,
    UnknownSource,
    UnknownBroker,
    NoTarget,
    InvalidMatch,
    InvalidCondition,
    InvalidTemplate,
    InvalidAddress,
    SharedDirectory,
    /// Two commands that take from the same place.
    SharedPlace,
    ShortSecret,
    NeverMatches,
    DuplicateRoute,
    UnroutedSource,
    /// A type that is asked for and that no route takes.
    UnroutedType,
    /// What a route reads and some of what it takes does not have.
    AbsentField,
    /// A URL over which everybody reads along.
    InsecureUrl,
    /// A URL that does not say the event's type, registered for several.
    SharedUrl,
    UnusedBroker,
}

/// One problem and its place.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    pub span: Span,
    pub message: String,
    /// What to do, where the message does not say it already.
    pub help: Option<String>,
}

/// A problem as it is shown: nothing in it is secret.
#[derive(Clone, Debug, Serialize)]
pub struct Problem {
    #[serde(skip)]
    file: String,
    pub severity: Severity,
    pub code: Code,
    /// From 1.
    pub line: usize,
    /// In characters of the file's line, from 1.
    pub column: usize,
    /// Behind the last character, where the end is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_column: Option<usize>,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line, with every literal secret masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Where the line's caret goes, and how far: masked text is not as wide as what it stands for.
    #[serde(skip)]
    caret: (usize, usize),
}

/// A file that does not compile, with every problem found. Prints as a compiler would.
#[derive(Debug)]
pub struct Invalid {
    file: String,
    problems: Vec<Problem>,
    errors: usize,
}

/// How many problems there are, shown or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub errors: usize,
    pub warnings: usize,
}

impl Diagnostic {
    pub fn error(code: Code, span: Span, message: impl ToString) -> Diagnostic {
        let message = message.to_string();
        Diagnostic { code, severity: Severity::Error, span, message, help: None }
    }

    pub fn warning(code: Code, span: Span, message: impl ToString) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, span, message) }
    }

    pub fn help(self, help: impl ToString) -> Diagnostic {
        Diagnostic { help: Some(help.to_string()), ..self }
    }
}

impl Invalid {
    /// Of all that is said about a file, what keeps it from compiling.
    pub(super) fn new(file: &str, mut problems: Vec<Problem>, tally: Tally) -> Invalid {
        problems.retain(|problem| problem.severity == Severity::Error);
        Invalid { file: file.to_owned(), problems, errors: tally.errors }
    }

    /// Its errors, in the file's order; of very many, the first.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl Problem {
    /// How a diagnostic is shown, given what must not be.
    pub(super) fn new(file: &str, masks: &Masks, diagnostic: Diagnostic) -> Problem {
        let Diagnostic { code, severity, span, message, help } = diagnostic;
        let excerpt = masks.excerpt(&span);
        let width = masks.width(&span);
        Problem {
            file: file.to_owned(),
            severity,
            code,
            line: span.line.max(1),
            column: span.column.max(1),
            end_column: width.map(|width| span.column + width),
            message: masks.scrub(&message),
            help: help.map(|help| masks.scrub_words(&help)),
            caret: (excerpt.column, excerpt.width),
            source: Some(excerpt.line).filter(|line| !line.trim().is_empty()),
        }
    }
}

/// Sorts as one reads the file; at one place, what is worse comes first. Where there are more than
/// `most`, the worse stay. Says how many there were.
pub fn sort(problems: &mut Vec<Diagnostic>, most: usize) -> Tally {
    let in_order = |p: &Diagnostic| (p.span.line, p.span.column, Reverse(p.severity));
    problems.sort_by_key(in_order);
    problems.dedup_by(|a, b| (&a.span, &a.message) == (&b.span, &b.message));
    let errors = problems.iter().filter(|p| p.severity == Severity::Error).count();
    let tally = Tally { errors, warnings: problems.len() - errors };
    problems.sort_by_key(|p| Reverse(p.severity));
    problems.truncate(most);
    problems.sort_by_key(in_order);
    tally
}

impl Tally {
    /// With how many of them are shown, where that is not all.
    pub fn with_shown(self, shown: usize) -> String {
        match self.errors + self.warnings {
            all if all > shown => format!("{self} ({shown} of {all} shown: mend some first)"),
            _ => self.to_string(),
        }
    }
}

/// `2 errors, 1 warning`, or nothing where there are none.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: usize, one: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {one}s")),
        };
        let counts = [count(self.errors, "error"), count(self.warnings, "warning")];
        f.write_str(&counts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { file, line, column, severity, .. } = self;
        write!(f, "{file}:{line}:{column}: {severity}: {}", escaped(&self.message))?;
        let margin = " ".repeat(line.to_string().len());
        if let Some(source) = &self.source {
            let (column, width) = self.caret;
            let (source, indent) = (escaped(source), " ".repeat(column.saturating_sub(1)));
            write!(f, "\n {line} | {source}\n {margin} | {indent}{}", "^".repeat(width.max(1)))?;
        }
        match &self.help {
            Some(help) => write!(f, "\n {margin} = help: {}", escaped(help)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tally = Tally { errors: self.errors, warnings: 0 };
        write!(f, "{} has {}", self.file, tally.with_shown(self.problems.len()))?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))
    }
}

impl std::error::Error for Invalid {}
