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

use cel::{
    IdedExpr,
    common::ast::{
        CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, SourceInfo,
        operators,
    },
};

use super::{
    Error,
    parse::parse,
    pattern::{MATCHES, Pattern},
    reference::Reference,
};
use crate::{
    body::{Paths, Step},
    source,
};

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

const OPERATORS: [&str; 13] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::NEGATE,
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

/// Compiles; see the module.
pub fn compile(text: &str, paths: &mut Paths) -> Result<(IdedExpr, Vec<Reference>), Error> {
    let (mut expression, places) = parse(text)?;
    let mut checker = Checker { text, places, paths, references: Vec::new(), loops: Vec::new() };
    checker.check(&mut expression, Outside::Used)?;
    Ok((expression, checker.references))
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
}

impl Checker<'_> {
    fn check(&mut self, node: &mut IdedExpr, outside: Outside) -> Result<(), Error> {
        if let Some(root) = self.path(&node.expr) {
            return self.refer(node, root, outside);
        }
        match &mut node.expr {
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
            Expr::Ident(name) => {
                let name = name.clone();
                self.variable(node.id, &name, outside)
            }
            Expr::Select(select) => self.check(&mut select.operand, outside),
            Expr::Call(call) => self.call(node.id, call, outside),
            Expr::List(list) => {
                list.elements.iter_mut().try_for_each(|item| self.check(item, Outside::Used))
            }
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.check(&mut entry.key, Outside::Used)?;
                    self.check(&mut entry.value, Outside::Used)
                }
                EntryExpr::StructField(_) => Err(self.error(node.id, "there are no messages here")),
            }),
            Expr::Struct(_) => Err(self.error(node.id, "there are no message types here")),
            Expr::Comprehension(comprehension) => self.comprehension(node.id, comprehension),
        }
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
    fn refer(&mut self, node: &mut IdedExpr, path: Path, outside: Outside) -> Result<(), Error> {
        if !path.test {
            self.allow(node.id, &path.root, outside)?;
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
            [] => return Ok(()),
            [Step::Member(written)] => {
                let name = written.to_ascii_lowercase();
                if !source::keeps_header(&name) {
                    let message = format!(
                        "the header `{name}` is not kept with an event: it may hold a secret, or \
                         belongs to the connection"
                    );
                    return Err(self.error_at(node.id, written, message));
                }
                Reference::Header { name, test }
            }
            _ => {
                let message = "a header is a text, by its name: `headers[\"x-name\"]`";
                return Err(self.error_at(node.id, "headers", message));
            }
        };
        node.expr = self.reference(reference);
        Ok(())
    }

    fn reference(&mut self, reference: Reference) -> Expr {
        let known = self.references.iter().position(|known| *known == reference);
        let number = known.unwrap_or(self.references.len());
        if known.is_none() {
            self.references.push(reference);
        }
        Expr::Ident(Reference::name(number))
    }

    fn variable(&self, id: u64, name: &str, outside: Outside) -> Result<(), Error> {
        if self.loops.iter().any(|variable| variable == name) {
            return self.allow(id, name, outside);
        }
        if VARIABLES.contains(&name) || TYPES.contains(&name) || name.starts_with('@') {
            return Ok(());
        }
        let known = VARIABLES.join(", ");
        Err(self.error(id, format!("unknown variable `{name}`; known are {known}")))
    }

    /// Whether `name` may stand here, in the innermost loop.
    fn allow(&self, id: u64, name: &str, outside: Outside) -> Result<(), Error> {
        match self.loops.last() {
            Some(variable) if variable != name && outside == Outside::Used => {
                let message = format!(
                    "inside this loop `{name}` may only be compared, with `{variable}` or something \
                     fixed: looking through it for every `{variable}` could take for ever"
                );
                Err(self.error_at(id, name, message))
            }
            _ => Ok(()),
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

    fn call(&mut self, id: u64, call: &mut CallExpr, outside: Outside) -> Result<(), Error> {
        let name = &*call.func_name;
        if COMPARISONS.contains(&name) {
            let both = call.args.iter().all(|side| self.is_outside(&side.expr));
            let outside = if both { Outside::Used } else { Outside::Compared };
            return call.args.iter_mut().try_for_each(|side| self.check(side, outside));
        }
        if let (operators::INDEX, [operand, index]) = (name, &mut call.args[..]) {
            self.check(operand, outside)?;
            return self.check(index, Outside::Used);
        }
        if !OPERATORS.contains(&name) && !FUNCTIONS.contains(&name) {
            return Err(self.error_at(id, name, self.unknown_function(name)));
        }
        if name == "matches" {
            self.matches(id, call)?;
        }
        if let Some(target) = &mut call.target {
            self.check(target, Outside::Used)?;
        }
        call.args.iter_mut().try_for_each(|argument| self.check(argument, Outside::Used))
    }

    fn unknown_function(&self, name: &str) -> String {
        match name {
            "has" | "all" | "exists" | "exists_one" | "existsOne" | "map" | "filter" => {
                format!("`{name}` is written otherwise: `has(data.x)`, `data.list.{name}(x, …)`")
            }
            _ => format!(
                "unknown function `{name}`; known are has, all, exists, exists_one, map, filter, {}",
                FUNCTIONS.join(", ")
            ),
        }
    }

    /// `text.matches("…")`, or `matches(text, "…")`, with its expression compiled.
    fn matches(&mut self, id: u64, call: &mut CallExpr) -> Result<(), Error> {
        let target = call.target.take().map(|target| *target);
        let arguments: Vec<IdedExpr> = target.into_iter().chain(call.args.drain(..)).collect();
        let [text, pattern]: [IdedExpr; 2] = arguments
            .try_into()
            .map_err(|_| self.error_at(id, "matches", "write `text.matches(\"expression\")`"))?;
        let Expr::Literal(LiteralValue::String(expression)) = &pattern.expr else {
            let message = "the regular expression of `matches` must be a fixed text";
            return Err(self.error_at(id, "matches", message));
        };
        let compiled = Pattern::compile(expression.inner());
        let compiled = compiled.map_err(|error| self.error(pattern.id, last_line(&error)))?;
        let expr = self.reference(Reference::Pattern(compiled));
        call.func_name = MATCHES.to_owned();
        call.args = vec![text, IdedExpr { id: pattern.id, expr }];
        Ok(())
    }

    fn comprehension(&mut self, id: u64, parts: &mut ComprehensionExpr) -> Result<(), Error> {
        if self.loops.len() == MAX_LOOPS {
            let message = format!("loops may stand in one another {MAX_LOOPS} deep at most");
            return Err(self.error(id, message));
        }
        self.check(&mut parts.iter_range, Outside::Used)?;
        self.check(&mut parts.accu_init, Outside::Used)?;
        let variable = &parts.iter_var;
        if VARIABLES.contains(&&**variable) || self.loops.contains(variable) {
            let message = format!("`{variable}` is taken; call the loop's variable otherwise");
            return Err(self.error_at(id, variable, message));
        }
        self.loops.push(variable.clone());
        for part in [&mut parts.loop_cond, &mut parts.loop_step, &mut parts.result] {
            self.check(part, Outside::Used)?;
        }
        self.loops.pop();
        Ok(())
    }

    /// A problem with the word `name` of a node; the node's own place may be that of its bracket or
    /// dot, so the nearest such word is meant.
    fn error_at(&self, id: u64, name: &str, message: impl Into<String>) -> Error {
        let error = self.error(id, message);
        let nearest = self.text.match_indices(name).map(|(at, _)| at);
        match nearest.min_by_key(|at| at.abs_diff(error.range.start)) {
            Some(start) => Error { range: start..start + name.len(), ..error },
            None => error,
        }
    }

    fn error(&self, id: u64, message: impl Into<String>) -> Error {
        let place = self.places.offset_for(id);
        let place = place.map(|(start, stop)| start as usize..stop as usize + 1);
        let place = place.filter(|place| self.text.get(place.clone()).is_some());
        let range = place.unwrap_or(0..self.text.len());
        Error { message: message.into(), range }
    }
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
