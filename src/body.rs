//! Reads a few fields out of a JSON body in one pass, without building a document.
//!
//! The body is checked to be JSON as a whole; what is not asked for is skipped without being
//! allocated, so depth and size cost nothing but time. Of equal names the last one counts. The whole
//! body is a field, too: the one with an empty path.

use std::borrow::Cow;

use rustc_hash::FxHashMap;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// One step of a path into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// To the member of an object.
    Member(String),
    /// To the element of a list, from 0.
    Element(usize),
}

/// The fields to read: a tree of steps, compiled once and used for every body.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    root: Node,
    /// By slot: that of the step before; none for the first step of a path, and for the whole body.
    parents: Vec<Option<usize>>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Where this path's value goes. All have one but the root, which has one if it is asked for.
    slot: Option<usize>,
    /// Few as a rule, but a large table asks for many; a sender cannot add to them.
    members: FxHashMap<String, Node>,
    elements: FxHashMap<usize, Node>,
}

impl Paths {
    /// Adds a path of object keys from the root and returns its slot; the same path always has the
    /// same slot.
    pub fn add<S: AsRef<str>>(&mut self, path: &[S]) -> usize {
        let steps: Vec<Step> =
            path.iter().map(|key| Step::Member(key.as_ref().to_owned())).collect();
        self.add_steps(&steps)
    }

    /// The same for a path that may lead into lists. Reading recurses as deep as the longest path:
    /// who takes paths from a file bounds them.
    pub fn add_steps(&mut self, path: &[Step]) -> usize {
        let parents = &mut self.parents;
        let mut slot_of = |node: &mut Node, parent| {
            *node.slot.get_or_insert_with(|| {
                parents.push(parent);
                parents.len() - 1
            })
        };
        let mut node = &mut self.root;
        let mut parent = None;
        for step in path {
            node = match step {
                Step::Member(name) => node.members.entry(name.clone()).or_default(),
                Step::Element(index) => node.elements.entry(*index).or_default(),
            };
            parent = Some(slot_of(node, parent));
        }
        parent.unwrap_or_else(|| slot_of(node, None))
    }

    /// How many slots there are: every slot is less.
    pub fn len(&self) -> usize {
        self.parents.len()
    }

    /// Whether no field is asked for.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// Reads the fields. The error says where the body stops being JSON.
    pub fn read<'a>(&self, body: &'a [u8]) -> Result<Fields<'a>, serde_json::Error> {
        let mut found = Found { values: vec![None; self.len()], again: false };
        let mut json = serde_json::Deserializer::from_slice(body);
        if self.root.slot.is_some() || !self.root.elements.is_empty() {
            self.root.take(<&RawValue>::deserialize(&mut json)?, &mut found)?;
        } else if body.trim_ascii_start().first() == Some(&b'{') {
            json.deserialize_map(Object { node: &self.root, found: &mut found })?;
        } else {
            IgnoredAny::deserialize(&mut json)?;
        }
        json.end()?;
        Ok(Fields(found.last(&self.parents)))
    }
}

/// What was found so far.
struct Found<'a> {
    values: Vec<Option<&'a RawValue>>,
    /// Whether a name came again.
    again: bool,
}

impl<'a> Found<'a> {
    fn put(&mut self, slot: usize, value: &'a RawValue) {
        self.again |= self.values[slot].replace(value).is_some();
    }

    /// A name that comes again replaces all that was found below the earlier one: what is not within
    /// the last value of the step before is none. Done once for the whole body, so that a sender who
    /// repeats a name makes no more work than one who does not.
    fn last(mut self, parents: &[Option<usize>]) -> Vec<Option<&'a RawValue>> {
        // A step's slot is always less than those of the steps behind it.
        let replaced = |values: &[Option<&RawValue>], slot: usize, parent: usize| !matches!((values[slot], values[parent]), (Some(inner), Some(outer)) if is_within(inner, outer));
        for (slot, parent) in parents.iter().enumerate().filter(|_| self.again) {
            if parent.is_some_and(|parent| replaced(&self.values, slot, parent)) {
                self.values[slot] = None;
            }
        }
        self.values
    }
}

/// Whether the text of one value lies in that of the other. Both are of one body.
fn is_within(inner: &RawValue, outer: &RawValue) -> bool {
    let (inner, outer) =
        (inner.get().as_bytes().as_ptr_range(), outer.get().as_bytes().as_ptr_range());
    outer.start <= inner.start && inner.end <= outer.end
}

/// The values found, by slot.
#[derive(Debug)]
pub struct Fields<'a>(Vec<Option<&'a RawValue>>);

/// Why a field gives no text.
#[derive(Debug, PartialEq, Eq)]
pub enum NoText {
    /// Not in the body, or `null`.
    Missing,
    /// An object or a list.
    NotScalar,
    /// A string with a lone surrogate: JSON, but not text.
    NotUnicode,
}

