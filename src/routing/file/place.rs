//! A cursor over the tree, moved beside the mirror, so that each value can be pointed at.

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

    /// A place within this value's text, `line` and `column` from 1 and in characters: exact where
    /// the text stands in the file as it is read, else the nearest that is known.
    pub fn within(self, text: &str, line: usize, column: usize) -> Span {
        let span = self.span();
        let Some(source) = text.get(span.bytes.clone()) else { return span };
        let one_line = !source.contains('\n');
        let indicator = source.chars().next().unwrap_or_default();
        match indicator {
            // The columns of what is quoted are as in the file as long as nothing is escaped.
            '"' | '\''
                if one_line && !source[1..].trim_end_matches(indicator).contains(['\\', '\'']) =>
            {
                span.moved(source, column)
            }
            '"' | '\'' => span,
            '|' | '>' => in_block(text, span.line + line, column),
            _ if one_line => span.moved(source, column.saturating_sub(1)),
            _ => span,
        }
    }
}

impl Node {
    /// What to point at where it has no key: its first key, for a mapping.
    pub fn beginning(&self) -> &Span {
        self.entries().first().map_or(&self.span, |(key, _)| &key.span)
    }
}

impl Span {
    /// The rest of it from so many characters on.
    fn moved(&self, source: &str, chars: usize) -> Span {
        let bytes = source.char_indices().nth(chars).map_or(source.len(), |(at, _)| at);
        let from = (self.bytes.start + bytes).min(self.bytes.end);
        Span { line: self.line, column: self.column + chars, bytes: from..from }
    }
}

/// A column of a block's line: what it is indented by is no part of its text.
fn in_block(text: &str, line: usize, column: usize) -> Span {
    let source = text.lines().nth(line - 1).unwrap_or_default();
    let indent = source.chars().take_while(|c| *c == ' ').count();
    Span { line, column: indent + column, bytes: 0..0 }
}
