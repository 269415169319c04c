//! `matches`, with its regular expression compiled at load: time is in the length of the text, and
//! nothing that a sender says becomes an expression.

use std::any::Any;

use cel::{
    Env, ExecutionError,
    common::{
        types::{CelBool, CelString, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use regex::{Regex, RegexBuilder};

/// What `text.matches(pattern)` is compiled to. No text can say it.
pub const MATCHES: &str = "@matches";

/// Most bytes of a compiled expression.
const MAX_COMPILED_BYTES: usize = 1 << 18;

static TYPE: Type = Type::new_unspecified_type("pattern");

/// A compiled regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl Pattern {
    pub fn compile(text: &str) -> Result<Pattern, regex::Error> {
        RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build().map(Pattern)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &TYPE
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// Adds [`MATCHES`] to the library.
pub fn declare(library: &mut Env) {
    library
        .add_overload(MATCHES, MATCHES, vec![STRING_TYPE, TYPE.to_owned()], matches)
        .expect("no other function has this name");
}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, pattern] = &arguments[..] else {
        return Err(ExecutionError::invalid_argument_count(2, arguments.len()));
    };
    match (text.downcast_ref::<CelString>(), pattern.downcast_ref::<Pattern>()) {
        (Some(text), Some(Pattern(pattern))) => {
            Ok(CowVal::owned(CelBool::from(pattern.is_match(text.inner()))))
        }
        _ => Err(ExecutionError::MissingArgumentOrTarget),
    }
}
