//! Text from outside as a terminal may show it.

use unicode_width::UnicodeWidthStr;

/// A character that would do something to a terminal, or to the order of what stands on a line, rather
/// than be seen.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}')
}

/// The text with every such character escaped.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

/// How many columns of a terminal the text takes, escaped.
pub fn width(text: &str) -> usize {
    escaped(text).width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_a_terminal_that_is_not_seen() {
        assert_eq!(escaped("a\x1b[31m\u{202e}\tb日"), r"a\u{1b}[31m\u{202e}\tb日");
        assert_eq!((width("日本"), width("\t"), width("é")), (4, 2, 1));
    }
}
