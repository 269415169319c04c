//! What is wrong with a `routes.yaml`, and where.

use std::fmt;

/// One problem and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// From 1; 0 where the place is not known.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    pub message: String,
}

/// A file that does not compile, with every problem found. Prints as a compiler would.
#[derive(Debug)]
pub struct Invalid {
    file: String,
    /// Each problem with the text of its line.
    problems: Vec<(Diagnostic, String)>,
}

/// Longest excerpt of a line that is shown, in characters.
const MAX_EXCERPT: usize = 160;

impl Invalid {
    pub(super) fn new(file: &str, text: &str, diagnostics: Vec<Diagnostic>) -> Invalid {
        let line = |d: &Diagnostic| text.lines().nth(d.line.wrapping_sub(1)).unwrap_or_default();
        let excerpt = |d: &Diagnostic| match line(d) {
            line if may_hold_secret(line) => String::new(),
            line => line.chars().take(MAX_EXCERPT).collect(),
        };
        let problems = diagnostics.into_iter().map(|d| (d.clone(), excerpt(&d))).collect();
        Invalid { file: file.to_owned(), problems }
    }
}

/// Whether somebody may have written a secret into this line; then it is not repeated.
fn may_hold_secret(line: &str) -> bool {
    ["secret", "authorization", "url", "whsec_"].iter().any(|sign| line.contains(sign))
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (Diagnostic { line, column, message }, excerpt)) in
            self.problems.iter().enumerate()
        {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:{line}:{column}: {message}", self.file)?;
            if !excerpt.trim().is_empty() {
                let margin = " ".repeat(line.to_string().len());
                let indent = " ".repeat(column.saturating_sub(1).min(MAX_EXCERPT));
                write!(f, "\n {margin} |\n {line} | {excerpt}\n {margin} | {indent}^")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
