//! Templates: text with `{name}` placeholders that an event fills in. `{{` and `}}` are plain braces.
//!
//! After the name of a placeholder may stand a default, for events that have nothing there, and
//! `slug`, for values that are to be made safe: `{data.name|nobody|slug}`. `parse` has the grammar.

use std::{borrow::Cow, ops::Range};

use bytestring::ByteString;

use self::parse::{Part, Placeholder, Variable};
use super::{address::Rule, input::Input};
use crate::{
    body::{NoText, Paths},
    event::Event,
};

mod parse;

/// Longest slug, in bytes.
const MAX_SLUG_BYTES: usize = 64;

/// Said of a field that is not there. Many bodies have a `data` of their own.
const NO_FIELD: &str = "the body has no such field (`data` stands for the whole body: one in its own `data` is \
     {data.data.NAME})";

/// A compiled template and the rule its result must keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    rule: Rule,
    /// The result itself where there is no placeholder: rendered and checked once.
    fixed: Option<ByteString>,
}

/// Why text is not a template, and where in it, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub message: String,
    pub range: Range<usize>,
}

impl Template {
    /// Compiles; the body fields it needs are added to `paths`. What can already be known about the
    /// result is checked here.
    pub fn compile(text: &str, rule: Rule, paths: &mut Paths) -> Result<Template, Error> {
        let parts = parse::parse(text, paths)?;
        let fixed = match parts.as_slice() {
            [] => Some(ByteString::new()),
            [(Part::Text(text), _)] => Some(ByteString::from(&**text)),
            _ => None,
        };
        let whole = 0..text.len();
        let wrong = |range: &Range<usize>| {
            let range = range.clone();
            move |why: &'static str| Error { message: why.to_owned(), range }
        };
        match &fixed {
            Some(fixed) => rule.check(fixed).map_err(wrong(&whole))?,
            None => {
                rule.check_length(parts.iter().map(|(part, _)| part.least_bytes()).sum())
                    .map_err(wrong(&whole))?;
                let last = parts.len() - 1;
                for (at, (part, range)) in parts.iter().enumerate() {
                    rule.check_part(part.fixed_text(), at == 0, at == last)
                        .map_err(wrong(range))?;
                }
            }
        }
        let parts = parts.into_iter().map(|(part, _)| part).collect();
        Ok(Template { parts, rule, fixed })
    }

    /// Renders for an event. The error is the reason that ends in a dead letter.
    pub fn render(&self, input: &Input) -> Result<ByteString, String> {
        if let Some(fixed) = &self.fixed {
            return Ok(fixed.clone());
        }
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Placeholder(placeholder) => placeholder.render(input, self.rule, &mut out)?,
            }
        }
        match self.rule.check(&out) {
            Ok(()) => Ok(out.into()),
            Err(why) => Err(format!("the address {:?} is not allowed: {why}", shorten(&out))),
        }
    }
}

/// The placeholders for which an event has nothing and that have no default, each with its place.
pub fn unfilled(text: &str, event: &Event) -> Vec<(String, Range<usize>)> {
    let mut paths = Paths::default();
    let Ok(parts) = parse::parse(text, &mut paths) else { return Vec::new() };
    let input = Input::new(event, &paths);
    let unfilled = parts.into_iter().filter_map(|(part, range)| match part {
        Part::Placeholder(placeholder) => {
            placeholder.value(&input).is_err().then_some((placeholder.shown, range))
        }
        Part::Text(_) => None,
    });
    unfilled.collect()
}

/// Whether an event would fill in something here.
pub fn has_placeholder(text: &str) -> bool {
    let parts = parse::parse(text, &mut Paths::default());
    parts.is_ok_and(|parts| parts.iter().any(|(part, _)| matches!(part, Part::Placeholder(_))))
}

impl Part {
    /// What is known of it before any event; a default may be slugged and is nothing yet then.
    fn fixed_text(&self) -> &str {
        match self {
            Part::Text(text) => text,
            Part::Placeholder(Placeholder { slug: false, default: Some(default), .. }) => default,
            Part::Placeholder(_) => "",
        }
    }

    /// How long it is at least.
    fn least_bytes(&self) -> usize {
        match self {
            Part::Text(text) => text.len(),
            // Whatever fills it is not empty.
            Part::Placeholder(_) => 1,
        }
    }
}

