//! YAML text as a tree of nodes, each with its place. The only module that knows the YAML library.

use std::{fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Spanned};

/// Deepest nesting that is read: a routing table has nine levels, and reading takes much of the stack
/// for each.
const MAX_DEPTH: usize = 16;

/// Most nodes, after every alias is followed.
const MAX_NODES: usize = 250_000;

/// A place in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What stands there, in bytes of the text; empty where only its beginning is known.
    pub bytes: Range<usize>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub span: Span,
    /// Where the text itself stands, for a value that is named by an alias.
    pub defined: Span,
    pub kind: Kind,
    /// Whether something of it was cut out: then what it lacks is no problem of its own.
    pub cut: bool,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Nothing,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    /// In the file's order, with repeated keys.
    Map(Vec<(Key, Node)>),
}

/// A key and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    pub span: Span,
}

/// Why text is no YAML, and where.
#[derive(Debug)]
pub struct SyntaxError {
    pub span: Span,
    pub message: String,
    /// What to do, where the message does not say it.
    pub help: Option<&'static str>,
}

/// What the library's messages are known by; what is said instead, where they speak of the library
/// rather than of the file; and what to do.
const ADVICE: [(&str, Option<&str>, &str); 17] = [
    (
        "mapping values",
        None,
        "a value that holds `: ` goes in quotes; else a line is not indented as it should",
    ),
    (
        "',' or '}'",
        None,
        "within braces, a value that holds `{`, `}`, `[`, `]` or `,` goes in quotes: \"${NAME}\"",
    ),
    (
        "',' or ']'",
        None,
        "within brackets, a value that holds `{`, `}`, `[`, `]` or `,` goes in quotes: \"${NAME}\"",
    ),
    ("'-' indicator", None, "lines that belong together begin in the same column"),
    ("unknown anchor", None, "a value that begins with `*` goes in quotes"),
    (
        "recursive references",
        Some("this names, with `*`, what it is a part of"),
        "a value that begins with `*` goes in quotes",
    ),
    (
        "unexpected character: `\\u{",
        Some("a control character stands here"),
        "remove it; or write it as \"\\x1B\", in double quotes",
    ),
    (
        "unexpected character",
        None,
        "a value that begins with `@`, `%` or a backtick goes in quotes",
    ),
    ("tabs disallowed", Some("a tab indents this line"), "indent with spaces"),
    ("unclosed quote", None, "close it on the same line"),
    ("unclosed bracket", None, "close it; a value that begins with it goes in quotes"),
    ("quoted scalar", None, "in single quotes a backslash stands for itself"),
    ("multiple YAML documents", None, "remove the `---` and what follows it"),
    (
        "expected string scalar",
        Some("this key is a list or a mapping"),
        "a key is text: what begins with `[` or `{` goes in quotes",
    ),
    (
        "deserialize null into string",
        Some("this key is empty"),
        "a key is text: write a name before the `:`, `~` and `null` in quotes",
    ),
    (
        "merge value",
        Some("`<<:` takes a mapping"),
        "write `<<: *name`, where a mapping has the anchor `&name`",
    ),
    ("invalid ", Some("this is not what its tag says"), "remove the tag, the word with `!`"),
];

/// Reads the text.
pub fn parse(text: &str) -> Result<Node, SyntaxError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES },
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let read = serde_saphyr::from_str_with_options::<Spanned<Kind>>(text, options);
    read.map(Node::from).map_err(|error| {
        let span = error.location().map(Span::from).unwrap_or_default();
        let words = error.to_string();
        // The place stands in front already, and the library's own options help nobody here.
        let ends = [" at line ", "; use from_str"].map(|end| words.find(end));
        let end = ends.into_iter().flatten().min().unwrap_or(words.len());
        let words = match words.starts_with("budget breached") {
            true => format!("it is too deep, or unfolds to more than {MAX_NODES} values"),
            false => words[..end].to_owned(),
        };
        let advice = ADVICE.iter().find(|(sign, ..)| words.contains(sign));
        let (instead, help) =
            advice.map_or((None, None), |(_, instead, help)| (*instead, Some(*help)));
        let message = instead.map_or(words, str::to_owned);
        SyntaxError { span, message, help }
    })
}

impl Node {
    /// The value of a key.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// A key with its value.
    pub fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        self.entries().iter().find(|(key, _)| key.name == name)
    }

    /// The keys and values of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Key, Node)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value without its places.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Nothing => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => Value::String(text.clone()),
            Kind::List(items) => items.iter().map(Node::to_json).collect(),
            Kind::Map(entries) => {
                entries.iter().map(|(key, node)| (key.name.clone(), node.to_json())).collect()
            }
        }
    }
}

impl Kind {
    /// How many entries or items there are.
    pub fn len(&self) -> usize {
        match self {
            Kind::List(items) => items.len(),
            Kind::Map(entries) => entries.len(),
            _ => 0,
        }
    }
}

impl From<Spanned<Kind>> for Node {
    fn from(Spanned { value: kind, referenced, defined }: Spanned<Kind>) -> Node {
        Node { span: referenced.into(), defined: defined.into(), kind, cut: false }
    }
}

impl Span {
    /// The beginning of the text.
    pub fn start() -> Span {
        Span { line: 1, column: 1, bytes: 0..0 }
    }
}

impl From<Location> for Span {
    fn from(location: Location) -> Span {
        let known = location.span().byte_offset().zip(location.span().byte_len());
        let (from, len) = known.map_or((0, 0), |(from, len)| (from as usize, len as usize));
        let (line, column) = (location.line() as usize, location.column() as usize);
        Span { line, column, bytes: from..from + len }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Nothing)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Number(value.into()))
    }

    fn visit_u128<E: de::Error>(self, value: u128) -> Result<Kind, E> {
        self.visit_f64(value as f64)
    }

    fn visit_i128<E: de::Error>(self, value: i128) -> Result<Kind, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Kind, E> {
        // What JSON has no number for is no number of a routing table either.
        Ok(Number::from_f64(value).map_or_else(|| Kind::Text(value.to_string()), Kind::Number))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element::<Spanned<Kind>>()? {
            items.push(item.into());
        }
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Kind>>()? {
            entries.push((Key { name: key.value, span: key.referenced.into() }, value.into()));
        }
        Ok(Kind::Map(entries))
    }
}
