//! References to secrets in configuration text: `${NAME}` (environment) and `${file:PATH}`.
//!
//! Anything that came out of a reference is held in a [`SecretString`], which prints as redacted and
//! is zeroed when dropped.

use std::{io, path::PathBuf};

use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};

use crate::small_file;

/// Looks up an environment variable; passed in so that tests need no process environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a reference could not be resolved. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`${{` is not closed; write `${{NAME}}` or `${{file:PATH}}`, or `$$` for a plain `$`")]
    Unclosed,
    #[error("`${{}}` names nothing; write `${{NAME}}` or `${{file:PATH}}`")]
    Empty,
    #[error(
        "the environment variable {0} is not set; set it, or put it in .env (a daemon that runs knows \
         those of its start: restart it, or use `${{file:PATH}}`)"
    )]
    Unset(String),
    #[error("cannot read the secret file {path}: {cause}", path = .path.display())]
    File { path: PathBuf, cause: io::Error },
}

/// Whether `text` refers to a secret. `$$` is an escaped `$`.
pub fn has_reference(text: &str) -> bool {
    text.replace("$$", "").contains("${")
}

/// What of `text` is not a reference.
pub fn without_references(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((_, after)) = after.split_once('}') else { return out + "${" + after };
        rest = after;
    }
    out + rest
}

/// Replaces every reference in `text` by its value and `$$` by `$`. A file's trailing newline is
/// trimmed.
pub fn expand(text: &str, env: Env) -> Result<SecretString, Error> {
    replace(text, |name| resolve(name, env))
}

/// The same where nothing is looked up: a reference must be well formed, and becomes a word.
pub fn stand_in(text: &str) -> Result<SecretString, Error> {
    replace(text, |name| match name.strip_prefix("file:").unwrap_or(name) {
        "" => Err(Error::Empty),
        _ => Ok(Zeroizing::new("unseen".to_owned())),
    })
}

fn replace(
    text: &str,
    value_of: impl Fn(&str) -> Result<Zeroizing<String>, Error>,
) -> Result<SecretString, Error> {
    let mut parts = Vec::new();
    let plain = |text: &str| Zeroizing::new(text.to_owned());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        parts.push(plain(&rest[..at]));
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            parts.push(plain("$"));
            rest = after;
        } else if let Some(reference) = rest.strip_prefix('{') {
            let end = reference.find('}').ok_or(Error::Unclosed)?;
            parts.push(value_of(&reference[..end])?);
            rest = &reference[end + 1..];
        } else {
            parts.push(plain("$"));
        }
    }
    parts.push(plain(rest));
    Ok(joined(&parts))
}

/// With room for all of it at once: what grows leaves copies behind that nobody zeroes.
fn joined(parts: &[Zeroizing<String>]) -> SecretString {
    let mut out = String::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.push_str(part));
    out.into()
}

/// Whether two secrets are the same. For values that are both ours: it takes no constant time.
pub fn same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

fn resolve(name: &str, env: Env) -> Result<Zeroizing<String>, Error> {
    match name.strip_prefix("file:") {
        Some(path) => {
            let path = PathBuf::from(path);
            let text = small_file::read_text(&path);
            let text = text.map_err(|cause| Error::File { path, cause })?;
            let trimmed = text.strip_suffix('\n').unwrap_or(&text);
            Ok(Zeroizing::new(trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned()))
        }
        None if name.is_empty() => Err(Error::Empty),
        None => env(name).map(Zeroizing::new).ok_or_else(|| Error::Unset(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn env(name: &str) -> Option<String> {
        (name == "A").then(|| "alpha".to_owned())
    }

    #[test]
    fn references_expand_and_everything_else_stays() {
        for (text, expected) in [
            ("plain", "plain"),
            ("${A}", "alpha"),
            ("x-${A}-y", "x-alpha-y"),
            ("$$", "$"),
            ("$${A}", "${A}"),
            ("a$b", "a$b"),
            ("trailing$", "trailing$"),
        ] {
            assert_eq!(expand(text, &env).unwrap().expose_secret(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_resolved_says_why() {
        for (text, expected) in [
            ("${A", "not closed"),
            ("${}", "names nothing"),
            ("${B}", "B is not set"),
            ("${file:/nonexistent/x}", "/nonexistent/x"),
            ("${file:/dev/zero}", "not a regular file"),
        ] {
            let error = expand(text, &env).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_file_loses_its_trailing_newline_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "line\n\r\n").unwrap();
        let text = format!("${{file:{}}}", file.path().display());
        assert_eq!(expand(&text, &env).unwrap().expose_secret(), "line\n");
    }

    #[test]
    fn an_escaped_dollar_is_no_reference() {
        assert!(has_reference("a${A}"));
        assert!(has_reference("$$${A}"));
        assert!(!has_reference("$${A}"));
        assert!(!has_reference("a$b"));
    }
}