impl Placeholder {
    fn render(&self, input: &Input, rule: Rule, out: &mut String) -> Result<(), String> {
        let (value, is_ours) = self.value(input)?;
        if self.slug {
            out.push_str(&self.slugged(&value)?);
            return Ok(());
        }
        if !is_ours {
            let is = |why| format!("{{{}}} is {:?}: {why}", self.shown, shorten(&value));
            rule.check_value(&value).map_err(is)?;
        }
        out.push_str(&value);
        Ok(())
    }

    /// What fills it in, and whether the operator means all of it. Types and source names are dotted
    /// by nature; their dots are meant, and so are a default's.
    fn value<'i>(&'i self, input: &'i Input) -> Result<(Cow<'i, str>, bool), String> {
        let why = match (self.variable.value(input), &self.default) {
            (Ok(value), _) => {
                let is_ours = matches!(self.variable, Variable::Type | Variable::Source);
                return Ok((value, is_ours));
            }
            (Err(Unfilled::Nothing(_)), Some(default)) => return Ok((default.into(), true)),
            (Err(Unfilled::Nothing(why)), None) => why,
            (Err(Unfilled::Unfit(why)), _) => why.into(),
        };
        Err(format!("{{{}}} cannot be filled: {why}", self.shown))
    }

    fn slugged(&self, value: &str) -> Result<String, String> {
        let slug = slug(value);
        if !slug.is_empty() {
            return Ok(slug);
        }
        Err(format!(
            "{{{}}} is {:?}, of which no letter or digit is left as a slug",
            self.shown,
            shorten(value)
        ))
    }
}

/// Why an event does not fill a placeholder.
enum Unfilled<'e> {
    /// It has nothing there: a default fills in.
    Nothing(Cow<'e, str>),
    /// It has something that is no text.
    Unfit(&'static str),
}

impl Variable {
    /// Its value for an event, never empty.
    fn value<'i>(&self, input: &'i Input) -> Result<Cow<'i, str>, Unfilled<'i>> {
        let event = input.event;
        let attribute = match self {
            Variable::Type => Some(&*event.kind),
            Variable::Source => Some(&*event.source),
            Variable::Id => Some(&*event.id),
            Variable::Subject => event.subject.as_deref(),
            Variable::Extension(name) => event.extension(name).map(|value| &**value),
            Variable::Header(name) => input.header(name),
            Variable::Data(slot) => return field(input, *slot),
        };
        let attribute = attribute.filter(|value| !value.is_empty());
        attribute.map(Cow::Borrowed).ok_or(Unfilled::Nothing("the event has none".into()))
    }
}

fn field<'i>(input: &'i Input, slot: usize) -> Result<Cow<'i, str>, Unfilled<'i>> {
    let fields = input.fields().map_err(|why| Unfilled::Nothing(why.into()))?;
    match fields.text(slot) {
        Ok(text) if text.is_empty() => Err(Unfilled::Nothing("the event has none".into())),
        Ok(text) => Ok(text),
        Err(NoText::Missing) => Err(Unfilled::Nothing(NO_FIELD.into())),
        Err(NoText::NotScalar) => Err(Unfilled::Unfit("the field is an object or a list")),
        Err(NoText::NotUnicode) => Err(Unfilled::Unfit("the field is not Unicode text")),
    }
}

/// Lower-case ASCII letters and digits; whatever lies between them is one `-`, and nothing is before
/// or after them. Cut to [`MAX_SLUG_BYTES`].
fn slug(value: &str) -> String {
    let mut slug = String::new();
    let mut gap = false;
    for c in value.chars() {
        if !c.is_ascii_alphanumeric() {
            gap = true;
            continue;
        }
        let needed = if gap && !slug.is_empty() { 2 } else { 1 };
        if slug.len() + needed > MAX_SLUG_BYTES {
            break;
        }
        slug.extend((needed == 2).then_some('-'));
        slug.push(c.to_ascii_lowercase());
        gap = false;
    }
    slug
}

/// Payload text in a reason is bounded; the event itself is kept whole beside it.
pub(super) fn shorten(text: &str) -> &str {
    const MAX_CHARS: usize = 100;
    text.char_indices().nth(MAX_CHARS).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests;
