//! What a condition reads of an event by name: found at load, so that nothing is looked for twice.

use cel::common::{
    types::{CelBool, CelString},
    value::CowVal,
};

use super::{Why, owned, pattern::Pattern};
use crate::routing::input::Input;

/// One thing that a condition refers to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// A field of the body, by its slot; `test`: whether there is one.
    Field { slot: usize, test: bool, shown: String },
    /// A header, by its lower-case name.
    Header { name: String, test: bool },
    /// The argument of a `matches`.
    Pattern(Pattern),
}

impl Reference {
    /// The name under which reference `number` stands in an expression. No text can say it.
    pub fn name(number: usize) -> String {
        format!("@{number}")
    }

    /// The number of such a name.
    pub fn number(name: &str) -> Option<usize> {
        name.strip_prefix('@')?.parse().ok()
    }

    /// Its value for an event, if there is one.
    pub fn resolve<'b>(&'b self, input: &'b Input) -> Option<CowVal<'b, 'b>> {
        match self {
            Reference::Field { slot, test: false, .. } => {
                Some(CowVal::Borrowed(&**input.value(*slot)?.ok()?))
            }
            Reference::Field { slot, test: true, .. } => {
                owned(CelBool::from(input.fields().ok()?.raw(*slot).is_some()))
            }
            Reference::Header { name, test: false } => owned(CelString::from(input.header(name)?)),
            Reference::Header { name, test: true } => {
                owned(CelBool::from(input.header(name).is_some()))
            }
            Reference::Pattern(pattern) => Some(CowVal::Borrowed(pattern)),
        }
    }

    /// Why there is none.
    pub fn why_missing(&self, input: &Input) -> Why {
        match self {
            Reference::Field { slot, shown, .. } => match (input.fields(), input.value(*slot)) {
                (Err(why), _) => Why::Unreadable(why.to_owned()),
                (Ok(_), Some(Err(why))) => Why::Unreadable(format!("`{shown}`: {why}")),
                (Ok(_), _) => Why::Missing(shown.clone()),
            },
            Reference::Header { name, .. } => Why::Missing(format!("headers.{name}")),
            Reference::Pattern(_) => Why::Failed("a pattern stands where none can".to_owned()),
        }
    }
}
