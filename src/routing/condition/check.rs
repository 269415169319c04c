//! From the text of a condition to an expression in which every name is known.
//!
//! # What bounds an evaluation
//!
//! A sender's body may hold half a million values, and a condition is applied to every event. So a
//! loop (`all`, `exists`, `exists_one`, `map`, `filter`) may look at what it goes through, and at
//! fixed values; what is outside of it (`data`, `headers`, an outer loop's variable) may only be
//! compared with these. Then no value of the body is looked at for each other one, and the work is
//! in the length of the body. Loops stand in one another at most [`MAX_LOOPS`] deep, since loops
//! over fixed lists multiply.

use std::ops::Range;

use cel::{
    IdedExpr,
    common::ast::{
        CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo,
        operators,
    },
};

use super::{
    Error, constant,
    parse::{ARITHMETIC, parse},
    pattern::{MATCHES, Pattern},
    reference::Reference,
};
use crate::{
    body::{Paths, Step},
    nearest::{listed, nearest},
    source,
};

/// Most mistakes that are told of one condition.
const MAX_ERRORS: usize = 10;

/// How deep loops may be nested.
const MAX_LOOPS: usize = 2;

const VARIABLES: [&str; 7] = ["source", "type", "id", "subject", "time", "headers", "data"];

/// Names of CEL's types, which stand for themselves: `type(data.x) == string`.
const TYPES: [&str; 9] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

const COMPARISONS: [&str; 6] = [
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::GREATER_EQUALS,
];

/// The operators beside comparisons and [`ARITHMETIC`].
const OTHER_OPERATORS: [&str; 7] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::INDEX,
    operators::IN,
    operators::NOT_STRICTLY_FALSE,
];

const FUNCTIONS: [&str; 25] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "timestamp",
    "type",
    "uint",
];

/// Loops and `has`, which the parser knows.
const MACROS: [&str; 6] = ["has", "all", "exists", "exists_one", "map", "filter"];

/// Compiles; see the module. Of what cannot be parsed one error is told, of the rest all.
pub fn compile(text: &str, paths: &mut Paths) -> Result<(IdedExpr, Vec<Reference>), Vec<Error>> {
    let (mut expression, places) = parse(text).map_err(|error| vec![error])?;
    let (references, loops, errors) = Default::default();
    let mut checker = Checker { text, places, paths, references, loops, errors };
    checker.check(&mut expression, Outside::Used);
    for (node, why) in constant::failures(&expression) {
        let message = format!("whatever the event, this fails: {why}");
        match &node.expr {
            Expr::Call(call) if !is_operator(&call.func_name) => {
                checker.report_at(node.id, &call.func_name, message);
            }
            _ => checker.report(node.id, message),
        }
    }
    let Checker { references, mut errors, .. } = checker;
    if errors.is_empty() {
        return Ok((expression, references));
    }
    errors.sort_by_key(|error| (error.range.start, error.range.end));
    errors.dedup();
    errors.truncate(MAX_ERRORS);
    Err(errors)
}

/// Whether what stands outside of the loop at hand may stand here.
#[derive(Clone, Copy, PartialEq)]
enum Outside {
    /// Used for whatever it may be.
    Used,
    /// Beside a comparison.
    Compared,
}

struct Checker<'c> {
    text: &'c str,
    places: SourceInfo,
    paths: &'c mut Paths,
    references: Vec<Reference>,
    /// The variables of the loops around, the innermost last.
    loops: Vec<String>,
    errors: Vec<Error>,
}