impl<'a> Fields<'a> {
    /// The field's JSON, as it is written in the body.
    pub fn raw(&self, slot: usize) -> Option<&'a str> {
        self.0[slot].map(RawValue::get)
    }

    /// A string's text, or a number or boolean as it is written in the body.
    pub fn text(&self, slot: usize) -> Result<Cow<'_, str>, NoText> {
        let raw = self.0[slot].ok_or(NoText::Missing)?.get();
        match raw.as_bytes()[0] {
            b'n' => Err(NoText::Missing),
            b'{' | b'[' => Err(NoText::NotScalar),
            b'"' => string(raw),
            _ => Ok(Cow::Borrowed(raw)),
        }
    }

    /// The field's text if it is a string.
    pub fn string(&self, slot: usize) -> Option<Cow<'_, str>> {
        self.0[slot]
            .map(RawValue::get)
            .filter(|raw| raw.starts_with('"'))
            .and_then(|raw| string(raw).ok())
    }
}

fn string(raw: &str) -> Result<Cow<'_, str>, NoText> {
    let inner = &raw[1..raw.len() - 1];
    if inner.contains('\\') {
        serde_json::from_str(raw).map(Cow::Owned).map_err(|_| NoText::NotUnicode)
    } else {
        Ok(Cow::Borrowed(inner))
    }
}

/// Walks one object.
struct Object<'n, 'f, 'a> {
    node: &'n Node,
    found: &'f mut Found<'a>,
}

impl<'a> Visitor<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(child) = map.next_key_seed(Child(self.node))? {
            let Some(child) = child else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw = map.next_value::<&RawValue>()?;
            child.take(raw, self.found).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// Walks one list.
struct List<'n, 'f, 'a> {
    node: &'n Node,
    found: &'f mut Found<'a>,
}

impl<'a> Visitor<'a> for List<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("a JSON list")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut list: S) -> Result<(), S::Error> {
        for index in 0.. {
            let Some(child) = self.node.elements.get(&index) else {
                match list.next_element::<IgnoredAny>()? {
                    Some(_) => continue,
                    None => break,
                }
            };
            let Some(raw) = list.next_element::<&RawValue>()? else { break };
            child.take(raw, self.found).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

impl Node {
    /// Takes the value at this path, and what is asked for below it.
    fn take<'a>(&self, raw: &'a RawValue, found: &mut Found<'a>) -> Result<(), serde_json::Error> {
        if let Some(slot) = self.slot {
            found.put(slot, raw);
        }
        let mut json = serde_json::Deserializer::from_str(raw.get());
        match raw.get().as_bytes()[0] {
            b'{' if !self.members.is_empty() => json.deserialize_map(Object { node: self, found }),
            b'[' if !self.elements.is_empty() => json.deserialize_seq(List { node: self, found }),
            _ => Ok(()),
        }
    }
}

/// Reads a key and finds the child that asked for it.
struct Child<'n>(&'n Node);

impl<'a, 'n> DeserializeSeed<'a> for Child<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'a>>(self, key: D) -> Result<Self::Value, D::Error> {
        key.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Child<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("an object key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.members.get(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn text(body: &str, path: &[&str]) -> Result<String, NoText> {
        let mut paths = Paths::default();
        let slot = paths.add(path);
        paths.read(body.as_bytes()).unwrap().text(slot).map(Cow::into_owned)
    }

