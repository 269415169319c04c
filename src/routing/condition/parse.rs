//! From the text of a condition to an expression, or to what is wrong with the text.

use std::{ops::Range, thread};

use cel::{
    IdedExpr, ParseErrors,
    common::ast::{
        ComprehensionExpr, EntryExpr, Expr, LiteralValue, MapExpr, SourceInfo, StructExpr,
        operators,
    },
};

use super::{Error, LIBRARY, MAX_BYTES};

/// How deep expressions may be nested: evaluating them recurses. `a + b + c` is nested, too.
const MAX_DEPTH: usize = 48;

/// What the parser may take of the stack for a text of [`MAX_BYTES`].
const STACK_BYTES: usize = 32 << 20;

/// Operators of arithmetic. Their result is no verdict, whatever they are applied to.
pub const ARITHMETIC: [&str; 6] = [
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
];

/// Parses. What the expression gives may be a verdict, as far as its shape tells.
pub fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), Error> {
    let whole = |message: String| Error { message, range: 0..text.len() };
    if text.trim().is_empty() {
        return Err(whole("the condition is empty; leave `when:` out to take every event".into()));
    }
    if text.len() > MAX_BYTES {
        return Err(whole(format!(
            "the condition is longer than {MAX_BYTES} bytes; make routes of it"
        )));
    }
    let parsed = parse_apart(text)?;
    match no_verdict(&parsed.0.expr) {
        Some(kind) => Err(whole(format!("the condition gives {kind}, not true or false"))),
        None => Ok(parsed),
    }
}

/// Parses on a thread of its own: the parser recurses deeper than the text looks, and a mistake in a
/// file must not end the daemon.
fn parse_apart(text: &str) -> Result<(IdedExpr, SourceInfo), Error> {
    let whole = |message: String| Error { message, range: 0..text.len() };
    let too_deep = || whole(format!("expressions may be nested {MAX_DEPTH} deep at most"));
    if brackets(text) > MAX_DEPTH {
        return Err(too_deep());
    }
    let parse = || {
        let parsed = LIBRARY.parser().parse_with_source_info(text);
        let (expression, places) = parsed.map_err(|errors| syntax(text, errors))?;
        if is_deeper(&expression.expr, MAX_DEPTH) {
            Err(too_deep())
        } else {
            Ok((expression, places))
        }
    };
    let broken = |why: &str| whole(format!("the expression cannot be parsed: {why}"));
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("parse".into()).stack_size(STACK_BYTES);
        let parsing = thread.spawn_scoped(scope, parse).map_err(|why| broken(&why.to_string()))?;
        parsing.join().unwrap_or_else(|_| Err(broken("the parser broke down")))
    })
}

/// How deep brackets are nested, wherever they stand.
fn brackets(text: &str) -> usize {
    let (mut depth, mut deepest) = (0, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    usize::try_from(deepest).unwrap_or_default()
}

/// Whether an expression is nested deeper than so many levels.
fn is_deeper(expression: &Expr, levels: usize) -> bool {
    let Some(left) = levels.checked_sub(1) else { return true };
    let deeper = |node: &IdedExpr| is_deeper(&node.expr, left);
    match expression {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => false,
        Expr::Select(select) => deeper(&select.operand),
        Expr::Call(call) => {
            call.target.as_deref().is_some_and(deeper) || call.args.iter().any(deeper)
        }
        Expr::List(list) => list.elements.iter().any(deeper),
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            entries.iter().any(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => deeper(&entry.key) || deeper(&entry.value),
                EntryExpr::StructField(field) => deeper(&field.value),
            })
        }
        Expr::Comprehension(parts) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } =
                &**parts;
            [iter_range, accu_init, loop_cond, loop_step, result].into_iter().any(deeper)
        }
    }
}

/// What an expression gives that plainly is no verdict.
fn no_verdict(expression: &Expr) -> Option<&'static str> {
    match expression {
        Expr::Literal(LiteralValue::Boolean(_)) => None,
        Expr::Literal(LiteralValue::String(_)) => Some("a text"),
        Expr::Literal(LiteralValue::Null) => Some("null"),
        Expr::Literal(_) => Some("a number"),
        Expr::List(_) => Some("a list"),
        Expr::Map(_) => Some("a map"),
        Expr::Call(call) if ARITHMETIC.contains(&&*call.func_name) => Some("a number"),
        _ => None,
    }
}

/// The first syntax error, in words for people who do not write parsers.
fn syntax(text: &str, errors: ParseErrors) -> Error {
    let whole = 0..text.len();
    let Some(first) = errors.errors.into_iter().next() else {
        return Error { message: "this is no CEL expression".to_owned(), range: whole };
    };
    let (line, column) = first.pos;
    if line < 1 {
        return Error { message: "this is no CEL expression".to_owned(), range: whole };
    }
    let range = place(text, line as usize, column.max(1) as usize);
    let message = match first.msg.strip_prefix("Syntax error: ") {
        None => literal(first.msg),
        Some(_) if range.is_empty() => "the condition ends too early".to_owned(),
        Some(_) => match &text[range.clone()] {
            "and" => "write `&&`, not `and`".to_owned(),
            "or" => "write `||`, not `or`".to_owned(),
            "not" => "write `!`, not `not`".to_owned(),
            "=" => "write `==` to compare".to_owned(),
            other => format!("`{other}` does not belong here"),
        },
    };
    Error { message, range }
}

/// About a literal; what the library says of why is for its own people.
fn literal(message: String) -> String {
    match message.split_once(": ") {
        Some(("invalid string literal" | "invalid bytes literal", _)) => {
            "this text in quotes holds an escape that CEL does not know; write `\\\\` for a plain `\\`"
                .to_owned()
        }
        _ => message,
    }
}

/// The range of the word at a line and column, both from 1 and the latter in characters.
fn place(text: &str, line: usize, column: usize) -> Range<usize> {
    let before = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    let rest = &text[before.min(text.len())..];
    let start = rest.char_indices().nth(column - 1).map_or(text.len(), |(at, _)| before + at);
    word(text, start)
}

/// The range of the word that begins at a byte, or of the one character there.
fn word(text: &str, start: usize) -> Range<usize> {
    let rest = &text[start..];
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let end = if end == 0 { rest.chars().next().map_or(0, char::len_utf8) } else { end };
    start..start + end
}