impl Checker<'_> {
    fn check(&mut self, node: &mut IdedExpr, outside: Outside) {
        if let Some(root) = self.path(&node.expr) {
            return self.refer(node, root, outside);
        }
        match &mut node.expr {
            Expr::Literal(_) | Expr::Unspecified => {}
            Expr::Ident(name) => self.variable(node.id, name, outside),
            Expr::Select(select) => self.check(&mut select.operand, outside),
            Expr::Call(call) => self.call(node.id, call, outside),
            Expr::List(list) => self.check_all(&mut list.elements),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    match &mut entry.expr {
                        EntryExpr::MapEntry(entry) => {
                            self.check(&mut entry.key, Outside::Used);
                            self.check(&mut entry.value, Outside::Used);
                        }
                        EntryExpr::StructField(_) => {
                            self.report(node.id, "there are no messages here");
                        }
                    }
                }
            }
            Expr::Struct(_) => self.report(node.id, "there are no message types here"),
            Expr::Comprehension(comprehension) => self.comprehension(node.id, comprehension),
        }
    }

    fn check_all(&mut self, nodes: &mut [IdedExpr]) {
        nodes.iter_mut().for_each(|node| self.check(node, Outside::Used));
    }

    /// `data` or `headers` with the names after it, as far as they are fixed.
    fn path(&self, expression: &Expr) -> Option<Path> {
        match expression {
            Expr::Ident(name) if name == "data" || name == "headers" => {
                Some(Path { root: name.clone(), steps: Vec::new(), test: false })
            }
            Expr::Select(SelectExpr { operand, field, test }) => {
                let path = self.path(&operand.expr).filter(|path| !path.test)?;
                Some(path.then(Step::Member(field.clone()), *test))
            }
            Expr::Call(CallExpr { func_name, args, .. }) if func_name == operators::INDEX => {
                let [operand, IdedExpr { expr: Expr::Literal(index), .. }] = &args[..] else {
                    return None;
                };
                let step = match index {
                    LiteralValue::String(name) => Step::Member(name.inner().to_owned()),
                    LiteralValue::Int(place) => Step::Element((*place.inner()).try_into().ok()?),
                    _ => return None,
                };
                let path = self.path(&operand.expr).filter(|path| !path.test)?;
                Some(path.then(step, false))
            }
            _ => None,
        }
    }

    /// Puts a reference in the place of a path.
    fn refer(&mut self, node: &mut IdedExpr, path: Path, outside: Outside) {
        if !path.test {
            self.allow(node.id, &path.root, outside);
        }
        let Path { root, steps, test } = path;
        let reference = match &steps[..] {
            steps if root == "data" => {
                let shown = steps.iter().fold(root, |path, step| match step {
                    Step::Member(name) => format!("{path}.{name}"),
                    Step::Element(place) => format!("{path}[{place}]"),
                });
                Reference::Field { slot: self.paths.add_steps(steps), test, shown }
            }
            [] => return,
            [Step::Member(written)] => {
                let name = written.to_ascii_lowercase();
                if !source::keeps_header(&name) {
                    let message = format!(
                        "the header `{name}` is not kept with an event: it may hold a secret, or \
                         belongs to the connection"
                    );
                    return self.report_at(node.id, written, message);
                }
                Reference::Header { name, test }
            }
            _ => {
                let message = "a header is a text, by its name: `headers[\"x-name\"]`";
                return self.report_at(node.id, "headers", message);
            }
        };
        node.expr = self.reference(reference);
    }

    fn reference(&mut self, reference: Reference) -> Expr {
        let known = self.references.iter().position(|known| *known == reference);
        let number = known.unwrap_or(self.references.len());
        if known.is_none() {
            self.references.push(reference);
        }
        Expr::Ident(Reference::name(number))
    }

    fn variable(&mut self, id: u64, name: &str, outside: Outside) {
        if self.loops.iter().any(|variable| variable == name) {
            return self.allow(id, name, outside);
        }
        if VARIABLES.contains(&name) || TYPES.contains(&name) || name.starts_with('@') {
            return;
        }
        let known = VARIABLES.into_iter().chain(self.loops.iter().map(String::as_str));
        let advice = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", listed(&VARIABLES)),
        };
        self.report(id, format!("unknown variable `{name}`; {advice}"));
    }

    /// Reports it if `name` may not stand here, in the innermost loop.
    fn allow(&mut self, id: u64, name: &str, outside: Outside) {
        match self.loops.last() {
            Some(variable) if variable != name && outside == Outside::Used => {
                let message = format!(
                    "inside this loop `{name}` may only be compared, with `{variable}` or something \
                     fixed: looking through it for every `{variable}` could take for ever"
                );
                self.report_at(id, name, message);
            }
            _ => {}
        }
    }

    /// Whether this leads from outside of the innermost loop.
    fn is_outside(&self, expression: &Expr) -> bool {
        match expression {
            Expr::Ident(name) => {
                let is_outer = self.loops.iter().rev().skip(1).any(|variable| variable == name);
                is_outer || ["data", "headers"].contains(&&**name)
            }
            Expr::Select(select) => self.is_outside(&select.operand.expr),
            Expr::Call(call) if call.func_name == operators::INDEX => {
                call.args.first().is_some_and(|operand| self.is_outside(&operand.expr))
            }
            _ => false,
        }
    }

    fn call(&mut self, id: u64, call: &mut CallExpr, outside: Outside) {
        let name = &*call.func_name;
        if COMPARISONS.contains(&name) {
            let both = call.args.iter().all(|side| self.is_outside(&side.expr));
            let outside = if both { Outside::Used } else { Outside::Compared };
            return call.args.iter_mut().for_each(|side| self.check(side, outside));
        }
        if let (operators::INDEX, [operand, index]) = (name, &mut call.args[..]) {
            self.check(operand, outside);
            return self.check(index, Outside::Used);
        }
        if !is_operator(name) && !FUNCTIONS.contains(&name) {
            self.report_at(id, name, unknown_function(name));
        }
        if name == "matches" {
            self.matches(id, call);
        }
        if let Some(target) = &mut call.target {
            self.check(target, Outside::Used);
        }
        self.check_all(&mut call.args);
    }

    /// `text.matches("…")`, or `matches(text, "…")`, with its expression compiled.
    fn matches(&mut self, id: u64, call: &mut CallExpr) {
        let (target, mut arguments) = (call.target.as_deref(), call.args.iter());
        let both = (target.or_else(|| arguments.next()), arguments.next(), arguments.next());
        let (Some(text), Some(pattern), None) = both else {
            return self.report_at(id, "matches", "write `text.matches(\"expression\")`");
        };
        let Expr::Literal(LiteralValue::String(expression)) = &pattern.expr else {
            let message = "the regular expression of `matches` must be a fixed text";
            return self.report_at(id, "matches", message);
        };
        match Pattern::compile(expression.inner()) {
            Err(error) => self.report(pattern.id, last_line(&error)),
            Ok(compiled) => {
                let expr = self.reference(Reference::Pattern(compiled));
                let pattern = IdedExpr { id: pattern.id, expr };
                let args = vec![text.clone(), pattern];
                *call = CallExpr { func_name: MATCHES.to_owned(), target: None, args };
            }
        }
    }

    fn comprehension(&mut self, id: u64, parts: &mut ComprehensionExpr) {
        if self.loops.len() == MAX_LOOPS {
            let message = format!("loops may stand in one another {MAX_LOOPS} deep at most");
            return self.report(id, message);
        }
        self.check(&mut parts.iter_range, Outside::Used);
        self.check(&mut parts.accu_init, Outside::Used);
        let variable = &parts.iter_var;
        if VARIABLES.contains(&&**variable) || self.loops.contains(variable) {
            let message = format!("`{variable}` is taken; call the loop's variable otherwise");
            return self.report_at(id, variable, message);
        }
        self.loops.push(variable.clone());
        for part in [&mut parts.loop_cond, &mut parts.loop_step, &mut parts.result] {
            self.check(part, Outside::Used);
        }
        self.loops.pop();
    }

    /// Reports a problem with the word `name` of a node; the node's own place may be that of its
    /// bracket or dot, so the nearest such word is meant.
    fn report_at(&mut self, id: u64, name: &str, message: impl Into<String>) {
        let place = self.place(id);
        let words = self.text.match_indices(name).map(|(at, _)| at..at + name.len());
        let gap = |word: &Range<usize>| match word.start <= place.start {
            true => place.start.saturating_sub(word.end),
            false => word.start.saturating_sub(place.end),
        };
        let range = words.min_by_key(gap).unwrap_or(place);
        self.errors.push(Error { message: message.into(), range });
    }

    fn report(&mut self, id: u64, message: impl Into<String>) {
        let range = self.place(id);
        self.errors.push(Error { message: message.into(), range });
    }

    /// Where a node stands, or at least its sign.
    fn place(&self, id: u64) -> Range<usize> {
        let place = self.places.offset_for(id);
        let place = place.map(|(start, stop)| start as usize..stop as usize + 1);
        let place = place.filter(|place| self.text.get(place.clone()).is_some());
        place.unwrap_or(0..self.text.len())
    }
}

