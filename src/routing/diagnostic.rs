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
    /// Whether what stands there may be a secret, however the line looks.
    pub secret: bool,
}

/// A file that does not compile, with every problem found. Prints as a compiler would.
#[derive(Debug)]
pub struct Invalid {
    file: String,
    problems: Vec<Problem>,
}

/// A problem with the text of its line.
type Problem = (Diagnostic, String);

/// Longest excerpt of a line that is shown, in characters.
const MAX_EXCERPT: usize = 160;

impl Invalid {
    pub(super) fn new(file: &str, text: &str, diagnostics: Vec<Diagnostic>) -> Invalid {
        let line = |d: &Diagnostic| text.lines().nth(d.line.wrapping_sub(1)).unwrap_or_default();
        let excerpt = |d: &Diagnostic| {
            let line = line(d);
            let unseen = if d.secret { 0 } else { line.len() };
            let shown = &line[..secret_at(line).unwrap_or(unseen)];
            let mut excerpt: String = shown.chars().take(MAX_EXCERPT).collect();
            if excerpt.len() < line.len() {
                excerpt.push('…');
            }
            excerpt
        };
        let problems = diagnostics.into_iter().map(|d| (d.clone(), excerpt(&d))).collect();
        Invalid { file: file.to_owned(), problems }
    }
}

/// Where somebody may have written a secret into this line: from there on it is not repeated.
fn secret_at(line: &str) -> Option<usize> {
    let signs = [
        "secret",
        "authorization",
        "url",
        "whsec_",
        "sasl",
        "password",
        "token",
        "nkey",
        "creds",
        "-----BEGIN",
    ];
    signs.iter().filter_map(|sign| line.find(sign)).min()
}

impl Invalid {
    /// Each problem as it is printed.
    pub fn each(&self) -> impl Iterator<Item = String> {
        self.problems.iter().map(|problem| self.print(problem))
    }

    fn print(&self, (Diagnostic { line, column, message, .. }, excerpt): &Problem) -> String {
        let mut out = format!("{}:{line}:{column}: {message}", self.file);
        if !excerpt.trim().is_empty() {
            let margin = " ".repeat(line.to_string().len());
            let shown = excerpt.chars().count().saturating_sub(1);
            let indent = " ".repeat(column.saturating_sub(1).min(shown));
            out += &format!("\n {margin} |\n {line} | {excerpt}\n {margin} | {indent}^");
        }
        out
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.each().collect();
        f.write_str(&problems.join("\n"))
    }
}

impl std::error::Error for Invalid {}
