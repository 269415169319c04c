//! The grammar of templates.
//!
//! ```text
//! template     (text | "{{" | "}}" | "{" placeholder "}")*
//! placeholder  name ("|" default)? ("|" "slug")?
//! name         "type" | "id" | "source" | "subject" | "agentid" | "userid" | "projectid"
//!              | "data" step+ | "headers" step
//! step         "." word | "[" (quoted | digits) "]"
//! default      word | quoted
//! word         without white space, which belongs in quotes
//! quoted       any text in double quotes; \\" and \\\\ stand for the characters themselves
//! ```

use std::ops::Range;

use super::Error;
use crate::{
    body::{Paths, Step},
    nearest::nearest,
    source,
};

/// What a placeholder's name may begin with.
const ROOTS: [&str; 9] =
    ["type", "id", "source", "subject", "agentid", "userid", "projectid", "data", "headers"];

/// What ends a name.
const NAME_ENDS: &[char] = &['.', '[', ']', '|', '"', '{', '}'];

/// What ends a default.
const DEFAULT_ENDS: &[char] = &['|', '"', '{', '}'];

/// Longest name, default or text in quotes, in bytes.
const MAX_WORD_BYTES: usize = 256;

/// Longest template, in bytes: twice the longest address.
pub const MAX_TEMPLATE_BYTES: usize = 2048;

/// Most steps of a field's path: reading a body recurses as deep.
const MAX_STEPS: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Placeholder(Placeholder),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    pub variable: Variable,
    /// As it stands in the template, for messages.
    pub shown: String,
    /// What fills in where the event has nothing.
    pub default: Option<String>,
    pub slug: bool,
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    Type,
    Id,
    Source,
    Subject,
    /// A CloudEvents extension of the event.
    Extension(String),
    /// A header, by its lower-case name.
    Header(String),
    /// A field of the JSON body: its slot in the table's paths.
    Data(usize),
}

/// The parts, each with its place.
pub fn parse(text: &str, paths: &mut Paths) -> Result<Vec<(Part, Range<usize>)>, Error> {
    if text.len() > MAX_TEMPLATE_BYTES {
        let message = format!("this is longer than {MAX_TEMPLATE_BYTES} bytes");
        return Err(error(message, 0..text.len()));
    }
    let mut parts = Vec::new();
    let mut plain = String::new();
    let (mut at, mut began) = (0, 0);
    while let Some(brace) = text[at..].find(['{', '}']).map(|found| at + found) {
        plain.push_str(&text[at..brace]);
        let sign = &text[brace..brace + 1];
        at = brace + 1;
        if text[at..].starts_with(sign) {
            plain.push_str(sign);
            at += 1;
            continue;
        }
        if sign == "}" {
            return Err(error("`}` closes nothing; write `}}` for a plain brace", brace..at));
        }
        if !plain.is_empty() {
            parts.push((Part::Text(std::mem::take(&mut plain)), began..brace));
        }
        let mut cursor = Cursor { text, at };
        let placeholder = cursor.placeholder(paths)?;
        at = cursor.at;
        began = at;
        parts.push((Part::Placeholder(placeholder), brace..at));
    }
    plain.push_str(&text[at..]);
    if !plain.is_empty() {
        parts.push((Part::Text(plain), began..text.len()));
    }
    Ok(parts)
}

fn error(message: impl Into<String>, range: Range<usize>) -> Error {
    Error { message: message.into(), range }
}

