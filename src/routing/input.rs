//! An event as conditions and templates see it: its body is read at most once, and only if one of
//! them asks for it.

use std::sync::OnceLock;

use super::condition::value::{self, Value};
use crate::{
    body::{Fields, Paths},
    event::Event,
};

/// See the module. Lives as long as one resolution.
pub struct Input<'e> {
    pub event: &'e Event,
    /// The body fields that anything in the table asks for.
    paths: &'e Paths,
    fields: OnceLock<Result<Fields<'e>, String>>,
    /// Those of the fields that a condition asked for, by slot, or why they cannot be read. Built
    /// once for all conditions.
    values: OnceLock<Box<[ReadOnce<'e>]>>,
    headers: OnceLock<Value<'e>>,
}

type ReadOnce<'e> = OnceLock<Result<Value<'e>, String>>;

impl<'e> Input<'e> {
    pub fn new(event: &'e Event, paths: &'e Paths) -> Input<'e> {
        let (fields, values, headers) = Default::default();
        Input { event, paths, fields, values, headers }
    }

    /// The body's fields, or why the body has none.
    pub fn fields(&self) -> Result<&Fields<'e>, &str> {
        let read = || {
            let fields = self.paths.read(&self.event.body);
            fields.map_err(|error| format!("the body is not JSON ({error})"))
        };
        self.fields.get_or_init(read).as_ref().map_err(|why| &**why)
    }

    /// A field of the body for conditions; `None` if the body has none. The error says why it cannot
    /// be read.
    pub(super) fn value(&self, slot: usize) -> Option<Result<&Value<'e>, &str>> {
        let raw = match self.fields() {
            Ok(fields) => fields.raw(slot)?,
            Err(why) => return Some(Err(why)),
        };
        let none = || (0..self.paths.len()).map(|_| OnceLock::new()).collect();
        let value = self.values.get_or_init(none)[slot]
            .get_or_init(|| value::read(raw).map_err(|error| error.to_string()));
        Some(value.as_ref().map_err(|why| &**why))
    }

    /// The value of a header, by its lower-case name; of several, the first.
    pub fn header(&self, name: &str) -> Option<&'e str> {
        self.all_headers().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn all_headers(&self) -> impl Iterator<Item = (&'e str, &'e str)> + use<'e> {
        let Event { content_type, traceparent, headers, .. } = self.event;
        let apart = [("content-type", content_type), ("traceparent", traceparent)];
        let apart = apart.into_iter().filter_map(|(name, value)| Some((name, &**value.as_ref()?)));
        apart.chain(headers.iter().map(|(name, value)| (&**name, &**value)))
    }

    /// All headers, for conditions.
    pub(super) fn headers(&self) -> &Value<'e> {
        self.headers.get_or_init(|| value::map(self.all_headers()))
    }
}
