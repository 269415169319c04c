//! No text breaks the compiler of conditions, no event an evaluation; and what is done is what is
//! explained.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use waypost::{
    body::Paths,
    event::Event,
    routing::{
        Why,
        condition::{Condition, MAX_BYTES},
        input::Input,
    },
};
use waypost_fuzz::{Json, Text};

#[derive(Arbitrary, Debug)]
struct Given<'a> {
    condition: Vec<Token<'a>>,
    kind: Text<'a>,
    subject: Option<Text<'a>>,
    header: Option<Text<'a>>,
    time_ms: u64,
    body: Json<'a>,
}

/// A word of a condition, or any text.
#[derive(Arbitrary, Debug)]
enum Token<'a> {
    Word(u8),
    Number(i8),
    Quoted(Text<'a>),
    Any(&'a str),
}

const WORDS: [&str; 64] = [
    "data",
    ".a",
    ".b",
    "['a']",
    "[0]",
    "data.a",
    "data.b",
    "data.a.b",
    "type",
    "source",
    "id",
    "subject",
    "time",
    "headers",
    "headers.x",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "&&",
    "||",
    "!",
    "+",
    "-",
    "*",
    "/",
    "%",
    " in ",
    "true",
    "false",
    "null",
    ".exists(x, x == data.a)",
    ".all(x, ",
    ".map(x, x",
    ".filter(x, x.a",
    "has(",
    "size(",
    ".size()",
    "string(",
    "int(",
    "double(",
    "uint(",
    "bytes(",
    "bool(",
    "dyn(",
    "timestamp(",
    "duration(",
    ".matches('a*')",
    ".contains(",
    ".startsWith(",
    ".getHours('Asia/Tokyo')",
    ".getDayOfYear()",
    "x",
];

fuzz_target!(|given: Given| {
    let text = text(&given.condition);
    let mut paths = Paths::default();
    let condition = match Condition::compile(&text, &mut paths) {
        Ok(condition) => condition,
        Err(errors) => {
            assert!(!errors.is_empty(), "{text:?}");
            for error in errors {
                assert!(text.get(error.range.clone()).is_some(), "{text:?}: {error:?}");
            }
            return;
        }
    };
    assert!(text.len() <= MAX_BYTES);
    let event = event(&given);
    let verdict = condition.holds(&Input::new(&event, &paths));
    assert_ne!(verdict, Err(Why::Panicked), "{text:?}");
    // Nothing of an evaluation stays behind in what is shared.
    let input = Input::new(&event, &paths);
    assert_eq!(condition.holds(&input), verdict, "{text:?}");
    assert_eq!(condition.holds(&input), verdict, "{text:?}");
});

fn text(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::Word(number) => text.push_str(WORDS[usize::from(*number) % WORDS.len()]),
            Token::Number(number) => text.push_str(&number.to_string()),
            Token::Quoted(quoted) => text.push_str(&format!("{:?}", quoted.get())),
            Token::Any(any) => text.push_str(any),
        }
    }
    text
}

fn event(given: &Given) -> Event {
    Event {
        id: "1".into(),
        source: "s".into(),
        kind: given.kind.get().into(),
        subject: given.subject.map(|subject| subject.get().into()),
        time_ms: given.time_ms,
        content_type: None,
        traceparent: None,
        extensions: Vec::new(),
        headers: given.header.map(|value| ("x".into(), value.get().into())).into_iter().collect(),
        body: given.body.to_bytes().into(),
    }
}
