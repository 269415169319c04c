//! Reads `routes.yaml`: text → a tree of nodes with places → what of it fits the schema → the mirror.
//!
//! Whatever fits is read, whatever does not is reported, so that one run tells every problem.

use serde_json::{Value, json};

use super::diagnostic::{Code, Diagnostic, Masks};

pub mod mirror;
mod place;
mod schema;
mod secrets;
mod structure;
mod tree;
mod url;

pub use mirror::File;
pub use place::Place;
pub use schema::schema;
pub use tree::{Node, Span};

/// Largest file that is read, in bytes: far above any routing table written by people.
const MAX_FILE_BYTES: usize = 1 << 20;

/// A file as far as it could be read.
pub struct Read<'t> {
    /// What fits, with its places; `None` where that is nothing.
    pub content: Option<Content>,
    pub problems: Vec<Diagnostic>,
    pub masks: Masks<'t>,
}

/// What of a file fits the schema.
pub struct Content {
    pub file: File,
    /// The places of what is in `file`, and of nothing else.
    pub fitting: Node,
    /// The whole file.
    pub whole: Node,
}

/// Reads the text of a file.
pub fn read(text: &str) -> Read<'_> {
    if text.len() > MAX_FILE_BYTES {
        return unread(text, format!("the file is larger than {MAX_FILE_BYTES} bytes"));
    }
    if text.trim().is_empty() {
        return unread(
            text,
            "the file is empty; it needs sources:, brokers: and routes:".to_owned(),
        );
    }
    let whole = match tree::parse(text) {
        Ok(whole) => whole,
        Err(error) => {
            let problem = Diagnostic {
                help: error.help.map(str::to_owned),
                ..Diagnostic::error(Code::Syntax, error.span, error.message)
            };
            return Read { content: None, problems: vec![problem], masks: Masks::unplaced(text) };
        }
    };
    let schema = schema();
    let structure::Checked { tree, mut problems, secrets } = structure::check(text, &whole, schema);
    let masks = Masks::placed(text, secrets.into_places(text, &schema::words(schema)));
    let content = tree.and_then(|fitting| match mirror(&fitting) {
        Ok(file) => Some(Content { file, fitting, whole }),
        // What fits the schema deserialises: a test holds them to it.
        Err(error) => {
            problems.push(Diagnostic::error(Code::Syntax, Span::start(), error));
            None
        }
    });
    Read { content, problems, masks }
}

/// Reads a file that is not UTF-8, and is what comes before the first byte that is none.
pub fn read_to_bad_byte(before: &str) -> Read<'_> {
    let line = before.rsplit(['\n', '\r']).next().unwrap_or_default();
    let number = before.replace("\r\n", "\n").matches(['\n', '\r']).count() + 1;
    let bytes = before.len()..before.len();
    let span = Span { line: number, column: line.chars().count() + 1, bytes };
    let problem = Diagnostic::error(Code::Syntax, span, "the file is not UTF-8 from here on")
        .help("save it as UTF-8, as any editor can");
    Read { content: None, problems: vec![problem], masks: Masks::unplaced(before) }
}

/// What a text says as YAML, whether or not it fits; `None` where it is none.
pub fn document(text: &str) -> Option<Value> {
    tree::parse(text).ok().map(|whole| whole.to_json())
}

/// The mirror of a tree; a part that it lacks is empty.
fn mirror(tree: &Node) -> serde_json::Result<File> {
    let mut parts = json!({ "sources": {}, "brokers": {}, "routes": [] });
    for (key, node) in tree.entries() {
        parts[&key.name] = node.to_json();
    }
    serde_json::from_value(parts)
}

/// A file of which nothing is known.
fn unread(text: &str, message: String) -> Read<'_> {
    let problem = Diagnostic::error(Code::Syntax, Span::start(), message);
    Read { content: None, problems: vec![problem], masks: Masks::unplaced(text) }
}

#[cfg(test)]
mod tests;
