//! A line of the file as it may be shown: every literal secret in it is masked.
//!
//! What is secret is known by its place in the file. Where no places are known, as in text that is
//! not YAML, it is guessed by its signs; when in doubt, it is masked.

use std::{borrow::Cow, ops::Range};

use super::suspects;
use crate::{printable, routing::file::Span};

/// What stands for a secret.
const MASK: &str = "••••";

/// Longest excerpt of a line that is shown, in characters.
const MAX_EXCERPT: usize = 160;

/// Shortest secret that is looked for in messages, where they quote something.
const MIN_SCRUBBED_BYTES: usize = 4;

/// Shortest that is looked for everywhere in them: a shorter one would blot out words.
const MIN_SCRUBBED_ANYWHERE_BYTES: usize = 8;

/// What of the file must not be shown.
#[derive(Debug)]
pub struct Masks<'t> {
    text: &'t str,
    /// Where secrets stand in the text.
    ranges: Vec<Range<usize>>,
    /// What they say, for messages that repeat a value.
    words: Vec<String>,
    /// Whether the text could be read, so that `ranges` are all there are.
    placed: bool,
}

/// A line for people.
pub struct Excerpt {
    pub line: String,
    /// Where the caret goes, in columns of a terminal from 1.
    pub column: usize,
    /// How many carets.
    pub width: usize,
}

impl<'t> Masks<'t> {
    /// Of a file whose secrets are known by their places, with what they say.
    pub fn placed(text: &'t str, secrets: Vec<(Range<usize>, String)>) -> Masks<'t> {
        let (ranges, words): (Vec<_>, Vec<_>) = secrets.into_iter().unzip();
        let mut words: Vec<String> = words
            .iter()
            .flat_map(|secret| secret.lines())
            .filter(|line| line.len() >= MIN_SCRUBBED_BYTES)
            .map(str::to_owned)
            .collect();
        // The longest first, so that nothing is left of one that holds another.
        words.sort_by(|one, other| (other.len(), other).cmp(&(one.len(), one)));
        words.dedup();
        Masks { text, ranges, words, placed: true }
    }

    /// Of text that is not YAML.
    pub fn unplaced(text: &'t str) -> Masks<'t> {
        Masks { text, ranges: Vec::new(), words: Vec::new(), placed: false }
    }

    /// A message without what must not be shown.
    pub fn scrub(&self, message: &str) -> String {
        let mut message = Cow::Borrowed(message);
        for word in &self.words {
            if message.contains(&**word) {
                message = without(&message, word).into();
            }
        }
        self.scrub_words(&message)
    }

    /// Advice, which repeats no values but may repeat names, without what looks like a secret.
    pub fn scrub_words(&self, advice: &str) -> String {
        Masked { line: advice, masks: suspects::words(advice) }.to_string()
    }

    /// How many characters a span has on its first line, where that is known.
    pub fn width(&self, span: &Span) -> Option<usize> {
        let source = self.text.get(span.bytes.clone()).filter(|source| !source.is_empty())?;
        Some(lines(source).next().unwrap_or_default().trim_end().chars().count().max(1))
    }

    /// The line of a span, and where its caret goes.
    pub fn excerpt(&self, span: &Span) -> Excerpt {
        let Some((start, line)) = self.line(span.line) else {
            return Excerpt { line: String::new(), column: 1, width: 1 };
        };
        let column = span.column.saturating_sub(1);
        let from = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        let chars = self.width(span).unwrap_or(1);
        let to = line[from..].char_indices().nth(chars).map_or(line.len(), |(at, _)| from + at);
        let masked = self.masked(start, line);
        let (before, within) = (masked.width(0..from), masked.width(from..to));
        let whole = masked.to_string();
        let shown: String = whole.chars().take(MAX_EXCERPT).collect();
        let end = printable::width(&shown);
        let column = before.min(end) + 1;
        let width = within.max(1).min((end + 1).saturating_sub(before).max(1));
        let more = if shown.len() < whole.len() { "…" } else { "" };
        Excerpt { line: shown + more, column, width }
    }

    /// A line's text, and where in the file it begins.
    fn line(&self, number: usize) -> Option<(usize, &'t str)> {
        let line = lines(self.text).nth(number.checked_sub(1)?)?;
        let start = line.as_ptr() as usize - self.text.as_ptr() as usize;
        Some((start, line))
    }

    /// The line with its masks in order, none overlapping another.
    fn masked(&self, start: usize, line: &'t str) -> Masked<'t> {
        let within = |range: &Range<usize>| {
            let clip = |at: usize| at.saturating_sub(start).min(line.len());
            clip(range.start)..clip(range.end)
        };
        let mut masks: Vec<Range<usize>> = self.ranges.iter().map(within).collect();
        masks.extend(match self.placed {
            true => suspects::beside_places(line),
            false => suspects::without_places(line),
        });
        // What is indented is not secret, and its width is what a caret goes by.
        let indent = line.len() - line.trim_start().len();
        masks.iter_mut().for_each(|mask| mask.start = mask.start.max(indent));
        masks.retain(|mask| mask.start < mask.end);
        masks.sort_by_key(|mask| mask.start);
        masks.dedup_by(|next, mask| {
            let overlap = next.start <= mask.end;
            if overlap {
                mask.end = mask.end.max(next.end);
            }
            overlap
        });
        Masked { line, masks }
    }
}

/// The lines of a text, as YAML ends them: by a line feed, a carriage return, or both.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.find(['\n', '\r']);
        rest = end.map(|end| {
            let after = &text[end..];
            after.strip_prefix("\r\n").unwrap_or(&after[1..])
        });
        Some(end.map_or(text, |end| &text[..end]))
    })
}