/// Whether it is an operator other than a comparison.
fn is_operator(name: &str) -> bool {
    ARITHMETIC.contains(&name) || OTHER_OPERATORS.contains(&name)
}

fn unknown_function(name: &str) -> String {
    if MACROS.contains(&name) || name == "existsOne" {
        return format!("`{name}` is written otherwise: `has(data.x)`, `data.list.{name}(x, …)`");
    }
    match nearest(name, FUNCTIONS.into_iter().chain(MACROS)) {
        Some(near) => format!("unknown function `{name}`; did you mean `{near}`?"),
        None => format!("unknown function `{name}`; known are {}", listed(&known_functions())),
    }
}

/// The best known first: not all of them are listed.
fn known_functions() -> Vec<&'static str> {
    let usual = ["contains", "startsWith", "endsWith", "matches", "size"];
    let others = FUNCTIONS.into_iter().filter(|name| !usual.contains(name));
    usual.into_iter().chain(MACROS).chain(others).collect()
}

/// What a regular expression's error says at its end; before that it draws a picture.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// A path from `data` or `headers`.
struct Path {
    root: String,
    steps: Vec<Step>,
    /// Whether only its presence is asked for.
    test: bool,
}

impl Path {
    fn then(mut self, step: Step, test: bool) -> Path {
        self.steps.push(step);
        self.test = test;
        self
    }
}
