//! What may have happened to a body between its sender and here, undone.

use std::{borrow::Cow, collections::HashSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::IgnoredAny;

use super::{Mistake, Reading};

/// Most bytes that a body may become when it is written anew, as a multiple of what it has, and
/// beside that: indenting a deep body would square it.
const MOST_GROWTH: usize = 4;
const MOST_MORE_BYTES: usize = 64 << 10;

/// What the body may have been when it was signed, as it stands first.
pub(super) fn readings(body: &[u8]) -> Vec<Reading<Cow<'_, [u8]>>> {
    let mut readings = vec![Reading::right(Cow::Borrowed(body))];
    let mut seen = HashSet::from([Cow::Borrowed(body)]);
    for (changed, mistake) in as_bytes(body).chain(as_json(body)) {
        if seen.insert(changed.clone()) {
            readings.push(Reading::wrong(changed, mistake));
        }
    }
    readings
}

type Changed<'b> = (Cow<'b, [u8]>, Mistake);

fn as_bytes(body: &[u8]) -> impl Iterator<Item = Changed<'_>> {
    let shorter = [&b"\r\n"[..], b"\n"].into_iter().find_map(|end| body.strip_suffix(end));
    let trimmed = body.trim_ascii_end();
    let encoded = STANDARD.decode(body.trim_ascii()).ok().filter(|decoded| !decoded.is_empty());
    let lf = without_cr(body);
    [
        shorter.map(|body| (body.into(), Mistake::NewlineAdded)),
        (trimmed.len() < body.len()).then(|| (trimmed.into(), Mistake::NewlineAdded)),
        Some(([body, b"\n"].concat().into(), Mistake::NewlineRemoved)),
        Some(([body, b"\r\n"].concat().into(), Mistake::NewlineRemoved)),
        Some((with_cr(&lf).into(), Mistake::LineEndsToLf)),
        Some((lf.into(), Mistake::LineEndsToCrlf)),
        Some(([b"\xef\xbb\xbf", body].concat().into(), Mistake::MarkRemoved)),
        encoded.map(|decoded| (decoded.into(), Mistake::BodyEncoded)),
    ]
    .into_iter()
    .flatten()
}

fn without_cr(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.iter().copied().peekable();
    let mut out = Vec::with_capacity(body.len());
    while let Some(byte) = bytes.next() {
        if byte != b'\r' || bytes.peek() != Some(&b'\n') {
            out.push(byte);
        }
    }
    out
}

fn with_cr(lf: &[u8]) -> Vec<u8> {
    lf.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..])
}

fn as_json(body: &[u8]) -> impl Iterator<Item = Changed<'_>> {
    let text = std::str::from_utf8(body).ok();
    let json = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    json.into_iter().flat_map(|json| SPACES.map(|spaces| (json, spaces))).flat_map(
        |(json, (spaces, how))| {
            STRINGS.into_iter().filter_map(move |(strings, and)| {
                let most_bytes = MOST_GROWTH * json.len() + MOST_MORE_BYTES;
                let written =
                    Writer { spaces, strings, most_bytes, out: Vec::new() }.write(json)?;
                let signed = format!("{how}{and}");
                Some((written.into(), Mistake::Reserialised { signed }))
            })
        },
    )
}

/// Where a style of JSON has white space.
#[derive(Clone, Copy)]
enum Spaces {
    None,
    /// After commas and colons, as Python does.
    AfterSigns,
    /// Each item in a line of its own, indented by so much.
    Lines(usize),
}

/// How a style of JSON writes what is not ASCII.
#[derive(Clone, Copy)]
enum Strings {
    AsTheyAre,
    Plain,
    /// As `\u` and four digits, as Python and PHP do.
    Escaped,
    /// As [`Strings::Escaped`], and `/` as `\/`, as PHP does.
    EscapedSlashes,
}

/// Each with its words.
const SPACES: [(Spaces, &str); 4] = [
    (Spaces::None, "compact, without white space"),
    (Spaces::AfterSigns, "with a space after each `,` and `:`, as Python writes it"),
    (Spaces::Lines(2), "indented by two spaces"),
    (Spaces::Lines(4), "indented by four spaces"),
];

const STRINGS: [(Strings, &str); 4] = [
    (Strings::AsTheyAre, ""),
    (Strings::Plain, ", with all characters as they are"),
    (Strings::Escaped, ", with `\\u` escapes"),
    (Strings::EscapedSlashes, ", with `\\u` escapes and `\\/`, as PHP writes it"),
];

/// Writes JSON anew: the same values in the same order, numbers as they stand.
struct Writer {
    spaces: Spaces,
    strings: Strings,
    most_bytes: usize,
    out: Vec<u8>,
}

impl Writer {
    /// `None` if it grows too large. The text is JSON.
    fn write(mut self, json: &str) -> Option<Vec<u8>> {
        let (mut depth, mut rest) = (0, json.trim_ascii());
        while let Some(first) = rest.bytes().next() {
            let token = &rest[..token_len(rest)];
            rest = rest[token.len()..].trim_ascii_start();
            match first {
                b'{' | b'[' => {
                    self.out.push(first);
                    depth += 1;
                    if !rest.starts_with(['}', ']']) {
                        self.line(depth);
                    }
                }
                b'}' | b']' => {
                    depth -= 1;
                    if !self.out.ends_with(b"{") && !self.out.ends_with(b"[") {
                        self.line(depth);
                    }
                    self.out.push(first);
                }
                b',' => self.comma(depth),
                b':' => self.colon(),
                b'"' => self.string(token)?,
                _ => self.out.extend(token.bytes()),
            }
            if self.out.len() > self.most_bytes {
                return None;
            }
        }
        Some(self.out)
    }

    fn line(&mut self, depth: usize) {
        if let Spaces::Lines(indent) = self.spaces {
            self.out.push(b'\n');
            // Deeper than the bound is too large anyway.
            let spaces = (depth * indent).min(self.most_bytes + 1);
            self.out.resize(self.out.len() + spaces, b' ');
        }
    }

    fn comma(&mut self, depth: usize) {
        self.out.push(b',');
        match self.spaces {
            Spaces::AfterSigns => self.out.push(b' '),
            _ => self.line(depth),
        }
    }

    fn colon(&mut self) {
        self.out.push(b':');
        if !matches!(self.spaces, Spaces::None) {
            self.out.push(b' ');
        }
    }

    /// `None` for a string that is JSON but no text, unless it stays as it is.
    fn string(&mut self, token: &str) -> Option<()> {
        if let Strings::AsTheyAre = self.strings {
            self.out.extend(token.bytes());
            return Some(());
        }
        let text: String = serde_json::from_str(token).ok()?;
        let plain = serde_json::to_string(&text).ok()?;
        let slashes = matches!(self.strings, Strings::EscapedSlashes);
        let escapes = !matches!(self.strings, Strings::Plain);
        for character in plain.chars() {
            if escapes && !character.is_ascii() {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    self.out.extend(format!("\\u{unit:04x}").bytes());
                }
            } else if slashes && character == '/' {
                self.out.extend(b"\\/");
            } else {
                self.out.extend(character.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        Some(())
    }
}

/// The length of the token that JSON begins with.
fn token_len(json: &str) -> usize {
    let bytes = json.as_bytes();
    match bytes[0] {
        b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
        b'"' => string_len(bytes),
        _ => {
            let ends = |b: &u8| b"{}[],:\"".contains(b) || b.is_ascii_whitespace();
            bytes.iter().position(ends).unwrap_or(bytes.len())
        }
    }
}

fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}