    #[test]
    fn scalars_are_read_as_text_and_nothing_else_is() {
        for (body, expected) in [
            (r#"{"a":{"b":"x"}}"#, Ok("x")),
            (r#" {"a" : {"b" : "\u00e9\n"}} "#, Ok("é\n")),
            (r#"{"\u0061":{"b":1e999}}"#, Ok("1e999")),
            (r#"{"a":{"b":true}}"#, Ok("true")),
            (r#"{"a":{"b":null}}"#, Err(NoText::Missing)),
            (r#"{"a":{"b":[1]}}"#, Err(NoText::NotScalar)),
            (r#"{"a":{"b":"\ud800"}}"#, Err(NoText::NotUnicode)),
            (r#"{"a":"b"}"#, Err(NoText::Missing)),
            (r#"[{"a":{"b":1}}]"#, Err(NoText::Missing)),
            ("3", Err(NoText::Missing)),
            (r#"{"a":{"b":1},"a":{"b":2}}"#, Ok("2")),
            (r#"{"a":{"b":1},"a":{}}"#, Err(NoText::Missing)),
        ] {
            assert_eq!(text(body, &["a", "b"]), expected.map(str::to_owned), "{body}");
        }
    }

    #[test]
    fn elements_of_lists_are_found_by_their_place() {
        use Step::{Element, Member};
        let a = || Member("a".to_owned());
        for (body, path, expected) in [
            (r#"{"a":[1,"x",{"a":2}]}"#, vec![a(), Element(1)], Ok("x")),
            (r#"{"a":[1,"x",{"a":2}]}"#, vec![a(), Element(2), a()], Ok("2")),
            (r#"{"a":[1]}"#, vec![a(), Element(1)], Err(NoText::Missing)),
            (r#"{"a":{"0":1}}"#, vec![a(), Element(0)], Err(NoText::Missing)),
            (r#"{"a":[1],"a":[]}"#, vec![a(), Element(0)], Err(NoText::Missing)),
            (r#" [[1], [2, 3]] "#, vec![Element(1), Element(1)], Ok("3")),
            (r#"{"a":1}"#, vec![Element(0)], Err(NoText::Missing)),
        ] {
            let mut paths = Paths::default();
            let slot = paths.add_steps(&path);
            let text = paths.read(body.as_bytes()).unwrap().text(slot).map(Cow::into_owned);
            assert_eq!(text, expected.map(str::to_owned), "{body} {path:?}");
        }
        let mut paths = Paths::default();
        let (root, member) = (paths.add_steps(&[]), paths.add(&["a"]));
        let fields = paths.read(br#" {"a":[1]} "#).unwrap();
        assert_eq!((fields.raw(root), fields.raw(member)), (Some(r#"{"a":[1]}"#), Some("[1]")));
    }

    #[test]
    fn what_is_not_json_is_an_error_and_never_a_crash() {
        let mut paths = Paths::default();
        paths.add(&["a"]);
        let deep = "[".repeat(200_000);
        let bodies: [&[u8]; 7] =
            [b"", b"{", b"{\"a\":1", b"{\"a\":1}x", b"{\"a\":\"\xff\"}", b"nope", deep.as_bytes()];
        for body in bodies {
            assert!(paths.read(body).is_err());
        }
        let balanced = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
        assert!(paths.read(balanced.as_bytes()).is_ok());
    }

    /// As large as a signed body may be: what each repetition costs must not depend on how many
    /// fields are asked for, or this takes 2e8 steps.
    #[test]
    fn a_name_that_comes_again_a_hundred_thousand_times_replaces_a_thousand_fields() {
        let mut paths = Paths::default();
        let fields: Vec<String> = (0..1000).map(|n| format!("f{n}")).collect();
        let slots: Vec<usize> = fields.iter().map(|name| paths.add(&["data", name])).collect();
        let all: Vec<String> = fields.iter().map(|name| format!("\"{name}\":1")).collect();
        let last = format!("\"data\":{{{}}}", all[500..].join(","));
        let first = format!("\"data\":{{{}}}", all.join(","));
        let body = format!("{{{first},{}{last}}}", "\"data\":{},".repeat(200_000));
        let fields = paths.read(body.as_bytes()).unwrap();
        let found: Vec<bool> = slots.iter().map(|slot| fields.raw(*slot).is_some()).collect();
        assert_eq!(found, [[false; 500], [true; 500]].concat());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[abc]", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A document in which names come again.
    fn repeating() -> impl Strategy<Value = String> {
        "[0-9]".prop_recursive(4, 40, 5, |inner| {
            let member =
                ("[ab]", inner.clone()).prop_map(|(name, value)| format!("\"{name}\":{value}"));
            let members = prop::collection::vec(member, 0..5);
            let items = prop::collection::vec(inner, 0..3);
            prop_oneof![
                3 => members.prop_map(|members| format!("{{{}}}", members.join(","))),
                1 => items.prop_map(|items| format!("[{}]", items.join(","))),
            ]
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![3 => "[ab]".prop_map(Step::Member), 1 => (0..2usize).prop_map(Step::Element)]
    }

    proptest! {
        #[test]
        fn the_same_fields_are_found_as_in_a_parsed_document(
            document in json(),
            path in prop::collection::vec("[abc]", 1..4),
            indent: bool,
        ) {
            let body = if indent {
                serde_json::to_string_pretty(&document).unwrap()
            } else {
                document.to_string()
            };
            let mut paths = Paths::default();
            let outer = paths.add(&path[..1]);
            let slot = paths.add(&path);
            let fields = paths.read(body.as_bytes()).unwrap();
            let found = |slot| fields.string(slot).map(Cow::into_owned);
            let string = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
            let expected = path.iter().try_fold(&document, |value, key| value.get(key));
            prop_assert_eq!(found(slot), string(expected));
            prop_assert_eq!(found(outer), string(document.get(&path[0])));
        }

        #[test]
        fn of_equal_names_the_last_one_counts_however_deep(
            body in repeating(),
            paths in prop::collection::vec(prop::collection::vec(step(), 0..4), 1..6),
        ) {
            let document: Value = serde_json::from_str(&body).unwrap();
            let mut asked = Paths::default();
            let slots: Vec<usize> = paths.iter().map(|path| asked.add_steps(path)).collect();
            let fields = asked.read(body.as_bytes()).unwrap();
            for (slot, path) in slots.into_iter().zip(&paths) {
                let expected = path.iter().try_fold(&document, |value, step| match step {
                    Step::Member(name) => value.as_object()?.get(name),
                    Step::Element(index) => value.as_array()?.get(*index),
                });
                let found = fields.raw(slot).map(|raw| serde_json::from_str(raw).unwrap());
                prop_assert_eq!(found.as_ref(), expected, "{} {:?}", &body, path);
            }
        }
    }
}
