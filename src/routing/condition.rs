//! Conditions: `when:`, in [CEL](https://cel.dev) over `source`, `type`, `id`, `subject`, `time`,
//! `headers` and `data`.
//!
//! `parse` reads the text. `check` compiles: it knows every name, says where a mistake stands, and
//! replaces what a condition reads of the body by the slot of that field, so that nothing else of the
//! body is built. `constant` tells what fails or is false whatever the event. `value` is JSON as CEL
//! sees it.
//!
//! An evaluation that fails (a missing field, a wrong type) is no match. It takes time in the
//! length of the text and of the body, whatever a sender says: see `check`.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, ExecutionError, IdedExpr,
    common::{
        types::{CelBool, CelNull, CelString, CelTimestamp},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use chrono::DateTime;

use self::reference::Reference;
use super::{input::Input, template::shorten};
use crate::body::Paths;

mod absent;
mod check;
mod constant;
mod parse;
mod pattern;
mod reference;
pub(super) mod value;

pub(super) use absent::absent;

/// Longest condition, in bytes. One that says as much as this is better made of several routes.
pub const MAX_BYTES: usize = 2048;

/// What conditions may call.
static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut library = Env::stdlib().with_optional_support(false);
    pattern::declare(&mut library);
    Arc::new(library)
});

/// A compiled condition.
#[derive(Debug)]
pub struct Condition {
    text: String,
    expression: IdedExpr,
    /// What stands in the expression as `@0`, `@1` and so on.
    references: Vec<Reference>,
    /// Whether it is false, or fails, whatever the event.
    is_never: bool,
}

/// Why text is not a condition, and where in it, in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub message: String,
    pub range: Range<usize>,
}

/// Why a condition gave no verdict on an event, which counts as *no match*.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The body as a whole, or a field that is asked for, cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The event has no such field or header.
    #[error("the event has no `{0}`")]
    Missing(String),
    /// The condition cannot be applied to what the event holds.
    #[error("{0}")]
    Failed(String),
    #[error("it gives a {0}, not true or false")]
    NotBoolean(String),
    /// A fault in the library that evaluates.
    #[error("its evaluation broke down")]
    Panicked,
}

impl Condition {
    /// Compiles. The body fields it reads are added to `paths`. Every mistake is told, as far as the
    /// text can be read and up to a bound.
    pub fn compile(text: &str, paths: &mut Paths) -> Result<Condition, Vec<Error>> {
        let (expression, references) = check::compile(text, paths)?;
        let is_never = constant::is_never(&expression);
        Ok(Condition { text: text.to_owned(), expression, references, is_never })
    }

    /// As it stands in the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether no event fulfils it, as far as can be known of it alone.
    pub fn is_never(&self) -> bool {
        self.is_never
    }

    /// Whether the event fulfils it.
    pub fn holds(&self, input: &Input) -> Result<bool, Why> {
        // The library is not ours, and what it is given is the sender's. Nothing that a panic could
        // leave half-done outlives the evaluation: what `input` remembers is built apart from it.
        catch_unwind(AssertUnwindSafe(|| self.evaluate(input))).unwrap_or(Err(Why::Panicked))
    }

    fn evaluate(&self, input: &Input) -> Result<bool, Why> {
        let scope = Scope { references: &self.references, input };
        let mut context = Context::with_env(LIBRARY.clone());
        context.set_variable_resolver(&scope);
        match cel::Value::resolve_val(&self.expression, &context) {
            Ok(value) => match value.downcast_ref::<CelBool>() {
                Some(verdict) => Ok(*verdict.inner()),
                None => Err(Why::NotBoolean(value.get_type().name().to_owned())),
            },
            Err(error) => Err(self.why(error, input)),
        }
    }

    fn why(&self, error: ExecutionError, input: &Input) -> Why {
        match error {
            ExecutionError::UndeclaredReference(name) => {
                match Reference::number(&name).and_then(|number| self.references.get(number)) {
                    Some(reference) => reference.why_missing(input),
                    None => Why::Missing(name.to_string()),
                }
            }
            other => other.into(),
        }
    }
}

impl From<ExecutionError> for Why {
    fn from(error: ExecutionError) -> Why {
        Why::Failed(match error {
            ExecutionError::NoSuchKey(name) => return Why::Missing(shorten(&name).to_owned()),
            ExecutionError::NoSuchOverload(overload) => {
                let name = overload.function().trim_matches(['_', '@']);
                let types = overload.argument_types().join(" and ");
                format!("`{name}` does not go with {types}")
            }
            ExecutionError::UnsupportedBinaryOperator(name, left, right) => {
                format!("`{name}` does not go with {} and {}", type_of(&left), type_of(&right))
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "it divides by zero".to_owned()
            }
            ExecutionError::Overflow(name, ..) => format!("`{name}` gives too large a number"),
            ExecutionError::FunctionError { function, message } => match &*function {
                "timestamp" => "`timestamp` takes a text like `2026-01-01T00:00:00Z`".to_owned(),
                "duration" => "`duration` takes a text like `1h30m`".to_owned(),
                // What the library says may repeat what the event holds.
                _ => format!("`{function}`: {}", shorten(&message)),
            },
            other => shorten(&other.to_string()).to_owned(),
        })
    }
}

/// What CEL calls the type of a value; the library has another word for one of them.
fn type_of(value: &cel::Value) -> String {
    match value {
        cel::Value::Float(_) => "double".to_owned(),
        other => other.type_of().to_string(),
    }
}

/// The variables of one evaluation.
struct Scope<'c, 'e> {
    references: &'c [Reference],
    input: &'c Input<'e>,
}

impl VariableResolver for Scope<'_, '_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let event = self.input.event;
        match name {
            "type" => text(&event.kind),
            "source" => text(&event.source),
            "id" => text(&event.id),
            "subject" => event.subject.as_deref().map_or_else(|| owned(CelNull), text),
            "time" => {
                let time = DateTime::from_timestamp_millis(event.time_ms.try_into().ok()?)?;
                owned(CelTimestamp::from(time.fixed_offset()))
            }
            "headers" => Some(CowVal::Borrowed(&**self.input.headers())),
            _ => self.references.get(Reference::number(name)?)?.resolve(self.input),
        }
    }
}

fn text(text: &str) -> Option<CowVal<'_, '_>> {
    owned(CelString::from(text))
}

fn owned<'b>(value: impl Val + 'b) -> Option<CowVal<'b, 'b>> {
    Some(CowVal::owned(value))
}

#[cfg(test)]
mod tests;
