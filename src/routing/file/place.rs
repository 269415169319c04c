//! A cursor over the tree, moved beside the mirror, so that each value can be pointed at.

use std::ops::Range;

use super::tree::{Kind, Node, Span};

/// Where a value stands, or would stand if the file gave it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'t> {
    node: Option<&'t Node>,
    /// What to point at for a mapping or a list, which have no text of their own, and for a value
    /// that is not there: the key, or where the nearest thing around it begins.
    anchor: &'t Span,
}

impl<'t> Place<'t> {
    pub fn root(tree: &'t Node) -> Place<'t> {
        Place { node: Some(tree), anchor: &tree.span }
    }

    /// The value of a key.
    pub fn key(self, name: &str) -> Place<'t> {
        match self.node.and_then(|node| node.entry(name)) {
            Some((key, value)) => Place { node: Some(value), anchor: &key.span },
            None => Place { node: None, anchor: self.anchor },
        }
    }

    /// An item of a list, from 0; a single value counts as a list of one.
    pub fn item(self, index: usize) -> Place<'t> {
        match self.node.map(|node| &node.kind) {
            Some(Kind::List(items)) => match items.get(index) {
                Some(item) => Place { node: Some(item), anchor: item.beginning() },
                None => self,
            },
            _ => self,
        }
    }

    /// Whether the file gives a value here.
    pub fn is_given(self) -> bool {
        self.node.is_some()
    }

    /// Whether what stands here was cut: what it lacks is then a consequence, and no problem.
    pub fn is_cut(self) -> bool {
        self.node.is_some_and(|node| node.cut)
    }

    /// The keys of a mapping in the file's order, each with the place of its value.
    pub fn entries(self) -> impl Iterator<Item = (&'t str, Place<'t>)> {
        let entries = self.node.into_iter().flat_map(Node::entries);
        entries.map(|(key, value)| (&*key.name, Place { node: Some(value), anchor: &key.span }))
    }

    /// The key itself, rather than its value.
    pub fn at_key(self) -> Span {
        self.anchor.clone()
    }

    /// What to point at.
    pub fn span(self) -> Span {
        match self.node {
            Some(Node { kind: Kind::List(_) | Kind::Map(_) | Kind::Nothing, .. }) | None => {
                self.anchor.clone()
            }
            Some(node) => node.span.clone(),
        }
    }

    /// A part of this value's text, `value`, which begins at a byte of it: where that stands in the
    /// file, as exactly as can be known.
    pub fn within(self, file: &str, value: &str, part: Range<usize>) -> Span {
        let span = self.span();
        let source = file.get(span.bytes.clone()).unwrap_or_default();
        let before = value.get(..part.start).unwrap_or_default();
        // As long as nothing is escaped, text stands in the file as it is.
        if let Some(at) = source.find(value).filter(|_| !value.contains('\n')) {
            let from = span.bytes.start + at + part.start;
            let column = span.column + source[..at].chars().count() + before.chars().count();
            let bytes = from..from + part.len();
            return if source[..at].contains('\n') { span } else { Span { column, bytes, ..span } };
        }
        in_block(file, span.line, value, before).unwrap_or(span)
    }
}

impl Node {
    /// What to point at where it has no key: its first key, for a mapping.
    pub fn beginning(&self) -> &Span {
        self.entries().first().map_or(&self.span, |(key, _)| &key.span)
    }
}

/// What follows `before` in a block whose text begins on a line, if its lines stand in the file as they
/// are, but for what they are indented by.
fn in_block(file: &str, first_line: usize, value: &str, before: &str) -> Option<Span> {
    let number = before.matches('\n').count();
    let line = value.lines().nth(number)?;
    let source = file.lines().nth(first_line + number - 1)?;
    let indent = source.strip_suffix(line)?.chars().count();
    let before = before.rsplit('\n').next().unwrap_or_default();
    let column = indent + before.chars().count() + 1;
    Some(Span { line: first_line + number, column, bytes: 0..0 })
}