/// Reads one placeholder, from behind its brace to behind the other.
struct Cursor<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Cursor<'t> {
    fn placeholder(&mut self, paths: &mut Paths) -> Result<Placeholder, Error> {
        let begin = self.at;
        let root = self.word(NAME_ENDS)?;
        let mut steps = Vec::new();
        while let Some(step) = self.step()? {
            steps.push(step);
            if steps.len() > MAX_STEPS {
                let message = format!("a field lies at most {MAX_STEPS} names deep");
                return Err(error(message, begin..self.at));
            }
        }
        let name = begin..self.at;
        let variable = self.variable(root, &steps, name.clone(), paths)?;
        let (mut default, mut slug) = (None, false);
        while self.takes('|') {
            let from = self.at;
            let quoted = self.rest().starts_with('"');
            let word = if quoted { self.quoted()? } else { self.word(DEFAULT_ENDS)?.to_owned() };
            let range = from..self.at;
            match (&*word, quoted) {
                _ if slug => return Err(error("nothing may follow `slug`", range)),
                ("slug", false) => slug = true,
                _ if default.is_some() => {
                    return Err(error("a placeholder has one default, and `slug` after it", range));
                }
                ("", _) => return Err(self.no_default(from)),
                _ => default = Some(word),
            }
        }
        if !self.takes('}') {
            return Err(self.unexpected(begin));
        }
        Ok(Placeholder { variable, shown: self.text[name].to_owned(), default, slug })
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn takes(&mut self, sign: char) -> bool {
        let taken = self.rest().starts_with(sign);
        self.at += if taken { sign.len_utf8() } else { 0 };
        taken
    }

    /// As far as none of these signs comes; white space in it would be a part of a name, and nobody
    /// means that.
    fn word(&mut self, ends: &[char]) -> Result<&'t str, Error> {
        let rest = self.rest();
        let word = &rest[..rest.find(ends).unwrap_or(rest.len())];
        match word.find(char::is_whitespace) {
            Some(space) => {
                self.at += space;
                Err(self.spaces())
            }
            None => self.take(word.len()),
        }
    }

    /// About the white space that comes next.
    fn spaces(&self) -> Error {
        let spaces = self.rest().len() - self.rest().trim_start().len();
        let message = "remove the spaces in this placeholder, or put the text with them in quotes: \
                       {data[\"odd key\"]}, {data.field|\"a default\"}";
        error(message, self.at..self.at + spaces)
    }

    /// About what comes where the placeholder should end.
    fn unexpected(&self, begin: usize) -> Error {
        match self.rest().chars().next() {
            None => self.unclosed(begin),
            Some(c) if c.is_whitespace() => self.spaces(),
            Some(c) => error(
                format!("`{c}` cannot stand here; put names with it in quotes: {{data[\"…\"]}}"),
                self.at..self.at + c.len_utf8(),
            ),
        }
    }

    /// About a `|`, at a byte from where a default should stand.
    fn no_default(&self, from: usize) -> Error {
        let message = match self.rest().starts_with('{') {
            true => "a default is fixed text: no placeholder can stand in it",
            false => "the default is empty, and nothing in an address may be",
        };
        error(message, from - 1..self.at)
    }

    fn take(&mut self, bytes: usize) -> Result<&'t str, Error> {
        let from = self.at;
        self.at += bytes;
        if bytes > MAX_WORD_BYTES {
            let message = format!("this is longer than {MAX_WORD_BYTES} bytes");
            return Err(error(message, from..self.at));
        }
        Ok(&self.text[from..self.at])
    }

    fn step(&mut self) -> Result<Option<Step>, Error> {
        let from = self.at;
        if self.takes('.') {
            return match self.word(NAME_ENDS)? {
                "" => Err(error("a name is missing after the dot", from..self.at)),
                name => Ok(Some(Step::Member(name.to_owned()))),
            };
        }
        if !self.takes('[') {
            return Ok(None);
        }
        let step = if self.rest().starts_with('"') {
            Step::Member(self.quoted()?)
        } else {
            let place = self.word(NAME_ENDS)?.parse().map_err(|_| {
                let message = "write a field's name in quotes, {data[\"odd key\"]}, or an element's \
                               place, {data.items[0]}";
                error(message, from..self.at)
            })?;
            Step::Element(place)
        };
        if !self.takes(']') {
            return Err(error("`[` is not closed", from..self.at));
        }
        Ok(Some(step))
    }

    /// Text in quotes.
    fn quoted(&mut self) -> Result<String, Error> {
        let from = self.at;
        let mut text = String::new();
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                '"' if !escaped => {
                    self.take(at + 1)?;
                    return Ok(text);
                }
                '\\' if !escaped => escaped = true,
                _ => {
                    text.push(c);
                    escaped = false;
                }
            }
        }
        Err(error("the quote is not closed", from..self.text.len()))
    }

    fn unclosed(&self, begin: usize) -> Error {
        error("`{` is not closed; write `{{` for a plain brace", begin - 1..self.text.len())
    }

    fn variable(
        &self,
        root: &str,
        steps: &[Step],
        place: Range<usize>,
        paths: &mut Paths,
    ) -> Result<Variable, Error> {
        let name = &self.text[place.clone()];
        if self.at == self.text.len() {
            return Err(self.unclosed(place.start));
        }
        Ok(match (root, steps) {
            ("type", []) => Variable::Type,
            ("id", []) => Variable::Id,
            ("source", []) => Variable::Source,
            ("subject", []) => Variable::Subject,
            ("agentid" | "userid" | "projectid", []) => Variable::Extension(root.to_owned()),
            ("data", []) => {
                let message = "`{data}` names no field; write {data.FIELD} or {data.FIELD.FIELD}";
                return Err(error(message, place));
            }
            ("data", steps) => Variable::Data(paths.add_steps(steps)),
            ("headers", [Step::Member(header)]) => Variable::Header(kept_header(header, place)?),
            ("headers", _) => return Err(error("write {headers.NAME}", place)),
            _ => return Err(unknown(name, root, place)),
        })
    }
}

fn unknown(name: &str, root: &str, place: Range<usize>) -> Error {
    let advice = match nearest(root, ROOTS) {
        Some(near @ ("data" | "headers")) => {
            format!("did you mean `{{{near}{}}}`?", &name[root.len()..])
        }
        Some(near) => format!("did you mean `{{{near}}}`?"),
        None => {
            let known = ROOTS.map(|root| match root {
                "data" | "headers" => format!("{{{root}.NAME}}"),
                _ => format!("{{{root}}}"),
            });
            format!("known are {}", known.join(", "))
        }
    };
    error(format!("unknown placeholder `{{{name}}}`; {advice}"), place)
}

fn kept_header(name: &str, place: Range<usize>) -> Result<String, Error> {
    let name = name.to_ascii_lowercase();
    if source::keeps_header(&name) {
        return Ok(name);
    }
    let message = format!(
        "the header `{name}` is not kept with an event: it may hold a secret, or belongs to the \
         connection"
    );
    Err(error(message, place))
}