/// A message with each `word` in it masked that is long, or within what the message quotes.
fn without(message: &str, word: &str) -> String {
    let quoted =
        |at: usize| ['`', '"'].iter().any(|quote| message[..at].matches(*quote).count() % 2 == 1);
    let mut out = String::new();
    let mut done = 0;
    for (at, _) in message.match_indices(word) {
        if word.len() >= MIN_SCRUBBED_ANYWHERE_BYTES || quoted(at) {
            out.push_str(&message[done..at]);
            out.push_str(MASK);
            done = at + word.len();
        }
    }
    out + &message[done..]
}

struct Masked<'t> {
    line: &'t str,
    masks: Vec<Range<usize>>,
}

impl Masked<'_> {
    /// How many columns of a terminal are shown for a range of the line.
    fn width(&self, range: Range<usize>) -> usize {
        let mut shown = 0;
        let mut at = range.start;
        for mask in self.masks.iter().filter(|m| m.start < range.end && m.end > range.start) {
            if mask.start >= range.start {
                shown += printable::width(&self.line[at..mask.start]);
                // Up to the middle of a mask, the caret goes below its beginning.
                shown += if mask.end <= range.end { MASK.chars().count() } else { 0 };
            }
            at = mask.end.min(range.end);
        }
        shown + printable::width(&self.line[at..range.end])
    }
}

impl std::fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut at = 0;
        for mask in &self.masks {
            f.write_str(&self.line[at..mask.start])?;
            f.write_str(MASK)?;
            at = mask.end;
        }
        f.write_str(&self.line[at..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize, bytes: Range<usize>) -> Span {
        Span { line, column, bytes }
    }

    #[test]
    fn the_caret_stays_below_what_it_means_beside_a_mask() {
        let text = "a: { secret: hunter2-hunter2, type: x }";
        let masks = Masks::placed(text, vec![(13..28, "hunter2-hunter2".into())]);
        let shown = masks.excerpt(&at(1, 31, 30..34));
        assert_eq!(shown.line, "a: { secret: ••••, type: x }");
        assert_eq!((shown.column, shown.width), (20, 4));
        let shown = masks.excerpt(&at(1, 14, 13..28));
        assert_eq!((shown.column, shown.width), (14, 4));
    }

    #[test]
    fn no_line_of_a_secret_is_shown_and_no_message_repeats_it() {
        let text = "a:\n  key: |\n    first line\n    second\n  b: c\n";
        let secret = (10..39, "first line\nsecond\n".to_owned());
        let masks = Masks::placed(text, vec![secret]);
        for (line, expected) in
            [(2, "  key: ••••"), (3, "    ••••"), (4, "    ••••"), (5, "  b: c")]
        {
            assert_eq!(masks.excerpt(&at(line, 1, 0..0)).line, expected);
        }
        let message = "no `first line` here, first line, `a second`, second";
        assert_eq!(masks.scrub(message), "no `••••` here, ••••, `a ••••`, second");
    }

    #[test]
    fn without_places_what_may_be_secret_is_masked() {
        for (line, expected) in [
            ("  secret: hunter2", "  secret: ••••"),
            ("  - { secret: hunter2, type: x", "  - { secret: ••••"),
            ("  - { type: x, secret: ${NAME} }", "  - { type: x, secret: ${NAME} }"),
            ("  shop: { type: x, secret: *hunter2 }", "  shop: { type: x, secret: ••••"),
            ("    hunter2, type: x", "    ••••"),
            ("  secret: { hunter2: x }", "  secret: { ••••"),
            ("  secret: [{ type: x, hunter2: x }]", "  secret: [{ type: x, ••••"),
            ("  - name: all: of it", "  - name: all: ••••"),
            ("  agent.message: hunter2", "  agent.message: ••••"),
            ("    hunter2", "    ••••"),
            ("  topic: agent.message ]", "  topic: agent.message ]"),
            ("  - { broker: a, topic: b", "  - { broker: a, topic: b"),
            ("  topic: whsec_abc ]", "  topic: •••• ]"),
            ("  ]", "  ]"),
            ("  url: amqp://u:hunter2@h", "  url: ••••"),
            ("  -----BEGIN PRIVATE KEY-----", "  ••••"),
        ] {
            let shown = Masks::unplaced(line).excerpt(&at(1, 1, 0..0)).line;
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn a_long_line_is_cut_and_its_caret_stays_on_it() {
        let text = "x".repeat(1000);
        let shown = Masks::placed(&text, Vec::new()).excerpt(&at(1, 900, 899..950));
        assert_eq!(shown.line.chars().count(), MAX_EXCERPT + 1);
        assert!(shown.column + shown.width <= MAX_EXCERPT + 3, "{} {}", shown.column, shown.width);
    }
    #[test]
    fn lines_end_as_yaml_ends_them() {
        let masks = Masks::placed("a\rb\r\nc\n\nd", Vec::new());
        for (number, expected) in [(1, "a"), (2, "b"), (3, "c"), (4, ""), (5, "d"), (6, "")] {
            assert_eq!(masks.excerpt(&at(number, 1, 0..0)).line, expected, "{number}");
        }
    }

    #[test]
    fn the_caret_stays_below_what_it_means_behind_wide_text() {
        let text = "日本\t: x";
        let shown = Masks::placed(text, Vec::new()).excerpt(&at(1, 6, 9..10));
        assert_eq!((shown.column, shown.width), (9, 1));
    }
}
